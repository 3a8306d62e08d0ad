"""Dense and causal attention: the maps that every other pattern is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..softmax import builders
from ..softmax.blockmap import BlockMap
from .canvas import Canvas, Tile, check_canvas, run_of, tokens_of

__all__ = ["Causal", "Dense"]


@dataclass(frozen=True)
class Dense:
    """Every query sees every key."""

    name: ClassVar[str] = "dense"
    paper: ClassVar[str] = "Attention Is All You Need (arXiv 1706.03762)"

    def block_map(self, canvas: Canvas, query_tile: Tile = None, key_tile: Tile = None) -> BlockMap:
        """The map of a canvas; tiles are runs of the row-major index, 128 by default, keys as queries."""
        query, key, tokens = runs(canvas, query_tile, key_tile)
        return builders.dense(tokens, tokens, query, key)


@dataclass(frozen=True)
class Causal:
    """A query sees itself and the keys before it in the row-major index."""

    name: ClassVar[str] = "causal"
    paper: ClassVar[str] = "Attention Is All You Need (arXiv 1706.03762)"

    def block_map(self, canvas: Canvas, query_tile: Tile = None, key_tile: Tile = None) -> BlockMap:
        """The map of a canvas; tiles are runs of the row-major index, 128 by default, keys as queries."""
        query, key, tokens = runs(canvas, query_tile, key_tile)
        return builders.causal(tokens, query, key)


def runs(canvas: Canvas, query_tile: Tile, key_tile: Tile) -> tuple[int, int, int]:
    """(query_block, key_block, tokens) of a pattern over the row-major index; ValueError for tiles in space."""
    query = run_of(query_tile, "query_tile")
    return query, run_of(query if key_tile is None else key_tile, "key_tile"), tokens_of(check_canvas(canvas))
