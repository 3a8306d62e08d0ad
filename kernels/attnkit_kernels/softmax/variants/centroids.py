"""Centroids of the Routing Transformer: start, online update from the nearest tokens, commitment loss."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from ...patterns.kmeans import nearest

__all__ = ["RULES", "CentroidState", "cluster_sums", "commitment_loss", "move", "random_centroids", "start"]

RULES = ("authors", "corrected")


class CentroidState(NamedTuple):
    """centroids [heads, clusters, dim], their moving counts [heads, clusters] and sums like the centroids; a rule."""

    centroids: Tensor
    counts: Tensor
    sums: Tensor
    rule: str


def random_centroids(heads: int, clusters: int, dim: int, generator: torch.Generator) -> Tensor:
    """float32 [heads, clusters, dim] of length sqrt(dim): normal numbers, layer-normalised, as the authors start."""
    return layer_norm(torch.randn(heads, clusters, dim, generator=generator), (dim,), eps=1e-6)


def start(centroids: Tensor, rule: str = "authors") -> CentroidState:
    """The state before any update; ValueError for an unknown rule.

    "authors": counts start at 0 but sums at the centroids, and nothing corrects that: early centroids are far too long.
    "corrected": both start at 0, so that a moved centroid is a weighted mean of its tokens.
    """
    if rule not in RULES:
        raise ValueError(f"rule: expected one of {', '.join(RULES)}, got {rule!r}")
    centroids = centroids.detach()
    counts = centroids.new_zeros(centroids.shape[:2])
    return CentroidState(centroids, counts, centroids.clone() if rule == "authors" else counts[..., None] * 0, rule)


def cluster_sums(tokens: Tensor, centroids: Tensor, real: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Number [heads, clusters] and sum [heads, clusters, dim] of the tokens nearest to each centroid; no gradient.

    tokens [batch, tokens, heads, dim], normalised; `real` bool [batch, tokens] leaves the others out. Training on
    several devices adds both over the devices before `move`.
    """
    chosen = torch.zeros_like(tokens[..., 0]).transpose(1, 2)[:, :, None].repeat(1, 1, centroids.shape[1], 1)
    chosen = chosen.detach().to(centroids.dtype).scatter_(2, nearest(tokens, centroids)[:, :, None], 1)
    inside = tokens.detach().to(centroids.dtype)
    if real is not None:
        chosen = chosen * real[:, None, None]
        inside = inside.where(real[..., None, None], 0)
    return chosen.sum((0, 3)), (chosen @ inside.transpose(1, 2)).sum(0)


def move(
    state: CentroidState, counts: Tensor, sums: Tensor, *, decay: float = 0.999, epsilon: float = 1e-5
) -> CentroidState:
    """The state after one batch with these `cluster_sums`.

    Notes
    -----
    n <- decay n + (1 - decay) counts, m <- decay m + (1 - decay) sums. "authors": centroid = m / n~ with
    n~ = (n + epsilon) / (N + clusters epsilon) N and N the sum of n over a head's clusters. "corrected": m / n, where n
    is not 0 (the two biases of an average that starts at 0 cancel); a cluster without tokens so far stays.
    """
    if not 0 <= decay < 1:
        raise ValueError(f"decay must be in [0, 1), got {decay}")
    counts, sums = decay * state.counts + (1 - decay) * counts, decay * state.sums + (1 - decay) * sums
    if state.rule == "authors":
        total = counts.sum(-1, keepdim=True)
        divisor = (counts + epsilon) / (total + counts.shape[-1] * epsilon) * total
    else:
        divisor = counts
    known = divisor > 0
    moved = sums / divisor.masked_fill(~known, 1)[..., None]
    return CentroidState(moved.where(known[..., None], state.centroids), counts, sums, state.rule)


def commitment_loss(tokens: Tensor, centroids: Tensor, *, weight: float = 1e-4, real: Tensor | None = None) -> Tensor:
    """weight * mean over all numbers of (token - its nearest centroid)^2; gradient to the tokens only.

    tokens [batch, tokens, heads, dim], normalised; added to the training loss for queries and for keys. `real` bool
    [batch, tokens] leaves the others out.
    """
    index = nearest(tokens, centroids).transpose(1, 2)
    heads = torch.arange(tokens.shape[2], device=tokens.device)
    gaps = (tokens - centroids.detach()[heads, index]) ** 2
    if real is not None:
        gaps = gaps[real]
    return weight * gaps.mean()
