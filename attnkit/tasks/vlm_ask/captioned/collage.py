"""Cut-outs pasted on a photograph: a picture of which it is known what is in it, where, and how often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attnkit.runtime.errors import UsageError

from .cutouts import Cutout, read_cutout

# pixels of a side: what the model sees
SIDE = 112
PHOTOGRAPHS = ("*.jpg", "*.jpeg", "*.png")
# shortest side that a photograph is kept at, of which a part is cut
KEPT = 320
KINDS = (0.45, 0.35, 0.2)
COUNTS = (0.62, 0.2, 0.1, 0.08)
MOST = 5
# shortest and longest side of a thing by how many there are
SIZES = {1: (44, 100), 2: (36, 58), 3: (30, 44), 4: (26, 38), 5: (24, 34)}
# share of a thing that another may cover
OVERLAP = 0.08
TRIES = 40


@dataclass(frozen=True)
class Placed:
    """A pasted cut-out with its box in units of the picture's side."""

    cutout: Cutout
    top: float
    left: float
    bottom: float
    right: float

    @property
    def row(self) -> float:
        """Its centre, down."""
        return (self.top + self.bottom) / 2

    @property
    def column(self) -> float:
        """Its centre, across."""
        return (self.left + self.right) / 2


@dataclass(frozen=True)
class Collage:
    """A picture [SIDE, SIDE, 3] uint8, the things on it, and per pixel which of them is seen plus 1, or 0."""

    pixels: NDArray[np.uint8]
    things: tuple[Placed, ...]
    owners: NDArray[np.uint8]


def find_photographs(folder: Path) -> list[Path]:
    """Photographs of DATA/photographs/train or DATA/photographs/test, sorted; UsageError where there are none."""
    found = sorted(path for pattern in PHOTOGRAPHS for path in folder.rglob(pattern))
    if not found:
        raise UsageError(f"{folder}: no photographs, expected {', '.join(PHOTOGRAPHS)}")
    return found


def make_collage(seed: int, cutouts: Sequence[Cutout], photographs: Sequence[Path]) -> Collage:
    """The collage of a seed: one to three kinds of things, at most five in all, that hardly cover each other."""
    draw = np.random.default_rng((seed, 11))
    canvas = _background(draw, photographs)
    owners = np.zeros((SIDE, SIDE), np.uint8)
    wanted: list[Cutout] = []
    for _ in range(1 + int(draw.choice(len(KINDS), p=KINDS))):
        cutout = cutouts[int(draw.integers(len(cutouts)))]
        # two of one name would make counts that the picture does not show as one kind
        if all(_unlike(cutout, other) for other in wanted):
            wanted += [cutout] * (1 + int(draw.choice(len(COUNTS), p=COUNTS)))
    wanted = wanted[:MOST]
    things: list[Placed] = []
    for cutout in wanted:
        placed = _place(draw, cutout, len(wanted), canvas, owners, len(things) + 1)
        if placed is not None:
            things.append(placed)
    pixels = (canvas * draw.uniform(0.85, 1.15) + 0.5).clip(0, 255).astype(np.uint8)
    return Collage(pixels, tuple(things), owners)


def patch_owners(owners: NDArray[np.uint8], grid: int) -> NDArray[np.int64]:
    """Per patch [grid * grid] the thing that covers more than a third of it, plus 1, or 0."""
    side = owners.shape[0] // grid
    blocks = owners.reshape(grid, side, grid, side).swapaxes(1, 2).reshape(grid * grid, side * side)
    counts = np.stack(
        [(blocks == index).sum(1) for index in range(1, int(owners.max()) + 1)] or [np.zeros(grid * grid)]
    )
    return np.where(counts.max(0) * 3 > side * side, counts.argmax(0) + 1, 0)


def _unlike(one: Cutout, other: Cutout) -> bool:
    return one.name.split()[-1] != other.name.split()[-1] and one.family != other.family


def _background(draw: np.random.Generator, photographs: Sequence[Path]) -> NDArray[np.float32]:
    if draw.random() < 0.25:
        first, last = draw.uniform(0, 255, (2, 3))
        share = np.linspace(0, 1, SIDE)[:, None, None] * float(draw.random())
        plain = first * (1 - share) + last * share
        plain = plain.swapaxes(0, 1) if draw.random() < 0.5 else plain
        return np.broadcast_to(plain, (SIDE, SIDE, 3)).astype(np.float32)
    import cv2

    picture = _photograph(photographs[int(draw.integers(len(photographs)))])
    rows, columns = picture.shape[:2]
    side = int(draw.uniform(0.4, 1) * min(rows, columns))
    top, left = int(draw.integers(rows - side + 1)), int(draw.integers(columns - side + 1))
    cut = cv2.resize(picture[top : top + side, left : left + side], (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return (cut[:, ::-1] if draw.random() < 0.5 else cut).astype(np.float32)


@lru_cache(maxsize=256)
def _photograph(path: Path) -> NDArray[np.uint8]:
    from PIL import Image

    with Image.open(path) as opened:
        opened.draft("RGB", (2 * KEPT, 2 * KEPT))
        picture = opened.convert("RGB")
    scale = KEPT / min(picture.size)
    return np.asarray(picture.resize((round(picture.width * scale), round(picture.height * scale))))


def _place(
    draw: np.random.Generator,
    cutout: Cutout,
    count: int,
    canvas: NDArray[np.float32],
    owners: NDArray[np.uint8],
    index: int,
) -> Placed | None:
    """Paste a cut-out where there is room; None where no place was found or next to nothing of it would be seen."""
    import cv2

    stamp = read_cutout(cutout)
    size = draw.uniform(*SIZES[count]) / max(stamp.shape[:2])
    rows, columns = (max(4, round(length * size)) for length in stamp.shape[:2])
    small = cv2.resize(stamp, (columns, rows), interpolation=cv2.INTER_AREA).astype(np.float32)
    small = small[:, ::-1] if draw.random() < 0.5 else small
    alpha = small[..., 3:] / 255
    for _ in range(TRIES):
        top, left = int(draw.integers(SIDE - rows + 1)), int(draw.integers(SIDE - columns + 1))
        there = np.s_[top : top + rows, left : left + columns]
        if (owners[there] > 0).mean() <= OVERLAP:
            canvas[there] = canvas[there] * (1 - alpha) + small[..., :3] * alpha
            owners[there][alpha[..., 0] > 0.5] = index
            return Placed(cutout, top / SIDE, left / SIDE, (top + rows) / SIDE, (left + columns) / SIDE)
    return None
