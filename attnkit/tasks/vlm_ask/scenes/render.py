"""Scenes as pictures: shapes with soft edges on plain, striped, noisy or photograph-like backgrounds."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from .scene import MOST_THINGS, Scene, Thing

Array = NDArray[np.float32]

# hue in turns, saturation, value
PAINTS = {
    "red": (0.0, 0.88, 0.85),
    "green": (0.36, 0.85, 0.6),
    "blue": (0.61, 0.85, 0.85),
    "yellow": (0.155, 0.85, 0.96),
    "orange": (0.075, 0.92, 0.95),
    "purple": (0.79, 0.75, 0.65),
    "white": (0.0, 0.0, 0.97),
    "black": (0.0, 0.0, 0.06),
}
# texture is made at this size and enlarged or reduced, so that a scene looks alike at every size
TEXTURE = 96
STROKES = {0: (0, 1), 1: (0, 3), 2: (3, 7), 3: (8, 15)}
GRAIN = {0: 0.01, 1: 0.02, 2: 0.035, 3: 0.05}


@dataclass(frozen=True)
class Picture:
    """A drawn scene.

    pixels  [side, side, 3] uint8
    owners  [side, side] uint8, index of the thing that covers most of the pixel plus 1, or 0
    """

    pixels: NDArray[np.uint8]
    owners: NDArray[np.uint8]


def _star() -> list[tuple[float, float]]:
    angles = np.pi * np.arange(10) / 5
    reach = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)
    return list(zip(-reach * np.cos(angles), reach * np.sin(angles), strict=True))


def _heart() -> list[tuple[float, float]]:
    angle = np.linspace(0, 2 * np.pi, 18, endpoint=False)
    column = 16 * np.sin(angle) ** 3
    row = -(13 * np.cos(angle) - 5 * np.cos(2 * angle) - 2 * np.cos(3 * angle) - np.cos(4 * angle))
    return list(zip((row - 2) / 16.5, column / 16.5, strict=True))


def _cross() -> list[tuple[float, float]]:
    arm, half = 0.95, 0.32
    corners = [(-arm, half), (-half, half), (-half, arm)]
    turned = []
    for _ in range(4):
        turned += corners
        corners = [(column, -row) for row, column in corners]
    return turned


# corners (row, column) in units of the radius
OUTLINES: dict[str, list[tuple[float, float]]] = {
    "square": [(-0.8, -0.8), (-0.8, 0.8), (0.8, 0.8), (0.8, -0.8)],
    "triangle": [(-0.95, 0.0), (0.7, 0.95), (0.7, -0.95)],
    "diamond": [(-1.0, 0.0), (0.0, 0.75), (1.0, 0.0), (0.0, -0.75)],
    "star": _star(),
    "heart": _heart(),
    "cross": _cross(),
}


@cache
def _edges(shape: str) -> Array:
    """Start and step of each edge of an outline, float32 [4, edges, 1, 1]: row, column, down, across."""
    corners = np.array(OUTLINES[shape], np.float32)
    return np.concatenate([corners, np.roll(corners, -1, axis=0) - corners], 1).T[..., None, None]


def signed_distance(shape: str, row: Array, column: Array) -> Array:
    """Distance to the outline of a shape of radius 1 about (0, 0), below 0 inside, at points [rows, columns]."""
    if shape == "circle":
        return np.hypot(row, column) - np.float32(0.92)
    if shape == "ring":
        return np.abs(np.hypot(row, column) - np.float32(0.72)) - np.float32(0.22)
    start_row, start_column, down, across = _edges(shape)
    from_row, from_column = row - start_row, column - start_column
    along = np.clip((from_row * down + from_column * across) / (down**2 + across**2), 0, 1)
    squared = (from_row - along * down) ** 2 + (from_column - along * across) ** 2
    distance = np.sqrt(squared.min(0))
    # a point is inside where a ray from it crosses the outline an odd number of times
    begun, ended = from_row >= 0, from_row >= down
    side = across * from_row - down * from_column > 0
    inside = np.logical_xor.reduce((begun & ~ended & side) | (~begun & ended & ~side), 0)
    return np.where(inside, -distance, distance)


def render(scene: Scene, side: int = TEXTURE, softness: float = 1.0) -> Picture:
    """Draw a scene; `softness` is the width of an edge in pixels. The same arguments give the same bytes."""
    draw = np.random.default_rng((scene.seed, 1))
    canvas = _background(scene, draw)
    if side != TEXTURE:
        canvas = _resize(canvas, side)
    fewest, most = STROKES[scene.clutter]
    strokes = int(draw.integers(fewest, most))
    for _ in range(strokes):
        _stroke(canvas, draw)
    owners = np.zeros((side, side), np.uint8)
    for index, thing in enumerate(scene.things):
        _paint(canvas, owners, thing, index + 1, draw, softness)
    grain = draw.standard_normal((TEXTURE, TEXTURE, 3), np.float32) * GRAIN[scene.clutter]
    canvas += grain if side == TEXTURE else _resize(grain, side)
    return Picture((np.clip(canvas, 0, 1) * 255 + 0.5).astype(np.uint8), owners)


def _muted(draw: np.random.Generator) -> Array:
    hue, saturation, value = draw.uniform((0, 0.03, 0.35), (1, 0.28, 0.75))
    return np.array(colorsys.hsv_to_rgb(hue, saturation, value), np.float32)


def _resize(array: Array, side: int) -> Array:
    from PIL import Image

    planes = [
        np.asarray(Image.fromarray(np.ascontiguousarray(plane)).resize((side, side), Image.Resampling.BICUBIC))
        for plane in np.moveaxis(array, -1, 0)
    ]
    return np.stack(planes, -1)


def _background(scene: Scene, draw: np.random.Generator) -> Array:
    """Colours [TEXTURE, TEXTURE, 3], muted, so that every thing stands out from them."""
    base, other = _muted(draw), _muted(draw)
    rows, columns = np.mgrid[0 : 1 : TEXTURE * 1j, 0 : 1 : TEXTURE * 1j].astype(np.float32)
    angle, strength = draw.uniform(0, 2 * np.pi), 0.25 + 0.25 * scene.clutter
    across = np.cos(angle) * rows + np.sin(angle) * columns
    if scene.background == "plain":
        return np.broadcast_to(base, (TEXTURE, TEXTURE, 3)).copy()
    if scene.background == "gradient":
        share = (across - across.min()) / (across.max() - across.min())
    elif scene.background == "striped":
        share = 0.5 + 0.5 * np.sin(2 * np.pi * draw.uniform(3, 12) * across + draw.uniform(0, 6))
        share = strength * (share > 0.5 if draw.random() < 0.5 else share)
    elif scene.background == "noisy":
        small = int(draw.choice((12, 24, 48)))
        share = 0.5 + 0.5 * strength * _resize(draw.standard_normal((small, small, 1), np.float32), TEXTURE)[..., 0]
    else:
        return _photograph(draw, strength)
    share = np.clip(share, 0, 1)[..., None].astype(np.float32)
    return base * (1 - share) + other * share


def _photograph(draw: np.random.Generator, strength: float) -> Array:
    """Colour noise whose amplitude falls with frequency, as in photographs of landscapes and rooms."""
    canvas = np.zeros((TEXTURE, TEXTURE, 3), np.float32)
    for small in (3, 6, 12, 24, 48):
        grey = draw.standard_normal((small, small, 1), np.float32)
        tint = draw.standard_normal((small, small, 3), np.float32)
        canvas += _resize((grey + 0.5 * tint) * (2.0 / small) ** 0.7, TEXTURE)
    canvas *= 0.16 * strength / max(float(canvas.std()), 1e-6)
    return np.clip(_muted(draw) + canvas - canvas.mean((0, 1)), 0.12, 0.88)


def _stroke(canvas: Array, draw: np.random.Generator) -> None:
    """A thin straight or dashed line in a muted or a strong colour, behind all things."""
    side = len(canvas)
    (top, left), (bottom, right) = draw.uniform(0, 1, (2, 2))
    hue, saturation, value = draw.uniform((0, 0.1, 0.2), (1, 0.8, 0.9))
    colour = np.array(colorsys.hsv_to_rgb(hue, saturation, value), np.float32)
    length = float(np.hypot(bottom - top, right - left)) + 1e-6
    reach = min(1.0, draw.uniform(0.2, 0.8) / length)
    bottom, right = top + reach * (bottom - top), left + reach * (right - left)
    half = draw.uniform(0.004, 0.011)
    margin = half + 2 / side
    place = (
        slice(max(0, int((min(top, bottom) - margin) * side)), int((max(top, bottom) + margin) * side) + 1),
        slice(max(0, int((min(left, right) - margin) * side)), int((max(left, right) + margin) * side) + 1),
    )
    part = canvas[place]
    row = ((np.arange(part.shape[0], dtype=np.float32) + 0.5 + place[0].start) / side - top)[:, None]
    column = ((np.arange(part.shape[1], dtype=np.float32) + 0.5 + place[1].start) / side - left)[None]
    edge = (bottom - top, right - left)
    along = np.clip((row * edge[0] + column * edge[1]) / (edge[0] ** 2 + edge[1] ** 2 + 1e-9), 0, 1)
    distance = np.hypot(row - along * edge[0], column - along * edge[1])
    share = np.clip((half - distance) * side + 0.5, 0, 1)[..., None].astype(np.float32)
    part += share * (colour - part)


def _paint(
    canvas: Array, owners: NDArray[np.uint8], thing: Thing, label: int, draw: np.random.Generator, softness: float
) -> None:
    side = len(canvas)
    hue, saturation, value = PAINTS[thing.colour]
    jitter = draw.uniform(-1, 1, 3)
    coloured = saturation > 0
    colour = np.array(
        colorsys.hsv_to_rgb(
            (hue + 0.015 * jitter[0]) % 1,
            np.clip(saturation + 0.1 * jitter[1], 0, 1) if coloured else 0.0,
            np.clip(value + (0.08 if coloured else 0.04) * jitter[2], 0, 1),
        ),
        np.float32,
    )
    shade = draw.uniform(-0.06, 0.06, 2)
    reach = 1.1 * thing.radius + 2 / side
    place = tuple(
        slice(max(0, int((centre - reach) * side)), int((centre + reach) * side) + 1)
        for centre in (thing.row, thing.column)
    )
    part = canvas[place]
    row, column = (
        (np.arange(size, dtype=np.float32) + 0.5 + where.start) / side - centre
        for size, where, centre in zip(part.shape[:2], place, (thing.row, thing.column), strict=True)
    )
    turn = np.deg2rad(thing.turn)
    cosine, sine = np.float32(np.cos(turn) / thing.radius), np.float32(np.sin(turn) / thing.radius)
    down: Array = (row[:, None] * cosine - column * sine).astype(np.float32)
    across: Array = (row[:, None] * sine + column * cosine).astype(np.float32)
    distance = signed_distance(thing.shape, down, across) * np.float32(thing.radius * side)
    share = np.clip(0.5 - distance / np.float32(softness), 0, 1)[..., None]
    lit = colour + (np.float32(shade[0]) * down + np.float32(shade[1]) * across)[..., None]
    part += share * (lit - part)
    owners[place][share[..., 0] >= 0.5] = label


def patch_targets(scene: Scene, owners: NDArray[np.uint8], grid: int) -> NDArray[np.int64]:
    """What lies in each of grid x grid patches: int64 [grid * grid, 3].

    Columns: shape plus 1 and colour plus 1 of the thing that covers most of the patch (0 where less than a sixth of it
    is covered), and whether the centre of a thing lies in it.
    """
    from .scene import COLOURS, SHAPES

    cell = len(owners) // grid
    tiles = owners.reshape(grid, cell, grid, cell).transpose(0, 2, 1, 3).reshape(grid * grid, cell * cell)
    covered = (tiles[..., None] == np.arange(1, MOST_THINGS + 1, dtype=np.uint8)).sum(1)
    most = covered.argmax(1)
    enough = covered.max(1) * 6 >= cell * cell
    shapes = np.array([SHAPES.index(thing.shape) + 1 for thing in scene.things] + [0] * MOST_THINGS)
    colours = np.array([COLOURS.index(thing.colour) + 1 for thing in scene.things] + [0] * MOST_THINGS)
    centres = np.zeros(grid * grid, np.int64)
    for thing in scene.things:
        centres[int(thing.row * grid) * grid + int(thing.column * grid)] = 1
    return np.stack([shapes[most] * enough, colours[most] * enough, centres], -1)
