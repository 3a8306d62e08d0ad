"""Softmax attention over a block map: the public function."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from ..dispatch import Impl, ImplementationError, Operator, takes_flex, takes_reference, takes_triton
from . import reference, validation
from .bias import Bias
from .blockmap import BlockMap
from .builders import dense
from .packed import pack
from .result import AttentionResult
from .tails import Extras, attend

__all__ = ["OPERATOR", "attention", "resolve_impl"]

OPERATOR = Operator(
    __package__,
    "attention",
    {
        Impl.TRITON: takes_triton,
        Impl.TORCH: takes_reference,
        Impl.REFERENCE: takes_reference,
        Impl.FLEX: takes_flex,
    },
)
# dims that the triton kernels take; wider ones leave a thread no registers to multiply with
TRITON_DIMS = {torch.float32: 128, torch.float16: 256, torch.bfloat16: 256}


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    block_map: BlockMap | None = None,
    scale: float | None = None,
    bias: Bias | None = None,
    extra_key: Tensor | None = None,
    extra_value: Tensor | None = None,
    extra_lengths: Any = None,
    tail_lengths: Any = None,
    cu_seqlens: Any = None,
    impl: str | Impl = "auto",
) -> AttentionResult:
    """Softmax attention where each query sees the keys that a block map shows it.

    Parameters
    ----------
    query : [batch, queries, heads, dim]; several axes of tokens are flattened row-major
    key, value : [batch, keys, kv_heads, dim], value may have a dim of its own; kv_heads divides heads
    block_map : which pairs are visible; None is all of them. Its tails are the tokens after the mapped ones
    scale : factor of the scores, default dim ** -0.5
    bias : added to the scaled scores of the mapped tokens: DenseBias, TableBias or TermsBias
    extra_key, extra_value : [batch, extras, kv_heads, dim], further keys that every query sees, without bias
    extra_lengths : integers [batch], the extras of each sample that are real; default all
    tail_lengths : integers [batch], the same for the map's tails; queries beyond have output 0 and lse -inf
    cu_seqlens : integers [sequences + 1], bounds of sequences packed into batch 1, each attending to itself; with a
        dense, causal or sliding map (`pack` makes the map once for many calls)
    impl : auto, reference, torch, triton or flex (flex on a CPU: forward only)

    Returns
    -------
    AttentionResult(output [batch, queries, heads, value dim], lse [batch, queries, heads]). output has the dtype of
    query; lse is float32 (float64 for float64), natural logarithm. Gradients flow through both. A query that sees
    nothing has output 0 and lse -inf; no queries or no keys are allowed.

    Raises
    ------
    ValueError for arguments that do not fit together, ImplementationError (a ValueError) for an `impl` that cannot.

    Notes
    -----
    output_i = sum_j exp(s_ij - lse_i) value_j over visible j, s_ij = scale query_i . key_j + bias_ij. Whatever stands
    in padding (beyond a length, or in a padding slot), NaN too, has no effect.

    >>> import torch
    >>> from attnkit_kernels.softmax import causal
    >>> tokens = torch.zeros(1, 5, 2, 4)
    >>> output, lse = attention(tokens, tokens, tokens, block_map=causal(5), impl="reference")
    >>> lse[0, :, 0].exp().round().int().tolist()
    [1, 2, 3, 4, 5]
    """
    validation.check_tensors(query, key, value)
    extras = _extras(query, extra_key, extra_value, extra_lengths)
    if block_map is None:
        block_map = dense(query.shape[1], key.shape[1])
    validation.check_map(block_map, query, key)
    validation.check_tails(block_map, tail_lengths is not None)
    longest = max(block_map.tail_queries, block_map.tail_keys)
    tail_lengths = validation.lengths_of(tail_lengths, query.shape[0], longest, "tail_lengths")
    if cu_seqlens is not None:
        validation.check_packed(query)
        block_map = pack(block_map, cu_seqlens)
    if bias is not None:
        validation.check_bias(bias, block_map, query)
    further = (() if bias is None else bias.tensors()) + (() if extras is None else extras[:2])
    chosen = resolve_impl(query, key, value, *further, impl=impl)
    scale = query.shape[-1] ** -0.5 if scale is None else float(scale)

    def run(*arguments: Any) -> tuple[Tensor, Tensor]:
        # no kernel is started for nothing; eager torch knows what a sum over no keys is
        empty = not all(tensor.numel() for tensor in arguments[:3])
        ran = reference.run if empty else import_module(f"{__package__}.{chosen}").run
        return ran(*arguments)

    # the dtype of the inputs decides, in every implementation alike
    with torch.autocast(query.device.type, enabled=False):
        return attend(run, query, key, value, block_map, scale, bias, tail_lengths, extras)


def resolve_impl(*tensors: Tensor, impl: str | Impl = "auto") -> str:
    """Name of the implementation that `attention` runs for these tensors (query, key, value, of the bias, extras).

    For records and dry runs. ImplementationError (a ValueError) when the asked one cannot, with those that would.
    """
    chosen = OPERATOR.resolve(impl, *tensors)
    widest = max(tensors[0].shape[-1], tensors[2].shape[-1])
    if chosen == Impl.TRITON and widest > TRITON_DIMS[tensors[0].dtype]:
        if impl != Impl.AUTO:
            most, dtype = TRITON_DIMS[tensors[0].dtype], str(tensors[0].dtype).removeprefix("torch.")
            raise ImplementationError(
                f"{OPERATOR.name}: impl 'triton' takes dims up to {most} in {dtype}, got {widest}; "
                "works here: torch, reference"
            )
        chosen = Impl.TORCH
    return str(chosen.value)


def _extras(query: Tensor, key: Any, value: Any, lengths: Any) -> Extras | None:
    if (key is None) != (value is None):
        missing = "extra_key" if key is None else "extra_value"
        raise ValueError(f"extra_key and extra_value go together, got no {missing}")
    if key is None:
        if lengths is not None:
            raise ValueError("extra_lengths: expected extra_key and extra_value with it, got neither")
        return None
    validation.check_tensors(query, key, value, ("query", "extra_key", "extra_value"))
    return Extras(key, value, validation.lengths_of(lengths, query.shape[0], key.shape[1], "extra_lengths"))
