"""Which pairs of a partial block are visible: boxes in token coordinates, or stored tiles of bits. numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Boxes", "Tiles", "pack_tiles", "range_bits"]

Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]
Integers = NDArray[np.signedinteger[Any]]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Boxes:
    """A query sees a key iff low <= coordinate < high on every axis.

    low, high : int32 [axes, query_tokens], by token (not by slot)
    coordinate : int32 [axes, key_tokens], any integers; a group or window id is one more axis
    Causal, sliding, windows by id and neighbourhoods with dilation are all of this form. ValueError for other shapes.
    """

    low: Integers
    high: Integers
    coordinate: Integers

    def __post_init__(self) -> None:
        for name in ("low", "high", "coordinate"):
            object.__setattr__(self, name, as_integers(getattr(self, name), np.int32, f"boxes.{name}", 2))
        if self.low.shape != self.high.shape:
            raise ValueError(
                f"boxes: low and high must have one shape, got {list(self.low.shape)} and {list(self.high.shape)}"
            )
        if len(self.low) != len(self.coordinate) or not len(self.low):
            raise ValueError(
                "boxes: low and coordinate must have the same axes, 1 or more, "
                f"got {len(self.low)} and {len(self.coordinate)}"
            )

    def visible(self, query_tokens: Int64s, key_tokens: Int64s, listed: Int64s | int | None = None) -> Bools:
        """bool [..., queries, keys] for tokens [..., queries] and [..., keys]; -1 gives an arbitrary answer."""
        shape = np.broadcast_shapes(query_tokens.shape[:-1], key_tokens.shape[:-1])
        seen = np.ones((*shape, query_tokens.shape[-1], key_tokens.shape[-1]), np.bool_)
        for low, high, coordinate in zip(self.low, self.high, self.coordinate, strict=True):
            at = coordinate[key_tokens][..., None, :]
            seen &= low[query_tokens][..., None] <= at
            seen &= at < high[query_tokens][..., None]
        return seen

    @property
    def nbytes(self) -> int:
        """Bytes held by the arrays."""
        return self.low.nbytes + self.high.nbytes + self.coordinate.nbytes


@dataclass(frozen=True, eq=False)
class Tiles:
    """Any mask: one stored tile for each partial block, equal tiles stored once.

    bits : uint8 [tiles, query_block, ceil(key_block / 8)], bit j of byte i is key slot 8 i + j (little end first)
    index : int32 [listed], the tile of each listed block, -1 where the block is full
    Tiles are in slots, so they may differ between samples and heads. ValueError for other shapes or indices.
    """

    bits: NDArray[np.uint8]
    index: Int32s

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", as_integers(self.index, np.int32, "tiles.index", 1))
        if self.bits.dtype != np.uint8 or self.bits.ndim != 3:
            raise ValueError(
                f"tiles.bits: expected uint8 [tiles, query_block, bytes], got {self.bits.dtype} {list(self.bits.shape)}"
            )
        if len(self.index) and not (self.index.min() >= -1 and self.index.max() < len(self.bits)):
            raise ValueError(
                f"tiles.index: expected -1..{len(self.bits) - 1} for {len(self.bits)} tiles, "
                f"got {self.index.min()}..{self.index.max()}"
            )

    def visible(self, query_tokens: Int64s, key_tokens: Int64s, listed: Int64s | int) -> Bools:
        """bool [..., query_block, key_block] of the listed blocks [...]; all visible where a block is full."""
        index = np.asarray(self.index[listed])
        width = key_tokens.shape[-1]
        if not len(self.bits):
            return np.ones((*index.shape, query_tokens.shape[-1], width), np.bool_)
        seen = np.unpackbits(self.bits[index], axis=-1, count=width, bitorder="little").view(np.bool_)
        return seen | (index < 0)[..., None, None]

    @property
    def nbytes(self) -> int:
        """Bytes held by the arrays."""
        return self.bits.nbytes + self.index.nbytes


def pack_tiles(chunks: Sequence[NDArray[np.uint8]], full: Bools, query_block: int, key_block: int) -> Tiles:
    """`Tiles` of the partial blocks in listed order, given as chunks [some, query_block, bytes] of packed masks."""
    index = np.full(len(full), -1, np.int32)
    stored: dict[bytes, int] = {}
    numbers: list[int] = []
    for chunk in chunks:
        numbers.extend(stored.setdefault(tile.tobytes(), len(stored)) for tile in chunk)
    index[~full] = numbers
    bits = np.frombuffer(b"".join(stored), np.uint8).reshape(len(stored), query_block, -(-key_block // 8))
    return Tiles(bits, index)


def range_bits(start: Integers, stop: Integers, key_block: int) -> NDArray[np.uint8]:
    """Packed rows uint8 [..., ceil(key_block / 8)] that show key slots [start, stop); 0 <= start, stop <= key_block.

    Nothing is shown where stop <= start.
    """
    # prefix[n] shows the first n slots
    prefix = np.packbits(np.tri(key_block + 1, key_block, -1, np.bool_), axis=1, bitorder="little")
    prefix = prefix.view(np.uint64 if key_block % 64 == 0 else np.uint8)
    bits = prefix.take(np.maximum(start, stop), 0)
    bits ^= prefix.take(start, 0)
    return bits.view(np.uint8)


def as_integers(values: object, dtype: type, name: str, dimensions: int) -> NDArray[Any]:
    """`values` as a contiguous array of `dtype`; ValueError when they are no integers, too wide, or of another rank."""
    array = np.asarray(values)
    if array.dtype.kind not in "iu" and array.size:
        raise ValueError(f"{name}: expected integers, got {array.dtype}")
    if array.ndim != dimensions:
        raise ValueError(f"{name}: expected {dimensions} dimensions, got shape {list(array.shape)}")
    limits = np.iinfo(dtype)
    if array.size and not (limits.min <= int(array.min()) and int(array.max()) <= limits.max):
        raise ValueError(
            f"{name}: expected values in {limits.min}..{limits.max}, got {int(array.min())}..{int(array.max())}"
        )
    return np.ascontiguousarray(array, dtype)
