"""Fused CPU loops for whole tone-mapping passes on pictures in the layout of files, [rows, columns, 3] float32.

Each function does in one pass over memory what several operators of this folder do one after the other: log encoding,
3-D look-up and luma; or up-sampling, in-band local Laplacian remap, collapse and recolouring. Rows run in parallel;
inner loops work on lines so that they become vector code.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..native import inline, rows

Array = NDArray[Any]

LUMA = (0.2126, 0.7152, 0.0722)


@inline
def _log2_line(line, bits, out, count):  # type: ignore[no-untyped-def]
    """out = log2(line) for positive float32, to 2e-6; `bits` is the same memory as int32 and is used up."""
    for k in range(count):
        out[k] = np.float32((bits[k] >> np.int32(23)) - np.int32(127))
        bits[k] = (bits[k] & np.int32(0x007FFFFF)) | np.int32(0x3F800000)
    for k in range(count):
        x = line[k] - np.float32(1.5)
        # least-squares fit of log2(1.5 + x) on [-0.5, 0.5]
        p = np.float32(LOG2_COEFFICIENTS[8])
        p = p * x + np.float32(LOG2_COEFFICIENTS[7])
        p = p * x + np.float32(LOG2_COEFFICIENTS[6])
        p = p * x + np.float32(LOG2_COEFFICIENTS[5])
        p = p * x + np.float32(LOG2_COEFFICIENTS[4])
        p = p * x + np.float32(LOG2_COEFFICIENTS[3])
        p = p * x + np.float32(LOG2_COEFFICIENTS[2])
        p = p * x + np.float32(LOG2_COEFFICIENTS[1])
        p = p * x + np.float32(LOG2_COEFFICIENTS[0])
        out[k] += p


def _fit(function: Any, low: float, high: float, centre: float, degree: int) -> tuple[float, ...]:
    nodes = (low + high) / 2 + (high - low) / 2 * np.cos(np.pi * (np.arange(200) + 0.5) / 200)
    series = np.polynomial.Polynomial.fit(nodes - centre, function(nodes), degree, domain=[-1, 1], window=[-1, 1])
    return tuple(float(value) for value in series.coef)


LOG2_COEFFICIENTS = _fit(np.log2, 1.0, 2.0, 1.5, 8)
EXP2_COEFFICIENTS = _fit(np.exp2, 0.0, 1.0, 0.0, 5)


@inline
def _encode_line(source, gain, black, offset, scale, top, light, place):  # type: ignore[no-untyped-def]
    """place = (log2(source * gain + black) + offset) * scale, clamped to the samples 0..top of the table."""
    for k in range(place.size):
        light[k] = source[k] * gain + black
    _log2_line(light, light.view(np.int32), place, place.size)
    for k in range(place.size):
        value = (place[k] + offset) * scale
        value = value if value > np.float32(0) else np.float32(0)
        place[k] = value if value < top else top


# pixels and full as lines of 3 x columns
_LOOKUP = (
    "float32[:, ::1]; float32; float32; float32; float32; float32[::1]; int64; float32[:, ::1]; float32[:, ::1]; "
    "float32[::1]"
)


@rows(_LOOKUP)
def _encode_lookup(start, stop, pixels, gain, black, offset, scale, entries, size, full, luma, scratch):  # type: ignore[no-untyped-def]
    columns = luma.shape[1]
    top = np.float32(size - 1)
    last = np.int32(size - 2)
    count = np.int32(size)
    red_step = np.int32(4)
    green_step = count * red_step
    blue_step = count * green_step
    light = scratch[: 3 * columns]
    place = scratch[3 * columns : 6 * columns]
    for row in range(start, stop):
        _encode_line(pixels[row], gain, black, offset, scale, top, light, place)
        target = full[row]
        for column in range(columns):
            r = place[3 * column]
            g = place[3 * column + 1]
            b = place[3 * column + 2]
            cell_r = min(np.int32(r), last)
            cell_g = min(np.int32(g), last)
            cell_b = min(np.int32(b), last)
            r -= np.float32(cell_r)
            g -= np.float32(cell_g)
            b -= np.float32(cell_b)
            rest = np.float32(1) - r
            p00 = ((cell_b * count + cell_g) * count + cell_r) * red_step
            p01 = p00 + green_step
            p10 = p00 + blue_step
            p11 = p10 + green_step
            brightness = np.float32(0)
            for channel in range(3):
                n = entries[p00 + channel] * rest + entries[p00 + 4 + channel] * r
                n += (entries[p01 + channel] * rest + entries[p01 + 4 + channel] * r - n) * g
                f = entries[p10 + channel] * rest + entries[p10 + 4 + channel] * r
                f += (entries[p11 + channel] * rest + entries[p11 + 4 + channel] * r - f) * g
                value = n + (f - n) * b
                target[3 * column + channel] = value
                brightness += value * np.float32(LUMA[channel])
            luma[row, column] = brightness


@rows(_LOOKUP)
def _encode_lookup_tetrahedral(start, stop, pixels, gain, black, offset, scale, entries, size, full, luma, scratch):  # type: ignore[no-untyped-def]
    columns = luma.shape[1]
    top = np.float32(size - 1)
    last = np.int32(size - 2)
    count = np.int32(size)
    red_step = np.int32(4)
    green_step = count * red_step
    blue_step = count * green_step
    light = scratch[: 3 * columns]
    place = scratch[3 * columns : 6 * columns]
    for row in range(start, stop):
        _encode_line(pixels[row], gain, black, offset, scale, top, light, place)
        target = full[row]
        for column in range(columns):
            r = place[3 * column]
            g = place[3 * column + 1]
            b = place[3 * column + 2]
            cell_r = min(np.int32(r), last)
            cell_g = min(np.int32(g), last)
            cell_b = min(np.int32(b), last)
            r -= np.float32(cell_r)
            g -= np.float32(cell_g)
            b -= np.float32(cell_b)
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
            w0 = np.float32(1) - high
            w1 = high - middle
            w2 = middle - low
            brightness = np.float32(0)
            for channel in range(3):
                value = (
                    w0 * entries[p0 + channel]
                    + w1 * entries[p1 + channel]
                    + w2 * entries[p2 + channel]
                    + low * entries[p3 + channel]
                )
                target[3 * column + channel] = value
                brightness += value * np.float32(LUMA[channel])
            luma[row, column] = brightness


_LOOKUPS = {"trilinear": _encode_lookup, "tetrahedral": _encode_lookup_tetrahedral}


def encode_lookup(
    pixels: Array, table: Array, *, anchor: float, toe: float, head: float, interpolation: str = "trilinear"
) -> tuple[Array, Array]:
    """Log-encode linear light, send it through a table, and take the luma.

    Parameters
    ----------
    pixels : [rows, columns, 3] float32, linear light >= 0
    table : [3, N, N, N] float32, index [channel, blue, green, red]
    anchor, toe, head : the encoding e = (log2(x / anchor + 2^-toe) + toe) / (toe + head), clamped to 0..1
    interpolation : "trilinear" or "tetrahedral"

    Returns
    -------
    full [rows, columns, 3] and luma [rows, columns], float32, in the table's units. ValueError for an unknown
    interpolation.
    """
    if interpolation not in _LOOKUPS:
        raise ValueError(f"interpolation: expected one of {', '.join(_LOOKUPS)}, got {interpolation!r}")
    height, columns, _ = pixels.shape
    size = table.shape[-1]
    entries = np.zeros((*table.shape[1:], 4), np.float32)
    entries[..., :3] = np.moveaxis(table, 0, -1)
    full = np.empty((height, columns, 3), np.float32)
    luma = np.empty((height, columns), np.float32)
    scale = np.float32((size - 1) / (toe + head))
    _LOOKUPS[interpolation](
        height,
        np.ascontiguousarray(pixels, np.float32).reshape(height, -1),
        1 / anchor,
        2.0**-toe,
        toe,
        scale,
        entries.reshape(-1),
        size,
        full.reshape(height, -1),
        luma,
        scratch=6 * columns,
    )
    return full, luma


@inline
def _up_line(coarse, row, line, out, columns):  # type: ignore[no-untyped-def]
    """One row of up(coarse), see `laplacian.up`; `line` is scratch of the coarse width + 2."""
    small_rows, small_columns = coarse.shape
    half = np.float32(0.5)
    eighth = np.float32(0.125)
    six = np.float32(6)
    at = row // 2
    middle = coarse[at]
    after = coarse[min(at + 1, small_rows - 1)]
    if row % 2:
        for column in range(small_columns):
            line[column + 1] = (middle[column] + after[column]) * half
    else:
        before = coarse[at - 1 if at > 0 else min(1, small_rows - 1)]
        for column in range(small_columns):
            line[column + 1] = (before[column] + after[column] + six * middle[column]) * eighth
    line[0] = line[min(2, small_columns)]
    line[small_columns + 1] = line[small_columns]
    for column in range(columns // 2):
        value = line[column + 1]
        out[2 * column] = (line[column] + line[column + 2] + six * value) * eighth
        out[2 * column + 1] = (value + line[column + 2]) * half
    if columns % 2:
        out[columns - 1] = (line[small_columns - 1] + line[small_columns + 1] + six * line[small_columns]) * eighth


@inline
def _remap_row(row, guide, coarse_guide, coarse_result, maps, places, shares, scratch, result_line):  # type: ignore[no-untyped-def]
    """One row of up(result) + L (1 + f exp(-L^2 / (2 sigma^2))) with L = G - up(G)."""
    rows, columns = guide.shape
    count, map_rows, map_columns = maps.shape
    references = count - 1
    line = scratch[: coarse_guide.shape[1] + 2]
    at = coarse_guide.shape[1] + 2
    base = scratch[at : at + columns]
    strength = scratch[at + columns : at + 2 * columns]
    power = scratch[at + 2 * columns : at + 3 * columns]
    exponent = scratch[at + 3 * columns : at + 4 * columns]
    bits = exponent.view(np.int32)
    own = scratch[at + 4 * columns :]
    _up_line(coarse_guide, row, line, base, columns)
    _up_line(coarse_result, row, line, result_line, columns)
    position = np.float32(row) * (np.float32(map_rows - 1) / np.float32(max(rows - 1, 1)))
    above = min(np.int32(position), max(map_rows - 2, 0))
    below = min(above + 1, map_rows - 1)
    share = position - np.float32(above)
    # references side by side, so that the two that a pixel mixes share a cache line
    for k in range(map_columns):
        for j in range(count):
            own[k * count + j] = maps[j, above, k] * (np.float32(1) - share) + maps[j, below, k] * share
    for j in range(count):
        own[map_columns * count + j] = own[(map_columns - 1) * count + j]
    top = np.float32(references - 1)
    last = np.int32(references - 2)
    step = np.int32(count)
    for column in range(columns):
        value = guide[row, column]
        band = value - base[column]
        base[column] = band
        value *= top
        value = value if value > np.float32(0) else np.float32(0)
        value = value if value < top else top
        j = min(np.int32(value), last)
        u = value - np.float32(j)
        t = shares[column]
        k = places[column] + j
        left = own[k] + (own[k + 1] - own[k]) * u
        right = own[k + step] + (own[k + step + 1] - own[k + step]) * u
        strength[column] = left + (right - left) * t
        k = places[column] + references
        sharp = own[k] + (own[k + step] - own[k]) * t
        band /= sharp
        # log2(e) / 2, and nothing is left below 2^-30
        power[column] = max(np.float32(-0.72134752) * band * band, np.float32(-30.0))
    for column in range(columns):
        whole = np.int32(power[column] + np.float32(64)) - np.int32(64)
        x = power[column] - np.float32(whole)
        p = np.float32(EXP2_COEFFICIENTS[5])
        p = p * x + np.float32(EXP2_COEFFICIENTS[4])
        p = p * x + np.float32(EXP2_COEFFICIENTS[3])
        p = p * x + np.float32(EXP2_COEFFICIENTS[2])
        p = p * x + np.float32(EXP2_COEFFICIENTS[1])
        p = p * x + np.float32(EXP2_COEFFICIENTS[0])
        power[column] = p
        bits[column] = (whole + np.int32(127)) << np.int32(23)
    for column in range(columns):
        result_line[column] += base[column] * (np.float32(1) + strength[column] * power[column] * exponent[column])


_REMAP = (
    "float32[:, ::1]; float32[:, ::1]; float32[:, ::1]; float32[:, :, ::1]; int32[::1]; float32[::1]; "
    "float32[:, ::1]; float32[::1]"
)


@rows(_REMAP)
def _remap_level(start, stop, guide, coarse_guide, coarse_result, maps, places, shares, result, scratch):  # type: ignore[no-untyped-def]
    for row in range(start, stop):
        _remap_row(row, guide, coarse_guide, coarse_result, maps, places, shares, scratch, result[row])


@inline
def _recolour_row(full_row, luma_row, target_row):  # type: ignore[no-untyped-def]
    for column in range(luma_row.shape[0]):
        target = min(max(target_row[column], np.float32(0)), np.float32(1))
        ratio = target / max(luma_row[column], np.float32(1e-3))
        red = full_row[3 * column] * ratio
        green = full_row[3 * column + 1] * ratio
        blue = full_row[3 * column + 2] * ratio
        excess = max(max(red, green), blue) - target
        keep = min((np.float32(1) - target) / max(excess, np.float32(1e-6)), np.float32(1))
        full_row[3 * column] = min(max(target + (red - target) * keep, np.float32(0)), np.float32(1))
        full_row[3 * column + 1] = min(max(target + (green - target) * keep, np.float32(0)), np.float32(1))
        full_row[3 * column + 2] = min(max(target + (blue - target) * keep, np.float32(0)), np.float32(1))


@rows(_REMAP)
def _remap_recolour(start, stop, guide, coarse_guide, coarse_result, maps, places, shares, full, scratch):  # type: ignore[no-untyped-def]
    columns = guide.shape[1]
    target = scratch[:columns]
    rest = scratch[columns:]
    for row in range(start, stop):
        _remap_row(row, guide, coarse_guide, coarse_result, maps, places, shares, rest, target)
        _recolour_row(full[row], guide[row], target)


@rows("float32[:, ::1]; float32[:, ::1]; float32[:, ::1]")
def _recolour(start, stop, full, luma, target):  # type: ignore[no-untyped-def]
    for row in range(start, stop):
        _recolour_row(full[row], luma[row], target[row])


def _positions(columns: int, map_columns: int, count: int) -> tuple[Array, Array]:
    """Where each column falls between the columns of the maps, corners on corners."""
    position = np.arange(columns) * ((map_columns - 1) / max(columns - 1, 1))
    left = np.minimum(position.astype(np.int32), max(map_columns - 2, 0))
    return (left * count).astype(np.int32), (position - left).astype(np.float32)


def _scratch(guide: Array, maps: Array) -> int:
    """Numbers that `_remap_row` and the line of `_remap_recolour` need."""
    count, _, map_columns = maps.shape
    columns = guide.shape[1]
    return (columns + 1) // 2 + 2 + 5 * columns + (map_columns + 1) * count


def remap_level(guide: Array, coarse_guide: Array, coarse_result: Array, maps: Array) -> Array:
    """Remap one band of a luma pyramid and add it to the result so far: up(coarse_result) + R.

    Parameters
    ----------
    guide : [rows, columns] float32, Gaussian level G_l; the band is L = G_l - up(G_{l+1})
    coarse_guide, coarse_result : [ceil(rows / 2), ceil(columns / 2)], G_{l+1} and the result of the level below
    maps : [references + 1, h, w] float32, 2 or more references: a strength map f for each reference luma
        j / (references - 1), then sigma; spread over the level with corners on corners

    Returns
    -------
    [rows, columns] float32.

    Notes
    -----
    R = L (1 + f exp(-L^2 / (2 sigma^2))), f mixed from the two references around G_l. Fast local Laplacian filter
    (Aubry et al. 2014) with its reference at the local base up(G_{l+1}).
    """
    result = np.empty_like(guide)
    places, shares = _positions(guide.shape[1], maps.shape[2], maps.shape[0])
    _remap_level(
        len(guide), guide, coarse_guide, coarse_result, maps, places, shares, result, scratch=_scratch(guide, maps)
    )
    return result


def remap_recolour(guide: Array, coarse_guide: Array, coarse_result: Array, maps: Array, full: Array) -> Array:
    """`remap_level` for the finest level and `recolour` in one pass; `full` is overwritten and returned."""
    places, shares = _positions(guide.shape[1], maps.shape[2], maps.shape[0])
    lines = full.reshape(len(full), -1)
    _remap_recolour(
        len(guide), guide, coarse_guide, coarse_result, maps, places, shares, lines, scratch=_scratch(guide, maps)
    )
    return full


def recolour(full: Array, luma: Array, target: Array) -> Array:
    """Give a picture a new luma: channels keep their ratios and move towards grey where one would pass 1.

    `full` [rows, columns, 3] is overwritten and returned; `luma` [rows, columns] is its luma, `target` the one wanted,
    all display-encoded 0..1, float32.
    """
    _recolour(len(full), full.reshape(len(full), -1), luma, np.ascontiguousarray(target, np.float32))
    return full
