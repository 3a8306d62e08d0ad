"""Fused CPU loops: one pass per level, rows in parallel; a band is written without storing the up-sampled level.

numpy in and out; float32 and float64 are computed as they are, float16 in float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...native import RowLoop, inline

Array = NDArray[Any]


@inline
def _reflected(index, size):  # type: ignore[no-untyped-def]
    if size == 1:
        return 0
    index = abs(index) % (2 * size - 2)
    return min(index, 2 * size - 2 - index)


def _down(start, stop, image, result, line):  # type: ignore[no-untyped-def]
    rows, columns = image.shape[1:]
    small_rows, small_columns = result.shape[1:]
    number = image.dtype.type
    four = number(4)
    six = number(6)
    scale = number(1 / 256)
    for task in range(start, stop):
        plane = task // small_rows
        row = task % small_rows
        r0 = image[plane, _reflected(2 * row - 2, rows)]
        r1 = image[plane, _reflected(2 * row - 1, rows)]
        r2 = image[plane, 2 * row]
        r3 = image[plane, _reflected(2 * row + 1, rows)]
        r4 = image[plane, _reflected(2 * row + 2, rows)]
        # `line` is four longer than the row: both reflected ends
        for column in range(columns):
            line[column + 2] = r0[column] + r4[column] + four * (r1[column] + r3[column]) + six * r2[column]
        for end in range(2):
            line[end] = line[_reflected(end - 2, columns) + 2]
            line[columns + 2 + end] = line[_reflected(columns + end, columns) + 2]
        target = result[plane, row]
        for column in range(small_columns):
            at = 2 * column
            value = line[at] + line[at + 4] + four * (line[at + 1] + line[at + 3]) + six * line[at + 2]
            target[column] = value * scale


def _up(start, stop, coarse, fine, sign, result, line):  # type: ignore[no-untyped-def]
    """result = fine + sign * up(coarse)."""
    small_rows, small_columns = coarse.shape[1:]
    rows, columns = result.shape[1:]
    number = coarse.dtype.type
    half = number(0.5)
    six = number(6)
    eighth = number(0.125)
    for task in range(start, stop):
        plane = task // rows
        row = task % rows
        at = row // 2
        middle = coarse[plane, at]
        after = coarse[plane, min(at + 1, small_rows - 1)]
        # `line` has one more on each side, as the stuffed image reflects
        if row % 2:
            for column in range(small_columns):
                line[column + 1] = (middle[column] + after[column]) * half
        else:
            before = coarse[plane, at - 1 if at > 0 else min(1, small_rows - 1)]
            for column in range(small_columns):
                line[column + 1] = (before[column] + after[column] + six * middle[column]) * eighth
        line[0] = line[min(2, small_columns)]
        line[small_columns + 1] = line[small_columns]
        base = fine[plane, row]
        target = result[plane, row]
        for column in range(columns // 2):
            value = line[column + 1]
            even = (line[column] + line[column + 2] + six * value) * eighth
            odd = (value + line[column + 2]) * half
            target[2 * column] = base[2 * column] + sign * even
            target[2 * column + 1] = base[2 * column + 1] + sign * odd
        if columns % 2:
            even = (line[small_columns - 1] + line[small_columns + 1] + six * line[small_columns]) * eighth
            target[columns - 1] = base[columns - 1] + sign * even


_DOWN = {
    dtype: RowLoop(_down, (f"{dtype}[:, :, ::1]", f"{dtype}[:, :, ::1]", f"{dtype}[::1]"))
    for dtype in ("float32", "float64")
}
_UP = {
    dtype: RowLoop(_up, (f"{dtype}[:, :, ::1]", f"{dtype}[:, :, ::1]", dtype, f"{dtype}[:, :, ::1]", f"{dtype}[::1]"))
    for dtype in ("float32", "float64")
}


def working(image: Array) -> Array:
    """The image as the loops take it: C order, float32 or float64."""
    return np.ascontiguousarray(image, np.float64 if image.dtype == np.float64 else np.float32)


def planes(image: Array) -> Array:
    """[batch, channels, rows, columns] as [planes, rows, columns], without a copy."""
    return image.reshape(-1, *image.shape[2:])


def _next(image: Array) -> Array:
    batch, channels, rows, columns = image.shape
    result = np.empty((batch, channels, (rows + 1) // 2, (columns + 1) // 2), image.dtype)
    _DOWN[image.dtype.name](batch * channels * result.shape[2], planes(image), planes(result), scratch=columns + 4)
    return result


def add_up(coarse: Array, fine: Array, sign: float, out: Array | None = None) -> Array:
    """fine + sign * up(coarse) in one pass; `out` may be `fine`."""
    result = np.empty_like(fine) if out is None else out
    lines = planes(result)
    _UP[fine.dtype.name](
        len(lines) * lines.shape[1], planes(coarse), planes(fine), sign, lines, scratch=coarse.shape[3] + 2
    )
    return result


def down(image: Array) -> Array:
    """See `api.down`."""
    return _next(working(image)).astype(image.dtype, copy=False)


def up(image: Array, size: tuple[int, int]) -> Array:
    """See `api.up`."""
    coarse = working(image)
    result = np.zeros((*image.shape[:2], *size), coarse.dtype)
    return add_up(coarse, result, 1.0, out=result).astype(image.dtype, copy=False)


def gaussian(image: Array, levels: int) -> list[Array]:
    """See `api.gaussian`."""
    pyramid = [working(image)]
    for _ in range(levels):
        pyramid.append(_next(pyramid[-1]))
    return [level.astype(image.dtype, copy=False) for level in pyramid]


def decompose(image: Array, levels: int) -> list[Array]:
    """See `api.decompose`."""
    fine = working(image)
    bands = []
    for _ in range(levels):
        coarse = _next(fine)
        bands.append(add_up(coarse, fine, -1.0))
        fine = coarse
    return [band.astype(image.dtype, copy=False) for band in [*bands, fine]]


def reconstruct(*bands: Array) -> Array:
    """See `api.reconstruct`."""
    image = working(bands[-1])
    for band in reversed(bands[:-1]):
        image = add_up(image, working(band), 1.0)
    return image.astype(bands[0].dtype, copy=False)
