"""Block lists of a pattern that is a product over axes, one axis at a time, no table of token pairs. numpy only."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from .axes import Ints, tile_ranges

__all__ = ["Bounds", "Lists", "spatial_lists"]

# (first key, one past the last key) of each query of a group of this length on this axis
Bounds = Callable[[int, int], tuple[Ints, Ints]]
Lists = tuple[Ints, NDArray[np.int32], NDArray[np.bool_]]


def spatial_lists(
    lengths: Sequence[Sequence[int]],
    key_lengths: Sequence[Sequence[int]],
    bounds: Bounds,
    query_tile: tuple[int, ...],
    key_tile: tuple[int, ...],
) -> Lists:
    """starts, columns, full of the map whose queries and keys are ordered by `spatial_order` with these tiles.

    lengths, key_lengths : per axis the lengths of its groups; a query sees keys of its own group only
    bounds : bounds(axis, length) -> keys of each query within its group, never falling along the axis
    """
    templates: dict[tuple[tuple[int, ...], tuple[int, ...]], Lists] = {}
    counts, columns, full = [], [], []
    first_block = 0
    # groups have at most two lengths on an axis: few templates, many copies
    for shape, key_shape in zip(product(*lengths), product(*key_lengths), strict=True):
        if (shape, key_shape) not in templates:
            templates[shape, key_shape] = _group_lists(shape, key_shape, bounds, query_tile, key_tile)
        count, column, whole = templates[shape, key_shape]
        counts.append(count)
        columns.append(column + np.int32(first_block))
        full.append(whole)
        first_block += math.prod(-(-length // side) for length, side in zip(key_shape, key_tile, strict=True))
    starts = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
    return starts, np.concatenate(columns), np.concatenate(full)


def _group_lists(
    shape: Sequence[int],
    key_shape: Sequence[int],
    bounds: Bounds,
    query_tile: tuple[int, ...],
    key_tile: tuple[int, ...],
) -> Lists:
    """Blocks seen per block of queries, and the columns and full flags of them, within one group."""
    ranges = [tile_ranges(*bounds(axis, length), query_tile[axis], key_tile[axis]) for axis, length in enumerate(shape)]
    blocks = [-(-length // side) for length, side in zip(key_shape, key_tile, strict=True)]
    tiles = [len(one[0]) for one in ranges]
    # place of each row along each axis
    at = np.unravel_index(np.arange(math.prod(tiles)), tiles)
    widths = [(one[1] - one[0])[index] for one, index in zip(ranges, at, strict=True)]
    count = np.prod(widths, axis=0)
    row = np.repeat(np.arange(len(count)), count)
    rest = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    column = np.zeros(len(row), np.int64)
    full = np.ones(len(row), np.bool_)
    step = 1
    for axis in reversed(range(len(shape))):
        first, _, full_first, full_stop = (values[at[axis]][row] for values in ranges[axis])
        rest, inside = np.divmod(rest, widths[axis][row])
        tile = first + inside
        full &= (full_first <= tile) & (tile < full_stop)
        column += tile * step
        step *= blocks[axis]
    return count, column.astype(np.int32), full
