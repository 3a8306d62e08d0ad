"""Eager torch over the whole table of pairs: the definition that every other implementation is tested against."""

from __future__ import annotations

import torch
from torch import Tensor

from .bias import Bias
from .blockmap import BlockMap


def run(
    query: Tensor, key: Tensor, value: Tensor, block_map: BlockMap, scale: float, bias: Bias | None
) -> tuple[Tensor, Tensor]:
    """(output, lse) over the mapped tokens, differentiable through both; float64 stays, half is computed in float32.

    Takes [batch, heads, queries, keys] numbers of memory.
    """
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    with torch.autocast(query.device.type, enabled=False):
        group = query.shape[2] // key.shape[2]
        q = query.to(dtype).transpose(1, 2)
        k, v = (x.to(dtype).transpose(1, 2).repeat_interleave(group, 1) for x in (key, value))
        scores = q @ k.mT * scale
        if bias is not None:
            queries, keys = (torch.arange(x.shape[1], device=x.device) for x in (query, key))
            scores = scores + bias.tile(queries, keys).to(dtype)
        visible = torch.from_numpy(block_map.to_dense()).to(query.device)
        output, lse = softmax_sum(scores, visible, v)
    return output.transpose(1, 2).to(query.dtype), lse.transpose(1, 2)


def softmax_sum(scores: Tensor, visible: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax of the visible scores [..., queries, keys] times value, and its lse; rows without any give 0 and -inf."""
    scores = scores.masked_fill(~visible, -torch.inf)
    peak = scores.detach().amax(-1) if scores.shape[-1] else scores.new_zeros(scores.shape[:-1])
    peak = peak.masked_fill(peak == -torch.inf, 0)
    weights = (scores - peak[..., None]).exp()
    total = weights.sum(-1)
    empty = total == 0
    safe = total.masked_fill(empty, 1)
    output = (weights / safe[..., None]) @ value
    return output, (safe.log() + peak).masked_fill(empty, -torch.inf)
