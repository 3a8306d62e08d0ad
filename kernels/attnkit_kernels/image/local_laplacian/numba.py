"""Fused CPU loops: each sample is read and written once, rows in parallel; of the hat weights only the two that are not
zero are computed.

numpy in and out; float32 and float64 are computed as they are, float16 in float32.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import prange, types
from numba.extending import overload
from numpy.typing import NDArray

from ...compiled import launch, loops
from ..laplacian import numba as laplacian
from .curves import Curve, GaussianCurve

Array = NDArray[Any]


def _decay(exponent):  # type: ignore[no-untyped-def]
    """exp(-exponent), for 0 and above, never below exp(-80)."""
    raise NotImplementedError("compiled code only")


@overload(_decay, jit_options={"fastmath": {"contract", "reassoc", "nsz"}})
def _decay_of(exponent):  # type: ignore[no-untyped-def]
    if exponent == types.float64:
        return lambda exponent: math.exp(-(80.0 if exponent > 80.0 else exponent))

    # 2^t = 2^whole 2^part: a polynomial for the part in -0.5..0.5 (1e-7), the whole straight into the exponent bits;
    # unlike math.exp this becomes vector code. the comparison lets a NaN through, and the polynomial carries it
    def vector(exponent):  # type: ignore[no-untyped-def]
        limit = np.float32(80)
        power = (limit if exponent > limit else exponent) * np.float32(-1.4426950408889634)
        whole = np.int32(power - np.float32(0.5))
        part = power - np.float32(whole)
        value = np.float32(0.00015461444724808513) * part + np.float32(0.0013400428177711937)
        value = value * part + np.float32(0.00961805667843204)
        value = value * part + np.float32(0.05550327226669895)
        value = value * part + np.float32(0.24022650922289554)
        value = value * part + np.float32(0.6931472067028329)
        value = value * part + np.float32(1)
        return value * np.int32((whole + np.int32(127)) << np.int32(23)).view(np.float32)

    return vector


@loops(parallel=True)
def _in_band(band, sigma, strength, result):  # type: ignore[no-untyped-def]
    batch, channels, rows, columns = band.shape
    number = band.dtype.type
    one = number(1)
    two = number(2)
    smallest = number(1e-20)
    for task in prange(batch * rows):
        sample = task // rows
        row = task % rows
        factor = np.empty(columns, band.dtype)
        gain = np.empty(columns, band.dtype)
        for channel in range(channels):
            # parameters shared by the channels are prepared once
            if channel == 0 or sigma.shape[1] > 1:
                spread = sigma[sample % sigma.shape[0], channel % sigma.shape[1], row % sigma.shape[2]]
                if spread.size == columns:
                    for column in range(columns):
                        factor[column] = one / max(two * spread[column] * spread[column], smallest)
                else:
                    factor[:] = one / max(two * spread[0] * spread[0], smallest)
            if channel == 0 or strength.shape[1] > 1:
                amount = strength[sample % strength.shape[0], channel % strength.shape[1], row % strength.shape[2]]
                if amount.size == columns:
                    gain[:] = amount
                else:
                    gain[:] = amount[0]
            source = band[sample, channel, row]
            target = result[sample, channel, row]
            for column in range(columns):
                value = source[column]
                target[column] = value * (one + gain[column] * _decay(value * value * factor[column]))


@loops(parallel=True)
def _released(guide, band, sigma, strength, references, result):  # type: ignore[no-untyped-def]
    batch, channels, rows, columns = band.shape
    number = band.dtype.type
    zero = number(0)
    one = number(1)
    two = number(2)
    top = number(references - 1)
    beyond = number(references)
    step = one / top
    for task in prange(batch * rows):
        sample = task // rows
        row = task % rows
        factor = np.empty(columns, band.dtype)
        gain = np.empty(columns, band.dtype)
        for channel in range(channels):
            if channel == 0 or sigma.shape[1] > 1:
                spread = sigma[sample % sigma.shape[0], channel % sigma.shape[1], row % sigma.shape[2]]
                if spread.size == columns:
                    for column in range(columns):
                        factor[column] = two * spread[column] * spread[column]
                else:
                    factor[:] = two * spread[0] * spread[0]
            if channel == 0 or strength.shape[1] > 1:
                amount = strength[sample % strength.shape[0], channel % strength.shape[1], row % strength.shape[2]]
                if amount.size == columns:
                    gain[:] = amount
                else:
                    gain[:] = amount[0]
            local = guide[sample, channel, row]
            source = band[sample, channel, row]
            target = result[sample, channel, row]
            for column in range(columns):
                place = local[column] * top
                poison = place if place != place else zero
                # -1 and `references` are outside, where both weights below are zero
                place = place if place > -one else -one
                place = place if place < beyond else beyond
                first = np.floor(place)
                upper = place - first
                # -1, and `references` - 1 and above: one or both of the two references do not exist
                lower = one - upper if (first >= zero and first <= top) else zero
                upper = upper if first < top else zero
                value = source[column]
                detail = value - first * step
                value += lower * gain[column] * detail * _decay(detail * detail * factor[column])
                detail = value - (first + one) * step
                value += upper * gain[column] * detail * _decay(detail * detail * factor[column])
                target[column] = value + poison


@loops(parallel=True)
def _apply_gaussian(image, reference, strength, factor, result):  # type: ignore[no-untyped-def]
    planes, rows, columns = image.shape
    for task in prange(planes * rows):
        source = image[task // rows, task % rows]
        target = result[task // rows, task % rows]
        for column in range(columns):
            detail = source[column] - reference
            target[column] = source[column] + strength * detail * _decay(detail * detail * factor)


@loops(parallel=True)
def _apply_power(image, reference, sigma, alpha, beta, result):  # type: ignore[no-untyped-def]
    planes, rows, columns = image.shape
    number = image.dtype.type
    zero = number(0)
    one = number(1)
    tiny = number(1e-12)
    for task in prange(planes * rows):
        source = image[task // rows, task % rows]
        target = result[task // rows, task % rows]
        for column in range(columns):
            detail = source[column] - reference
            size = abs(detail)
            amount = beta * (size - sigma) + sigma
            if size <= sigma:
                # the power costs more than all the rest, and edges alone (alpha 1) do not need it
                amount = size if alpha == one else sigma * max(size / sigma, tiny) ** alpha
            target[column] = reference + (amount if detail > zero else (-amount if detail < zero else detail))


@loops(parallel=True)
def _accumulate(coarse, fine, guide, value, distance, low, high, result):  # type: ignore[no-untyped-def]
    """result += w(guide) (fine - up(coarse)) for one reference value."""
    planes, small_rows, small_columns = coarse.shape
    rows, columns = result.shape[1:]
    number = coarse.dtype.type
    zero = number(0)
    one = number(1)
    half = number(0.5)
    six = number(6)
    eighth = number(0.125)
    scale = one / distance
    for task in prange(planes * rows):
        plane = task // rows
        row = task % rows
        at = row // 2
        middle = coarse[plane, at]
        after = coarse[plane, min(at + 1, small_rows - 1)]
        line = np.empty(small_columns + 2, coarse.dtype)
        if row % 2:
            for column in range(small_columns):
                line[column + 1] = (middle[column] + after[column]) * half
        else:
            before = coarse[plane, at - 1 if at > 0 else min(1, small_rows - 1)]
            for column in range(small_columns):
                line[column + 1] = (before[column] + after[column] + six * middle[column]) * eighth
        line[0] = line[min(2, small_columns)]
        line[small_columns + 1] = line[small_columns]
        base = np.empty(2 * small_columns, coarse.dtype)
        for column in range(small_columns):
            center = line[column + 1]
            base[2 * column] = (line[column] + line[column + 2] + six * center) * eighth
            base[2 * column + 1] = (center + line[column + 2]) * half
        source = fine[plane, row]
        local = guide[plane, row]
        target = result[plane, row]
        for column in range(columns):
            place = local[column]
            place = low if place < low else place
            place = high if place > high else place
            weight = one - abs(place - value) * scale
            weight = zero if weight < zero else weight
            target[column] += weight * (source[column] - base[column])


def _working(array: Array, dtype: Any) -> Array:
    return np.ascontiguousarray(array, dtype)


def remap(guide: Array, band: Array, sigma: Array, strength: Array, references: int, form: str) -> Array:
    """See `api.remap`."""
    dtype = np.float64 if np.float64 in (guide.dtype, band.dtype, sigma.dtype, strength.dtype) else np.float32
    source, spread, gain = (_working(array, dtype) for array in (band, sigma, strength))
    result = np.empty_like(source)
    if form == "in_band":
        launch(_in_band, source, spread, gain, result)
    else:
        launch(_released, _working(guide, dtype), source, spread, gain, references, result)
    return result.astype(band.dtype, copy=False)


def _apply(planes: Array, value: float, curve: Curve, result: Array) -> None:
    number = planes.dtype.type
    if isinstance(curve, GaussianCurve):
        factor = number(1 / (2 * curve.sigma**2))
        launch(_apply_gaussian, planes, number(value), number(curve.strength), factor, result)
    else:
        shape = number(curve.sigma), number(curve.alpha), number(curve.beta)
        launch(_apply_power, planes, number(value), *shape, result)


def filter(image: Array, levels: int, curve: Curve, references: int, low: float, high: float) -> Array:
    """See `api.filter`."""
    working = laplacian.working(image)
    number = working.dtype.type
    guides = laplacian.gaussian(working, levels)
    bands = [np.zeros_like(guide) for guide in guides[:-1]]
    remapped = np.empty_like(working)
    distance = (high - low) / (references - 1)
    limits = number(distance), number(low), number(high)
    for j in range(references if levels else 0):
        value = low + j * distance
        _apply(laplacian.planes(working), value, curve, laplacian.planes(remapped))
        pyramid = laplacian.gaussian(remapped, levels)
        for level in range(levels):
            parts = pyramid[level + 1], pyramid[level], guides[level]
            planes = [laplacian.planes(part) for part in parts]
            launch(_accumulate, *planes, number(value), *limits, laplacian.planes(bands[level]))
    return laplacian.reconstruct(*bands, guides[-1]).astype(image.dtype, copy=False)
