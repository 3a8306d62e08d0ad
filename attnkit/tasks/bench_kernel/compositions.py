"""Attentions that are more than a map: the kernels of SLA with its linear part and of clusters by centroids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from attnkit_kernels.patterns import pattern
from torch import Tensor

from .kernels import FLOPS_OF, Kernel, Work, draw, moved_of, pairs_of
from .plan import Case

Inputs = tuple[Tensor, Tensor, Tensor]


def prepare_composition(case: Case, tensors: Inputs, impl: str, seed: int) -> Kernel:
    """The kernel of a composition; its routing is part of every call."""
    kernel = _PREPARE[case.operator](case, tensors, impl, seed)
    kernel.operands = tensors

    def smaller(most_pairs: int) -> tuple[Kernel, str]:
        # the last axis alone is cut, so that whatever the settings divide stays divided
        canvas, tokens = list(case.canvas), case.tokens
        while case.batch * case.heads * tokens**2 > most_pairs and canvas[-1] % 2 == 0:
            canvas[-1] //= 2
            tokens //= 2
        settings = dict(case.settings)
        if "window" in settings:
            settings["window"] = max(1, settings["window"] * tokens // case.tokens)
        small = replace(case, canvas=tuple(canvas), settings=tuple(sorted(settings.items())))
        inputs = draw(small, tokens, tokens, str(tensors[0].device), seed)
        return _PREPARE[case.operator](small, inputs, impl, seed), f"at {tokens} tokens"

    kernel.smaller = smaller
    return kernel


def _sla_linear(case: Case, tensors: Inputs, impl: str, seed: int) -> Kernel:
    from attnkit_kernels.softmax.variants.sla import flops, sparse_linear_attention

    routing = pattern("sla", **dict(case.settings))
    generator = torch.Generator(tensors[0].device).manual_seed(seed)
    projection = torch.randn(case.dim, case.dim, generator=generator, device=tensors[0].device) * case.dim**-0.5

    def attend(inputs: tuple[Tensor, ...], chosen: str, classes: Tensor | None) -> Tensor:
        query, key, value = inputs
        weight = projection.to(query.dtype)
        return sparse_linear_attention(
            query, key, value, routing=routing, projection=weight, classes=classes, impl=chosen
        ).output

    # the reference is given the routing of the kernel's own type: in another, ties would fall elsewhere
    classes = routing.classes(tensors[0], tensors[1])
    block_map = routing.critical_map(classes, case.tokens, case.tokens)
    sparse = 4.0 * case.dim * pairs_of(block_map, case.batch, case.heads)
    parts = flops(case.tokens, case.heads, case.dim, 0.0)
    work = (sparse + case.batch * (parts["linear"] + parts["projection"])) * FLOPS_OF[case.direction]
    return Kernel(
        lambda *inputs: attend(inputs, impl, None),
        tensors,
        Work(work, None, moved_of(case, case.tokens, case.tokens)),
        lambda inputs, rows: attend(inputs, "reference", classes),
        case.batch * case.heads * case.tokens**2,
        case.tokens,
        impl,
    )


def _kmeans(case: Case, tensors: Inputs, impl: str, seed: int) -> Kernel:
    from attnkit_kernels.softmax.variants.centroids import random_centroids
    from attnkit_kernels.softmax.variants.routing import routing_attention

    if case.heads != case.kv_heads:
        raise ValueError(f"kmeans takes as many key heads as query heads, got {case.kv_heads} and {case.heads}")
    clusters = pattern("kmeans", **dict(case.settings))
    device, dtype = tensors[0].device, tensors[0].dtype
    # drawn on the host, where all devices draw the same
    generator = torch.Generator().manual_seed(seed)
    centroids = random_centroids(case.heads, clusters.clusters, case.dim, generator).to(device)

    def attend(inputs: tuple[Tensor, ...], chosen: str) -> Tensor:
        query, key, value = inputs
        return routing_attention(
            query, key, value, centroids, window=clusters.window, causal=clusters.causal, impl=chosen
        ).output

    def expected(inputs: tuple[Tensor, ...], rows: Tensor | None) -> Tensor:
        # in the kernel's type: which tokens are nearest to a centroid hangs on the last bit
        return attend(tuple(one.to(dtype) for one in inputs), "reference").double()

    block_map = clusters.block_map(tensors[0], tensors[1])
    routing = 4.0 * case.batch * case.heads * case.tokens * clusters.clusters * case.dim
    pairs = 4.0 * case.dim * pairs_of(block_map, case.batch, case.heads)
    return Kernel(
        lambda *inputs: attend(inputs, impl),
        tensors,
        Work(pairs * FLOPS_OF[case.direction] + routing, None, moved_of(case, case.tokens, case.tokens)),
        expected,
        case.batch * case.heads * block_map.query_tokens * block_map.key_tokens,
        case.tokens,
        impl,
    )


_PREPARE: dict[str, Callable[[Case, Inputs, str, int], Kernel]] = {"sla-linear": _sla_linear, "kmeans": _kmeans}
