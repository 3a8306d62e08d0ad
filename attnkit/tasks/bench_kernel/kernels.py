"""Kernels ready to run: inputs, the call, its work in operations and bytes, and what the right answer is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from attnkit_kernels import patterns
from attnkit_kernels.softmax import BlockMap, attention, from_mask, resolve_impl
from torch import Tensor

from .operators import OPERATORS
from .plan import Case

# operations of a direction per operation of the forward pass: backward multiplies five times where forward does twice
FLOPS_OF = {"fwd": 1.0, "bwd": 2.5, "fwdbwd": 3.5}


@dataclass(frozen=True)
class Work:
    """One run. flops: of the pairs that are visible; tile_flops: of the visited tiles, counted whole; moved: bytes that
    must be read and written at least; counts: tiles of all heads and samples."""

    flops: float
    tile_flops: float | None
    moved: float
    counts: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Kernel:
    """One call that can be timed.

    run : takes `inputs`, gives the output; differentiable where it has a backward pass
    inputs : leaves; layout "tokens" is [batch, tokens, heads, dim], "heads" [batch, heads, tokens, dim]
    expected : (float64 inputs in layout "tokens", rows or None) -> right output of these rows
    pairs : scores that `expected` holds at once for all rows; rows : how many there are
    """

    run: Callable[..., Tensor]
    inputs: tuple[Tensor, ...]
    work: Work
    expected: Callable[[tuple[Tensor, ...], Tensor | None], Tensor]
    pairs: int
    rows: int
    impl: str
    layout: str = "tokens"
    map_seconds: float | None = None
    permute: Callable[[], Any] | None = None
    block_map: BlockMap | None = None
    # query, key and value in layout "tokens", for baselines
    operands: tuple[Tensor, Tensor, Tensor] | None = None
    # the same at a shape whose right answer takes at most so many scores, where rows cannot stand for the whole
    smaller: Callable[[int], tuple[Kernel, str]] | None = None

    def call(self, direction: str, seed: int = 0) -> Callable[[], Any]:
        """What is timed: the forward pass, the backward pass of one that has been done, or both."""
        if direction == "fwd":

            def forward() -> Tensor:
                with torch.no_grad():
                    return self.run(*self.inputs)

            return forward
        inputs = tuple(tensor.detach().requires_grad_() for tensor in self.inputs)
        generator = torch.Generator(inputs[0].device).manual_seed(seed)
        output = self.run(*inputs)
        upstream = torch.randn(output.shape, generator=generator, device=output.device).to(output.dtype)
        if direction == "bwd":
            return lambda: torch.autograd.grad(output, inputs, upstream, retain_graph=True)
        return lambda: torch.autograd.grad(self.run(*inputs), inputs, upstream)


def draw(case: Case, queries: int, keys: int, device: str, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """query, key and value, normally distributed, [batch, tokens, heads, dim]."""
    generator = torch.Generator(device).manual_seed(seed)
    shapes = [(queries, case.heads), (keys, case.kv_heads), (keys, case.kv_heads)]
    dtype = getattr(torch, case.dtype)
    query, key, value = (
        torch.randn(case.batch, tokens, heads, case.dim, generator=generator, device=device).to(dtype)
        for tokens, heads in shapes
    )
    return query, key, value


def static_map(case: Case) -> tuple[BlockMap, float]:
    """The map of a static pattern and the seconds of its building. ValueError for settings that do not fit."""
    pattern = patterns.pattern(case.operator, **dict(case.settings))
    start = time.perf_counter()
    block_map = pattern.block_map(case.canvas, case.query_tile, case.key_tile)
    return block_map, time.perf_counter() - start


Drawn = dict[tuple[int, int], tuple[Tensor, Tensor, Tensor]]


def check_case(case: Case, device: str) -> None:
    """ValueError where the implementation does not take the type, the device or the direction of a case."""
    if OPERATORS[case.operator].kind == "image":
        from .pictures import check_picture

        check_picture(case, device)
        return
    tiny = torch.zeros(1, 1, 1, case.dim, dtype=getattr(torch, case.dtype), device=device)
    resolve_impl(*(tiny.clone().requires_grad_(case.direction != "fwd") for _ in range(3)), impl=case.impl)


def prepare(
    case: Case,
    device: str,
    seed: int,
    made: tuple[BlockMap, float] | None = None,
    drawn: Drawn | None = None,
) -> Kernel:
    """The kernel of a case; `made` is its map where it is known, `drawn` keeps the inputs of cases of one group."""
    kind = OPERATORS[case.operator].kind
    if kind == "image":
        from .pictures import prepare_picture

        return prepare_picture(case, device, seed)
    if kind == "static":
        made = made or static_map(case)
        lengths = lengths_of(made[0])
    else:
        lengths = (case.tokens, case.tokens)
    drawn = {} if drawn is None else drawn
    if lengths not in drawn:
        drawn[lengths] = draw(case, *lengths, device, seed)
    tensors = drawn[lengths]
    impl = resolve_impl(*(one.detach().requires_grad_(case.direction != "fwd") for one in tensors), impl=case.impl)
    if kind == "variant":
        from .compositions import prepare_composition

        return prepare_composition(case, tensors, impl, seed)
    block_map, seconds = made or routed_map(case, tensors)
    return over_map(case, tensors, block_map, impl, seconds)


def routed_map(case: Case, tensors: tuple[Tensor, Tensor, Tensor]) -> tuple[BlockMap, float]:
    """The map that a routed pattern makes of query and key, and the seconds of its second making."""
    pattern = patterns.pattern(case.operator, **dict(case.settings))
    for _ in range(2):
        start = time.perf_counter()
        block_map = pattern.block_map(tensors[0], tensors[1], canvas=case.canvas)
        seconds = time.perf_counter() - start
    return block_map, seconds


def over_map(
    case: Case, tensors: tuple[Tensor, Tensor, Tensor], block_map: BlockMap, impl: str, map_seconds: float | None
) -> Kernel:
    """Attention over a block map by one implementation."""

    def run(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return attention(query, key, value, block_map=block_map, impl=impl).output

    return Kernel(
        run,
        tensors,
        work_of(case, block_map),
        truth_of(block_map),
        case.batch * case.heads * tensors[0].shape[1] * tensors[1].shape[1],
        tensors[0].shape[1],
        impl,
        map_seconds=map_seconds,
        permute=permutation(tensors, block_map),
        block_map=block_map,
        operands=tensors,
    )


def lengths_of(block_map: BlockMap) -> tuple[int, int]:
    """Queries and keys with the tails."""
    return block_map.query_tokens + block_map.tail_queries, block_map.key_tokens + block_map.tail_keys


def pairs_of(block_map: BlockMap, batch: int, heads: int) -> int:
    """Visible pairs of `batch` samples and `heads` heads, tails included."""
    shared = (batch // block_map.batch) * (heads // block_map.heads)
    _, keys = lengths_of(block_map)
    tails = block_map.tail_queries * keys + block_map.query_tokens * block_map.tail_keys
    return block_map.visible_pairs() * shared + tails * batch * heads


def work_of(case: Case, block_map: BlockMap) -> Work:
    """The work of an attention over a map: 4 * dim operations for a pair, forward."""
    shared = (case.batch // block_map.batch) * (case.heads // block_map.heads)
    queries, keys = lengths_of(block_map)
    pairs = pairs_of(block_map, case.batch, case.heads)
    tails = pairs - block_map.visible_pairs() * shared
    slots = block_map.visited * block_map.query_block * block_map.key_block * shared + tails
    factor = 4.0 * case.dim * FLOPS_OF[case.direction]
    counts = {
        "visited": block_map.visited * shared,
        "full": block_map.full_count * shared,
        "partial": block_map.partial_count * shared,
        "total": block_map.total * shared,
        "density": block_map.density,
        "rows": len(block_map.starts[1:]) * shared,
        "query_block": block_map.query_block,
        "key_block": block_map.key_block,
    }
    return Work(pairs * factor, slots * factor, moved_of(case, queries, keys), counts)


def moved_of(case: Case, queries: int, keys: int) -> float:
    """Bytes that an attention reads and writes at least: each tensor once a pass."""
    size = torch.empty(0, dtype=getattr(torch, case.dtype)).element_size()
    rows = case.batch * queries * case.heads
    query = size * rows * case.dim
    key = size * case.batch * keys * case.kv_heads * case.dim
    lse = rows * max(size, 4)
    forward = 2 * query + 2 * key + lse
    # backward reads query, key, value, output, its gradient and lse; it writes three gradients
    backward = 4 * query + 4 * key + lse
    return float({"fwd": forward, "bwd": backward, "fwdbwd": forward + backward}[case.direction])


def truth_of(block_map: BlockMap) -> Callable[[tuple[Tensor, ...], Tensor | None], Tensor]:
    """The reference over a map, for all rows or for some of them against all keys."""

    def expected(tensors: tuple[Tensor, ...], rows: Tensor | None) -> Tensor:
        query, key, value = tensors
        shown = block_map
        if rows is not None:
            query = query[:, rows]
            shown = from_mask(visible_rows(block_map, rows.cpu().numpy()), len(rows), key.shape[1])
        return attention(query, key, value, block_map=shown, impl="reference").output

    return expected


def visible_rows(block_map: BlockMap, rows: np.ndarray) -> np.ndarray:
    """bool [batch, heads, rows, keys]: what these queries see, in token order, tails included."""
    _, keys = lengths_of(block_map)
    seen = np.zeros((block_map.batch * block_map.heads, len(rows), keys), np.bool_)
    seen[:, :, block_map.key_tokens :] = True
    seen[:, rows >= block_map.query_tokens] = True
    slots = block_map.query_slots()
    slot_of = np.full(block_map.query_tokens, -1)
    slot_of[slots[slots >= 0]] = np.flatnonzero(slots >= 0)
    key_of = block_map.key_slots().reshape(-1, block_map.key_block)
    for at in np.flatnonzero(rows < block_map.query_tokens):
        block, place = divmod(int(slot_of[rows[at]]), block_map.query_block)
        for grid in range(len(seen)):
            row = grid * block_map.query_blocks + block
            listed = np.arange(block_map.starts[row], block_map.starts[row + 1])
            full = block_map.full[listed]
            seen[grid, at, key_of[block_map.columns[listed[full]]].ravel()] = True
            if (~full).any():
                tiles = block_map.tiles(listed[~full])[:, place]
                tokens = key_of[block_map.columns[listed[~full]]]
                seen[grid, at, tokens[tiles]] = True
    return seen.reshape(block_map.batch, block_map.heads, len(rows), keys)


def permutation(tensors: tuple[Tensor, Tensor, Tensor], block_map: BlockMap) -> Callable[[], Any] | None:
    """Gathering query, key and value into the order of a map and the output back, or None where there is no order."""
    if block_map.query_order is None and block_map.key_order is None:
        return None
    query, key, value = (tensor.detach() for tensor in tensors)
    into, source = (
        torch.from_numpy(np.maximum(slots, 0)).to(query.device)
        for slots in (block_map.query_slots(), block_map.key_slots())
    )
    slots = block_map.query_slots()
    back = torch.from_numpy(np.argsort(slots, kind="stable")[np.count_nonzero(slots < 0) :].copy()).to(query.device)

    def run() -> Tensor:
        key.index_select(1, source)
        value.index_select(1, source)
        return query.index_select(1, into).index_select(1, back)

    return run
