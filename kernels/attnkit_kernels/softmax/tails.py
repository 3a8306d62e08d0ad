"""Keys outside the map that every query sees, and queries that see every key: parts merged by their lse.

So every implementation has them, whatever its kernels know.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .bias import Bias
from .blockmap import BlockMap
from .builders import prefixes
from .result import AttentionResult, merge

__all__ = ["Extras", "attend"]

Run = Callable[[Tensor, Tensor, Tensor, BlockMap, float, Bias | None], tuple[Tensor, Tensor]]
Lengths = NDArray[np.int64]


class Extras(NamedTuple):
    """Further keys [batch, extras, kv_heads, dim] that every query sees, and how many of each sample are real."""

    key: Tensor
    value: Tensor
    lengths: Lengths


def attend(
    run: Run,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    block_map: BlockMap,
    scale: float,
    bias: Bias | None,
    lengths: Lengths,
    extras: Extras | None,
) -> AttentionResult:
    """`run` over the mapped tokens, with the map's tails cut to lengths [batch] and the extras."""
    queries, keys = block_map.query_tokens, block_map.key_tokens
    if block_map.tail_queries:
        query = _cut(query, queries + lengths)
    if block_map.tail_keys:
        key, value = (_cut(x, keys + lengths) for x in (key, value))
    result = _with_tails(run, query, key, value, block_map, scale, bias, lengths)
    if extras is not None:
        more_keys, more_values = (_cut(x, extras.lengths) for x in (extras.key, extras.value))
        result = merge([result, _prefix(run, query, more_keys, more_values, block_map, scale, extras.lengths)])
    if not block_map.tail_queries or (lengths == block_map.tail_queries).all():
        return result
    real = _real(queries + lengths, query.shape[1], query.device)
    return AttentionResult(result.output.where(real[..., None, None], 0), result.lse.where(real[..., None], -torch.inf))


def _with_tails(
    run: Run,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    block_map: BlockMap,
    scale: float,
    bias: Bias | None,
    lengths: Lengths,
) -> AttentionResult:
    if not (block_map.tail_queries or block_map.tail_keys):
        return AttentionResult(*run(query, key, value, block_map, scale, bias))
    mapped, asking = query.split((block_map.query_tokens, block_map.tail_queries), 1)
    keys = block_map.key_tokens
    parts = [run(mapped, key[:, :keys], value[:, :keys], block_map.mapped, scale, bias)]
    if block_map.tail_keys:
        parts.append(_prefix(run, mapped, key[:, keys:], value[:, keys:], block_map, scale, lengths))
    grid = merge(parts)
    if not block_map.tail_queries:
        return grid
    seen = keys + lengths if block_map.tail_keys else np.full(len(lengths), keys)
    tail = _prefix(run, asking, key, value, block_map, scale, seen)
    return AttentionResult(*(torch.cat(pair, 1) for pair in zip(grid, tail, strict=True)))


def _prefix(
    run: Run, query: Tensor, key: Tensor, value: Tensor, like: BlockMap, scale: float, lengths: Lengths
) -> tuple[Tensor, Tensor]:
    seen = prefixes(lengths, query.shape[1], key.shape[1], like.query_block, like.key_block)
    return run(query, key, value, seen, scale, None)


def _real(lengths: Lengths, most: int, device: torch.device) -> Tensor:
    return torch.arange(most, device=device) < torch.from_numpy(lengths).to(device)[:, None]


def _cut(tokens: Tensor, lengths: Lengths) -> Tensor:
    """Zeros after the first lengths[b] tokens: what stands in the padding, NaN too, must not reach a product."""
    if (lengths == tokens.shape[1]).all():
        return tokens
    return tokens.where(_real(lengths, tokens.shape[1], tokens.device)[..., None, None], 0)
