"""The simulator of generalized neighborhood attention: tiles that a kernel must visit, without any mask.

A window is a product of ranges, so every count is a product (or a product of sums) of counts along single axes.
"Generalized Neighborhood Attention" (arXiv 2504.16922), section on the simulator, which its authors have not released.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..patterns.axes import Ints, group_lengths, tile_ranges, window_bounds
from ..patterns.canvas import Canvas, check_canvas
from ..patterns.neighborhood import Neighborhood
from .counts import Simulation, count
from .tiles import Tile

__all__ = ["AxisCounts", "axis_counts", "simulate"]

# length, window, stride, dilation, causal
Axis = tuple[int, int, int, int, bool]


@dataclass(frozen=True)
class AxisCounts:
    """Counts along one axis; those of a canvas are the products.

    visited : key tiles of the worst query tile, of the longest dilation group; total : key tiles of the whole axis
    query_tiles, key_tiles, map_visited, map_full : summed over query tiles and dilation groups, tiles cut from 0
    run_visited, run_full : the same for the tiling asked for
    pairs : visible pairs. held : pairs of a real query and a slot of a visited tile
    """

    visited: int
    total: int
    query_tiles: int
    key_tiles: int
    map_visited: int
    map_full: int
    run_visited: int
    run_full: int
    pairs: int
    held: int


def axis_counts(axis: Axis, query_tile: int, key_tile: int, *, dynamic: bool = False) -> AxisCounts:
    """The counts of one axis (length, window, stride, dilation, causal), which must have been checked.

    dynamic : key tiles start at the first key that the query tile sees, instead of at multiples of their length.
    """
    length, window, stride, dilation, causal = axis
    groups = group_lengths(length, dilation)
    summed = np.zeros(8, np.int64)
    # groups have at most two lengths
    for members in set(groups):
        start, end = window_bounds(members, window, stride, causal)
        first, stop, full_first, full_stop = tile_ranges(start, end, query_tile, key_tile)
        static = stop - first, full_stop - full_first
        visited, full = _dynamic(start, end, query_tile, key_tile) if dynamic else static
        real = np.minimum(query_tile, members - np.arange(0, members, query_tile))
        summed += groups.count(members) * np.array(
            [
                len(first),
                -(-members // key_tile),
                static[0].sum(),
                static[1].sum(),
                visited.sum(),
                full.sum(),
                (end - start).sum(),
                (real * visited).sum() * key_tile,
            ]
        )
        if members == groups[0]:
            worst = int(visited.max())
    return AxisCounts(worst, -(-length // key_tile), *map(int, summed))


def _dynamic(start: Ints, end: Ints, query_tile: int, key_tile: int) -> tuple[Ints, Ints]:
    """Visited and full key tiles of each query tile when they start at the first key that it sees."""
    length = len(start)
    edges = np.arange(0, length, query_tile)
    low, high = np.minimum.reduceat(start, edges), np.maximum.reduceat(end, edges)
    inner_low, inner_high = np.maximum.reduceat(start, edges), np.minimum.reduceat(end, edges)
    full = np.maximum((inner_high - low) // key_tile + (low - inner_low) // key_tile, 0)
    full[edges + query_tile > length] = 0
    return -((low - high) // key_tile), full


def simulate(
    canvas: Canvas, pattern: Neighborhood, query_tile: Tile, key_tile: Tile, *, dynamic: bool = False
) -> Simulation:
    """What a tiled kernel must visit for a neighborhood pattern on a canvas, slowest axis first.

    Tiles have one side per axis; a single number on a canvas of several axes cuts runs of the row-major index
    (single-dimensional tiling, the engine's own map is counted then). ValueError for settings or tiles that do not fit.

    Notes
    -----
    Along each axis a query tile sees keys from the least start to the greatest end of its real queries; static tiling
    visits ceil(end / tile) - floor(start / tile) key tiles, dynamic tiling ceil((end - start) / tile). The worst query
    tile counts. With dilation the worst tile of the longest group counts, against the tiles of the undilated canvas.
    """
    canvas = check_canvas(canvas)
    axes = pattern.axes(canvas)
    flop_speedup = math.prod(canvas) / math.prod(axis[1] for axis in axes)
    for name, tile in (("query tile", query_tile), ("key tile", key_tile)):
        if len(tile) not in (1, len(canvas)) or min(tile) < 1:
            raise ValueError(f"{name}: got {tile} for canvas {canvas}, expected {len(canvas)} positive sides, or one")
    if len(query_tile) != len(key_tile):
        raise ValueError(
            f"tiles: got {query_tile} for queries and {key_tile} for keys, expected equal numbers of sides"
        )
    if len(query_tile) < len(canvas):
        if dynamic:
            raise ValueError(f"dynamic tiling: got runs of {query_tile[0]} tokens, expected {len(canvas)} sides a tile")
        pairs = math.prod(axis_counts(axis, 1, 1).pairs for axis in axes)
        block_map = pattern.block_map(canvas, query_tile, key_tile)
        return count(block_map, flop_speedup=flop_speedup, visible_pairs=pairs)
    counts = [
        axis_counts(axis, query, key, dynamic=dynamic)
        for axis, query, key in zip(axes, query_tile, key_tile, strict=True)
    ]
    product = {name: math.prod(getattr(one, name) for one in counts) for name in AxisCounts.__dataclass_fields__}
    tokens = math.prod(canvas)
    return Simulation(
        tiles_visited=product["visited"],
        tiles_total=product["total"],
        map_tiles_visited=product["map_visited"],
        map_tiles_full=product["map_full"],
        map_tiles_total=product["query_tiles"] * product["key_tiles"],
        run_tiles_visited=product["run_visited"],
        run_tiles_full=product["run_full"],
        query_tiles=product["query_tiles"],
        query_block=math.prod(query_tile),
        key_block=math.prod(key_tile),
        query_tokens=tokens,
        key_tokens=tokens,
        visible_pairs=product["pairs"],
        flop_speedup=flop_speedup,
        block_sparse=product["held"] == product["pairs"],
    )
