"""PSNR and SSIM of two display pictures, in 8-bit codes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnkit.scoring.similarity import similarity_map

from .colour import display_codes

Array = NDArray[Any]


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
    found = similarity_map(first, second, 255.0)
    return float(found.mean()) if found.size else math.nan


def _codes(picture: Array, reference: Array) -> tuple[Array, Array]:
    if np.shape(picture) != np.shape(reference):
        raise ValueError(
            f"picture and reference must have the same shape, got {np.shape(picture)} and {np.shape(reference)}"
        )
    return display_codes(picture, quantise=True), display_codes(reference, quantise=True)
