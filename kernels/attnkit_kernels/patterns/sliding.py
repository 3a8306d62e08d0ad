"""Sliding windows over the row-major index: exact to the token (`sliding`) and by whole blocks (`streaming`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..softmax import builders
from ..softmax.blockmap import BlockMap, compress
from ..softmax.rules import Boxes
from .canvas import Canvas, Tile
from .dense import runs
from .settings import setting

__all__ = ["Sliding", "Streaming"]


@dataclass(frozen=True)
class Sliding:
    """A query sees the keys nearer than `window` tokens and the first `sink` keys; if causal none after itself.

    A causal window counts the query: `window` keys. Not causal it reaches window - 1 tokens to either side.
    """

    name: ClassVar[str] = "sliding"
    paper: ClassVar[str] = "Longformer (arXiv 2004.05150), StreamingLLM (arXiv 2309.17453)"

    window: int = setting(help="keys at a smaller distance than this are seen, in tokens")
    sink: int = setting(0, help="first keys that every query sees, in tokens")
    causal: bool = setting(True, help="hide keys after the query")

    def __post_init__(self) -> None:
        if self.window < 1 or self.sink < 0:
            raise ValueError(f"window must be at least 1 and sink at least 0, got {self.window} and {self.sink}")

    def block_map(self, canvas: Canvas, query_tile: Tile = None, key_tile: Tile = None) -> BlockMap:
        """The map of a canvas; tiles are runs of the row-major index, 128 by default, keys as queries."""
        query, key, tokens = runs(canvas, query_tile, key_tile)
        return builders.sliding(tokens, self.window, self.sink, self.causal, query, key)


@dataclass(frozen=True)
class Streaming:
    """Causal attention to the first blocks and the nearest blocks: the sparse branch of Flux Attention.

    A block of queries sees ceil(sink / block) blocks at the start and ceil(window / block) blocks that end with its
    own, min(own number + 1, their sum) in all, keys after the query hidden. The `last` queries (rounded up to
    blocks) see all keys before them: the form that is called "triangle". Query and key blocks are equal.
    """

    name: ClassVar[str] = "streaming"
    paper: ClassVar[str] = "Flux Attention (arXiv 2604.07394), section 2b of its code: streaming and triangle"

    sink: int = setting(128, help="tokens at the start that every query sees, rounded up to blocks")
    window: int = setting(2048, help="nearest tokens that a query sees, rounded up to blocks")
    last: int = setting(0, help="queries at the end that see all keys before them, rounded up to blocks")

    def __post_init__(self) -> None:
        if self.window < 1 or self.sink < 0 or self.last < 0:
            raise ValueError(
                "window must be at least 1, sink and last at least 0, "
                f"got window {self.window}, sink {self.sink}, last {self.last}"
            )

    def block_map(self, canvas: Canvas, query_tile: Tile = None, key_tile: Tile = None) -> BlockMap:
        """The map of a canvas; tiles are equal runs of the row-major index, 128 by default."""
        block, key_block, tokens = runs(canvas, query_tile, key_tile)
        if block != key_block:
            raise ValueError(f"streaming needs equal query and key tiles, got {block} and {key_block}")
        sink, window, last = (-(-length // block) for length in (self.sink, self.window, self.last))
        blocks = -(-tokens // block)
        query, key = np.arange(blocks)[:, None], np.arange(blocks)
        seen = (key <= query) & ((key < sink) | (query - key < window) | (query >= blocks - last))
        full = (key < query) & ((query + 1) * block <= tokens)
        at = np.arange(tokens)[None]
        rule = Boxes(np.zeros_like(at), at + 1, at)
        return BlockMap(tokens, tokens, block, block, *compress(seen, full), rule=rule)
