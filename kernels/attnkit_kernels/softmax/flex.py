"""torch's FlexAttention from the same map: its block lists, and functions of a pair for the rule and the bias.

Eager on a CPU, where flex holds the whole table of scores and has no backward pass; compiled on a GPU.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, flex_attention

from .bias import Bias, DenseBias, TableBias, TermsBias
from .blockmap import BlockMap
from .rules import Boxes, Tiles
from .tensors import MapTensors, map_tensors

__all__ = ["block_mask", "run"]

Pairs = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
Scores = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def run(
    query: Tensor, key: Tensor, value: Tensor, block_map: BlockMap, scale: float, bias: Bias | None
) -> tuple[Tensor, Tensor]:
    """See `api.attention`: (output, lse) over the mapped tokens."""
    tensors = map_tensors(block_map, query.device)
    q = _slots(query, tensors.query_slots, block_map.query_order is None)
    k, v = (_slots(x, tensors.key_slots, block_map.key_order is None) for x in (key, value))
    attend: Any = _compiled() if query.device.type == "cuda" else flex_attention
    with warnings.catch_warnings():
        # eager is what a CPU is meant to run here: no compiler on the user's machine
        warnings.filterwarnings("ignore", message="flex_attention called without torch.compile")
        output, extra = attend(
            q,
            k,
            v,
            score_mod=None if bias is None else _score_mod(bias, tensors),
            block_mask=block_mask(block_map, query.device),
            scale=scale,
            enable_gqa=query.shape[2] != key.shape[2],
            return_aux=AuxRequest(lse=True),
        )
    lse = extra.lse.to(torch.float32)
    if block_map.query_order is None:
        return output[:, :, : query.shape[1]].transpose(1, 2), lse[:, :, : query.shape[1]].transpose(1, 2)
    place = torch.argsort(tensors.query_slots)[-query.shape[1] :]
    return output[:, :, place].transpose(1, 2), lse[:, :, place].transpose(1, 2)


def block_mask(block_map: BlockMap, device: torch.device | str) -> BlockMask:
    """FlexAttention's mask over the slots of `block_map` (see `query_slots`, `key_slots`), kept on the map."""
    tensors = map_tensors(block_map, device)
    held: dict[str, BlockMask] = block_map.__dict__.setdefault("_flex", {})
    name = str(tensors.device)
    if name not in held:
        shape = (block_map.batch, block_map.heads, block_map.query_blocks)
        partial, full = (_padded_lists(block_map, tensors, chosen) for chosen in (~tensors.full, tensors.full))
        held[name] = BlockMask.from_kv_blocks(
            partial[0].view(shape),
            partial[1].view(*shape, -1),
            full[0].view(shape),
            full[1].view(*shape, -1),
            BLOCK_SIZE=(block_map.query_block, block_map.key_block),
            mask_mod=_mask_mod(block_map, tensors),
            seq_lengths=(len(tensors.query_slots), len(tensors.key_slots)),
        )
    return held[name]


@cache
def _compiled() -> Callable[..., Any]:
    return torch.compile(flex_attention, dynamic=False)


def _slots(tokens: Tensor, slots: Tensor, identity: bool) -> Tensor:
    """[batch, heads, slots, dim], zeros in the padding slots."""
    planes = tokens.transpose(1, 2)
    if identity:
        missing = len(slots) - tokens.shape[1]
        return torch.nn.functional.pad(planes, (0, 0, 0, missing)) if missing else planes
    return planes[:, :, slots.clamp(min=0)].where((slots >= 0)[:, None], 0)


def _padded_lists(block_map: BlockMap, tensors: MapTensors, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Counts [rows] and columns [rows, key_blocks] of the chosen listed blocks, chosen ones first."""
    rows = len(tensors.starts) - 1
    table = torch.zeros((rows, block_map.key_blocks), dtype=torch.bool, device=tensors.device)
    table[tensors.rows[chosen].long(), tensors.columns[chosen].long()] = True
    columns = torch.argsort(table.int(), dim=1, descending=True, stable=True)
    return table.sum(1).int(), columns.int()


def _mask_mod(block_map: BlockMap, tensors: MapTensors) -> Pairs:
    """Visible pairs of slots. Compiled flex asks in the partial blocks only; eager flex asks everywhere."""
    inside = _inside(block_map, tensors)
    if tensors.device.type == "cuda":
        return inside
    listed, full = (
        torch.zeros((block_map.batch * block_map.heads * block_map.query_blocks, block_map.key_blocks)).bool()
        for _ in range(2)
    )
    at = tensors.rows.long(), tensors.columns.long()
    listed[at] = True
    full[at] = tensors.full
    row_of = _row_of(block_map)

    def visible(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        row, column = row_of(b, h, q), k // block_map.key_block
        return listed[row, column] & (full[row, column] | inside(b, h, q, k))

    return visible


def _row_of(block_map: BlockMap) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    def row_of(b: Tensor, h: Tensor, q: Tensor) -> Tensor:
        row = q // block_map.query_block
        if block_map.heads > 1:
            row = row + h * block_map.query_blocks
        if block_map.batch > 1:
            row = row + b * (block_map.heads * block_map.query_blocks)
        return row

    return row_of


def _inside(block_map: BlockMap, tensors: MapTensors) -> Pairs:
    """Visible pairs of the partial blocks."""
    query_slots, key_slots = tensors.query_slots, tensors.key_slots
    rule = block_map.rule
    if isinstance(rule, Tiles) and len(rule.bits):
        return _inside_tiles(block_map, tensors)

    # by slot, so that one look-up serves a pair; an empty box stands for a padding query
    def spread(values: Tensor, slots: Tensor, padding: int) -> Tensor:
        return values[:, slots.clamp(min=0)].where(slots >= 0, padding).int()

    padding = torch.iinfo(torch.int32).min
    if isinstance(rule, Boxes):
        low = spread(tensors.low, query_slots, 0)
        high = spread(tensors.high, query_slots, padding)
        coordinate = spread(tensors.coordinate, key_slots, padding)
    else:
        low = torch.zeros((1, len(query_slots)), dtype=torch.int32, device=tensors.device)
        high = (query_slots >= 0).int()[None]
        coordinate = (key_slots < 0).int()[None]
    real = key_slots >= 0

    def visible(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        seen = real[k]
        for axis in range(len(low)):
            seen = seen & (low[axis, q] <= coordinate[axis, k]) & (coordinate[axis, k] < high[axis, q])
        return seen

    return visible


def _inside_tiles(block_map: BlockMap, tensors: MapTensors) -> Pairs:
    bits = tensors.bits
    table = torch.zeros((len(tensors.starts) - 1, block_map.key_blocks), dtype=torch.int32, device=tensors.device)
    table[tensors.rows.long(), tensors.columns.long()] = tensors.index.clamp(min=0)
    row_of = _row_of(block_map)

    def visible(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        tile = table[row_of(b, h, q), k // block_map.key_block]
        place = k % block_map.key_block
        return ((bits[tile, q % block_map.query_block, place // 8].int() >> (place % 8)) & 1) > 0

    return visible


def _score_mod(bias: Bias, tensors: MapTensors) -> Scores:
    query_tokens, key_tokens = tensors.query_slots.clamp(min=0), tensors.key_slots.clamp(min=0)
    pair = _pair(bias)

    def added(score: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return score + pair(b, h, query_tokens[q], key_tokens[k])

    return added


def _pair(bias: Bias) -> Pairs:
    """The bias of one pair of tokens."""
    if isinstance(bias, DenseBias):
        dense = bias.tensor
        batches, heads = (size > 1 for size in dense.shape[:2])
        return lambda b, h, q, k: dense[b * batches, h * heads, q, k]
    if isinstance(bias, TableBias):
        table, query_index, key_index, offset = bias.table, bias.query_index, bias.key_index, bias.offset
        own = len(table) > 1
        return lambda b, h, q, k: table[h * own, (key_index[k] - query_index[q] + offset).clamp(0, table.shape[1] - 1)]
    if isinstance(bias, TermsBias):
        return _pair_of_terms(bias)
    raise ValueError(f"bias: flex knows DenseBias, TableBias and TermsBias, got {type(bias).__name__}")


def _pair_of_terms(bias: TermsBias) -> Pairs:
    axes = list(zip(bias.terms, bias.query_index, bias.key_index, bias.offsets, strict=True))

    def pair(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        total: Any = 0
        for term, query_index, key_index, offset in axes:
            entry = (key_index[k] - query_index[q] + offset).clamp(0, term.shape[-1] - 1)
            total = total + term[b * (len(term) > 1), q, h, entry]
        return total

    return pair
