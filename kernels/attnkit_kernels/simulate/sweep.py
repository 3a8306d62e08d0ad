"""Which strides are worth having: each axis on its own, as the worst query tile of an axis is its own affair."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ..patterns.axes import Ints, bounds_at
from .neighborhood import Axis, axis_counts

__all__ = ["AxisSweep", "sweep_axis"]

# entries of a table of strides and query tiles that are looked at in one go
CHUNK = 1 << 21
# windows beside the one asked for that are tried
WINDOWS = 64


@dataclass(frozen=True)
class AxisSweep:
    """Strides of one axis.

    useful_strides : from 1, those that lower the worst query tile's visits below every smaller stride's
    visited : key tiles of the worst query tile at each of them
    block_sparse_stride : the least stride where every visited tile is full, None if there is none
    nearest_window, nearest_stride : where there is none, the nearest window that has one, and its stride
    """

    useful_strides: tuple[int, ...]
    visited: tuple[int, ...]
    block_sparse_stride: int | None
    nearest_window: int | None = None
    nearest_stride: int | None = None


def sweep_axis(axis: Axis, query_tile: int, key_tile: int, *, dynamic: bool = False) -> AxisSweep:
    """All strides from 1 to the window of an axis (length, window, any stride, dilation, causal)."""
    length, window, _, dilation, causal = axis
    useful, visits = _useful(axis, query_tile, key_tile, dynamic)
    least = _block_sparse_stride(axis, query_tile, key_tile, dynamic)
    if least is not None:
        return AxisSweep(useful, visits, least)
    windows = np.arange(key_tile, length // dilation + 1, key_tile)
    for nearest in sorted(windows.tolist(), key=lambda one: (abs(one - window), -one))[:WINDOWS]:
        stride = _block_sparse_stride((length, nearest, 1, dilation, causal), query_tile, key_tile, dynamic)
        if stride is not None:
            return AxisSweep(useful, visits, None, nearest, stride)
    return AxisSweep(useful, visits, None)


def _useful(axis: Axis, query_tile: int, key_tile: int, dynamic: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    floor = _least_visits(axis, key_tile, dynamic)
    strides: list[int] = []
    visits: list[int] = []
    for part in _stride_chunks(axis, query_tile):
        for stride, worst in zip(
            part.tolist(), _worst(axis, part, query_tile, key_tile, dynamic).tolist(), strict=True
        ):
            if not visits or worst < visits[-1]:
                strides.append(stride)
                visits.append(worst)
        if visits[-1] <= floor:
            break
    return tuple(strides), tuple(visits)


def _block_sparse_stride(axis: Axis, query_tile: int, key_tile: int, dynamic: bool) -> int | None:
    length, window, _, dilation, causal = axis
    members = -(-length // dilation)
    # the worst query tile sees at least a window; and two queries of a causal tile never see the same keys
    if _least_visits(axis, key_tile, dynamic) * key_tile != window or (causal and min(query_tile, members) > 1):
        return None
    for part in _stride_chunks(axis, query_tile):
        fitting = part[_worst(axis, part, query_tile, key_tile, dynamic) * key_tile == window]
        for stride in fitting.tolist():
            counts = axis_counts((length, window, stride, dilation, causal), query_tile, key_tile, dynamic=dynamic)
            if counts.held == counts.pairs:
                return int(stride)
    return None


def _least_visits(axis: Axis, key_tile: int, dynamic: bool) -> int:
    """No stride visits fewer: the window at the end of the axis lies where it lies."""
    length, window, _, dilation, _ = axis
    members = -(-length // dilation)
    if dynamic:
        return -(-window // key_tile)
    return max(-(-window // key_tile), -(-members // key_tile) - (members - window) // key_tile)


def _stride_chunks(axis: Axis, query_tile: int) -> list[Ints]:
    length, window, _, dilation, _ = axis
    tiles = -(-length // (dilation * query_tile))
    # the first chunk is short: most sweeps end within a few tiles
    step = max(1, CHUNK // tiles)
    cuts = [1, *range(min(step, 2 * query_tile) + 1, window + 1, step), window + 1]
    return [np.arange(first, stop) for first, stop in pairwise(cuts) if first < stop]


def _worst(axis: Axis, strides: Ints, query_tile: int, key_tile: int, dynamic: bool) -> Ints:
    """Key tiles of the worst query tile of the longest dilation group, for each of the strides."""
    length, window, _, dilation, causal = axis
    members = -(-length // dilation)
    first = np.arange(0, members, query_tile)
    last = np.minimum(first + query_tile, members) - 1
    # windows never move back, so the first and the last query of a tile bound what it sees
    low, _ = bounds_at(first, members, window, strides[:, None], causal)
    _, high = bounds_at(last, members, window, strides[:, None], causal)
    visited = -((low - high) // key_tile) if dynamic else -(-high // key_tile) - low // key_tile
    return np.asarray(visited.max(axis=1))
