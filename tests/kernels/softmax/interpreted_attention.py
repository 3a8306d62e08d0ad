"""The Triton kernels of attention interpreted on a CPU, beside the reference.

Run as a script with TRITON_INTERPRET=1 in the environment (triton reads it when it is imported, so a test process
cannot switch); prints one JSON document: for each case the largest difference from the reference of each result.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from unittest import mock

import torch
import triton
from attnkit_kernels.dispatch import ImplementationError
from attnkit_kernels.patterns import pattern
from attnkit_kernels.patterns.sla import Sla
from attnkit_kernels.softmax import BlockMap, DenseBias, attention, causal, dense, from_boxes, sliding, triton_tuning
from attnkit_kernels.softmax.bias import Bias, relative_table, relative_terms
from attnkit_kernels.softmax.variants.bilevel import bilevel_attention
from attnkit_kernels.softmax.variants.halo import halo_attention
from attnkit_kernels.softmax.variants.layer_router import blend_attention
from attnkit_kernels.softmax.variants.reversed import reversed_attention
from attnkit_kernels.softmax.variants.routing import routing_attention
from attnkit_kernels.softmax.variants.sla import sparse_linear_attention
from cases import gradients, inputs, maps, neighborhood_boxes, normal, odd_maps, order
from torch import Tensor

Differences = dict[str, float]
Case = tuple[str, Callable[[], Differences]]
IMPLS = ("triton", "reference")
NAMES = ("output", "lse", "to_query", "to_key", "to_value")
# an interpreted program costs some 10 ms: two heads are enough to tell them apart
MAPS = maps(heads=2) | odd_maps()


def difference(one: Tensor, other: Tensor) -> float:
    """Largest difference; a NaN or infinity in one only, and another shape or dtype, is infinite."""
    if one.dtype != other.dtype or one.shape != other.shape or not torch.equal(one.isfinite(), other.isfinite()):
        return float("inf")
    gap = (one.detach().double() - other.detach().double()).nan_to_num(0, 0, 0).abs()
    return float(gap.max()) if gap.numel() else 0.0


def differences(results: Sequence[Sequence[Tensor]], names: Sequence[str]) -> Differences:
    return {name: difference(*pair) for name, *pair in zip(names, *results, strict=True)}


def beside(tensors: Sequence[Tensor], bias: Bias | None = None, **named) -> Differences:
    """Differences of output, lse, and of gradients through both."""
    leaves = (*tensors, *(() if bias is None else bias.tensors()))
    results = []
    for impl in IMPLS:
        result = attention(*tensors, bias=bias, impl=impl, **named)
        results.append((*result, *gradients(result, leaves)))
    return differences(results, (*NAMES, *(f"to_bias_{at}" for at in range(len(leaves) - 3))))


def of_map(block_map: BlockMap, dim: int = 16, dtype: torch.dtype = torch.float32) -> Differences:
    """As few samples and heads as the map allows, two query heads to a key head where there are several."""
    heads = block_map.heads
    return beside(inputs(block_map, block_map.batch, heads, -(-heads // 2), dim, dtype), block_map=block_map)


def map_cases() -> Iterator[Case]:
    for name, block_map in MAPS.items():
        yield f"map {name}", partial(of_map, block_map, 24)
    for name in ("dense_padded", "boxes_permuted", "mask_each_head", "blind_queries", "odd_mask"):
        yield f"float16 {name}", partial(of_map, MAPS[name], dtype=torch.float16)


def shape_cases() -> Iterator[Case]:
    block_map = MAPS["boxes_permuted"]
    for name, dim, width, heads, kv_heads in (
        ("dim 64", 64, 64, 2, 2),
        ("a value of its own dim", 20, 40, 2, 1),
        ("dim 1", 1, 3, 1, 1),
    ):
        query, key, _ = inputs(block_map, 1, heads, kv_heads, dim)
        value = normal(1, 48, kv_heads, width, seed=5).requires_grad_()
        yield f"shape {name}", partial(beside, (query, key, value), block_map=block_map)
    block_map = MAPS["boxes"]
    for name, heads, kv_heads in (("two key heads of two", 4, 2), ("a group of three", 3, 1)):
        yield f"shape {name}", partial(beside, inputs(block_map, 1, heads, kv_heads), block_map=block_map)
    tensors = inputs(block_map, 1, 1, 1)
    for scale in (-0.7, 0.0, 3.0):
        yield f"scale {scale}", partial(beside, tensors, block_map=block_map, scale=scale)
    heads_first = [normal(1, 2, 24, 48, seed=seed).permute(0, 3, 1, 2).requires_grad_() for seed in (1, 2, 3)]
    yield "strided heads", partial(beside, heads_first, block_map=block_map)
    spread = [normal(1, 48, 2, 64, seed=seed)[..., ::4].requires_grad_() for seed in (1, 2, 3)]
    yield "strided dim", partial(beside, spread, block_map=block_map)
    for name, plain in (("dense", dense(50, 50, 16, 16)), ("causal", causal(50, 16, 16))):
        tensors = inputs(plain, 1, 2, 1)
        yield f"packed {name}", partial(beside, tensors, block_map=plain, cu_seqlens=[0, 7, 7, 30, 50])


def bias_cases() -> Iterator[Case]:
    canvas, leaf, grid = (4, 6), partial(normal, seed=3), neighborhood_boxes(4, 6, 3)
    maps = {
        "boxes": from_boxes(grid, 16, 16),
        "boxes_permuted": from_boxes(grid, 16, 16, order(24, 16, 5, 3), order(24, 16, 3, 4)),
    }
    terms = [leaf(2, 24, 2, 5).requires_grad_(), leaf(1, 24, 2, 7).requires_grad_()]
    hidden = leaf(1, 1, 24, 24)
    hidden[..., ::3] = -torch.inf
    hidden[:, :, 7] = -torch.inf
    # name: bias, map, samples
    biases: dict[str, tuple[Bias, str, int]] = {
        "dense": (DenseBias(leaf(2, 2, 24, 24).requires_grad_()), "boxes_permuted", 2),
        "dense shared": (DenseBias(leaf(1, 1, 24, 24).requires_grad_()), "boxes", 2),
        "dense strided": (DenseBias(leaf(24, 1, 24, 2).permute(1, 3, 0, 2).requires_grad_()), "boxes", 1),
        "dense expanded": (DenseBias(leaf(1, 1, 24, 24).expand(2, 2, 24, 24).requires_grad_()), "boxes", 2),
        "dense half": (DenseBias(leaf(1, 1, 24, 24).half().requires_grad_()), "boxes", 1),
        "dense -inf": (DenseBias(hidden.requires_grad_()), "boxes", 1),
        "table": (relative_table(leaf(2, 5, 5).requires_grad_(), canvas), "boxes_permuted", 1),
        "table shared": (relative_table(leaf(1, 5, 5).requires_grad_(), canvas), "boxes", 1),
        "terms": (relative_terms(terms, canvas, (2, 3)), "boxes", 2),
    }
    for name, (bias, kind, batch) in biases.items():
        yield f"bias {name}", partial(beside, inputs(maps[kind], batch, 2, 1), bias, block_map=maps[kind])


def in_parts(block_map: BlockMap, persistent: bool) -> Differences:
    """Tiles of 16 in larger blocks; `persistent`: one program takes all items in turn."""

    def small(name, family, shape):
        kwargs = {"BLOCK_M": 16, "BLOCK_N": 16} | ({"PERSISTENT": persistent} if name == "forward" else {})
        return [triton.Config(kwargs)]

    with mock.patch.object(triton_tuning, "choices", small):
        return of_map(block_map)


def part_cases() -> Iterator[Case]:
    wide = from_boxes(neighborhood_boxes(6, 8, 3), 32, 48, order(48, 32, 5, 3), order(48, 48, 9, 4))
    for name, block_map in (("boxes", wide), ("dense", dense(40, 70, 32, 32)), ("causal", causal(50, 40, 24))):
        for persistent in (False, True):
            yield f"parts {name} {'persistent' if persistent else 'each'}", partial(in_parts, block_map, persistent)


def padded() -> Differences:
    """NaN stands beyond the lengths of tails and extras."""
    block_map = dense(24, 24, 16, 16, tail_queries=6, tail_keys=6)
    tensors = [tensor.detach() for tensor in inputs(block_map, 2, 2, 1)]
    for tensor in tensors:
        tensor[0, 28:] = float("nan")
    extra = [normal(2, 5, 1, 16, seed=seed) for seed in (8, 9)]
    for tensor in extra:
        tensor[1, 2:] = float("nan")
    leaves = [tensor.requires_grad_() for tensor in (*tensors, *extra)]
    results = []
    for impl in IMPLS:
        result = attention(
            *leaves[:3],
            block_map=block_map,
            tail_lengths=[4, 6],
            extra_key=leaves[3],
            extra_value=leaves[4],
            extra_lengths=[5, 2],
            impl=impl,
        )
        results.append((*result, *gradients(result, leaves)))
    return differences(results, (*NAMES, "to_extra_key", "to_extra_value"))


def hidden(block_map: BlockMap) -> Differences:
    """Keys that are NaN and infinite, which some queries do not see."""
    tensors = [tensor.detach() for tensor in inputs(block_map, 1, 1, 1)]
    tensors[1][0, 5], tensors[1][0, 11] = float("nan"), float("inf")
    return differences([attention(*tensors, block_map=block_map, impl=impl) for impl in IMPLS], NAMES[:2])


def only(name: str) -> Differences:
    """Gradients to one of the inputs only."""
    block_map = MAPS["mask"]
    tensors = dict(zip(("query", "key", "value"), (x.detach() for x in inputs(block_map, 1, 1, 1)), strict=True))
    tensors["bias"] = normal(1, 1, 37, 53)
    leaf = tensors[name].requires_grad_()
    bias = DenseBias(tensors.pop("bias"))
    results = []
    for impl in IMPLS:
        result = attention(**tensors, bias=bias, block_map=block_map, impl=impl)
        results.append((*result, *gradients(result, [leaf])))
    return differences(results, (*NAMES[:2], f"to_{name}"))


def routed_cases() -> Iterator[Case]:
    """The patterns that are made of query and key."""
    for name, settings in {
        "bilevel": {"regions": (2, 3), "topk": 2},
        "kmeans": {"clusters": 3, "window": 16, "causal": True, "block": 16},
        "sla": {"ratio": 0.4, "query_block": 16, "key_block": 8},
        "headwise": {"threshold": 0.6, "scores": (1.0, 2.0), "query_block": 16, "key_block": 16, "special": 3},
    }.items():
        query, key, value = (normal(1, 48, heads, 16, seed=heads).requires_grad_() for heads in (2, 1, 1))
        block_map = pattern(name, **settings).block_map(query, key, canvas=(6, 8))
        yield f"routed {name}", partial(beside, (query, key, value), block_map=block_map)


def composed(run: Callable[..., Tensor], tensors: Sequence[Tensor]) -> Differences:
    """Differences of an output, and of gradients to query, key and value."""
    outputs = [run(*tensors, impl=impl) for impl in IMPLS]
    up = normal(*outputs[0].shape, seed=5)
    results = [(output, *torch.autograd.grad(output, tensors, up)) for output in outputs]
    return differences(results, ("output", "to_query", "to_key", "to_value"))


def composition_cases() -> Iterator[Case]:
    """What is more than a pattern."""
    gate, centroids = torch.tensor([0.3]), normal(2, 3, 16, seed=4)
    routing = Sla(ratio=0.4, query_block=16, key_block=16)
    full, sparse = causal(48, 16, 16), sliding(48, 9, 4, True, 16, 16)
    grid, line = {"canvas": (6, 8), "regions": (2, 2), "topk": 2}, {"canvas": (3, 16), "regions": (1, 3), "topk": 2}
    runs: dict[str, Callable[..., Tensor]] = {
        "bilevel": lambda *x, **to: bilevel_attention(*x, **grid, **to).output,
        "bilevel zeros": lambda *x, **to: bilevel_attention(*x, **line, padding="zeros", **to).output,
        "halo": lambda *x, **to: halo_attention(*x, canvas=(6, 8), block=(3, 4), halo=1, **to).output,
        "routing": lambda *x, **to: routing_attention(*x, centroids, window=16, causal=True, **to).output,
        "routing strict": lambda *x, **to: (
            routing_attention(
                *(part[:, :, :1] for part in x), centroids[:1], window=9, causal=True, strict=True, **to
            ).output
        ),
        "sla": lambda *x, **to: sparse_linear_attention(*x, routing=routing, projection=torch.eye(16), **to).output,
        "reversed": lambda *x, **to: reversed_attention(*x, block_map=full, **to),
        "layer router": lambda *x, **to: blend_attention(*x, gate, full=full, sparse=sparse, **to),
    }
    tensors = [normal(1, 48, 2, 16, seed=seed).requires_grad_() for seed in (1, 2, 3)]
    for name, run in runs.items():
        yield f"composition {name}", partial(composed, run, tensors)


CASES = dict(
    [
        *map_cases(),
        *shape_cases(),
        *bias_cases(),
        *part_cases(),
        ("tails and extras", padded),
        *((f"hidden {name}", partial(hidden, MAPS[name])) for name in ("causal", "mask", "boxes_permuted")),
        *((f"only {name}", partial(only, name)) for name in ("query", "key", "value", "bias")),
        *routed_cases(),
        *composition_cases(),
    ]
)


def facts() -> Iterator[tuple[str, object]]:
    """What is no difference: repeated runs, rows that see nothing, nothing at all, refusals."""
    block_map = MAPS["blind_queries"]
    tensors = inputs(block_map, 1, 2, 1)
    results = []
    for _ in range(2):
        result = attention(*tensors, block_map=block_map, impl="triton")
        results.append((*result, *gradients(result, tensors)))
    yield "repeats", all(torch.equal(*pair) for pair in zip(*results, strict=True))
    output, lse, to_query, *_ = results[0]
    blind = [*range(16), 20, 37, 44]
    yield "blind output", float(output[:, blind].abs().max())
    yield "blind lse", bool((lse[:, blind] == -torch.inf).all())
    yield "blind gradient", float(to_query[:, blind].abs().max())
    with torch.no_grad():
        alone = attention(*(x.detach() for x in tensors), block_map=block_map, impl="triton").output
    yield "without gradients", torch.equal(alone, output.detach())
    query, key, value = tensors
    spoilt = value.detach().clone()
    spoilt[:, 40] = float("nan")
    found = [attention(query, key, spoilt, block_map=block_map, impl=impl).output.isfinite() for impl in IMPLS]
    # tokens 0..15 see no key at all, so no block of theirs lists it
    yield "hidden value", [bool(found[0][:, :16].all()), bool(found[0][:, 16:].any()), bool(found[1].any())]
    empty = [x.detach()[:0].requires_grad_() for x in tensors]
    yield "no samples", list(attention(*empty, block_map=block_map, impl="triton").output.shape)
    yield "no queries", list(attention(query[:, :0], key, value, impl="triton").output.shape)
    nothing = attention(query, key[:, :0], value[:, :0], impl="triton")
    yield "no keys", [float(nothing.output.abs().max()), bool((nothing.lse == -torch.inf).all())]
    try:
        attention(*(x.double() for x in tensors), block_map=block_map, impl="triton")
    except ImplementationError as error:
        yield "float64", str(error)
    for dtype, most in ((torch.float32, 128), (torch.float16, 256)):
        wide = [normal(1, 2, 1, most + 1, dtype=dtype) for _ in range(3)]
        try:
            attention(*wide, impl="triton")
        except ImplementationError as error:
            yield f"wide {str(dtype)[6:]}", str(error)
    result = attention(*tensors, block_map=block_map, impl="triton")
    first = torch.autograd.grad(result.output.sum(), query, create_graph=True)[0]
    try:
        first.sum().backward()
    except RuntimeError as error:
        yield "twice", str(error)


def main() -> None:
    torch.set_num_threads(1)
    # memory that is handed out unwritten comes filled with NaN
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True)
    found = {name: case() for name, case in CASES.items()}
    json.dump({"differences": found, "facts": dict(facts())}, sys.stdout)


if __name__ == "__main__":
    main()
