"""SLA's split of key blocks into critical, marginal and negligible ones, from means of queries and keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..softmax.blockmap import BlockMap
from ..softmax.builders import from_blocks
from .canvas import Canvas
from .routing import block_means, check_routed, exact, ranks
from .settings import setting

__all__ = ["Sla", "block_scores"]


def block_scores(query: Tensor, key: Tensor, query_block: int, key_block: int) -> Tensor:
    """mean(query block) . mean(key block - mean of all keys), [batch, heads, query_blocks, key_blocks], detached.

    query [batch, queries, heads, dim], key [batch, keys, kv_heads, dim]; float32, float64 for float64. A softmax over
    the row, as the paper has it, does not change the order. The centring takes from every score of a row the same
    number: it changes no order either, and keeps a common part of the keys out of the rounding.
    """
    check_routed(query, key)
    keys = exact(key)
    if key.shape[1]:
        keys = keys - keys.mean(1, keepdim=True)
    pooled = block_means(keys, key_block).repeat_interleave(query.shape[2] // key.shape[2], 1)
    return block_means(exact(query), query_block) @ pooled.mT


@dataclass(frozen=True)
class Sla:
    """Each block of queries sees its int(ratio * blocks) best-scored blocks of keys, one at least.

    The int(skip * blocks) lowest (rounded up) are negligible, those between are marginal: `softmax.variants.sla` gives
    them a linear attention. Paper: ratio 5 %, skip 10 %, blocks of 64; the published code has no skip. Blocks are runs
    of the row-major index. Ties go to the lower block, on every device.
    """

    name: ClassVar[str] = "sla"
    paper: ClassVar[str] = "SLA (arXiv 2509.24006), Eq. 2 and 3; its code: k centred, no scale"

    ratio: float = setting(0.05, help="share of the key blocks that a query block sees, above 0 to 1")
    skip: float = setting(0.1, help="share of the key blocks that is dropped altogether, 0 to below 1")
    query_block: int = setting(64, help="queries of a block")
    key_block: int = setting(64, help="keys of a block")

    def __post_init__(self) -> None:
        if not 0 < self.ratio <= 1 or not 0 <= self.skip < 1:
            raise ValueError(f"ratio must be in (0, 1] and skip in [0, 1), got {self.ratio} and {self.skip}")
        if self.query_block < 1 or self.key_block < 1:
            raise ValueError(f"blocks must be at least 1, got {self.query_block} and {self.key_block}")

    def counts(self, blocks: int) -> tuple[int, int]:
        """How many of `blocks` key blocks are critical, and how many critical or marginal."""
        critical = min(blocks, max(1, int(self.ratio * blocks)))
        # with skip = 1 - ratio nothing is left between, whatever the rounding of the difference
        return critical, max(critical, int((1 - self.skip) * blocks + 1e-9))

    def classes(self, query: Tensor, key: Tensor) -> Tensor:
        """int8 [batch, heads, query_blocks, key_blocks]: 1 critical, 0 marginal, -1 negligible; no gradient."""
        scores = block_scores(query, key, self.query_block, self.key_block)
        critical, kept = self.counts(scores.shape[-1])
        place = ranks(scores)
        return (place < critical).to(torch.int8) - (place >= kept).to(torch.int8)

    def critical_map(self, classes: Tensor, queries: int, keys: int) -> BlockMap:
        """The map of the critical blocks of `classes`."""
        chosen = (classes == 1).cpu().numpy()
        return from_blocks(chosen, queries, keys, self.query_block, self.key_block)

    def block_map(self, query: Tensor, key: Tensor, *, canvas: Canvas | None = None) -> BlockMap:
        """The map of the critical blocks for query [batch, queries, heads, dim], key [batch, keys, kv_heads, dim]."""
        check_routed(query, key, canvas)
        return self.critical_map(self.classes(query, key), query.shape[1], key.shape[1])
