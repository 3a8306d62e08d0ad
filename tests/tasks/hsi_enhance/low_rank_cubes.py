"""Synthetic cubes of known rank and noise."""

import numpy as np
from scipy.ndimage import gaussian_filter


def low_rank_cube(rank, shape, seed=0):
    """A bright cube [bands, rows, columns] float32 of smooth spectra and smooth abundances."""
    bands, rows, columns = shape
    draw = np.random.default_rng(seed)
    blur = max(min(rows, columns) / 16, 2)
    maps = np.stack([gaussian_filter(draw.standard_normal((rows, columns)), blur, mode="reflect") for _ in range(rank)])
    maps = np.exp(3 * maps / maps.std(axis=(1, 2), keepdims=True))
    # shares that add up to one span a plane of rank - 1 around the mean: the last map is left out of the sum
    maps /= 1 + maps.sum(axis=0)
    knots = np.linspace(0, bands - 1, 8)
    spectra = [np.interp(np.arange(bands), knots, draw.uniform(0.1, 0.95, 8)) for _ in range(rank)]
    return np.einsum("kb,krc->brc", np.stack(spectra), maps).astype(np.float32)


def noisy(cube, deviation, seed=1):
    """White noise of one standard deviation, or one a band, added."""
    draw = np.random.default_rng(seed).standard_normal(cube.shape)
    return (cube + np.reshape(deviation, (-1, 1, 1)) * draw).astype(np.float32)


def mpsnr(cube, truth):
    """Mean over the bands of the peak signal to noise ratio in dB, peak 1."""
    error = ((cube.astype(np.float64) - truth) ** 2).mean(axis=(1, 2))
    return float((-10 * np.log10(error)).mean())


def spectral_angle(cube, truth):
    """Mean angle between spectra in degrees."""
    one, two = cube.astype(np.float64), truth.astype(np.float64)
    cosine = (one * two).sum(axis=0) / np.sqrt((one**2).sum(axis=0) * (two**2).sum(axis=0))
    return float(np.degrees(np.arccos(cosine.clip(-1, 1))).mean())
