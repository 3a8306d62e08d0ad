"""BiFormer's bi-level routing: regions choose regions by their mean query and key, tokens see the chosen regions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..softmax.blockmap import BlockMap
from ..softmax.builders import from_blocks
from .axes import Ints
from .canvas import BLOCK, Canvas, check_canvas, spatial_order
from .routing import check_routed, exact, ranks
from .settings import broadcast, setting, spread

__all__ = ["Bilevel", "region_order", "region_table", "table_map"]

SMALLEST_BLOCK = 16


@dataclass(frozen=True)
class Bilevel:
    """The canvas is cut into regions; each sees the `topk` regions whose mean key fits its mean query best.

    One choice for all heads, by the full width, in float32; a region need not see itself. A side that the regions do
    not divide gets regions of ceil(side / regions) tokens, smaller at its end, and as many as that takes (30 tokens in
    7 regions: 6 of 5): padding is masked and counts in no mean. The published code pads with zeros that take part in
    the softmax; `softmax.variants.bilevel` can do both. Scores are scaled by the full width there,
    (heads * dim) ** -0.5, not by the dim of a head.
    """

    name: ClassVar[str] = "bilevel"
    paper: ClassVar[str] = "BiFormer (arXiv 2303.08810), section 3.2: bi-level routing attention"

    regions: tuple[int, ...] = setting((7,), help="regions along each axis")
    topk: int = setting(4, help="regions that a region sees, at most all of them")
    block: int | None = setting(None, help="slots of a block; default the power of two that holds a region, 16 to 128")

    def __post_init__(self) -> None:
        spread(self, "regions")
        if min(self.regions) < 1 or self.topk < 1:
            raise ValueError(f"regions and topk must be at least 1, got {self.regions} and {self.topk}")
        if self.block is not None and self.block < 1:
            raise ValueError(f"block must be at least 1, got {self.block}")

    def sides(self, canvas: Canvas) -> tuple[int, ...]:
        """Tokens of a region along each axis."""
        regions = broadcast("regions", self.regions, canvas)
        return tuple(-(-length // count) for length, count in zip(canvas, regions, strict=True))

    def block_map(self, query: Tensor, key: Tensor, *, canvas: Canvas | None = None) -> BlockMap:
        """The map for query [batch, tokens, heads, dim] and key [batch, tokens, kv_heads, dim] on `canvas` (needed)."""
        if canvas is None:
            raise ValueError("bilevel needs the canvas of its tokens, got None")
        canvas = check_canvas(canvas)
        sides = self.sides(canvas)
        return table_map(region_table(query, key, canvas, sides, self.topk), canvas, sides, self.block)


def region_order(canvas: Canvas, sides: tuple[int, ...]) -> Ints:
    """Tokens of each region, int64 [regions, tokens of a whole region], row-major, -1 for padding."""
    return spatial_order(canvas, sides).reshape(-1, math.prod(sides))


def region_table(query: Tensor, key: Tensor, canvas: Canvas, sides: tuple[int, ...], topk: int) -> Tensor:
    """int64 [batch, regions, topk], the regions that each region sees, best first, ties to the lower; no gradient.

    Score: mean query . mean key of the regions over all heads, means over real tokens. ValueError for a topk above
    the number of regions.
    """
    check_routed(query, key, canvas)
    order = region_order(canvas, sides)
    if topk > len(order):
        raise ValueError(f"topk must be at most the number of regions, got {topk} and {len(order)}")
    slots = torch.from_numpy(np.maximum(order, 0)).to(query.device)
    real = torch.from_numpy(order >= 0).to(query.device)

    def means(tokens: Tensor) -> Tensor:
        inside = exact(tokens).repeat_interleave(query.shape[2] // tokens.shape[2], 2).flatten(2)[:, slots]
        # zero by choice, not by product: what stands in token 0 must not leak into padding
        return inside.where(real[..., None], 0).sum(2) / real.sum(1)[:, None]

    scores = means(query) @ means(key).mT
    return ranks(scores).argsort(-1)[..., :topk]


def table_map(table: Tensor, canvas: Canvas, sides: tuple[int, ...], block: int | None = None) -> BlockMap:
    """The map of a routing table [batch, (heads,) regions, topk]: tokens in order of regions, each padded to blocks."""
    order = region_order(canvas, sides)
    regions, tokens = order.shape
    if block is None:
        block = min(BLOCK, max(SMALLEST_BLOCK, 1 << (tokens - 1).bit_length()))
    parts = -(-tokens // block)
    order = np.pad(order, ((0, 0), (0, parts * block - tokens)), constant_values=-1)
    seen = np.zeros((*table.shape[:-1], regions), np.bool_)
    np.put_along_axis(seen, table.cpu().numpy(), True, -1)
    filled = np.any(order.reshape(-1, block) >= 0, axis=1)
    blocks = seen.repeat(parts, -2).repeat(parts, -1) & (filled & filled[:, None])
    if blocks.ndim == 3:
        blocks = blocks[:, None]
    count = math.prod(canvas)
    return from_blocks(blocks, count, count, block, block, order.ravel(), order.ravel())
