"""Canvases and the two ways to cut them into blocks: runs of the row-major index, and tiles in space. numpy only."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
from numpy.typing import NDArray

from .axes import Ints, group_lengths
from .settings import broadcast

__all__ = [
    "Canvas",
    "Tile",
    "check_canvas",
    "default_tile",
    "dividing_sides",
    "divisor_tile",
    "expand",
    "run_of",
    "spatial_order",
    "tile_of",
    "tokens_of",
]

Canvas = tuple[int, ...]
Tile = int | tuple[int, ...] | None
# slots of a block when none is asked for
BLOCK = 128


def check_canvas(canvas: Canvas) -> Canvas:
    """The canvas as a tuple of axis lengths, slowest first; ValueError when it has no axis or an empty one."""
    canvas = (canvas,) if isinstance(canvas, int) else tuple(int(length) for length in canvas)
    if not canvas or min(canvas) < 1:
        raise ValueError(f"a canvas needs at least one axis and 1 token on each, got {canvas}")
    return canvas


def tokens_of(canvas: Canvas) -> int:
    """Tokens on the canvas."""
    return math.prod(canvas)


def run_of(tile: Tile, name: str = "tile") -> int:
    """Length of the runs of the row-major index that `tile` asks for (128 by default); ValueError for others."""
    if tile is None:
        return BLOCK
    sides = (tile,) if isinstance(tile, int) else tuple(tile)
    if len(sides) != 1 or sides[0] < 1:
        raise ValueError(f"{name} must be one positive number here (a run of the row-major index), got {tile}")
    return int(sides[0])


def tile_of(tile: Tile, canvas: Canvas, default: tuple[int, ...], name: str = "tile") -> tuple[int, ...] | int:
    """`tile` as a tuple of sides (a tile in space) or an int (a run of the row-major index).

    One number is a tile in space on a canvas of one axis, a run otherwise. ValueError for any other rank.
    """
    if tile is None:
        return default
    sides = (tile,) if isinstance(tile, int) else tuple(int(side) for side in tile)
    if len(sides) not in (1, len(canvas)) or min(sides) < 1:
        raise ValueError(f"{name} needs {len(canvas)} positive sides for canvas {canvas}, or one number, got {tile}")
    return sides if len(sides) == len(canvas) else sides[0]


def default_tile(lengths: tuple[int, ...], size: int = BLOCK) -> tuple[int, ...]:
    """A tile of `size` slots with powers of two as sides, as cubic as the lengths allow, longest on the last axis."""
    sides = [1] * len(lengths)
    while math.prod(sides) < size:
        room = [axis for axis in reversed(range(len(sides))) if sides[axis] < lengths[axis]]
        if not room:
            break
        sides[min(room, key=lambda axis: sides[axis])] *= 2
    return tuple(sides)


def expand(values: NDArray[np.integer], axis: int, canvas: Canvas) -> NDArray[np.int32]:
    """Values per position of one axis as int32 [tokens], in row-major order of the canvas."""
    shape = [1] * len(canvas)
    shape[axis] = canvas[axis]
    return np.broadcast_to(values.astype(np.int32).reshape(shape), canvas).ravel()


def divisor_tile(window: tuple[int, ...], size: int = BLOCK) -> tuple[int, ...]:
    """The largest tile of at most `size` slots whose sides divide the window's, as cubic as there is."""
    sides = [[side for side in range(1, length + 1) if length % side == 0] for length in window]
    fitting = [tile for tile in product(*sides) if math.prod(tile) <= size]
    return max(fitting, key=lambda tile: (math.prod(tile), -max(tile), tile[::-1]))


def dividing_sides(name: str, sides: tuple[int, ...], canvas: Canvas) -> tuple[int, ...]:
    """`sides`, one per axis; ValueError unless each divides its axis, with both values."""
    sides = broadcast(name, sides, canvas)
    for axis, (length, side) in enumerate(zip(canvas, sides, strict=True)):
        if side < 1 or length % side:
            raise ValueError(
                f"axis {axis} of canvas {canvas} must be divisible by its {name}, got {length} tokens and {name} {side}"
            )
    return sides


def spatial_order(canvas: Canvas, tile: tuple[int, ...], dilation: tuple[int, ...] | None = None) -> Ints:
    """Token of each slot, int64 [slots], -1 for padding: groups, tiles within a group, slots within a tile, row-major.

    Groups are the tokens that share their position modulo the dilation on every axis; without dilation there is one.
    Tiles at the end of a group are padded, tiles of padding alone do not occur.
    """
    dilation = dilation or (1,) * len(canvas)
    lengths = [group_lengths(length, step) for length, step in zip(canvas, dilation, strict=True)]
    strides = [math.prod(canvas[axis + 1 :]) for axis in range(len(canvas))]
    rank = len(canvas)
    # out of range of any sum of real positions, so that one padded axis makes the token padding
    missing = -(1 << 40)
    # the part of each axis in the token number, [tiles, 1.., side, 1..], once per group of the axis
    parts: list[list[Ints]] = []
    for axis in range(rank):
        shape = [1] * (2 * rank)
        shape[axis], shape[rank + axis] = -1, tile[axis]
        of_axis = []
        for group, length in enumerate(lengths[axis]):
            position = np.full(-(-length // tile[axis]) * tile[axis], missing, np.int64)
            position[:length] = (group + dilation[axis] * np.arange(length)) * strides[axis]
            of_axis.append(position.reshape(shape))
        parts.append(of_axis)
    orders = []
    for chosen in product(*parts):
        token = chosen[0]
        for part in chosen[1:]:
            token = token + part
        orders.append(token.ravel())
    return np.maximum(np.concatenate(orders), -1)
