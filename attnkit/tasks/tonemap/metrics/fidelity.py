"""PSNR and SSIM of two display pictures, in 8-bit codes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .colour import display_codes

Array = NDArray[Any]

_WINDOW = 11
_SIGMA = 1.5


def psnr(picture: Array, reference: Array) -> float:
    """Peak signal-to-noise ratio in dB over all channels, codes rounded to 8 bits; infinite for equal pictures.

    Args:
        picture: display picture (rows, columns[, channels]), uint8, uint16 or float 0..1.
        reference: the same shape.
    """
    first, second = _codes(picture, reference)
    error = float(np.mean((first - second) ** 2))
    return 10 * math.log10(255.0**2 / error) if error > 0 else math.inf


def ssim(picture: Array, reference: Array) -> float:
    """Structural similarity, mean over channels and over the area where the 11x11 Gaussian window (sigma 1.5) fits.

    Args:
        picture: display picture (rows, columns[, channels]), uint8, uint16 or float 0..1.
        reference: the same shape.

    NaN where a side is below 11 pixels. K1 .01, K2 .03, range 255, population covariance.

    Notes:
        Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment", TIP 2004, equation 13.
    """
    first, second = _codes(picture, reference)
    if min(first.shape[:2]) < _WINDOW:
        return math.nan
    mean_first, mean_second = _blur(first), _blur(second)
    variance_first = _blur(first * first) - mean_first**2
    variance_second = _blur(second * second) - mean_second**2
    covariance = _blur(first * second) - mean_first * mean_second
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    map_of = ((2 * mean_first * mean_second + c1) * (2 * covariance + c2)) / (
        (mean_first**2 + mean_second**2 + c1) * (variance_first + variance_second + c2)
    )
    edge = _WINDOW // 2
    return float(map_of[edge:-edge, edge:-edge].mean())


def _codes(picture: Array, reference: Array) -> tuple[Array, Array]:
    if np.shape(picture) != np.shape(reference):
        raise ValueError(
            f"picture and reference must have the same shape, got {np.shape(picture)} and {np.shape(reference)}"
        )
    return display_codes(picture, quantise=True), display_codes(reference, quantise=True)


def _blur(image: Array) -> Array:
    import cv2

    return cv2.GaussianBlur(image, (_WINDOW, _WINDOW), _SIGMA, borderType=cv2.BORDER_REFLECT)
