"""Luminance, sRGB decoding and OKLab for the metrics: plain numpy, so that a score never loads a model."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# Rec.709 luminance, the weights of the TMQI definition
LUMINANCE = np.array([0.2126, 0.7152, 0.0722])

# Ottosson, "A perceptual color space for image processing" (2020): linear sRGB -> cone response, cone root -> Lab
_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_OPPONENT = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def luminance(pixels: Array) -> Array:
    """Luminance (rows, columns) in float64 of a picture (rows, columns, 3), or the picture itself if it is grey."""
    pixels = np.asarray(pixels)
    if pixels.ndim == 2:
        return pixels.astype(np.float64)
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4):
        raise ValueError(f"a picture must be (rows, columns) or (rows, columns, 1|3|4), got shape {pixels.shape}")
    if pixels.shape[2] == 1:
        return pixels[..., 0].astype(np.float64)
    return pixels[..., :3].astype(np.float64) @ LUMINANCE


def display_codes(display: Array, *, quantise: bool) -> Array:
    """Display values as float64 codes 0..255.

    uint8 is taken as it is, uint16 is divided by 257, floats are display values 0..1. `quantise` rounds to whole
    codes: what an 8-bit file would hold.
    """
    display = np.asarray(display)
    if display.dtype == np.uint8:
        return display.astype(np.float64)
    scale = 1 / 257 if display.dtype == np.uint16 else 255.0
    codes = np.clip(display.astype(np.float64) * scale, 0.0, 255.0)
    return np.rint(codes) if quantise else codes


def srgb_to_linear(display: Array) -> Array:
    """sRGB-encoded values 0..1 as linear light 0..1 (IEC 61966-2-1)."""
    display = np.asarray(display, dtype=np.float64)
    return np.where(display <= 0.04045, display / 12.92, ((display + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(linear: Array) -> Array:
    """Linear light 0..1 as sRGB-encoded values 0..1 (IEC 61966-2-1)."""
    linear = np.clip(np.asarray(linear, dtype=np.float64), 0.0, 1.0)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


def luma_codes(display: Array) -> Array:
    """sRGB code 0..255 (not rounded) of the luminance that a display picture shows, (rows, columns)."""
    codes = display_codes(display, quantise=False)
    if codes.ndim == 2:
        return codes
    return linear_to_srgb(luminance(srgb_to_linear(codes / 255.0))) * 255.0


def oklab(linear: Array) -> Array:
    """OKLab of linear sRGB light (..., 3); homogeneous of degree 1/3, so hue does not depend on exposure."""
    cones = np.cbrt(np.maximum(np.asarray(linear, dtype=np.float64), 0.0) @ _CONES.T)
    return cones @ _OPPONENT.T
