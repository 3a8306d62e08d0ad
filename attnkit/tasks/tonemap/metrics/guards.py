"""Guards beside the score: halos, colour shifts and noise in the dark, which a quality index alone does not see."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .colour import display_codes, luma_codes, luminance, oklab, srgb_to_linear

Array = NDArray[Any]

# scale (Gaussian sigma, pixels), least slope of an edge (stops per pixel), slope that 8-bit codes alone may fake
# (codes per pixel: half a code between unsmoothed neighbours, and what is left of it after the wider blur)
EDGE_SCALES = ((1.0, 0.1, 0.5), (4.0, 0.05, 0.1))
_DARK_ELECTRONS = 400.0
_READ_ELECTRONS = 4.0


def reversed_edges(hdr: Array, ldr: Array) -> float:
    """Share (0..1) of edge pixels whose slope the tone-mapped picture turns round: halos and false contours.

    Args:
        hdr: linear light (rows, columns[, 3]).
        ldr: display picture, uint8, uint16 or float 0..1.

    Edges are pixels where log2 luminance, blurred with sigma 1 (and again with sigma 4), climbs at least 0.1 (0.05)
    stops per pixel. Such a pixel is reversed where the slope of the shown luma, blurred alike and projected on the
    direction of the edge, is below -0.5 (-0.1) codes of 255 per pixel: more than rounding to 8 bits can fake. Both
    scales are pooled. NaN where the scene has no edge.
    """
    import cv2

    light = luminance(hdr)
    stops = np.log2(np.maximum(light, _black_level(light)))
    codes = luma_codes(ldr)
    _same_size(stops, codes)
    edges = reversed_count = 0
    for sigma, least_slope, rounding in EDGE_SCALES:
        down, across = np.gradient(_at_least_two(cv2.GaussianBlur(stops, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)))
        shown = _at_least_two(cv2.GaussianBlur(codes, (0, 0), sigma, borderType=cv2.BORDER_REFLECT))
        shown_down, shown_across = np.gradient(shown)
        slope = np.hypot(down, across)
        edge = slope >= least_slope
        along = (down * shown_down + across * shown_across)[edge] / slope[edge]
        edges += int(edge.sum())
        reversed_count += int((along < -rounding).sum())
    return reversed_count / edges if edges else math.nan


def hue_error(hdr: Array, ldr: Array) -> float:
    """Mean OKLab hue difference in degrees between what is shown and the linear picture, weighted by shown chroma.

    OKLab hue does not change with exposure, so no scale has to be found. Pixels that are black (below 1e-5 of the
    99th percentile, or shown darker than L .05) or near-neutral (chroma / lightness below .03 in the scene, chroma
    below .01 as shown) have no hue and do not count. NaN where no pixel counts.
    """
    linear = np.maximum(np.asarray(hdr, dtype=np.float64)[..., :3], 0.0)
    display = display_codes(ldr, quantise=False)[..., :3] / 255.0
    if linear.ndim != 3 or display.ndim != 3:
        return math.nan
    _same_size(linear, display)
    scene, shown = oklab(linear), oklab(srgb_to_linear(display))
    light = luminance(linear)
    scene_chroma, shown_chroma = np.hypot(scene[..., 1], scene[..., 2]), np.hypot(shown[..., 1], shown[..., 2])
    counts = (light > _black_level(light)) & (scene_chroma > 0.03 * scene[..., 0])
    counts &= (shown[..., 0] > 0.05) & (shown_chroma > 0.01)
    if not counts.any():
        return math.nan
    a, b = scene[counts][:, 1:], shown[counts][:, 1:]
    angle = np.abs(np.arctan2(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0], (a * b).sum(axis=1)))
    return float(np.degrees(np.average(angle, weights=shown_chroma[counts])))


def dark_noise_gain(render: Callable[[Array], Array], hdr: Array, seed: int = 0) -> float:
    """How strongly a method shows the noise of the dark parts: see `noise_gain_between`.

    Args:
        render: linear light (rows, columns, 3) float32 -> display picture.
        hdr: linear light (rows, columns, 3).
    """
    noisy = add_noise(hdr, seed)
    return noise_gain_between(hdr, noisy, render(np.asarray(hdr, dtype=np.float32)), render(noisy))


def add_noise(hdr: Array, seed: int = 0) -> Array:
    """The linear picture (float32) as a small sensor would see it: shot noise and read noise.

    The exposure is such that the mean of the dark quarter collects 400 electrons in each channel of a grey pixel
    (signal-to-noise 20); read noise is 4 electrons. Values below 0 are cut off.
    """
    clean = np.maximum(np.asarray(hdr, dtype=np.float64), 0.0)
    light = luminance(clean)
    dark = _dark_quarter(light)
    if not dark.any():
        return clean.astype(np.float32)
    electrons = clean * (_DARK_ELECTRONS / light[dark].mean())
    generator = np.random.default_rng(seed)
    noise = generator.standard_normal(clean.shape) * np.sqrt(electrons + _READ_ELECTRONS**2)
    noisy = np.maximum(electrons + noise, 0.0) * (light[dark].mean() / _DARK_ELECTRONS)
    return noisy.astype(np.float32)


def noise_gain_between(hdr: Array, noisy: Array, clean_render: Array, noisy_render: Array) -> float:
    """Codes (of 255) of shown noise per unit of relative noise, over the darkest quarter of the scene.

    Standard deviation of the difference of the two renders' luma over (standard deviation of the difference of the
    two scenes' luminance / mean luminance there). With uint8 renders, as files of other programs are, the variance
    that rounding adds (1/6 of a code squared) is taken off. NaN where the scene is black.
    """
    light, noisy_light = luminance(np.maximum(hdr, 0.0)), luminance(noisy)
    before, after = luma_codes(clean_render), luma_codes(noisy_render)
    _same_size(light, before)
    _same_size(before, after)
    dark = _dark_quarter(light)
    if not dark.any():
        return math.nan
    relative = float((noisy_light - light)[dark].std() / light[dark].mean())
    variance = float((after - before)[dark].var())
    if np.asarray(clean_render).dtype == np.uint8:
        variance = max(variance - 1 / 6, 0.0)
    return math.sqrt(variance) / relative if relative > 0 else math.nan


def _dark_quarter(light: Array) -> Array:
    """Mask of the darkest quarter of the pixels that are not black."""
    lit = light > 0
    if not lit.any():
        return lit
    return lit & (light <= np.quantile(light[lit], 0.25))


def _black_level(light: Array) -> float:
    return max(float(np.quantile(light, 0.99)) * 1e-5, 1e-30)


def _at_least_two(image: Array) -> Array:
    """A one-pixel side doubled, so that a gradient along it exists and is zero."""
    return np.pad(image, [(0, 1 if side < 2 else 0) for side in image.shape], mode="edge")


def _same_size(first: Array, second: Array) -> None:
    if first.shape[:2] != second.shape[:2]:
        raise ValueError(f"hdr and ldr must have the same rows and columns, got {first.shape} and {second.shape}")
