"""The result of an attention and the merge of results over disjoint sets of keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["AttentionResult", "merge"]


class AttentionResult(NamedTuple):
    """output [batch, tokens, heads, dim]; lse [batch, tokens, heads], the natural log of the sum of exponentials.

    lse is float32, float64 for float64 inputs. A query that sees nothing has output 0 and lse -inf.
    """

    output: Tensor
    lse: Tensor


def merge(results: Sequence[AttentionResult | tuple[Tensor, Tensor]]) -> AttentionResult:
    """The attention over all keys from attentions of the same queries over disjoint sets of them.

    Differentiable in outputs and lse. ValueError for no result or for shapes that differ.

    Notes
    -----
    lse = log sum_i exp(lse_i), output = sum_i exp(lse_i - lse) output_i.
    """
    if not results:
        raise ValueError("merge: expected one result or more, got 0")
    for at, name in enumerate(("output", "lse")):
        shapes = {tuple(part[at].shape) for part in results}
        if len(shapes) > 1:
            raise ValueError(f"merge: every {name} must have one shape, got {' and '.join(map(str, sorted(shapes)))}")
    first = results[0]
    if len(results) == 1:
        return AttentionResult(*first)
    lse = torch.stack([part[1] for part in results])
    output = torch.stack([part[0] for part in results])
    peak = lse.detach().amax(0)
    # without a visible key anywhere the difference would be -inf + inf
    peak = peak.masked_fill(peak == -torch.inf, 0)
    weights = (lse - peak).exp()
    total = weights.sum(0)
    empty = total == 0
    safe = total.masked_fill(empty, 1)
    merged = ((weights / safe)[..., None] * output.to(lse.dtype)).sum(0)
    return AttentionResult(merged.to(first[0].dtype), (safe.log() + peak).masked_fill(empty, -torch.inf))
