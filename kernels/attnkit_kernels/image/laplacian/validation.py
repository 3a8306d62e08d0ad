"""Checks of the arguments of the pyramid operators, before any implementation is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any


def half(size: int) -> int:
    """Length of the next coarser level."""
    return (size + 1) // 2


def check_image(image: Any, name: str = "image") -> None:
    """Raise ValueError unless `image` is [batch, channels, rows, columns] with at least one row and one column."""
    shape = tuple(image.shape)
    if len(shape) != 4:
        raise ValueError(f"{name}: expected [batch, channels, rows, columns], got shape {list(shape)}")
    if shape[2] < 1 or shape[3] < 1:
        raise ValueError(f"{name}: expected at least one row and one column, got shape {list(shape)}")


def check_levels(levels: int) -> None:
    """Raise unless `levels` is a whole number from 0."""
    if isinstance(levels, bool) or not isinstance(levels, int):
        raise TypeError(f"levels: expected a whole number, got {levels!r}")
    if levels < 0:
        raise ValueError(f"levels: expected 0 or more, got {levels}")


def check_size(image: Any, size: tuple[int, int] | None) -> tuple[int, int]:
    """Target (rows, columns) of `up`: twice the image, or `size`, whose coarser level has to be the image."""
    rows, columns = image.shape[2:]
    if size is None:
        return 2 * rows, 2 * columns
    if len(size) != 2 or half(size[0]) != rows or half(size[1]) != columns:
        raise ValueError(
            f"size: a {rows} x {columns} level goes up to {2 * rows - 1} or {2 * rows} rows and "
            f"{2 * columns - 1} or {2 * columns} columns, got {tuple(size)}"
        )
    return int(size[0]), int(size[1])


def check_bands(bands: Sequence[Any]) -> None:
    """Raise unless `bands` is a whole pyramid, finest first, low-pass last."""
    if not bands:
        raise ValueError("bands: expected at least the low-pass, got an empty list")
    for level, band in enumerate(bands):
        check_image(band, f"bands[{level}]")
    for level, (fine, coarse) in enumerate(pairwise(bands)):
        expected = (*fine.shape[:2], half(fine.shape[2]), half(fine.shape[3]))
        if tuple(coarse.shape) != expected:
            raise ValueError(
                f"bands[{level + 1}]: expected shape {list(expected)} below {list(fine.shape)}, "
                f"got {list(coarse.shape)}"
            )
        if coarse.dtype != fine.dtype:
            raise TypeError(f"bands[{level + 1}]: expected dtype {fine.dtype} as above, got {coarse.dtype}")
