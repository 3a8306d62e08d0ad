"""Routing Transformer's clusters: the tokens nearest to each centroid, as many for every cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..softmax.blockmap import BlockMap
from ..softmax.builders import from_boxes
from ..softmax.rules import Boxes
from .canvas import BLOCK, Canvas
from .routing import check_routed, exact
from .settings import setting

__all__ = ["Kmeans", "gathered_map", "members", "nearest", "scores"]


@dataclass(frozen=True)
class Kmeans:
    """Clusters of `window` tokens each, dense (or causal by rank) inside: the work of `softmax.variants.routing`.

    A token may be in several clusters or in none, and each head has its own, so no map of the tokens themselves is
    this attention: the map here is that of the gathered tokens, cluster after cluster, window tokens each.
    """

    name: ClassVar[str] = "kmeans"
    paper: ClassVar[str] = "Routing Transformer (arXiv 2003.05997), section 4.1"

    clusters: int = setting(8, help="clusters of each head")
    window: int = setting(512, help="tokens of each cluster; at most the tokens there are")
    causal: bool = setting(False, help="hide tokens of a cluster after the query")
    block: int = setting(BLOCK, help="slots of a block")

    def __post_init__(self) -> None:
        if min(self.clusters, self.window, self.block) < 1:
            raise ValueError(
                f"clusters, window and block must be at least 1, got {self.clusters}, {self.window} and {self.block}"
            )

    def block_map(self, query: Tensor, key: Tensor, *, canvas: Canvas | None = None) -> BlockMap:
        """The map of the clusters * min(window, tokens) gathered queries and keys."""
        check_routed(query, key, canvas)
        window = min(self.window, query.shape[1])
        return gathered_map(self.clusters, window, min(self.window, key.shape[1]), self.causal, self.block)


def gathered_map(clusters: int, queries: int, keys: int, causal: bool, block: int = BLOCK) -> BlockMap:
    """The map where each of `clusters` runs of queries sees its own run of keys, if causal up to its rank."""
    query, key = np.arange(clusters * queries), np.arange(clusters * keys)
    cluster, rank = np.divmod(query, max(queries, 1))
    high = np.minimum(rank + 1, keys) if causal else keys
    boxes = Boxes((cluster * keys)[None], (cluster * keys + high)[None], key[None])
    return from_boxes(boxes, block, block)


def scores(tokens: Tensor, centroids: Tensor) -> Tensor:
    """tokens . centroids, [batch, heads, clusters, tokens], the negative distances; float32 or more, no gradient.

    tokens [batch, tokens, heads, dim], centroids [heads, clusters, dim].
    """
    return exact(centroids).to(exact(tokens).dtype) @ exact(tokens).permute(0, 2, 3, 1)


def nearest(tokens: Tensor, centroids: Tensor) -> Tensor:
    """int64 [batch, heads, tokens], the cluster of the nearest centroid, the lowest among equals."""
    found = scores(tokens, centroids)
    at = torch.arange(found.shape[2], device=found.device)[:, None]
    best = at.expand_as(found).where(found == found.amax(2, keepdim=True), found.shape[2] - 1)
    return best.amin(2)


def members(tokens: Tensor, centroids: Tensor, window: int, real: Tensor | None = None) -> Tensor:
    """int64 [batch, heads, clusters, window], the tokens nearest to each centroid, in order of position.

    Chosen over the whole sequence, ties to the earlier token. `real` bool [batch, tokens]: the others are taken last.
    """
    found = scores(tokens, centroids)
    if real is not None:
        found = found.masked_fill(~real[:, None, None], -torch.inf)
    return found.sort(dim=-1, descending=True, stable=True).indices[..., :window].sort(-1).values
