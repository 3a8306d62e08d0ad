"""The simulator's counts against the engine's own map, and that map against its mask, element by element."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..patterns.canvas import Canvas
from ..patterns.neighborhood import Neighborhood
from ..softmax.blockmap import BlockMap
from .neighborhood import simulate
from .tiles import Tile, word

__all__ = ["Verification", "verify"]

# listed tiles that are still built, and token pairs that are still expanded
MOST_TILES = 1 << 24
MOST_PAIRS = 1 << 26


@dataclass(frozen=True)
class Verification:
    """canvas, window : of the problem where the mask was expanded. `counts_canvas` : where the lists were compared.

    differences : what did not agree, in words; empty when all is well
    """

    counts_canvas: Canvas
    canvas: Canvas
    window: tuple[int, ...]
    reduced: bool
    differences: tuple[str, ...]


def verify(canvas: Canvas, pattern: Neighborhood, query_tile: Tile, key_tile: Tile) -> Verification:
    """Build the engine's map and compare: tiles counted with tiles listed, and tiles listed with visible pairs.

    A canvas of more than 2**26 token pairs is made smaller for the second, and for the first too where its map would
    list more than 2**24 tiles: axes, windows and strides are divided by the same number.
    """
    small_canvas, small = reduced(canvas, pattern)
    listed = simulate(canvas, pattern, query_tile, key_tile).map_tiles_visited
    wide = (canvas, pattern) if listed <= MOST_TILES else (small_canvas, small)
    differences = _compare_counts(*wide, query_tile, key_tile)
    differences += _compare_mask(small.block_map(small_canvas, query_tile, key_tile), small_canvas, small)
    return Verification(wide[0], small_canvas, small.window, small_canvas != canvas, tuple(differences))


def reduced(canvas: Canvas, pattern: Neighborhood) -> tuple[Canvas, Neighborhood]:
    """The problem itself, or one like it whose token pairs can all be looked at."""
    divisor = 1
    while True:
        axes = []
        for length, window, stride, dilation, causal in pattern.axes(canvas):
            window = max(1, window // divisor)
            short = max(length // divisor, dilation * window)
            axes.append((short, window, min(max(1, stride // divisor), window), dilation, causal))
        lengths, windows, strides, dilations, causals = zip(*axes, strict=True)
        # dilation stays what it is, and may forbid going on
        if math.prod(lengths) ** 2 <= MOST_PAIRS or divisor >= max(canvas):
            return tuple(lengths), Neighborhood(windows, strides, dilations, causals)
        divisor += 1


def _compare_counts(canvas: Canvas, pattern: Neighborhood, query_tile: Tile, key_tile: Tile) -> list[str]:
    simulation = simulate(canvas, pattern, query_tile, key_tile)
    block_map = pattern.block_map(canvas, query_tile, key_tile)
    pairs = {
        "visited": (simulation.map_tiles_visited, block_map.visited),
        "full": (simulation.map_tiles_full, block_map.full_count),
        "all": (simulation.map_tiles_total, block_map.total),
        "rows of": (simulation.query_tiles, block_map.query_blocks),
    }
    return [
        f"canvas {word(canvas)}: {mine} {name} tiles simulated, {theirs} in the map"
        for name, (mine, theirs) in pairs.items()
        if mine != theirs
    ]


def _compare_mask(block_map: BlockMap, canvas: Canvas, pattern: Neighborhood) -> list[str]:
    """Every listed tile has a visible pair, the full ones nothing else, and no visible pair lies elsewhere."""
    visible = [_axis_mask(*axis) for axis in pattern.axes(canvas)]
    queries, keys = block_map.query_slots(), block_map.key_slots()
    at_key = [np.where(keys < 0, 0, part) for part in np.unravel_index(np.maximum(keys, 0), canvas)]
    rows = queries.reshape(-1, block_map.query_block)
    wrong = {
        "listed tiles without a visible pair": 0,
        "tiles taken for full or partial by mistake": 0,
        "visible pairs not listed": 0,
    }
    for number, tokens in enumerate(rows):
        at_query = np.unravel_index(np.maximum(tokens, 0), canvas)
        seen = (tokens >= 0)[:, None] & (keys >= 0)
        for mask, query, key in zip(visible, at_query, at_key, strict=True):
            seen &= mask[query[:, None], key]
        tiles = seen.reshape(len(tokens), -1, block_map.key_block).sum((0, 2))
        columns, full = block_map.row(0, 0, number)
        wrong["listed tiles without a visible pair"] += int((tiles[columns] == 0).sum())
        wrong["tiles taken for full or partial by mistake"] += int(
            (full != (tiles[columns] == block_map.query_block * block_map.key_block)).sum()
        )
        wrong["visible pairs not listed"] += int(tiles.sum() - tiles[columns].sum())
    return [f"canvas {word(canvas)}: {number} {name}" for name, number in wrong.items() if number]


def _axis_mask(length: int, window: int, stride: int, dilation: int, causal: bool) -> np.ndarray:
    """bool [queries, keys] of one axis: query by query by the definition, without the bounds that maps are made of."""
    mask = np.zeros((length, length), np.bool_)
    for query in range(length):
        group, place = query % dilation, query // dilation
        members = len(range(group, length, dilation))
        first = place - place % stride
        leader = min(first + (stride - 1 if causal else stride // 2), members - 1)
        start = leader - window + 1 if causal else min(max(leader - window // 2, 0), members - window)
        stop = place + 1 if causal else start + window
        mask[query, group + dilation * max(start, 0) : group + dilation * stop : dilation] = True
    return mask
