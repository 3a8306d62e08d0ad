"""Generalized neighborhood attention: windows with stride, dilation and causality per axis, in any number of axes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..softmax.blockmap import BlockMap
from ..softmax.builders import from_boxes
from ..softmax.rules import Boxes
from .axes import Ints, check_axis, group_lengths, window_bounds
from .canvas import Canvas, Tile, check_canvas, default_tile, expand, spatial_order, tile_of, tokens_of
from .runs import Segments, cut, run_lists
from .separable import spatial_lists
from .settings import broadcast, setting, spread

__all__ = ["Neighborhood"]

# pairs of row segments that are looked at
MOST_SEGMENTS = 1 << 26


@dataclass(frozen=True)
class Neighborhood:
    """A query sees `window` keys around it on every axis; groups of `stride` queries share one window.

    window, stride, dilation : one value, or one per axis of the canvas, in tokens (of a dilation group)
    causal : per axis, keys after the query are hidden

    Stride 1 is neighborhood attention; stride = window is blocked attention where it divides the axis; a window as
    long as its axis sees all of it. Borders push windows inside: every query sees the same number of keys (fewer on
    causal axes).

    Notes
    -----
    "Generalized Neighborhood Attention", arXiv 2504.16922, and "Faster Neighborhood Attention", arXiv 2403.04690.
    An even window holds one more key on the left; an even stride's leader is the right middle query. A window of 1
    is allowed (NATTEN refuses it), and dilation * window may not exceed the axis.
    """

    name: ClassVar[str] = "neighborhood"
    paper: ClassVar[str] = "Generalized Neighborhood Attention (arXiv 2504.16922)"

    window: tuple[int, ...] = setting(help="keys that a query sees, per axis")
    stride: tuple[int, ...] = setting((1,), help="queries that share a window, per axis")
    dilation: tuple[int, ...] = setting((1,), help="step between keys of a window, per axis")
    causal: tuple[bool, ...] = setting((False,), help="hide keys after the query, per axis")

    def __post_init__(self) -> None:
        spread(self, "window", "stride", "dilation", "causal")

    def axes(self, canvas: Canvas) -> list[tuple[int, int, int, int, bool]]:
        """(length, window, stride, dilation, causal) of each axis; ValueError for settings that do not fit."""
        canvas = check_canvas(canvas)
        names = ("window", "stride", "dilation", "causal")
        settings = [broadcast(name, getattr(self, name), canvas) for name in names]
        axes = list(zip(canvas, *settings, strict=True))
        for number, axis in enumerate(axes):
            try:
                check_axis(*axis)
            except ValueError as error:
                raise ValueError(f"axis {number} of canvas {canvas}: {error}") from None
        return axes

    def block_map(self, canvas: Canvas, query_tile: Tile = None, key_tile: Tile = None) -> BlockMap:
        """The map of a canvas, slowest axis first.

        Tiles: one side per axis cuts the canvas in space (tokens are permuted; each dilation group is cut on its
        own), one number cuts runs of the row-major index. Default: 128 slots in space, as cubic as the canvas
        allows; keys as queries. ValueError for settings or tiles that do not fit, with both values.
        """
        canvas = check_canvas(canvas)
        axes = self.axes(canvas)
        lengths = [group_lengths(axis[0], axis[3]) for axis in axes]
        default = default_tile(tuple(max(of_axis) for of_axis in lengths))
        query = tile_of(query_tile, canvas, default, "query_tile")
        key = tile_of(query if key_tile is None else key_tile, canvas, default, "key_tile")
        if isinstance(query, int) != isinstance(key, int):
            raise ValueError(
                f"query and key tiles must both be tiles in space or both runs, got {query_tile} and {key_tile}"
            )
        rule = _boxes(axes, canvas)
        if isinstance(query, int) or isinstance(key, int):
            assert isinstance(query, int) and isinstance(key, int)
            return _runs(axes, canvas, query, key, rule)
        dilation = tuple(axis[3] for axis in axes)

        def bounds(axis: int, length: int) -> tuple[Ints, Ints]:
            _, window, stride, _, causal = axes[axis]
            return window_bounds(length, window, stride, causal)

        starts, columns, full = spatial_lists(lengths, lengths, bounds, query, key)
        tokens = tokens_of(canvas)
        identity = len(canvas) == 1 and dilation == (1,)
        return BlockMap(
            tokens,
            tokens,
            math.prod(query),
            math.prod(key),
            starts,
            columns,
            full,
            query_order=None if identity else spatial_order(canvas, query, dilation),
            key_order=None if identity else spatial_order(canvas, key, dilation),
            rule=None if full.all() else rule,
        )


def _boxes(axes: list[tuple[int, int, int, int, bool]], canvas: Canvas) -> Boxes | None:
    """The rule in coordinates of positions sorted by dilation group: a window is one range per axis, never two."""
    low, high, coordinate = [], [], []
    for number, (length, window, stride, dilation, causal) in enumerate(axes):
        if window == length and not causal:
            # this axis hides nothing
            continue
        place, start, end = np.zeros((3, length), np.int64)
        first = 0
        for group, members in enumerate(group_lengths(length, dilation)):
            own_start, own_end = window_bounds(members, window, stride, causal)
            place[group::dilation] = first + np.arange(members)
            start[group::dilation] = first + own_start
            end[group::dilation] = first + own_end
            first += members
        low.append(expand(start, number, canvas))
        high.append(expand(end, number, canvas))
        coordinate.append(expand(place, number, canvas))
    return Boxes(np.stack(low), np.stack(high), np.stack(coordinate)) if low else None


def _runs(
    axes: list[tuple[int, int, int, int, bool]], canvas: Canvas, query: int, key: int, rule: Boxes | None
) -> BlockMap:
    tokens = tokens_of(canvas)
    length, window, stride, dilation, causal = axes[-1]
    queries, keys = cut(tokens, length, query), cut(tokens, length, key)
    per_row = -(-length // key) + 1
    pairs = len(queries.block) * math.prod(axis[1] for axis in axes[:-1]) * per_row
    if rule is not None and (dilation > 1 or pairs > MOST_SEGMENTS):
        # rows that a range does not describe, or too many of them
        return from_boxes(rule, query, key)
    start, end = window_bounds(length, window, stride, causal)
    rows = _visible_rows(axes[:-1])
    bounds = (np.searchsorted(keys.row, np.arange(tokens // length)), np.bincount(keys.row))

    def seen(first: int, stop: int) -> tuple[Ints, Ints, np.ndarray]:
        return _segment_pairs(Segments(*(part[first:stop] for part in queries)), first, keys, rows, bounds, start, end)

    starts, columns, full = run_lists(queries, keys, tokens, (query, key), seen, pairs)
    return BlockMap(tokens, tokens, query, key, starts, columns, full, rule=None if full.all() else rule)


def _visible_rows(axes: list[tuple[int, int, int, int, bool]]) -> Ints:
    """Rows (all axes but the last, row-major) that the queries of each row see [rows, most], filled up with -1."""
    rows = np.zeros((1, 1), np.int64)
    for length, window, stride, dilation, causal in axes:
        shown = np.full((length, window), -1, np.int64)
        for group, members in enumerate(group_lengths(length, dilation)):
            start, end = window_bounds(members, window, stride, causal)
            at = start[:, None] + np.arange(window)
            shown[group::dilation] = np.where(at < end[:, None], at * dilation + group, -1)
        wide = rows[:, None, :, None] * length + shown[None, :, None, :]
        wide = np.where((rows[:, None, :, None] < 0) | (shown[None, :, None, :] < 0), -1, wide)
        rows = wide.reshape(rows.shape[0] * length, rows.shape[1] * window)
    return rows


def _segment_pairs(
    queries: Segments, offset: int, keys: Segments, rows: Ints, bounds: tuple[Ints, Ints], start: Ints, end: Ints
) -> tuple[Ints, Ints, np.ndarray]:
    """Pairs of segments that see each other: numbers of both, and whether every pair of tokens is visible."""
    # the windows of a segment's queries rise, so their union and their intersection are ranges
    low, high = start[queries.start], end[queries.stop - 1]
    inner_low, inner_high = start[queries.stop - 1], end[queries.start]
    query, column = np.nonzero(rows[queries.row] >= 0)
    row = rows[queries.row[query], column]
    count = bounds[1][row]
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    query = np.repeat(query, count)
    key = np.repeat(bounds[0][row], count) + within
    visible = (keys.start[key] < high[query]) & (low[query] < keys.stop[key])
    query, key = query[visible], key[visible]
    full = (inner_low[query] <= keys.start[key]) & (keys.stop[key] <= inner_high[query])
    return query + offset, key, full
