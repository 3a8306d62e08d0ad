"""Triton implementation of the engine: flash-style attention over lists of blocks, forward and backward.

Tokens are taken in the map's order by gathering their rows inside the kernels: no permuted copy of any tensor is made
or kept for the backward pass, and the only cost is an index of 4 bytes for each row that is loaded.

float16 and bfloat16 accumulate in float32. Products of float32 take three passes of TF32 on NVIDIA's chips ("tf32x3",
about as exact as float32) and are float32 on AMD's. The gradient of a bias is summed with atomics in float32, so its
last bits may differ from run to run; all other results do not. Runs interpreted on a CPU with TRITON_INTERPRET=1.

A key that is NaN or infinite leaves the output and lse of the queries that do not see it alone, as in the reference. A
value that is reaches the queries of the partial blocks that list it, whether they see it or not (the weights there are
0, and 0 NaN is NaN); in the reference it reaches every query.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..tiles import on_device
from .bias import Bias, DenseBias, TableBias, TermsBias
from .blockmap import BlockMap
from .triton_lists import MapArrays, map_arrays
from .triton_prepare import prepare_kernel
from .triton_tiles import DENSE_BIAS, INDEXED_BIAS, NO_BIAS, Entries, Lists, Rows, Sizes, shape_of
from .triton_tuning import launch

__all__ = ["run"]

LOG2E = 1 / math.log(2)


def run(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    block_map: BlockMap,
    scale: float,
    bias: Bias | None,
    *,
    tune: bool = True,
) -> tuple[Tensor, Tensor]:
    """(output, lse) over the mapped tokens, differentiable once through both.

    tune : measure the few tuning choices at the first call of a shape; False takes the first one that fits
    """
    if scale <= 0:
        # the kernels scale a peak after taking it
        query, scale = (-query, -scale) if scale < 0 else (query * 0, 1.0)
    tensor, entries = _bias_arguments(bias)
    return _Attention.apply(query, key, value, tensor, entries, block_map, scale, tune)  # type: ignore[no-any-return, no-untyped-call]


def _bias_arguments(bias: Bias | None) -> tuple[Tensor | None, Entries | None]:
    """The tensor of numbers that gradients flow to, and how to index it (its pointer and strides are set later)."""
    if bias is None:
        return None, None
    if isinstance(bias, DenseBias):
        return bias.tensor, None
    if isinstance(bias, TableBias):
        axes: tuple[tuple[int, int, int], ...] = ((0, bias.table.shape[1], bias.offset),)
        indices = bias.query_index.contiguous(), bias.key_index.contiguous()
        return bias.table.contiguous()[None, None], Entries(None, 0, 0, 0, 0, *indices, axes)
    if isinstance(bias, TermsBias):
        batch = max(term.shape[0] for term in bias.terms)
        terms = [term.expand(batch, -1, -1, -1) for term in bias.terms]
        ends = [0]
        for term in terms:
            ends.append(ends[-1] + term.shape[3])
        axes = tuple(
            (start, term.shape[3], offset) for start, term, offset in zip(ends, terms, bias.offsets, strict=False)
        )
        indices = bias.query_index.contiguous(), bias.key_index.contiguous()
        return torch.cat(terms, -1), Entries(None, 0, 0, 0, 0, *indices, axes)
    raise TypeError(f"bias: expected DenseBias, TableBias or TermsBias, got {type(bias).__name__}")


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        numbers: Tensor | None,
        entries: Entries | None,
        block_map: BlockMap,
        scale: float,
        tune: bool,
    ) -> tuple[Tensor, Tensor]:
        query, key, value = (_readable(tensor) for tensor in (query, key, value))
        call = _Call(query, key, value, numbers, entries, block_map, scale, tune)
        output = query.new_empty(*query.shape[:3], value.shape[3])
        # neighbouring queries side by side
        lse = query.new_empty(query.shape[0], query.shape[2], query.shape[1], dtype=torch.float32).transpose(1, 2)
        call.start(
            "forward",
            call.arrays.by_query,
            query=_rows(query),
            key=_rows(key),
            value=_rows(value),
            output=_rows(output),
            lse=_rows(lse),
        )
        ctx.save_for_backward(query, key, value, numbers, output, lse)
        ctx.settings = entries, block_map, scale, tune
        return output, lse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, lse_gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        query, key, value, numbers, output, lse = ctx.saved_tensors
        entries, block_map, scale, tune = ctx.settings
        if ctx.needs_input_grad[3]:
            # its gradient has the same strides
            numbers = numbers.contiguous()
        call = _Call(query, key, value, numbers, entries, block_map, scale, tune)
        gradient = _readable(gradient)
        peaks, deltas = call.prepare(output, gradient, lse, lse_gradient)
        inputs = {
            "query": _rows(query),
            "key": _rows(key),
            "value": _rows(value),
            "gradient": _rows(gradient),
            "p_peaks": peaks,
            "p_deltas": deltas,
            "to_scale": scale,
        }
        to_query = to_key = to_value = to_numbers = None
        if ctx.needs_input_grad[0] or ctx.needs_input_grad[3]:
            to_query = torch.empty_like(query, memory_format=torch.contiguous_format)
            if ctx.needs_input_grad[3]:
                to_numbers = torch.zeros(numbers.shape, dtype=torch.float32, device=query.device)
            call.start("query", call.arrays.by_query, **inputs, to_query=_rows(to_query), p_to_bias=to_numbers)
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            to_key = torch.empty_like(key, memory_format=torch.contiguous_format)
            to_value = torch.empty_like(value, memory_format=torch.contiguous_format)
            call.start("key", call.arrays.by_key, **inputs, to_key=_rows(to_key), to_value=_rows(to_value))
        if to_numbers is not None:
            to_numbers = to_numbers.to(numbers.dtype)
        return to_query, to_key, to_value, to_numbers, None, None, None, None


def _readable(tensor: Tensor) -> Tensor:
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _rows(tensor: Tensor) -> Rows:
    return Rows(tensor, *tensor.stride()[:3])


def _extent(tensor: Tensor) -> int:
    """Elements from the first to the last of a tensor in memory."""
    return sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)) + 1


def _entries(numbers: Tensor | None, entries: Entries | None) -> Entries:
    """The bias with its tensor and strides; a size of 1 is shared."""
    if numbers is None:
        return Entries(None, 0, 0, 0, 0, None, None, ((0, 0, 0),))
    strides = [stride if size > 1 else 0 for size, stride in zip(numbers.shape, numbers.stride(), strict=True)]
    if entries is None:
        batch, head, query, key = strides
        return Entries(numbers, batch, head, query, key, None, None, ((0, 0, 0),))
    batch, query, head, _ = strides
    return entries._replace(start=numbers, batch=batch, head=head, query=query)


class _Call:
    """What the forward and the backward pass of one call share."""

    def __init__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        numbers: Tensor | None,
        entries: Entries | None,
        block_map: BlockMap,
        scale: float,
        tune: bool,
    ) -> None:
        batch, queries, heads, dim = query.shape
        _, keys, shared_heads, width = value.shape
        self.arrays: MapArrays = map_arrays(block_map, query.device)
        self.tune = tune
        self.query = query
        self.bias = _entries(numbers, entries)
        self.scale = scale * LOG2E
        self.sizes = Sizes(
            batch, heads, heads // shared_heads, queries, keys, block_map.query_blocks, block_map.key_blocks
        )
        kind = NO_BIAS if numbers is None else DENSE_BIAS if entries is None else INDEXED_BIAS
        self.shape = shape_of(
            dim,
            width,
            block_map.query_block,
            block_map.key_block,
            rule=self.arrays.kind,
            axes=self.arrays.axes,
            bias=kind.value,
            bias_axes=0 if entries is None else len(entries.axes),
            bias_wide=numbers is not None and _extent(numbers) >= 2**31,
            bytes=query.element_size(),
            hip=torch.version.hip is not None,
        )

    def start(self, name: str, lists: Lists, **arguments: Any) -> None:
        """Start kernel `name` with `arguments` and what the call holds."""
        with on_device(self.query):
            launch(
                name,
                self.shape,
                self.sizes,
                self.tune,
                lists=lists,
                rule=self.arrays.rule,
                bias=self.bias,
                scale=self.scale,
                **arguments,
            )

    def prepare(self, output: Tensor, gradient: Tensor, lse: Tensor, lse_gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Log-sum-exp in powers of 2 and delta of each slot, [batch, heads, slots]."""
        slots = self.sizes.query_blocks * self.shape.QUERY_BLOCK
        peaks, deltas = lse.new_empty(2, self.sizes.batch, self.sizes.heads, slots)
        block = min(32, triton.next_power_of_2(self.shape.QUERY_BLOCK))
        programs = peaks.numel() // self.shape.QUERY_BLOCK * triton.cdiv(self.shape.QUERY_BLOCK, block)
        if programs:
            with on_device(output):
                prepare_kernel[(programs,)](
                    _rows(output),
                    _rows(gradient),
                    _rows(lse),
                    _rows(lse_gradient),
                    peaks,
                    deltas,
                    self.arrays.rule.query_order,
                    self.sizes,
                    SHAPE=self.shape,
                    BLOCK_M=block,
                )
        return peaks, deltas
