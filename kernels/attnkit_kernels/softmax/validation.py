"""Checks of the arguments of `attention`, before any implementation is chosen."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .bias import Bias
from .blockmap import BlockMap

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def check_tensors(query: Any, key: Any, value: Any, names: tuple[str, str, str] = ("query", "key", "value")) -> None:
    """Raise ValueError unless the three are [batch, tokens, heads, dim] tensors that fit together."""
    for name, tensor in zip(names, (query, key, value), strict=True):
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{name}: expected a torch tensor, got {type(tensor).__name__}")
        if tensor.ndim != 4 or tensor.shape[2] < 1 or tensor.shape[3] < 1:
            raise ValueError(f"{name}: expected [batch, tokens, heads, dim], got shape {list(tensor.shape)}")
        if tensor.dtype not in DTYPES:
            taken = ", ".join(_plain(dtype) for dtype in DTYPES)
            raise ValueError(f"{name}: expected {taken}, got {_plain(tensor.dtype)}")
        for fact in ("dtype", "device"):
            if getattr(tensor, fact) != getattr(query, fact):
                first, other = _plain(getattr(query, fact)), _plain(getattr(tensor, fact))
                raise ValueError(f"{names[0]} and {name} must have one {fact}, got {first} and {other}")
    if key.shape[:3] != value.shape[:3]:
        raise ValueError(
            f"{names[1]} and {names[2]} must agree in batch, tokens and heads, "
            f"got {list(key.shape)} and {list(value.shape)}"
        )
    for what, axis in (("batch", 0), ("dim", 3)):
        sizes = query.shape[axis], key.shape[axis]
        if sizes[0] != sizes[1]:
            raise ValueError(f"{names[0]} and {names[1]} must have one {what}, got {sizes[0]} and {sizes[1]}")
    if query.shape[2] % key.shape[2]:
        raise ValueError(f"{names[0]} heads must be a multiple of kv heads, got {query.shape[2]} and {key.shape[2]}")


def check_map(block_map: Any, query: Tensor, key: Tensor) -> None:
    """Raise ValueError unless the map is one for these queries and keys."""
    if not isinstance(block_map, BlockMap):
        raise ValueError(f"block_map: expected a BlockMap, got {type(block_map).__name__}")
    for name, tensor, mapped, tail in (
        ("query", query, block_map.query_tokens, block_map.tail_queries),
        ("key", key, block_map.key_tokens, block_map.tail_keys),
    ):
        if tensor.shape[1] != mapped + tail:
            text = f"{mapped} tokens and a tail of {tail}" if tail else f"{mapped} tokens"
            raise ValueError(f"block_map: maps {text} of {name}, got {tensor.shape[1]} tokens")
    for name, size, axis in (("batch", block_map.batch, 0), ("heads", block_map.heads, 2)):
        if size not in (1, query.shape[axis]):
            raise ValueError(f"block_map: has {name} {size}, expected 1 or {query.shape[axis]} as query")


def check_bias(bias: Any, block_map: BlockMap, query: Tensor) -> None:
    """Raise ValueError unless the bias is one for the mapped queries and keys."""
    if not isinstance(bias, Bias):
        raise ValueError(f"bias: expected DenseBias, TableBias or TermsBias, got {type(bias).__name__}")
    for tensor in bias.tensors():
        if tensor.device != query.device:
            raise ValueError(f"query and bias must have one device, got {query.device} and {tensor.device}")
        if not tensor.is_floating_point():
            raise ValueError(f"bias: expected floating point tensors, got {_plain(tensor.dtype)}")
    bias.check(query.shape[0], query.shape[2], block_map.query_tokens, block_map.key_tokens)


def lengths_of(values: Any, batch: int, most: int, name: str) -> NDArray[np.int64]:
    """int64 [batch] of lengths from a tensor, array or list; all `most` for None. ValueError outside 0..most."""
    if values is None:
        return np.full(batch, most, np.int64)
    lengths = np.asarray(values.cpu() if isinstance(values, Tensor) else values)
    if lengths.shape != (batch,) or (lengths.dtype.kind not in "iu" and batch):
        raise ValueError(f"{name}: expected integers [{batch}], got {lengths.dtype} {list(lengths.shape)}")
    if batch and not 0 <= lengths.min() <= lengths.max() <= most:
        raise ValueError(f"{name}: expected 0..{most}, got {lengths.min()}..{lengths.max()}")
    return lengths.astype(np.int64)


def check_tails(block_map: BlockMap, given: bool) -> None:
    """Raise ValueError when lengths are given to tails that do not exist or differ."""
    queries, keys = block_map.tail_queries, block_map.tail_keys
    if given and not (queries or keys):
        raise ValueError("tail_lengths: the map has tails of 0 queries and 0 keys, expected none to be given")
    if given and queries and keys and queries != keys:
        raise ValueError(f"tail_lengths: one length serves both tails, got {queries} queries and {keys} keys")


def check_packed(query: Tensor) -> None:
    """Raise ValueError unless the batch is 1, as packed sequences need."""
    if query.shape[0] != 1:
        raise ValueError(f"cu_seqlens: expected batch 1 of packed sequences, got {query.shape[0]}")


def _plain(value: object) -> str:
    return str(value).removeprefix("torch.")
