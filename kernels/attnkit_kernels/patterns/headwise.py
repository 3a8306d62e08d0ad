"""Block-sparse global attention of VGGT, and HeSS's redistribution of its blocks among the heads of a layer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..softmax.blockmap import BlockMap
from ..softmax.builders import from_blocks
from .canvas import Canvas
from .routing import block_means, check_routed, exact, ranks
from .settings import setting

__all__ = ["Headwise", "redistribute", "special_last", "water_fill", "whole_numbers"]

Numbers = NDArray[Any]
# of the published base: the threshold is passed only beyond this
MARGIN = 1e-5


@dataclass(frozen=True)
class Headwise:
    """Each block of queries sees its best-scored blocks of keys, as many as its head's sensitivity earns.

    Scores are softmax(mean query . mean key dim ** -0.5) over the blocks of keys. The base gives a head the blocks
    before their sum passes `threshold`, and at least int(blocks * (1 - sparsity)) and one. With `scores` (HeSS, one per
    head of the layer) the sum of the heads' blocks is shared out again, per block of queries, in proportion to them.
    The last `special` tokens (camera and register tokens of all frames: `special_last`) are the map's tails: they see
    everything and everything sees them.
    """

    name: ClassVar[str] = "headwise"
    paper: ClassVar[str] = "HeSS (arXiv 2603.25336) over SparseVGGT (arXiv 2509.07120)"

    threshold: float | None = setting(None, help="sum of scores that is kept, 0 to 1 (published: 0.97)")
    sparsity: float | None = setting(None, help="share of the blocks that may be dropped, 0 to 1 (published: 0.1)")
    scores: tuple[float, ...] = setting((), help="sensitivity of each head; none gives every head its own base")
    special: int = setting(0, help="tokens at the end that see and are seen by all")
    query_block: int = setting(128, help="queries of a block")
    key_block: int = setting(64, help="keys of a block")

    def __post_init__(self) -> None:
        object.__setattr__(self, "scores", tuple(float(score) for score in self.scores))
        if self.threshold is None and self.sparsity is None:
            raise ValueError("headwise needs threshold, sparsity or both, got neither")
        for name in ("threshold", "sparsity"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} must be between 0 and 1, got {value}")
        if self.special < 0 or min(self.query_block, self.key_block) < 1:
            raise ValueError(
                "special must be at least 0 and blocks at least 1, "
                f"got {self.special}, {self.query_block} and {self.key_block}"
            )
        if self.scores and not (min(self.scores) >= 0 and 0 < sum(self.scores) < float("inf")):
            raise ValueError(f"scores must be 0 or more with a positive sum, got {self.scores}")

    def probabilities(self, query: Tensor, key: Tensor) -> Tensor:
        """[batch, heads, query_blocks, key_blocks], rows sum to 1; of the tokens without the special ones."""
        check_routed(query, key)
        for name, tensor in (("query", query), ("key", key)):
            if tensor.shape[1] < self.special:
                raise ValueError(f"{name}: expected {self.special} special tokens or more, got {tensor.shape[1]}")
        queries, keys = (exact(x[:, : x.shape[1] - self.special]) for x in (query, key))
        pooled = block_means(keys, self.key_block).repeat_interleave(query.shape[2] // key.shape[2], 1)
        scores = block_means(queries, self.query_block) @ pooled.mT * query.shape[-1] ** -0.5
        return scores.softmax(-1)

    def budgets(self, probabilities: Tensor) -> Tensor:
        """int64 [batch, heads, query_blocks], the blocks of each row; probabilities as of `probabilities`."""
        blocks = probabilities.shape[-1]
        least = 1 if self.sparsity is None else max(1, int(blocks * (1 - self.sparsity)))
        budgets = torch.full(probabilities.shape[:-1], min(least, blocks), device=probabilities.device)
        if self.threshold is not None:
            sums = probabilities.sort(-1, descending=True).values.cumsum(-1)
            budgets = budgets.maximum((sums <= self.threshold + MARGIN).sum(-1))
        if not self.scores:
            return budgets
        if len(self.scores) != probabilities.shape[1]:
            raise ValueError(f"scores: expected one for each of {probabilities.shape[1]} heads, got {len(self.scores)}")
        shared = redistribute(budgets.movedim(1, -1).cpu().numpy(), np.array(self.scores), blocks)
        return torch.from_numpy(shared).to(budgets.device).movedim(-1, 1)

    def block_map(self, query: Tensor, key: Tensor, *, canvas: Canvas | None = None) -> BlockMap:
        """The map for query [batch, tokens, heads, dim] and key [batch, tokens, kv_heads, dim], special tokens last.

        A block is a run of the other tokens; the last one may be partial and holds no special token.
        """
        check_routed(query, key, canvas)
        probabilities = self.probabilities(query, key)
        chosen = ranks(probabilities) < self.budgets(probabilities)[..., None]
        queries, keys = query.shape[1] - self.special, key.shape[1] - self.special
        plain = from_blocks(chosen.cpu().numpy(), queries, keys, self.query_block, self.key_block)
        return replace(plain, tail_queries=self.special, tail_keys=self.special)


def special_last(frames: int, special: int, patches: int) -> NDArray[np.int64]:
    """Order [frames * (special + patches)] that puts the special tokens, with which each frame begins, last."""
    tokens = np.arange(frames * (special + patches)).reshape(frames, special + patches)
    return np.concatenate([tokens[:, special:].ravel(), tokens[:, :special].ravel()])


def water_fill(totals: Numbers, weights: Numbers, most: float, least: float = 0.0) -> NDArray[np.float64]:
    """Shares [..., heads] of totals [...] in proportion to weights [heads], each between `least` and `most`.

    Notes
    -----
    HeSS, redistribution: shares above `most` are set to it and what they leave is shared among the others in
    proportion, until none is above. The result is clip(level * weight, least, most) at the level where the sum is the
    total, or heads * most (least) for a total beyond that. Heads of weight 0 share equally what the others cannot take.
    """
    weights = np.asarray(weights, np.float64)
    weights = np.maximum(weights / weights.sum(), 1e-15)
    target = np.clip(np.asarray(totals, np.float64), len(weights) * least, len(weights) * most)[..., None]
    # the sum is piecewise linear in the level, and bends where a head meets a bound
    bends = np.sort(np.concatenate([[0.0], least / weights, most / weights]))
    sums = np.clip(bends[:, None] * weights, least, most).sum(-1)
    piece = np.clip(np.searchsorted(sums, target, side="left"), 1, len(bends) - 1)
    low, high = sums[piece - 1], sums[piece]
    share = np.divide(target - low, high - low, out=np.zeros_like(target), where=high > low)
    level = bends[piece - 1] + share * (bends[piece] - bends[piece - 1])
    return np.clip(level * weights, least, most)


def whole_numbers(shares: Numbers) -> NDArray[np.int64]:
    """Shares [..., heads] as integers of the same (rounded) sum: rounded down, the rest to the largest fractions.

    Equal fractions go to the lower head. No share passes a whole bound that it kept before.
    """
    # a share that is whole but for its last bits stays
    steady = np.round(shares, 9)
    floors = np.floor(steady).astype(np.int64)
    rest = np.round(steady.sum(-1)).astype(np.int64) - floors.sum(-1)
    order = np.argsort(-(steady - floors), axis=-1, kind="stable")
    places = np.argsort(order, axis=-1, kind="stable")
    return np.asarray(floors + (places < rest[..., None]))


def redistribute(budgets: Numbers, scores: Numbers, most: int) -> NDArray[np.int64]:
    """Integer budgets [..., heads] of the same sum over heads, in proportion to `scores`, each 1 to `most`."""
    if most == 0:
        return np.zeros_like(budgets)
    return whole_numbers(water_fill(budgets.sum(-1), scores, most, 1))
