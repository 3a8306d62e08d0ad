"""What a simulation says of one map: tiles, pairs and the speed-ups that follow from them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..softmax.blockmap import BlockMap
from .cost import Counts

__all__ = ["Simulation", "count"]


@dataclass(frozen=True)
class Simulation:
    """Tiles and pairs of one attention map of one head, and of one sample.

    tiles_visited, tiles_total : key tiles that the worst query tile visits, and key tiles of one row: what the paper
        of generalized neighborhood attention counts
    map_tiles_visited, map_tiles_full, map_tiles_total : the same over all query tiles, as the engine's `BlockMap` has
        them; a full tile has only real slots and needs no mask
    run_tiles_visited, run_tiles_full : the same for the tiling simulated, which differs from the engine's when dynamic
    query_tiles : rows of tiles. query_block, key_block : slots of a tile
    query_tokens, key_tokens, visible_pairs : of the canvas, without dense tails
    flop_speedup : what the operations alone promise
    block_sparse : every visited tile is visible to all real queries of its row: only padding is computed in vain
    """

    tiles_visited: int
    tiles_total: int
    map_tiles_visited: int
    map_tiles_full: int
    map_tiles_total: int
    run_tiles_visited: int
    run_tiles_full: int
    query_tiles: int
    query_block: int
    key_block: int
    query_tokens: int
    key_tokens: int
    visible_pairs: int
    flop_speedup: float
    block_sparse: bool

    @property
    def map_tiles_partial(self) -> int:
        """Visited tiles that need a mask."""
        return self.map_tiles_visited - self.map_tiles_full

    @property
    def simulated_speedup(self) -> float:
        """Over dense attention, if every query tile took as long as the worst: the paper's."""
        return _ratio(self.tiles_total, self.tiles_visited)

    @property
    def map_speedup(self) -> float:
        """Over dense attention, by the tiles of the whole map."""
        return _ratio(self.map_tiles_total, self.map_tiles_visited)

    @property
    def sparsity(self) -> float:
        """Share of the operations that need not be done."""
        return 1 - 1 / self.flop_speedup

    @property
    def waste(self) -> float:
        """Share of the operations in visited tiles that is masked away."""
        done = self.run_tiles_visited * self.query_block * self.key_block
        return 1 - self.visible_pairs / done if done else 0.0

    def work(self, heads: int = 1, dim: int = 128) -> Counts:
        """The work of `heads` heads of this map, as cost models take it."""
        return self._counts(self.run_tiles_full, self.run_tiles_visited - self.run_tiles_full, heads, dim)

    def dense_work(self, heads: int = 1, dim: int = 128) -> Counts:
        """The work of dense attention over the same tokens with the same tiles, side by side along the tokens."""
        rows, columns = self.query_tokens / self.query_block, self.key_tokens / self.key_block
        full = math.floor(rows) * math.floor(columns)
        total = math.ceil(rows) * math.ceil(columns)
        return self._counts(full, total - full, heads, dim, math.ceil(rows))

    def _counts(self, full: int, partial: int, heads: int, dim: int, rows: int | None = None) -> Counts:
        rows = self.query_tiles if rows is None else rows
        return Counts(full * heads, partial * heads, rows * heads, self.query_block, self.key_block, dim)


def count(block_map: BlockMap, *, flop_speedup: float | None = None, visible_pairs: int | None = None) -> Simulation:
    """The counts of any block map, averaged over its own samples and heads; dense tails are left out.

    flop_speedup : where the pattern defines it; by default all pairs over visible pairs
    visible_pairs : where they are known; by default the map counts them, which expands its partial blocks
    """
    grids = block_map.batch * block_map.heads
    listed = np.diff(block_map.starts)
    real = (block_map.query_slots().reshape(-1, block_map.query_block) >= 0).sum(1)
    pairs = block_map.visible_pairs() if visible_pairs is None else visible_pairs
    held = int((np.tile(real, grids) * listed).sum()) * block_map.key_block
    if flop_speedup is None:
        flop_speedup = _ratio(grids * block_map.query_tokens * block_map.key_tokens, pairs)
    return Simulation(
        tiles_visited=int(listed.max(initial=0)),
        tiles_total=block_map.key_blocks,
        map_tiles_visited=block_map.visited // grids,
        map_tiles_full=block_map.full_count // grids,
        map_tiles_total=block_map.total // grids,
        run_tiles_visited=block_map.visited // grids,
        run_tiles_full=block_map.full_count // grids,
        query_tiles=block_map.query_blocks,
        query_block=block_map.query_block,
        key_block=block_map.key_block,
        query_tokens=block_map.query_tokens,
        key_tokens=block_map.key_tokens,
        visible_pairs=pairs // grids,
        flop_speedup=flop_speedup,
        block_sparse=held == pairs,
    )


def _ratio(whole: int, part: int) -> float:
    return whole / part if part else math.inf
