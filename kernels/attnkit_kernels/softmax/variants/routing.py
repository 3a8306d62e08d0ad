"""Routing Transformer's attention: gather clusters of near tokens, attend inside each, scatter the average back."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import layer_norm, normalize, pad

from ...dispatch import Impl
from ...patterns.kmeans import members, nearest
from ..api import attention
from ..bias import Bias
from ..builders import causal as causal_map
from ..builders import from_mask, prefixes
from ..validation import check_tensors, lengths_of

__all__ = ["DIVISORS", "NORMS", "RoutingResult", "normed", "routing_attention"]

# what is added to the number of clusters that a token is in: by the authors, and by the PyTorch version
DIVISORS = {"authors": 1e-2, "pytorch": 1e-5}
NORMS = ("layer", "unit", "none")
BLOCK = 128


class RoutingResult(NamedTuple):
    """Result of `routing_attention`.

    output : [batch, tokens, heads, value dim], zero for a token in no cluster
    counts : int64 [batch, tokens, heads], clusters that each query is in
    query, key : the normalised ones, whose centroids these are; for the update and the commitment loss
    """

    output: Tensor
    counts: Tensor
    query: Tensor
    key: Tensor


def normed(tokens: Tensor, norm: str) -> Tensor:
    """Tokens [..., dim] by "layer" (no gain or bias, eps 1e-6; length sqrt(dim)), "unit" (length 1) or "none"."""
    if norm not in NORMS:
        raise ValueError(f"norm: expected one of {', '.join(NORMS)}, got {norm!r}")
    if norm == "layer":
        return layer_norm(tokens, tokens.shape[-1:], eps=1e-6)
    return normalize(tokens, dim=-1) if norm == "unit" else tokens


def routing_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    centroids: Tensor,
    *,
    window: int,
    causal: bool = False,
    strict: bool = False,
    norm: str = "layer",
    divisor: str = "authors",
    lengths: Any = None,
    bias: Bias | None = None,
    scale: float = 1.0,
    impl: str | Impl = "auto",
) -> RoutingResult:
    """Attention inside clusters of the `window` queries and keys nearest to each centroid; linear in the tokens.

    Parameters
    ----------
    query, key, value : [batch, tokens, heads, dim], as many heads in each; value may have a dim of its own
    centroids : [heads, clusters, dim], no gradient flows to them (`centroids.py` moves them)
    window : tokens of a cluster, cut to the tokens there are; the authors' is tokens / clusters
    causal : queries see up to their own rank in the cluster. Which tokens a cluster takes still depends on the whole
        sequence, so later tokens leak into earlier outputs, in both published implementations
    strict : causal without that leak; ours, not the paper's: every token joins only the cluster nearest to its key
        and sees the last `window` keys of it up to its own
    norm : of query and key before all else, `normed`; the authors' makes the scale before it void
    divisor : added to the count of clusters in the average: "authors" 0.01, "pytorch" 1e-5
    lengths : integers [batch], the real tokens of each sample; the others join clusters last, are seen by none, give 0
    bias : added to the scores, by rank in the cluster (its queries and keys are 0..window - 1), as the authors'
        relative positions are; not with `strict`
    scale : of the scores; 1 as the authors have it with "layer", dim ** -0.5 in the PyTorch version

    Returns
    -------
    RoutingResult. Membership carries no gradient; sums run in the order of clusters, without atomics on shared
    addresses, so results repeat bit for bit.

    Raises
    ------
    ValueError for shapes that do not fit, a window below 1, unknown norm or divisor, `strict` with bias.

    Notes
    -----
    Paper, section 4.1; authors' code: y_i = (sum over the clusters with i of its output there) / (their number + .01).
    """
    check_tensors(query, key, value)
    if not query.shape[:3] == key.shape[:3]:
        raise ValueError(
            f"query and key must agree in batch, tokens and heads, got {list(query.shape)} and {list(key.shape)}"
        )
    expected = (query.shape[2], query.shape[3])
    if centroids.ndim != 3 or (centroids.shape[0], centroids.shape[2]) != expected:
        raise ValueError(
            f"centroids: expected [{expected[0]}, clusters, {expected[1]}], got shape {list(centroids.shape)}"
        )
    if window < 1:
        raise ValueError(f"window: expected 1 token or more, got {window}")
    if divisor not in DIVISORS:
        raise ValueError(f"divisor: expected one of {', '.join(DIVISORS)}, got {divisor!r}")
    if strict and bias is not None:
        raise ValueError(f"bias goes by rank in a cluster of {window}, expected none with strict")
    window = min(window, query.shape[1])
    lengths = lengths_of(lengths, query.shape[0], query.shape[1], "lengths")
    if (lengths < query.shape[1]).any():
        # what stands in the padding, NaN too, must not reach a product
        query, key, value = (x.where(_real(lengths, x)[..., None, None], 0) for x in (query, key, value))
    query, key = normed(query, norm), normed(key, norm)
    options: dict[str, Any] = {"scale": scale, "impl": impl}
    if query.shape[1] == 0:
        counts = torch.zeros(query.shape[:3], dtype=torch.int64, device=query.device)
        return RoutingResult(query.new_zeros(value.shape), counts, query, key)
    if strict:
        total, counts = _strict(query, key, value, centroids, window, lengths, options)
    else:
        total, counts = _balanced(query, key, value, centroids, window, causal, lengths, bias, options)
    output = total / (counts.to(total.dtype) + DIVISORS[divisor])[..., None]
    return RoutingResult(output.to(query.dtype), counts, query, key)


def _real(lengths: NDArray[np.int64], tokens: Tensor) -> Tensor:
    """bool [batch, tokens], which are within the lengths [batch]."""
    at = torch.arange(tokens.shape[1], device=tokens.device)
    return at < torch.from_numpy(lengths).to(tokens.device)[:, None]


def _at(tokens: Tensor, index: Tensor) -> Tensor:
    """Tokens [batch, window, heads, dim] at index [batch, heads, window]."""
    return tokens.gather(1, index.transpose(1, 2)[..., None].expand(-1, -1, -1, tokens.shape[-1]))


def _balanced(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    centroids: Tensor,
    window: int,
    causal: bool,
    lengths: NDArray[np.int64],
    bias: Bias | None,
    options: dict[str, Any],
) -> tuple[Tensor, Tensor]:
    """Sums [batch, tokens, heads, value dim] over the clusters of each query, and their numbers."""
    real = _real(lengths, query)
    of_query, of_key = (members(x, centroids, window, real).unbind(2) for x in (query, key))
    # one gather for each cluster: within one no token repeats, so its backward pass adds in a fixed order
    gathered = [
        torch.stack([_at(x, index) for index in indices], 1).flatten(0, 1)
        for x, indices in ((query, of_query), (key, of_key), (value, of_key))
    ]
    within = np.minimum(lengths, window).repeat(len(of_query))
    block_map = causal_map(window, BLOCK, BLOCK) if causal else prefixes(within, window, window, BLOCK, BLOCK)
    outputs = attention(*gathered, block_map=block_map, bias=bias, **options).output
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    total = torch.zeros(value.shape, dtype=dtype, device=query.device)
    counts = torch.zeros(query.shape[:3], dtype=torch.int64, device=query.device)
    for index, output in zip(of_query, outputs.unflatten(0, (-1, len(of_query))).unbind(1), strict=True):
        places = index.transpose(1, 2)
        counts.scatter_add_(1, places, torch.ones_like(places))
        total.scatter_add_(1, places[..., None].expand_as(output), output.to(dtype))
    return total * real[..., None, None], counts * real[..., None]


def _strict(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    centroids: Tensor,
    window: int,
    lengths: NDArray[np.int64],
    options: dict[str, Any],
) -> tuple[Tensor, Tensor]:
    """As `_balanced`: tokens sorted by cluster, in chunks of `window` that see themselves and the chunk before."""
    batch, tokens, heads, _ = query.shape
    real = _real(lengths, query)
    cluster = nearest(key, centroids).where(real[:, None], centroids.shape[1])
    order = cluster.sort(dim=-1, stable=True).indices
    chunks = -(-tokens // window)
    padded = [pad(_at(x, order).transpose(1, 2), (0, 0, 0, chunks * window - tokens)) for x in (query, key, value)]
    rows = [x.unflatten(2, (chunks, window)) for x in padded]
    pairs = [torch.cat([pad(x, (0, 0, 0, 0, 1, 0))[:, :, :-1], x], 3) for x in rows[1:]]
    folded = [x.flatten(0, 2)[:, :, None] for x in (rows[0], *pairs)]
    mask = _strict_mask(cluster.gather(2, order), chunks, window)
    output = attention(*folded, block_map=from_mask(mask.cpu().numpy(), BLOCK, BLOCK), **options).output
    inside = output[:, :, 0].unflatten(0, (batch, heads, chunks)).flatten(2, 3)[:, :, :tokens]
    back = order.argsort(-1)[..., None].expand_as(inside)
    counts = real[..., None].expand(-1, -1, heads).long()
    return inside.gather(2, back).transpose(1, 2) * real[..., None, None], counts


def _strict_mask(cluster: Tensor, chunks: int, window: int) -> Tensor:
    """bool [batch * heads * chunks, 1, window, 2 window] from the sorted clusters [batch, heads, tokens]."""
    # -1 at the end and -2 before the start belong to no one
    of_query = pad(cluster, (0, chunks * window - cluster.shape[-1]), value=-1).unflatten(-1, (chunks, window))
    before = pad(of_query, (0, 0, 1, 0), value=-2)[:, :, :-1]
    of_key = torch.cat([before, of_query], -1)
    behind = torch.arange(window, device=cluster.device)[:, None] + window
    behind = behind - torch.arange(2 * window, device=cluster.device)
    seen = (of_query[..., None] == of_key[..., None, :]) & (behind >= 0) & (behind < window)
    return seen.flatten(0, 2)[:, None]
