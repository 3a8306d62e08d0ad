"""Visible pairs of a map's partial blocks, counted without their masks where the rule allows it. numpy only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from .rules import Bools, Boxes, Int64s, Tiles

if TYPE_CHECKING:
    from .blockmap import BlockMap

__all__ = ["CHUNK_PAIRS", "chunks", "partial_pairs"]

# pairs whose masks are expanded at once: 16 MB of bools
CHUNK_PAIRS = 1 << 24


def chunks(block_map: BlockMap, listed: Int64s) -> Iterator[tuple[Int64s, Bools]]:
    """(some of `listed`, their visible pairs), few enough at a time."""
    step = max(1, CHUNK_PAIRS // (block_map.query_block * block_map.key_block))
    for start in range(0, len(listed), step):
        part = listed[start : start + step]
        yield part, block_map.tiles(part)


def partial_pairs(block_map: BlockMap) -> int:
    """Visible pairs of the partial blocks, over all samples and heads of the map."""
    partial, rule = np.flatnonzero(~block_map.full), block_map.rule
    if isinstance(rule, Tiles) and block_map.key_block % 8 == 0:
        # a stored tile may show padding slots; the few blocks that hold any are expanded
        query, key = block_map.real_blocks()
        real = query[block_map.rows[partial] % len(query)] & key[block_map.columns[partial]] if len(partial) else query
        stored = np.bitwise_count(rule.bits).sum(axis=(1, 2), dtype=np.int64)
        return int(stored[rule.index[partial[real]]].sum()) + _expanded(block_map, partial[~real])
    if isinstance(rule, Boxes) and len(rule.coordinate) == 1 and block_map.key_order is None:
        coordinate = rule.coordinate[0]
        if (coordinate[1:] >= coordinate[:-1]).all():
            return _ranges(block_map, rule, partial)
    return _expanded(block_map, partial)


def _expanded(block_map: BlockMap, listed: Int64s) -> int:
    return sum(int(seen.sum()) for _, seen in chunks(block_map, listed))


def _ranges(block_map: BlockMap, boxes: Boxes, listed: Int64s) -> int:
    """Every query sees one range of the keys: what of it lies in each block."""
    start, stop = (np.searchsorted(boxes.coordinate[0], edge[0]) for edge in (boxes.low, boxes.high))
    slots = block_map.query_slots().reshape(-1, block_map.query_block)
    pairs = 0
    step = max(1, CHUNK_PAIRS // (16 * block_map.query_block))
    for at in range(0, len(listed), step):
        part = listed[at : at + step]
        query = slots[block_map.rows[part] % len(slots)]
        first = block_map.columns[part].astype(np.int64)[:, None] * block_map.key_block
        last = first + block_map.key_block
        seen = np.minimum(stop[query], last) - np.maximum(start[query], first)
        pairs += int(seen[(seen > 0) & (query >= 0)].sum())
    return pairs
