"""Biases that are added to the scaled scores: dense, by a relative table, or by terms of each axis.

Gradients flow to the tensors. An index out of a table's range may only happen at pairs that are not visible; it is
clamped there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

__all__ = ["Bias", "DenseBias", "TableBias", "TermsBias", "relative_table", "relative_terms"]


@runtime_checkable
class Bias(Protocol):
    """What the engine asks of a bias."""

    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors that gradients flow to."""

    def with_tensors(self, tensors: Sequence[Tensor]) -> Bias:
        """The same bias of other tensors, in the order of `tensors()`; for a backward pass that computes it again."""

    def check(self, batch: int, heads: int, queries: int, keys: int) -> None:
        """Raise ValueError unless the bias fits scores [batch, heads, queries, keys]."""

    def tile(self, queries: Tensor, keys: Tensor) -> Tensor:
        """[batch | 1, heads | 1, ..., q, k] for tokens [..., q] and [..., k], int64, 0 or more."""


@dataclass(frozen=True, eq=False)
class DenseBias:
    """A number for each pair: tensor [batch | 1, heads | 1, queries, keys]; an axis of stride 0 takes no memory."""

    tensor: Tensor

    def tensors(self) -> tuple[Tensor, ...]:
        """See `Bias.tensors`."""
        return (self.tensor,)

    def with_tensors(self, tensors: Sequence[Tensor]) -> DenseBias:
        """See `Bias.with_tensors`."""
        return DenseBias(*tensors)

    def check(self, batch: int, heads: int, queries: int, keys: int) -> None:
        """See `Bias.check`."""
        shape = list(self.tensor.shape)
        if len(shape) != 4 or shape[0] not in (1, batch) or shape[1] not in (1, heads) or shape[2:] != [queries, keys]:
            raise ValueError(f"bias: expected [{batch} or 1, {heads} or 1, {queries}, {keys}], got shape {shape}")

    def tile(self, queries: Tensor, keys: Tensor) -> Tensor:
        """See `Bias.tile`."""
        return self.tensor[:, :, queries[..., :, None], keys[..., None, :]]


@dataclass(frozen=True, eq=False)
class TableBias:
    """A number for each relative position.

    table : [heads | 1, entries]; entry key_index[key] - query_index[query] + offset is read
    query_index : int32 [queries]; key_index : int32 [keys]; linearised coordinates make one integer of all axes
    """

    table: Tensor
    query_index: Tensor
    key_index: Tensor
    offset: int

    def tensors(self) -> tuple[Tensor, ...]:
        """See `Bias.tensors`."""
        return (self.table,)

    def with_tensors(self, tensors: Sequence[Tensor]) -> TableBias:
        """See `Bias.with_tensors`."""
        return replace(self, table=tensors[0])

    def check(self, batch: int, heads: int, queries: int, keys: int) -> None:
        """See `Bias.check`."""
        shape = list(self.table.shape)
        if len(shape) != 2 or shape[0] not in (1, heads) or not shape[1]:
            raise ValueError(f"bias.table: expected [{heads} or 1, entries], got shape {shape}")
        _check_index("bias.query_index", self.query_index, [queries])
        _check_index("bias.key_index", self.key_index, [keys])

    def tile(self, queries: Tensor, keys: Tensor) -> Tensor:
        """See `Bias.tile`."""
        entry = self.key_index[keys][..., None, :] - self.query_index[queries][..., :, None] + self.offset
        return self.table[None, :, entry.clamp(0, self.table.shape[1] - 1)]


@dataclass(frozen=True, eq=False)
class TermsBias:
    """A sum over axes of numbers that depend on the query and on the key's relative place along that axis.

    terms : per axis [batch | 1, queries, heads, entries], made by the caller, for example query @ embeddings.T
    query_index : int32 [axes, queries]; key_index : int32 [axes, keys]; offsets : one integer per axis
    Entry key_index[axis, key] - query_index[axis, query] + offsets[axis] is read. (HaloNet, relative terms.)
    """

    terms: tuple[Tensor, ...]
    query_index: Tensor
    key_index: Tensor
    offsets: tuple[int, ...]

    def tensors(self) -> tuple[Tensor, ...]:
        """See `Bias.tensors`."""
        return tuple(self.terms)

    def with_tensors(self, tensors: Sequence[Tensor]) -> TermsBias:
        """See `Bias.with_tensors`."""
        return replace(self, terms=tuple(tensors))

    def check(self, batch: int, heads: int, queries: int, keys: int) -> None:
        """See `Bias.check`."""
        axes = len(self.terms)
        if not axes or len(self.offsets) != axes:
            raise ValueError(f"bias.offsets: expected one for each of {axes} terms, got {len(self.offsets)}")
        for axis, term in enumerate(self.terms):
            shape = list(term.shape)
            if len(shape) != 4 or shape[0] not in (1, batch) or shape[1:3] != [queries, heads] or not shape[3]:
                raise ValueError(
                    f"bias.terms[{axis}]: expected [{batch} or 1, {queries}, {heads}, entries], got shape {shape}"
                )
        _check_index("bias.query_index", self.query_index, [axes, queries])
        _check_index("bias.key_index", self.key_index, [axes, keys])

    def tile(self, queries: Tensor, keys: Tensor) -> Tensor:
        """See `Bias.tile`."""
        total: Tensor | None = None
        for term, query_index, key_index, offset in zip(
            self.terms, self.query_index, self.key_index, self.offsets, strict=True
        ):
            entry = key_index[keys][..., None, :] - query_index[queries][..., :, None] + offset
            entry = entry.clamp(0, term.shape[-1] - 1).long()
            rows = term.transpose(1, 2)[:, :, queries]
            part = rows.gather(-1, entry.expand(*rows.shape[:-1], entry.shape[-1]))
            total = part if total is None else total + part
        assert total is not None
        return total


def _check_index(name: str, index: Tensor, shape: list[int]) -> None:
    if index.dtype != torch.int32 or list(index.shape) != shape:
        raise ValueError(f"{name}: expected int32 {shape}, got {str(index.dtype)[6:]} {list(index.shape)}")


def relative_table(table: Tensor, canvas: Sequence[int], dilation: Sequence[int] | int = 1) -> TableBias:
    """The bias of a table [heads | 1, 2 w_1 - 1, ...] over row-major tokens of a canvas, indexed by key - query.

    Entry w - 1 along an axis is offset 0; positions are counted inside their dilation group. Fits windows of extent w
    (Swin, MaxViT) and neighbourhoods of w keys (NATTEN's RPB). ValueError unless there is one table axis per canvas
    axis and each is odd.
    """
    extents = list(table.shape[1:])
    if len(extents) != len(canvas) or any(extent % 2 == 0 for extent in extents):
        raise ValueError(f"table: expected [heads, 2w-1 for each of {len(canvas)} axes], got shape {list(table.shape)}")
    steps = (dilation,) * len(canvas) if isinstance(dilation, int) else tuple(dilation)
    if len(steps) != len(canvas):
        raise ValueError(f"dilation: expected one number or one for each of {len(canvas)} axes, got {len(steps)}")
    strides = [int(np.prod(extents[axis + 1 :])) for axis in range(len(extents))]
    positions = _positions(canvas)
    index = sum(position // step * stride for position, step, stride in zip(positions, steps, strides, strict=True))
    entry = torch.from_numpy(np.asarray(index, np.int32)).to(table.device)
    offset = sum(extent // 2 * stride for extent, stride in zip(extents, strides, strict=True))
    return TableBias(table.flatten(1), entry, entry, offset)


def relative_terms(terms: Sequence[Tensor], canvas: Sequence[int], offsets: Sequence[int]) -> TermsBias:
    """The bias of per-axis terms [batch | 1, queries, heads, entries] over row-major tokens of a canvas.

    Entry key - query + offset of each axis is read. ValueError unless there is one term and one offset per axis.
    """
    if not len(terms) == len(offsets) == len(canvas):
        raise ValueError(
            f"terms: expected a term and an offset for {len(canvas)} axes, got {len(terms)} and {len(offsets)}"
        )
    index = torch.from_numpy(_positions(canvas).astype(np.int32)).to(terms[0].device)
    return TermsBias(tuple(terms), index, index, tuple(offsets))


def _positions(canvas: Sequence[int]) -> np.ndarray:
    return np.indices(tuple(canvas)).reshape(len(canvas), -1)
