"""The two halves of multi-axis attention: windows that lie side by side, and grids of tokens spread over the canvas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..softmax.blockmap import BlockMap
from .canvas import Canvas, Tile, check_canvas, dividing_sides, divisor_tile
from .neighborhood import Neighborhood
from .settings import setting, spread

__all__ = ["Blocked", "Grid"]


@dataclass(frozen=True)
class Blocked:
    """A query sees the keys of its own window; windows do not overlap and fill the canvas.

    Notes
    -----
    "MaxViT", arXiv 2204.01697, block attention (also Swin without shift). Generalized neighborhood attention with
    stride = window. The default tile is the window or an even part of it, so that every block is full.
    """

    name: ClassVar[str] = "blocked"
    paper: ClassVar[str] = "MaxViT (arXiv 2204.01697)"

    window: tuple[int, ...] = setting(help="side of a window, per axis; divides the canvas")

    def __post_init__(self) -> None:
        spread(self, "window")

    def block_map(self, canvas: Canvas, query_tile: Tile = None, key_tile: Tile = None) -> BlockMap:
        """The map of a canvas, slowest axis first; tiles as for `Neighborhood`. ValueError when windows do not fit."""
        canvas = check_canvas(canvas)
        window = dividing_sides("window", self.window, canvas)
        tile = divisor_tile(window) if query_tile is None else query_tile
        return Neighborhood(window, window).block_map(canvas, tile, key_tile)


@dataclass(frozen=True)
class Grid:
    """A query sees `grid` keys per axis, spread evenly over the canvas: those at a multiple of length / grid from it.

    Notes
    -----
    "MaxViT", arXiv 2204.01697, grid attention: neighborhood attention dilated by length / grid with a window of `grid`.
    """

    name: ClassVar[str] = "grid"
    paper: ClassVar[str] = "MaxViT (arXiv 2204.01697)"

    grid: tuple[int, ...] = setting(help="tokens of a set, per axis; divides the canvas")

    def __post_init__(self) -> None:
        spread(self, "grid")

    def block_map(self, canvas: Canvas, query_tile: Tile = None, key_tile: Tile = None) -> BlockMap:
        """The map of a canvas, slowest axis first; tiles as for `Neighborhood`. ValueError when grids do not fit."""
        canvas = check_canvas(canvas)
        grid = dividing_sides("grid", self.grid, canvas)
        step = tuple(length // side for length, side in zip(canvas, grid, strict=True))
        tile = divisor_tile(grid) if query_tile is None else query_tile
        return Neighborhood(grid, dilation=step).block_map(canvas, tile, key_tile)
