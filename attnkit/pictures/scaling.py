"""--resize: sizes from its argument, and resampling in linear light."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from attnkit.pictures.picture import Picture
from attnkit.runtime.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

_LARGEST_SIDE = 1 << 16


def parse_resize(spec: str) -> tuple[str, float, float]:
    """("percent", p, p), ("long", side, side) or ("exact", columns, rows) of "50%", "2048" or "1024x768"; UsageError
    otherwise."""
    text = spec.strip().lower()
    if found := re.fullmatch(r"(\d+(?:\.\d+)?)%", text):
        amount = float(found[1])
        if 0 < amount <= 1000:
            return "percent", amount, amount
    elif found := re.fullmatch(r"(\d+)", text):
        side = int(found[1])
        if 0 < side <= _LARGEST_SIDE:
            return "long", side, side
    elif found := re.fullmatch(r"(\d+)x(\d+)", text):
        columns, rows = int(found[1]), int(found[2])
        if 0 < columns <= _LARGEST_SIDE and 0 < rows <= _LARGEST_SIDE:
            return "exact", columns, rows
    raise UsageError(
        f"--resize: got {spec!r}, expected a percentage (50%), a long side (2048) or WIDTHxHEIGHT (1024x768)"
    )


def target_size(spec: str, rows: int, columns: int) -> tuple[int, int]:
    """(rows, columns) after --resize spec; never below one pixel."""
    kind, first, second = parse_resize(spec)
    if kind == "exact":
        return int(second), int(first)
    factor = first / 100 if kind == "percent" else first / max(rows, columns)
    return max(1, round(rows * factor)), max(1, round(columns * factor))


def resize(pixels: np.ndarray, spec: str) -> np.ndarray:
    """(rows, columns[, 3]) float32 linear light at the size that spec asks for.

    Shrinking averages over the area that falls on a pixel, which keeps the light; enlarging interpolates linearly,
    because a cubic would ring below zero around bright lamps.
    """
    import cv2

    rows, columns = target_size(spec, *pixels.shape[:2])
    shrunk = (min(columns, pixels.shape[1]), min(rows, pixels.shape[0]))
    if shrunk != (pixels.shape[1], pixels.shape[0]):
        pixels = cv2.resize(pixels, shrunk, interpolation=cv2.INTER_AREA)
    if shrunk != (columns, rows):
        pixels = cv2.resize(pixels, (columns, rows), interpolation=cv2.INTER_LINEAR)
    return pixels


def resize_picture(picture: Picture, spec: str) -> Picture:
    """The picture at another size; colours are weighted by alpha, so that hidden ones do not bleed into edges."""
    if picture.alpha is None:
        return replace(picture, pixels=resize(picture.pixels, spec))
    import numpy as np

    alpha = resize(picture.alpha, spec)
    weighted = resize(picture.pixels * picture.alpha[..., None], spec)
    plain = resize(picture.pixels, spec)
    seen = alpha[..., None] > 0
    pixels = np.where(seen, weighted / np.where(seen, alpha[..., None], 1), plain).astype(np.float32)
    return replace(picture, pixels=pixels, alpha=np.clip(alpha, 0, 1))
