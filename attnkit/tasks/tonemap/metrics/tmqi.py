"""TMQI, the tone-mapped image quality index, ported from the definition of the original Matlab."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .colour import display_codes, luminance

Array = NDArray[Any]

OVERALL, ALPHA, BETA = 0.8012, 0.3046, 0.7088
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
# cycles per degree of the five scales, finest first
FREQUENCIES = (16.0, 8.0, 4.0, 2.0, 1.0)
WINDOW = 11
SIGMA = 1.5


class Tmqi(NamedTuple):
    """Overall quality, structural fidelity and statistical naturalness, each in [0, 1]; NaN where undefined."""

    q: float
    s: float
    n: float


def tmqi(hdr: Array, ldr: Array) -> Tmqi:
    """Score of a tone-mapped picture against the linear picture that it shows.

    Args:
        hdr: linear light (rows, columns[, 3]), any scale.
        ldr: display picture of the same rows and columns: uint8, uint16, or float 0..1, taken as 8-bit codes.

    A picture too small for all five scales (smallest side below 176) is scored on the scales that fit, their weights
    renormalised; below 11 pixels S and Q are NaN. A scale whose mean is negative (an inverted picture) counts as 0,
    where the Matlab code returns a complex number.

    Raises:
        ValueError: the shapes differ or are not those of a picture.

    Notes:
        Q = a S^alpha + (1 - a) N^beta.
        Yeganeh and Wang, "Objective quality assessment of tone-mapped images", TIP 2013, equations 3 to 10.
    """
    reference = luminance(hdr)
    shown = luminance(display_codes(ldr, quantise=True))
    if reference.shape != shown.shape:
        raise ValueError(f"hdr and ldr must have the same rows and columns, got {reference.shape} and {shown.shape}")
    s = structural_fidelity(reference, shown)
    n = naturalness(shown)
    return Tmqi(OVERALL * s**ALPHA + (1 - OVERALL) * n**BETA, s, n)


def naturalness(codes: Array) -> float:
    """Statistical naturalness N of a luminance picture (rows, columns) in codes 0..255.

    The spread is the mean sample standard deviation of 11x11 tiles; tiles that stick out are filled with zeros and
    count by the part that lies inside, as blkproc does.
    """
    rows, columns = codes.shape
    tiles_down, tiles_across = -(-rows // WINDOW), -(-columns // WINDOW)
    padded = np.zeros((tiles_down * WINDOW, tiles_across * WINDOW))
    padded[:rows, :columns] = codes
    tiles = padded.reshape(tiles_down, WINDOW, tiles_across, WINDOW)
    deviation = tiles.std(axis=(1, 3), ddof=1)
    height = np.minimum(WINDOW, rows - np.arange(tiles_down) * WINDOW)
    width = np.minimum(WINDOW, columns - np.arange(tiles_across) * WINDOW)
    spread = float(height @ deviation @ width) / (rows * columns)
    return _beta_ratio(spread / 64.29) * math.exp(-0.5 * ((float(codes.mean()) - 115.94) / 27.99) ** 2)


def _beta_ratio(value: float, p: float = 4.4, q: float = 10.1) -> float:
    """Beta density at value divided by the density at the mode; the normalising constant cancels."""
    if not 0.0 < value < 1.0:
        return 0.0
    mode = (p - 1) / (p + q - 2)
    return float((value / mode) ** (p - 1) * ((1 - value) / (1 - mode)) ** (q - 1))


def structural_fidelity(reference: Array, shown: Array) -> float:
    """Structural fidelity S of codes 0..255 against linear luminance of any scale, both (rows, columns)."""
    low, high = float(reference.min()), float(reference.max())
    # a constant scene has no range to stretch: its structure is zero everywhere
    factor = float(np.round((2.0**32 - 1) / (high - low))) if high > low else 0.0
    if not math.isfinite(factor):
        factor = 0.0
    first, second = (reference - low) * factor, shown
    product, used = 1.0, 0.0
    for weight, frequency in zip(WEIGHTS, FREQUENCIES, strict=True):
        if min(first.shape) < WINDOW:
            break
        product *= max(local_fidelity(first, second, frequency), 0.0) ** weight
        used += weight
        first, second = _halve(first), _halve(second)
    return product ** (1.0 / used) if 0.0 < used < sum(WEIGHTS) - 1e-9 else (product if used else math.nan)


def local_fidelity(first: Array, second: Array, frequency: float) -> float:
    """Mean local structural fidelity at one scale, over the area where the 11x11 window fits."""
    from scipy.special import ndtr

    mean_first, mean_second = _window(first), _window(second)
    deviation_first = np.sqrt(np.maximum(_window(first * first) - mean_first**2, 0.0))
    deviation_second = np.sqrt(np.maximum(_window(second * second) - mean_second**2, 0.0))
    covariance = _window(first * second) - mean_first * mean_second
    sensitivity = 260.0 * (0.0192 + 0.114 * frequency) * math.exp(-((0.114 * frequency) ** 1.1))
    threshold = 128.0 / (1.4 * sensitivity)
    visible_first = ndtr((deviation_first - threshold) / (threshold / 3))
    visible_second = ndtr((deviation_second - threshold) / (threshold / 3))
    contrast = (2 * visible_first * visible_second + 0.01) / (visible_first**2 + visible_second**2 + 0.01)
    structure = (covariance + 10.0) / (deviation_first * deviation_second + 10.0)
    return float(np.mean(contrast * structure))


def _window(image: Array) -> Array:
    """Gaussian 11x11 mean, sigma 1.5, at the positions where the window fits."""
    import cv2

    offsets = np.arange(WINDOW) - WINDOW // 2
    kernel = np.exp(-(offsets**2) / (2 * SIGMA**2))
    kernel /= kernel.sum()
    edge = WINDOW // 2
    return cv2.sepFilter2D(image, cv2.CV_64F, kernel, kernel)[edge:-edge, edge:-edge]


def _halve(image: Array) -> Array:
    """2x2 box mean at every second sample; an odd last row or column is averaged with its mirror, itself."""
    rows, columns = image.shape
    even = np.pad(image, ((0, rows % 2), (0, columns % 2)), mode="symmetric")
    return (even[0::2, 0::2] + even[1::2, 0::2] + even[0::2, 1::2] + even[1::2, 1::2]) / 4
