"""Packed sequences: dense, causal and sliding attention inside each of many sequences that lie one after the other."""

from __future__ import annotations

from typing import Any

import numpy as np

from .blockmap import BlockMap
from .builders import from_boxes, sliding_within
from .rules import Boxes

__all__ = ["pack"]


def pack(block_map: BlockMap, cu_seqlens: Any) -> BlockMap:
    """The map of `block_map`'s kind inside each sequence [cu_seqlens[i], cu_seqlens[i + 1]).

    cu_seqlens : integers [sequences + 1], array or tensor, from 0 to the number of tokens, not falling
    The result is of kind "map": it is no longer dense or causal over all tokens. Keep it where one packing serves many
    calls of `attention`. ValueError for a map that is not dense, causal or sliding, that maps queries and keys of
    different number, or has orders or tails.
    """
    if block_map.kind == "map" or block_map.query_order is not None or block_map.key_order is not None:
        raise ValueError(f"cu_seqlens: needs a dense, causal or sliding map without order, got kind {block_map.kind!r}")
    if block_map.batch * block_map.heads > 1 or block_map.tail_queries or block_map.tail_keys:
        raise ValueError(
            "cu_seqlens: needs a map without tails shared by all samples and heads, "
            f"got tails {block_map.tail_queries} and {block_map.tail_keys}, {block_map.batch} x {block_map.heads} maps"
        )
    tokens = block_map.query_tokens
    if tokens != block_map.key_tokens:
        raise ValueError(f"cu_seqlens: needs as many queries as keys, got {tokens} and {block_map.key_tokens}")
    bounds = np.asarray(cu_seqlens.cpu() if hasattr(cu_seqlens, "cpu") else cu_seqlens)
    if bounds.ndim != 1 or bounds.dtype.kind not in "iu" or not len(bounds):
        raise ValueError(f"cu_seqlens: expected integers [sequences + 1], got {bounds.dtype} {list(bounds.shape)}")
    bounds = bounds.astype(np.int64)
    if bounds[0] != 0 or bounds[-1] != tokens or (np.diff(bounds) < 0).any():
        raise ValueError(f"cu_seqlens: expected to rise from 0 to {tokens} tokens, got {bounds[0]} to {bounds[-1]}")
    lengths = np.diff(bounds)
    first, end = np.repeat(bounds[:-1], lengths), np.repeat(bounds[1:], lengths)
    shape = (block_map.query_block, block_map.key_block)
    if block_map.window is not None:
        return sliding_within(first, end, block_map.window, block_map.sink, block_map.causal, *shape)
    at = np.arange(tokens)
    high = at + 1 if block_map.kind == "causal" else end
    return from_boxes(Boxes(first[None], high[None], at[None]), *shape)
