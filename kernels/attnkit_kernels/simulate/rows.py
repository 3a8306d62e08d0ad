"""The rows of a map's tiles, one query tile after the other, for drawing; never the whole table at once."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

from ..patterns.axes import group_lengths, tile_ranges, window_bounds
from ..patterns.canvas import Canvas
from ..patterns.neighborhood import Neighborhood
from ..softmax.blockmap import BlockMap
from ..softmax.rules import Bools
from .neighborhood import Axis
from .tiles import Tile

__all__ = ["map_rows", "tile_rows"]

Row = tuple[Bools, Bools]


def tile_rows(canvas: Canvas, pattern: Neighborhood, query_tile: Tile, key_tile: Tile) -> Iterator[Row]:
    """(visited, full) bool [key tiles] of each query tile of a neighborhood, tiles in row-major order of the canvas.

    Tiles have one side per axis. Under dilation the tiles of an axis are those of its groups, one group after the
    other.
    """
    tables = [
        _axis_rows(axis, query, key)
        for axis, query, key in zip(pattern.axes(canvas), query_tile, key_tile, strict=True)
    ]
    for rows in product(*tables):
        visited, full = rows[0]
        for more, whole in rows[1:]:
            visited = (visited[:, None] & more).ravel()
            full = (full[:, None] & whole).ravel()
        yield visited, full


def map_rows(block_map: BlockMap) -> Iterator[Row]:
    """(visited, full) bool [key blocks] of each block of queries, of the first sample and head."""
    for block in range(block_map.query_blocks):
        columns, whole = block_map.row(0, 0, block)
        visited = np.zeros(block_map.key_blocks, np.bool_)
        full = visited.copy()
        visited[columns] = True
        full[columns] = whole
        yield visited, full


def _axis_rows(axis: Axis, query_tile: int, key_tile: int) -> list[Row]:
    length, window, stride, dilation, causal = axis
    lengths = group_lengths(length, dilation)
    offsets = np.cumsum([0, *(-(-members // key_tile) for members in lengths)])
    tile = np.arange(offsets[-1])
    rows = []
    for members, offset in zip(lengths, offsets[:-1], strict=True):
        bounds = window_bounds(members, window, stride, causal)
        for first, stop, full_first, full_stop in zip(*tile_ranges(*bounds, query_tile, key_tile), strict=True):
            place = tile - offset
            rows.append(((first <= place) & (place < stop), (full_first <= place) & (place < full_stop)))
    return rows
