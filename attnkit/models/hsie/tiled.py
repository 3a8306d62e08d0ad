"""The published network on bands that do not fit in memory as a whole, with the result of the whole.

Channel attention pools over the whole band, so a tile alone cannot know it. Two ways around: keep the features of the
whole band between the blocks (`brighten_by_blocks`), or go over the band once for each block, adding up its means
tile by tile, and compute the tiles anew with all attention known (`pooled_attention`, `brighten_tile`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from attnkit.models.hsie.fast import FastHsie


@dataclass(frozen=True)
class Box:
    """Rows top:bottom and columns left:right of a grid."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.top, self.bottom), slice(self.left, self.right)

    @property
    def size(self) -> int:
        return (self.bottom - self.top) * (self.right - self.left)

    def grown(self, reach: int, rows: int, columns: int) -> Box:
        """With what lies around it, inside of a grid."""
        return Box(
            max(self.top - reach, 0),
            min(self.bottom + reach, rows),
            max(self.left - reach, 0),
            min(self.right + reach, columns),
        )

    def within(self, outer: Box) -> tuple[slice, slice]:
        """Where it is in a larger box."""
        return (
            slice(self.top - outer.top, self.bottom - outer.top),
            slice(self.left - outer.left, self.right - outer.left),
        )

    def doubled(self) -> Box:
        """The same place on the grid of twice the resolution."""
        return Box(2 * self.top, 2 * self.bottom, 2 * self.left, 2 * self.right)


def boxes(rows: int, columns: int, side: int, top: int = 0) -> Iterator[Box]:
    """Tiles of at most side x side that cover rows top:rows of a grid once."""
    for first in range(top, rows, side):
        for left in range(0, columns, side):
            yield Box(first, min(first + side, rows), left, min(left + side, columns))


def brighten_by_blocks(network: FastHsie, low: Tensor, context: Sequence[Tensor], side: int) -> Tensor:
    """The illumination branch for one half-resolution band [rows, columns] with its neighbours, in tiles.

    Holds `kept_bytes` a sample for the whole band. Returns the bright band [rows, columns].
    """
    rows, columns = low.shape
    features = low.new_empty(1, rows, columns, network.channels)
    updates = torch.empty_like(features)
    taps = low.new_empty(1, rows, columns, 9)
    for box in boxes(rows, columns, side):
        outer = box.grown(network.enter_reach, rows, columns)
        stacked = torch.stack([plane[outer.slices] for plane in context], -1)[None]
        features[(0, *box.slices)] = network.enter(low[outer.slices][None, ..., None], stacked)[(0, *box.within(outer))]
    for block in range(network.blocks):
        total = torch.zeros(1, network.channels, dtype=torch.float64, device=low.device)
        for box in boxes(rows, columns, side):
            outer = box.grown(network.block_reach, rows, columns)
            update = network.update(block, features[(slice(None), *outer.slices)].contiguous())
            inner = update[(slice(None), *box.within(outer))]
            updates[(slice(None), *box.slices)] = inner
            total += inner.sum((1, 2), dtype=torch.float64)
        attention = network.attention(block, (total / (rows * columns)).to(low.dtype))
        features = network.attend(features, updates, attention)
        taps = network.taps(block, features, taps if block else None)
    return low + network.relit(taps)[0, ..., 0]


def kept_bytes(network: FastHsie) -> int:
    """What `brighten_by_blocks` holds for each half-resolution sample, tiles apart."""
    return 4 * (2 * network.channels + 2 * 9)


# the half-resolution band [1, rows, columns, 1] and its neighbours [1, rows, columns, K] in a box
Lows = Callable[[Box], "tuple[Tensor, Tensor]"]


def pooled_attention(network: FastHsie, lows: Lows, rows: int, columns: int, side: int) -> list[Tensor]:
    """The attention of every block for a band of rows x columns half-resolution samples; one pass over it for each."""
    known: list[Tensor] = []
    for block in range(network.blocks):
        total: Tensor | None = None
        for box in boxes(rows, columns, side):
            outer = box.grown(network.enter_reach + (block + 1) * network.block_reach, rows, columns)
            features = _features(network, lows(outer), known)
            update = network.update(block, features)[(slice(None), *box.within(outer))]
            part = update.sum((1, 2), dtype=torch.float64)
            total = part if total is None else total + part
        assert total is not None
        known.append(network.attention(block, (total / (rows * columns)).to(network.dtype)))
    return known


def _features(network: FastHsie, parts: tuple[Tensor, Tensor], known: Sequence[Tensor]) -> Tensor:
    features = network.enter(*parts)
    for block, attention in enumerate(known):
        features = network.attend(features, network.update(block, features), attention)
    return features


def brighten_tile(network: FastHsie, parts: tuple[Tensor, Tensor], known: Sequence[Tensor]) -> Tensor:
    """The illumination branch [1, rows, columns, 1] in a box; right where `low_reach` samples lie around."""
    features = network.enter(*parts)
    taps = None
    for block, attention in enumerate(known):
        features = network.attend(features, network.update(block, features), attention)
        taps = network.taps(block, features, taps)
    assert taps is not None
    return parts[0] + network.relit(taps)
