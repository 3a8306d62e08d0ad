"""What routed patterns share: checks, means of blocks, and ranks that do not depend on the device's sort."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .canvas import Canvas, check_canvas

__all__ = ["block_means", "check_routed", "exact", "ranks"]


def check_routed(query: Tensor, key: Tensor, canvas: Canvas | None = None) -> None:
    """Raise ValueError unless these are a query and key of one attention, and of this canvas if one is given."""
    for name, tensor in (("query", query), ("key", key)):
        if tensor.ndim != 4:
            raise ValueError(f"{name}: expected [batch, tokens, heads, dim], got shape {list(tensor.shape)}")
    for what, axis in (("batch", 0), ("dim", 3)):
        if query.shape[axis] != key.shape[axis]:
            sizes = query.shape[axis], key.shape[axis]
            raise ValueError(f"query and key must have one {what}, got {sizes[0]} and {sizes[1]}")
    if query.shape[2] % key.shape[2]:
        raise ValueError(f"query heads must be a multiple of kv heads, got {query.shape[2]} and {key.shape[2]}")
    if canvas is not None:
        tokens = math.prod(check_canvas(canvas))
        for name, tensor in (("query", query), ("key", key)):
            if tensor.shape[1] != tokens:
                raise ValueError(f"{name}: canvas {canvas} has {tokens} tokens, got {tensor.shape[1]}")


def exact(tensor: Tensor) -> Tensor:
    """`tensor` detached, in float32 (float64 stays): half precision would choose other blocks."""
    tensor = tensor.detach()
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def block_means(tokens: Tensor, block: int) -> Tensor:
    """Means [batch, heads, blocks, dim] of runs of `block` tokens [batch, tokens, heads, dim], the last shorter."""
    batch, count, heads, dim = tokens.shape
    blocks = -(-count // block)
    padded = tokens.new_zeros(batch, blocks * block, heads, dim)
    padded[:, :count] = tokens
    sizes = torch.full((blocks, 1), float(block), dtype=tokens.dtype, device=tokens.device)
    if blocks:
        sizes[-1] = count - (blocks - 1) * block
    return padded.view(batch, blocks, block, heads, dim).sum(2).transpose(1, 2) / sizes


def ranks(scores: Tensor) -> Tensor:
    """int64 of the shape of `scores`, the place of each in its sorted row: 0 the largest, ties to the lower index."""
    order = scores.sort(dim=-1, descending=True, stable=True).indices
    places = torch.arange(scores.shape[-1], device=scores.device).expand_as(order)
    return torch.empty_like(order).scatter_(-1, order, places)
