"""The CPU's fast path: rows of the map that share their keys become one call of torch's own fused attention.

Keys that lie side by side are handed over as a view, others are gathered; only rows with partial blocks carry a mask.
Memory grows with the visited blocks of the largest row, never with N x N. With a bias, and where a gradient flows
through lse, a row is computed by plain differentiable operations instead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .alike import alike
from .bias import Bias
from .blockmap import BlockMap
from .reference import softmax_sum
from .tensors import map_tensors

__all__ = ["run"]

# masks of partial blocks, one byte a pair, are kept with their map up to this size
KEPT_MASK_BYTES = 128_000_000

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


@dataclass
class Group:
    """Query blocks of one list of the map that see the same key blocks."""

    batch: int
    head: int
    rows: Tensor
    columns: Tensor
    # bounds of the rows and of the columns where they lie side by side
    row_run: tuple[int, int] | None
    run: tuple[int, int] | None
    # places in the map's lists, one row of them per query block; None when all are full
    listed: np.ndarray | None
    mask: Tensor | None = None


def run(
    query: Tensor, key: Tensor, value: Tensor, block_map: BlockMap, scale: float, bias: Bias | None
) -> tuple[Tensor, Tensor]:
    """(output, lse) over the mapped tokens, differentiable through both; see `reference.run` for the contract."""
    with torch.autocast(query.device.type, enabled=False):
        groups = _groups(block_map)
        q, k, v = (_slots(x, block_map, side) for x, side in ((query, "query"), (key, "key"), (value, "key")))
        repeat = q.shape[1] // k.shape[1]
        if repeat > 1:
            k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
        fused = bias is None and query.device.type == "cpu" and value.shape[3] == query.shape[3]
        if fused:
            output, lse = _Fused.apply(q, k, v, block_map, groups, scale)
        else:
            output, lse = _plain(q, k, v, block_map, groups, scale, bias)
        tokens = _tokens(block_map, query.device)
        output, lse = output.transpose(1, 2), lse.transpose(1, 2)
        if tokens is not None:
            output, lse = output.index_select(1, tokens), lse.index_select(1, tokens)
        return output.to(query.dtype), lse


def _slots(tensor: Tensor, block_map: BlockMap, side: str) -> Tensor:
    """[batch, tokens, heads, dim] as [batch, heads, slots, dim]; padding slots are zero and bring no NaN.

    A block of it is one piece of memory: of all heads, where they share their lists, else of its head.
    """
    slots = getattr(block_map, f"{side}_slots")()
    order = getattr(block_map, f"{side}_order")
    if order is not None or len(slots) != tensor.shape[1]:
        places: Tensor = getattr(map_tensors(block_map, tensor.device), f"{side}_slots")
        if tensor.shape[1]:
            tensor = tensor.index_select(1, places.clamp(min=0))
            if (slots < 0).any():
                tensor = tensor.masked_fill((places < 0)[:, None, None], 0)
        else:
            tensor = tensor.new_zeros(tensor.shape[0], len(slots), *tensor.shape[2:])
    swapped = tensor.transpose(1, 2)
    if block_map.heads > 1:
        return swapped.contiguous()
    return swapped if swapped.is_contiguous() else tensor.contiguous().transpose(1, 2)


def _tokens(block_map: BlockMap, device: torch.device) -> Tensor | None:
    """The query slot of each token, or None where slots are tokens."""
    slots = block_map.query_slots()
    if block_map.query_order is None and len(slots) == block_map.query_tokens:
        return None
    held: dict[str, Tensor] = block_map.__dict__.setdefault("_query_places", {})
    if str(device) not in held:
        places = np.empty(block_map.query_tokens, np.int64)
        places[slots[slots >= 0]] = np.nonzero(slots >= 0)[0]
        held[str(device)] = torch.from_numpy(places).to(device)
    return held[str(device)]


def _groups(block_map: BlockMap) -> list[Group]:
    if "_groups" not in block_map.__dict__:
        found = [
            group
            for batch in range(block_map.batch)
            for head in range(block_map.heads)
            for group in _groups_of(block_map, batch, head)
        ]
        block_map.__dict__["_groups"] = found
        _keep_masks(block_map, found)
    groups: list[Group] = block_map.__dict__["_groups"]
    return groups


def _groups_of(block_map: BlockMap, batch: int, head: int) -> list[Group]:
    base = (batch * block_map.heads + head) * block_map.query_blocks
    starts = block_map.starts
    found: list[Group] = []
    for rows in alike(block_map, batch, head):
        low, high = int(starts[base + rows[0]]), int(starts[base + rows[0] + 1])
        columns = block_map.columns[low:high].astype(np.int64)
        listed = starts[base + np.array(rows)][:, None] + np.arange(high - low)
        full = block_map.full[low:high].all()
        found.append(
            Group(
                batch, head, torch.tensor(rows), torch.from_numpy(columns), _side_by_side(rows),
                _side_by_side(columns), None if full else listed,
            )
        )  # fmt: skip
    return found


def _side_by_side(blocks: Sequence[int] | np.ndarray) -> tuple[int, int] | None:
    if len(blocks) and int(blocks[-1]) - int(blocks[0]) + 1 == len(blocks):
        return int(blocks[0]), int(blocks[-1]) + 1
    return None


def _keep_masks(block_map: BlockMap, groups: Sequence[Group]) -> None:
    masked = [group for group in groups if group.listed is not None]
    pairs = block_map.query_block * block_map.key_block
    if sum(group.listed.size for group in masked if group.listed is not None) * pairs <= KEPT_MASK_BYTES:
        for group in masked:
            group.mask = _visible(block_map, group)


def _visible(block_map: BlockMap, group: Group) -> Tensor | None:
    """Which pairs of a group are visible, bool [queries, keys]; None when all are."""
    if group.mask is not None or group.listed is None:
        return group.mask
    blocks, width = group.listed.shape
    tiles = block_map.tiles(group.listed.reshape(-1))
    tiles = tiles.reshape(blocks, width, block_map.query_block, block_map.key_block).transpose(0, 2, 1, 3)
    return torch.from_numpy(np.ascontiguousarray(tiles).reshape(blocks * block_map.query_block, -1))


def _own(tensor: Tensor, block_map: BlockMap, group: Group) -> Tensor:
    """Of [batch, heads, slots, ...] the batch and the head of a group."""
    if block_map.batch > 1:
        tensor = tensor[group.batch : group.batch + 1]
    if block_map.heads > 1:
        tensor = tensor[:, group.head : group.head + 1]
    return tensor


def _blocks(tensor: Tensor, size: int) -> tuple[Tensor, int]:
    """[batch, heads, slots, ...] cut into blocks, with the axis of the blocks: the one that keeps a block together."""
    if tensor.ndim == 4 and not tensor.is_contiguous():
        return tensor.transpose(1, 2).unflatten(1, (-1, size)), 1
    return tensor.unflatten(2, (-1, size)), 2


def _part(tensor: Tensor, block_map: BlockMap, group: Group, side: str, scratch: Tensor | None = None) -> Tensor:
    """The slots of a group, [its batch, its heads, slots, ...]; a view where they lie side by side, else gathered."""
    tensor = _own(tensor, block_map, group)
    size, chosen, run = _side(block_map, group, side)
    if run is not None:
        return tensor[:, :, run[0] * size : run[1] * size]
    blocks, axis = _blocks(tensor, size)
    if scratch is None:
        found = blocks.index_select(axis, chosen.to(tensor.device))
    else:
        shape = (*blocks.shape[:axis], len(chosen), *blocks.shape[axis + 1 :])
        found = torch.index_select(blocks, axis, chosen, out=scratch[: math.prod(shape)].view(shape))
    found = found.flatten(axis, axis + 1)
    return found.transpose(1, 2) if axis == 1 else found


def _side(block_map: BlockMap, group: Group, side: str) -> tuple[int, Tensor, tuple[int, int] | None]:
    if side == "query":
        return block_map.query_block, group.rows, group.row_run
    return block_map.key_block, group.columns, group.run


def _put(total: Tensor, part: Tensor, block_map: BlockMap, group: Group) -> None:
    """Write what belongs to the queries of a group."""
    total = _own(total, block_map, group)
    size = block_map.query_block
    if group.row_run is not None:
        total[:, :, group.row_run[0] * size : group.row_run[1] * size] = part
        return
    blocks, axis = _blocks(total, size)
    blocks.index_copy_(axis, group.rows, (part if axis == 2 else part.transpose(1, 2)).unflatten(axis, (-1, size)))


def _add(total: Tensor, part: Tensor, block_map: BlockMap, group: Group) -> None:
    """Add gradients of a group's keys to those of all."""
    total = _own(total, block_map, group)
    size = block_map.key_block
    if group.run is not None:
        total[:, :, group.run[0] * size : group.run[1] * size] += part
        return
    blocks, axis = _blocks(total, size)
    blocks.index_add_(axis, group.columns, (part if axis == 2 else part.transpose(1, 2)).unflatten(axis, (-1, size)))


def _scratch(k: Tensor, block_map: BlockMap, groups: Sequence[Group]) -> list[Tensor]:
    """Room for the gathered keys and values of the longest list, taken once: fresh memory costs more than the copy."""
    longest = max((len(group.columns) for group in groups if group.run is None), default=0)
    size = k[:, :, : longest * block_map.key_block].numel()
    return [k.new_empty(size), k.new_empty(size)]


def _added(visible: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    if visible is None:
        return None
    return torch.zeros(visible.shape, dtype=dtype).masked_fill_(~visible, -torch.inf)


class _Fused(torch.autograd.Function):
    """Attention over [batch, heads, slots, dim] by torch's fused CPU kernels, a group of rows at a time."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        q, k, v, block_map, groups, scale = arguments
        lse_dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
        output = torch.zeros_like(q)
        scratch = _scratch(k, block_map, groups)
        lse = torch.full(q.shape[:3], -torch.inf, dtype=lse_dtype)
        for group in groups:
            if not len(group.columns) or not q.numel():
                continue
            visible = _visible(block_map, group)
            keys, values = (_part(x, block_map, group, "key", room) for x, room in zip((k, v), scratch, strict=True))
            part, part_lse = _forward(
                _part(q, block_map, group, "query"), keys, values, attn_mask=_added(visible, q.dtype), scale=scale
            )
            if visible is not None:
                # torch gives such rows an lse of 0
                blind = ~visible.any(-1)
                part, part_lse = part.masked_fill(blind[:, None], 0), part_lse.masked_fill(blind, -torch.inf)
            _put(output, part, block_map, group)
            _put(lse, part_lse.to(lse_dtype), block_map, group)
        ctx.save_for_backward(q, k, v, output, lse)
        ctx.about = (block_map, groups, scale)
        ctx.set_materialize_grads(False)
        return output, lse

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        q, k, v, output, lse = ctx.saved_tensors
        block_map, groups, scale = ctx.about
        d_output, d_lse = gradients
        if d_lse is not None:
            return (*_plain_gradients((q, k, v), block_map, groups, scale, d_output, d_lse), None, None, None)
        if d_output is None:
            return (None,) * 6
        d_q, d_k, d_v = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
        scratch = _scratch(k, block_map, groups)
        for group in groups:
            if not len(group.columns) or not q.numel():
                continue
            visible = _visible(block_map, group)
            keys, values = (_part(x, block_map, group, "key", room) for x, room in zip((k, v), scratch, strict=True))
            own = [_part(x, block_map, group, "query") for x in (d_output, q, output, lse)]
            if visible is not None:
                # exp(score - lse) of a row that sees nothing must not become exp(-inf + inf)
                own[3] = own[3].masked_fill(~visible.any(-1), 0)
            part_q, part_k, part_v = _backward(
                own[0], own[1], keys, values, own[2], own[3], 0.0, False,
                attn_mask=_added(visible, q.dtype), scale=scale,
            )  # fmt: skip
            _put(d_q, part_q, block_map, group)
            _add(d_k, part_k, block_map, group)
            _add(d_v, part_v, block_map, group)
        return d_q, d_k, d_v, None, None, None


def _plain_gradients(
    tensors: tuple[Tensor, Tensor, Tensor],
    block_map: BlockMap,
    groups: Sequence[Group],
    scale: float,
    d_output: Tensor | None,
    d_lse: Tensor,
) -> tuple[Tensor, ...]:
    with torch.enable_grad():
        q, k, v = own = [tensor.detach().requires_grad_() for tensor in tensors]
        output, lse = _plain(q, k, v, block_map, groups, scale, None)
        # the gradient of a row that sees nothing, whose lse is -inf whatever comes in, is 0
        d_lse = d_lse.masked_fill(lse == -torch.inf, 0).to(lse.dtype)
        d_output = torch.zeros_like(output) if d_output is None else d_output.to(output.dtype)
        return torch.autograd.grad((output, lse), own, (d_output, d_lse))


def _plain(
    q: Tensor, k: Tensor, v: Tensor, block_map: BlockMap, groups: Sequence[Group], scale: float, bias: Bias | None
) -> tuple[Tensor, Tensor]:
    """The same by differentiable operations; rows are computed again in the backward pass, so no scores are kept."""
    batch, heads = q.shape[:2]
    dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
    tokens = map_tensors(block_map, q.device) if bias is not None else None
    found: dict[tuple[int, int], list[tuple[Tensor, Tensor, Tensor]]] = {}
    for group in groups:

        def part(q: Tensor, k: Tensor, v: Tensor, group: Group = group) -> tuple[Tensor, Tensor]:
            own = _part(q, block_map, group, "query").to(dtype)
            keys, values = (_part(x, block_map, group, "key").to(dtype) for x in (k, v))
            scores = own @ keys.mT * scale
            if bias is not None and tokens is not None:
                queries = tokens.query_slots.unflatten(0, (-1, block_map.query_block))[group.rows].flatten()
                seen = tokens.key_slots.unflatten(0, (-1, block_map.key_block))[group.columns].flatten()
                added = bias.tile(queries.clamp(min=0), seen.clamp(min=0)).to(dtype).expand(batch, heads, -1, -1)
                scores = scores + _own(added, block_map, group)
            visible = _visible(block_map, group)
            shown = torch.ones(scores.shape[-2:], dtype=torch.bool) if visible is None else visible
            return softmax_sum(scores, shown.to(scores.device), values)

        output, lse = checkpoint(part, q, k, v, use_reentrant=False) if torch.is_grad_enabled() else part(q, k, v)
        found.setdefault((group.batch, group.head), []).append((group.rows, output, lse))
    if not found:
        return q.new_zeros(*q.shape[:3], v.shape[3]).to(dtype), q.new_full(q.shape[:3], -torch.inf).to(dtype)

    def whole(place: int) -> Tensor:
        lists = []
        for parts in found.values():
            joined = torch.cat([part[place] for part in parts], 2).unflatten(2, (-1, block_map.query_block))
            order = torch.cat([part[0] for part in parts]).argsort().to(joined.device)
            lists.append(joined.index_select(2, order).flatten(2, 3))
        heads_joined = [torch.cat(lists[at : at + block_map.heads], 1) for at in range(0, len(lists), block_map.heads)]
        return torch.cat(heads_joined, 0)

    return whole(1), whole(2)
