"""Spectra of a subspace without the noise that they were fitted to."""

import numpy as np
import pytest

from attnkit.tasks.hsi_enhance.methods import run
from attnkit.tasks.hsi_enhance.methods.spectra import shrink_spectrum, smoothed, squared_cosines
from attnkit.tasks.hsi_enhance.source import ArraySource
from attnkit.tasks.hsi_enhance.subspace import fit_subspace

BANDS = 120


def cube(noise: float, seed: int, smooth: bool = True, side: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """A noisy cube of three spectra and its clean twin."""
    draw = np.random.default_rng(seed)
    position = np.linspace(0, 1, BANDS)
    spectra = 0.5 + 0.3 * np.sin(position * draw.uniform(2, 9, (3, 1)) + draw.uniform(0, 6, (3, 1)))
    if not smooth:
        spectra = draw.uniform(0.2, 0.8, (3, BANDS))
    shares = draw.dirichlet(np.ones(3), (side, side))
    clean = (shares @ spectra).transpose(2, 0, 1)
    return (clean + noise * draw.standard_normal(clean.shape)).astype(np.float32), clean.astype(np.float32)


def error(values: np.ndarray, clean: np.ndarray) -> float:
    return float(((values - clean) ** 2).mean())


@pytest.mark.parametrize("seed", range(3))
def test_smooth_spectra_are_found_better_and_rough_ones_are_not_lost(seed: int) -> None:
    for smooth, most in ((True, 0.75), (False, 1.05)):
        noisy, clean = cube(0.1, seed, smooth)
        subspace = fit_subspace(ArraySource(noisy), 10**8, 3)
        planes = subspace.forward(clean) * subspace.inflation.astype(np.float32)[:, None, None]
        before, after = (error(one.rebuild(planes), clean) for one in (subspace, smoothed(subspace)))
        assert after < most * before


def test_the_cosine_is_that_of_eigenvectors_of_samples() -> None:
    draw = np.random.default_rng(5)
    bands, pixels, spike = 60, 240, 1.5
    found = []
    for _ in range(40):
        sample = draw.standard_normal((pixels, bands))
        sample[:, 0] += np.sqrt(spike) * draw.standard_normal(pixels)
        vectors = np.linalg.eigh(sample.T @ sample)[1]
        found.append(vectors[0, -1] ** 2)
    share = bands / pixels
    assert np.mean(found) == pytest.approx(squared_cosines(np.array([1 + share / spike]), share)[0], abs=0.03)
    assert squared_cosines(np.array([1.0]), share)[0] == pytest.approx(1.0)


def test_without_noise_nothing_changes() -> None:
    curve = np.random.default_rng(6).uniform(0, 1, BANDS)
    np.testing.assert_array_equal(shrink_spectrum(curve, 0.0), curve)
    np.testing.assert_allclose(shrink_spectrum(curve, 1e-9), curve, atol=1e-7)
    _, clean = cube(0.0, 7)
    subspace = fit_subspace(ArraySource(clean), 10**8, 3)
    np.testing.assert_allclose(smoothed(subspace).rebuild(subspace.forward(clean)), clean, atol=1e-5)


def test_the_noise_of_a_constant_is_halved_at_least_and_its_level_stays() -> None:
    draw = np.random.default_rng(8)
    curves = 0.3 + 0.05 * draw.standard_normal((50, BANDS))
    smooth = np.stack([shrink_spectrum(curve, 0.05) for curve in curves])
    assert (smooth - 0.3).std() < 0.025
    assert smooth.mean() == pytest.approx(0.3, abs=0.003)


def test_few_bands_are_left_as_they_are() -> None:
    noisy, _ = cube(0.1, 9)
    subspace = fit_subspace(ArraySource(noisy[:15]), 10**8, 2)
    assert smoothed(subspace) is subspace


def test_lowrank_takes_it_as_a_setting() -> None:
    noisy, clean = cube(0.1, 10)
    results = {}
    for smooth in (0, 1):
        settings = {"lowrank.smooth": smooth}
        _, values = next(run("lowrank", ArraySource(noisy), settings=settings, memory=10**8, facts={}))
        results[smooth] = error(values, clean)
    assert results[1] < 0.9 * results[0]
