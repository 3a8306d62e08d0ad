"""Fused CPU loops: one pass over the pixels, rows in parallel, the table's three results side by side in memory.

numpy in and out; float32 and float64 are computed as they are, float16 in float32. `lookup_pixels` takes the
[rows, columns, 3] layout of picture files without a transposed copy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...native import RowLoop, inline
from . import validation

Array = NDArray[Any]


@inline
def _place(value, top, last):  # type: ignore[no-untyped-def]
    """Cell and position in samples of a coordinate; both comparisons fail for a NaN, which is placed at 0."""
    zero = top - top
    value = value * top
    value = value if value > zero else zero
    value = value if value < top else top
    return min(np.int32(value), last), value


@inline
def _poison(value, zero):  # type: ignore[no-untyped-def]
    return value if value != value else zero


def _trilinear(start, stop, reds, greens, blues, entries, size, out_red, out_green, out_blue, scratch):  # type: ignore[no-untyped-def]
    columns = reds.shape[1]
    number = entries.dtype.type
    top = number(size - 1)
    one = number(1)
    zero = number(0)
    last = np.int32(size - 2)
    count = np.int32(size)
    four = np.int32(4)
    green_step = count * four
    blue_step = count * green_step
    for row in range(start, stop):
        # separate contiguous lines whatever the layout, so that the loop over the pixels becomes vector code
        red = scratch[0 * columns : 1 * columns]
        green = scratch[1 * columns : 2 * columns]
        blue = scratch[2 * columns : 3 * columns]
        to_red = scratch[3 * columns : 4 * columns]
        to_green = scratch[4 * columns : 5 * columns]
        to_blue = scratch[5 * columns : 6 * columns]
        for column in range(columns):
            red[column] = reds[row, column]
            green[column] = greens[row, column]
            blue[column] = blues[row, column]
        for column in range(columns):
            poison = _poison(red[column], zero) + _poison(green[column], zero) + _poison(blue[column], zero)
            cell_r, r = _place(red[column], top, last)
            cell_g, g = _place(green[column], top, last)
            cell_b, b = _place(blue[column], top, last)
            r -= number(cell_r)
            g -= number(cell_g)
            b -= number(cell_b)
            rest = one - r
            at = ((cell_b * count + cell_g) * count + cell_r) * four
            near_red = entries[at] * rest + entries[at + 4] * r
            near_green = entries[at + 1] * rest + entries[at + 5] * r
            near_blue = entries[at + 2] * rest + entries[at + 6] * r
            k = at + green_step
            near_red += (entries[k] * rest + entries[k + 4] * r - near_red) * g
            near_green += (entries[k + 1] * rest + entries[k + 5] * r - near_green) * g
            near_blue += (entries[k + 2] * rest + entries[k + 6] * r - near_blue) * g
            k = at + blue_step
            far_red = entries[k] * rest + entries[k + 4] * r
            far_green = entries[k + 1] * rest + entries[k + 5] * r
            far_blue = entries[k + 2] * rest + entries[k + 6] * r
            k = at + blue_step + green_step
            far_red += (entries[k] * rest + entries[k + 4] * r - far_red) * g
            far_green += (entries[k + 1] * rest + entries[k + 5] * r - far_green) * g
            far_blue += (entries[k + 2] * rest + entries[k + 6] * r - far_blue) * g
            to_red[column] = near_red + (far_red - near_red) * b + poison
            to_green[column] = near_green + (far_green - near_green) * b + poison
            to_blue[column] = near_blue + (far_blue - near_blue) * b + poison
        for column in range(columns):
            out_red[row, column] = to_red[column]
            out_green[row, column] = to_green[column]
            out_blue[row, column] = to_blue[column]


def _tetrahedral(start, stop, reds, greens, blues, entries, size, out_red, out_green, out_blue, scratch):  # type: ignore[no-untyped-def]
    columns = reds.shape[1]
    number = entries.dtype.type
    top = number(size - 1)
    one = number(1)
    zero = number(0)
    last = np.int32(size - 2)
    count = np.int32(size)
    red_step = np.int32(4)
    green_step = count * red_step
    blue_step = count * green_step
    for row in range(start, stop):
        # lines as above
        red = scratch[0 * columns : 1 * columns]
        green = scratch[1 * columns : 2 * columns]
        blue = scratch[2 * columns : 3 * columns]
        to_red = scratch[3 * columns : 4 * columns]
        to_green = scratch[4 * columns : 5 * columns]
        to_blue = scratch[5 * columns : 6 * columns]
        for column in range(columns):
            red[column] = reds[row, column]
            green[column] = greens[row, column]
            blue[column] = blues[row, column]
        for column in range(columns):
            poison = _poison(red[column], zero) + _poison(green[column], zero) + _poison(blue[column], zero)
            cell_r, r = _place(red[column], top, last)
            cell_g, g = _place(green[column], top, last)
            cell_b, b = _place(blue[column], top, last)
            r -= number(cell_r)
            g -= number(cell_g)
            b -= number(cell_b)
            high = max(r, max(g, b))
            low = min(r, min(g, b))
            middle = max(min(r, g), min(max(r, g), b))
            # selects, no branches: which of the three leads is as good as random to a branch predictor
            leading = red_step if r == high else (green_step if g == high else blue_step)
            lacking = blue_step if b == low else (green_step if g == low else red_step)
            p0 = ((cell_b * count + cell_g) * count + cell_r) * red_step
            p3 = p0 + red_step + green_step + blue_step
            p1 = p0 + leading
            p2 = p3 - lacking
            w0 = one - high
            w1 = high - middle
            w2 = middle - low
            to_red[column] = w0 * entries[p0] + w1 * entries[p1] + w2 * entries[p2] + low * entries[p3] + poison
            p0, p1, p2, p3 = p0 + 1, p1 + 1, p2 + 1, p3 + 1
            to_green[column] = w0 * entries[p0] + w1 * entries[p1] + w2 * entries[p2] + low * entries[p3] + poison
            p0, p1, p2, p3 = p0 + 1, p1 + 1, p2 + 1, p3 + 1
            to_blue[column] = w0 * entries[p0] + w1 * entries[p1] + w2 * entries[p2] + low * entries[p3] + poison
        for column in range(columns):
            out_red[row, column] = to_red[column]
            out_green[row, column] = to_green[column]
            out_blue[row, column] = to_blue[column]


def _loops(function: Any) -> dict[str, RowLoop]:
    found = {}
    for dtype in ("float32", "float64"):
        plane, line = f"{dtype}[:, :]", f"{dtype}[::1]"
        found[dtype] = RowLoop(function, (plane, plane, plane, line, "int64", plane, plane, plane, line))
    return found


_KERNELS = {"trilinear": _loops(_trilinear), "tetrahedral": _loops(_tetrahedral)}


def _entries(table: Array, dtype: Any) -> Array:
    # four values per entry: an entry never straddles a cache line
    entries = np.zeros((*table.shape[1:], 4), dtype)
    entries[..., :3] = np.moveaxis(table, 0, -1)
    return entries.reshape(-1)


def _run(planes: Array, table: Array, interpolation: str, result: Array) -> None:
    _, rows, columns = planes.shape
    loop = _KERNELS[interpolation][planes.dtype.name]
    loop(rows, *planes, _entries(table, planes.dtype), table.shape[-1], *result, scratch=6 * columns)


def _dtype(image: Array, table: Array) -> Any:
    return np.float64 if np.float64 in (image.dtype, table.dtype) else np.float32


def lookup(image: Array, table: Array, interpolation: str) -> Array:
    """See `api.lookup`."""
    working = np.ascontiguousarray(image, _dtype(image, table))
    result = np.empty_like(working)
    for sample in range(image.shape[0]):
        own = table if table.ndim == 4 else table[sample % table.shape[0]]
        _run(working[sample], own, interpolation, result[sample])
    return result.astype(image.dtype, copy=False)


def lookup_pixels(pixels: Array, table: Array, interpolation: str = "trilinear", out: Array | None = None) -> Array:
    """`api.lookup` for one picture in the layout of files.

    Parameters
    ----------
    pixels : [rows, columns, 3], float16, float32 or float64
    table : [3, N, N, N], index [channel, blue, green, red]
    out : where the result goes; may be `pixels`; float32 or float64 as computed, [rows, columns, 3]

    Returns
    -------
    [rows, columns, 3] in the dtype of `pixels`. ValueError for wrong shapes.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"pixels: expected [rows, columns, 3], got shape {list(pixels.shape)}")
    planes = np.moveaxis(pixels, 2, 0)
    validation.check_lookup(planes[None], table, interpolation)
    working = np.ascontiguousarray(pixels, _dtype(pixels, table))
    result = np.empty_like(working) if out is None else out
    if result.shape != working.shape or result.dtype != working.dtype:
        raise ValueError(
            f"out: expected {list(working.shape)} {working.dtype}, got {list(result.shape)} {result.dtype}"
        )
    _run(np.moveaxis(working, 2, 0), table, interpolation, np.moveaxis(result, 2, 0))
    return result if out is not None else result.astype(pixels.dtype, copy=False)
