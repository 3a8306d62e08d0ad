"""HaloNet's blocked local attention: all queries of a block share one window that is wider than the block by a halo."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..softmax.blockmap import BlockMap
from ..softmax.rules import Boxes
from .axes import Ints
from .canvas import Canvas, Tile, check_canvas, dividing_sides, divisor_tile, expand, spatial_order, tile_of, tokens_of
from .separable import spatial_lists
from .settings import broadcast, setting, spread

__all__ = ["PADS", "Halo"]

PADS = ("mask", "zero")


@dataclass(frozen=True)
class Halo:
    """The queries of a block see the keys of the block and of `halo` tokens around it, per axis.

    pad : at the border of the canvas, "mask" cuts the window. "zero" keeps it whole: the map's keys then lie on a
        canvas that is `halo` wider at either end of each axis, row-major, and the caller pads keys and values with
        zeros, which take part in the softmax as in the published networks (`softmax.variants.halo` does it)
    stride : queries on a grid that is coarser by this factor, block / stride of them in a block (downsampling layers)

    Notes
    -----
    "Scaling Local Self-Attention for Parameter Efficient Visual Backbones", arXiv 2103.12731. The paper's text leaves
    the border and the strided form open. "mask" is the default because its map has as many keys as queries.
    """

    name: ClassVar[str] = "halo"
    paper: ClassVar[str] = "HaloNet (arXiv 2103.12731)"

    block: tuple[int, ...] = setting((8,), help="side of a block of queries, per axis; divides the canvas")
    halo: tuple[int, ...] = setting((3,), help="keys beyond the block on either side, per axis")
    pad: str = setting("mask", help="border keys: mask (hidden) or zero (zeros that take part, on a wider key canvas)")

    stride: tuple[int, ...] = setting((1,), help="tokens of the canvas per query, per axis; divides the block")

    def __post_init__(self) -> None:
        spread(self, "block", "halo", "stride")
        if min(self.halo) < 0:
            raise ValueError(f"halo must be at least 0, got {self.halo}")
        if self.pad not in PADS:
            raise ValueError(f"pad must be one of {', '.join(PADS)}, got {self.pad!r}")

    def sides(self, canvas: Canvas) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """(block, halo, stride) per axis; ValueError when they do not fit the canvas."""
        canvas = check_canvas(canvas)
        block = dividing_sides("block", self.block, canvas)
        stride = broadcast("stride", self.stride, canvas)
        for side, step in zip(block, stride, strict=True):
            if step < 1 or side % step:
                raise ValueError(f"block must be divisible by the stride, got block {side} and stride {step}")
        return block, broadcast("halo", self.halo, canvas), stride

    def query_canvas(self, canvas: Canvas) -> Canvas:
        """The canvas of the queries: the coarser one for a stride above 1."""
        return tuple(length // step for length, step in zip(check_canvas(canvas), self.sides(canvas)[2], strict=True))

    def key_canvas(self, canvas: Canvas) -> Canvas:
        """The canvas of the keys: the wider one for pad="zero"."""
        canvas = check_canvas(canvas)
        halo = self.sides(canvas)[1]
        if self.pad == "mask":
            return canvas
        return tuple(length + 2 * more for length, more in zip(canvas, halo, strict=True))

    def block_map(self, canvas: Canvas, query_tile: Tile = None, key_tile: Tile = None) -> BlockMap:
        """The map of a canvas, slowest axis first.

        Both tiles are tiles in space, one side per axis; the default is the block (for queries that of the coarser
        grid) or an even part of it, of at most 128 slots. ValueError for a canvas or tiles that do not fit.
        """
        canvas = check_canvas(canvas)
        block, _, stride = self.sides(canvas)
        queries, keys = self.query_canvas(canvas), self.key_canvas(canvas)
        own = tuple(side // step for side, step in zip(block, stride, strict=True))
        query = tile_of(query_tile, canvas, divisor_tile(own), "query_tile")
        key = tile_of(key_tile, canvas, divisor_tile(block), "key_tile")
        if isinstance(query, int) or isinstance(key, int):
            raise ValueError(f"halo needs tiles of {len(canvas)} sides, got {query_tile} and {key_tile}")
        windows = self._windows(canvas)
        starts, columns, full = spatial_lists(
            [[length] for length in queries], [[length] for length in keys], lambda axis, _: windows[axis], query, key
        )
        rule = Boxes(
            np.stack([expand(start, axis, queries) for axis, (start, _) in enumerate(windows)]),
            np.stack([expand(end, axis, queries) for axis, (_, end) in enumerate(windows)]),
            np.stack([expand(np.arange(length), axis, keys) for axis, length in enumerate(keys)]),
        )
        return BlockMap(
            tokens_of(queries),
            tokens_of(keys),
            math.prod(query),
            math.prod(key),
            starts,
            columns,
            full,
            query_order=spatial_order(queries, query),
            key_order=spatial_order(keys, key),
            rule=None if full.all() else rule,
        )

    def visible_pairs(self, canvas: Canvas) -> int:
        """Visible pairs of the canvas: what its map counts pair by pair."""
        return math.prod(int((end - start).sum()) for start, end in self._windows(canvas))

    def _windows(self, canvas: Canvas) -> list[tuple[Ints, Ints]]:
        """First key and one past the last key of each query, per axis."""
        windows = []
        for length, side, more, step in zip(check_canvas(canvas), *self.sides(canvas), strict=True):
            # offset of a key's position from the canvas' own
            shift = more if self.pad == "zero" else 0
            first = np.arange(length // step) // (side // step) * side + shift
            windows.append((np.maximum(first - more, 0), np.minimum(first + side + more, length + 2 * shift)))
        return windows
