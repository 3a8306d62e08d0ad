"""Blocks drawn at random: no attention of any paper, but what a benchmark needs to show speed without structure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..softmax.blockmap import BlockMap
from ..softmax.builders import from_blocks
from .canvas import Canvas, Tile
from .dense import runs
from .settings import setting

__all__ = ["RandomBlocks"]


@dataclass(frozen=True)
class RandomBlocks:
    """round(density * blocks) of all blocks per head, drawn uniformly; a row may hold none."""

    name: ClassVar[str] = "random_blocks"
    paper: ClassVar[str] = "none: a benchmark's own"

    density: float = setting(0.1, help="share of the blocks that is listed, 0 to 1")
    seed: int = setting(0, help="seed of the draw")
    heads: int = setting(1, help="heads with a draw of their own; 1 is shared by all heads")

    def __post_init__(self) -> None:
        if not 0 <= self.density <= 1:
            raise ValueError(f"density must be between 0 and 1, got {self.density}")
        if self.heads < 1:
            raise ValueError(f"heads must be at least 1, got {self.heads}")

    def block_map(self, canvas: Canvas, query_tile: Tile = None, key_tile: Tile = None) -> BlockMap:
        """The map of a canvas; tiles are runs of the row-major index, 128 by default, keys as queries."""
        query, key, tokens = runs(canvas, query_tile, key_tile)
        shape = (-(-tokens // query), -(-tokens // key))
        total = shape[0] * shape[1]
        generator = np.random.default_rng(self.seed)
        blocks = np.zeros((self.heads, total), np.bool_)
        for head in blocks:
            head[generator.permutation(total)[: round(self.density * total)]] = True
        return from_blocks(blocks.reshape(self.heads, *shape), tokens, tokens, query, key)
