"""mnf against Spectral Python, and what it leaves of noise."""

import numpy as np
import pytest
import spectral
from low_rank_cubes import low_rank_cube, mpsnr, noisy
from test_methods import PLENTY, enhanced

from attnkit.tasks.hsi_enhance.source import ArraySource
from attnkit.tasks.hsi_enhance.statistics import gather
from attnkit.tasks.hsi_enhance.subspace import find_subspace


@pytest.mark.parametrize("components", [1, 3, 7])
def test_components_are_those_of_spectral_with_the_same_statistics(components):
    cube = noisy(low_rank_cube(4, (14, 25, 22)), np.linspace(0.01, 0.06, 14))
    found = gather(ArraySource(cube), PLENTY)
    signal, noise = (spectral.GaussianStats(found.mean, c) for c in (found.covariance, np.diag(found.noise**2)))
    other = spectral.mnf(signal, noise)
    expected = other.denoise(cube.transpose(1, 2, 0).astype(np.float64), num=components).transpose(2, 0, 1)
    result, _, facts = enhanced("mnf", cube, mnf_components=components)
    np.testing.assert_allclose(result, expected, atol=2e-6)
    assert facts["components"] == components and not facts["weighted"]
    ours = find_subspace(found, components).eigenvalues
    np.testing.assert_allclose(ours, other.napc.eigenvalues[:components], rtol=1e-8)


@pytest.mark.parametrize("shape", [(60, 40, 40), (150, 16, 15)])
def test_the_automatic_choice_is_not_worse_than_any_number_of_components(shape):
    truth = low_rank_cube(6, shape)
    cube = noisy(truth, 0.1)
    automatic, _, facts = enhanced("mnf", cube)
    assert 0 < facts["components"] <= 6
    best = max(mpsnr(enhanced("mnf", cube, mnf_components=count)[0], truth) for count in range(1, 9))
    assert mpsnr(automatic, truth) > best - 0.05
    assert mpsnr(automatic, truth) > mpsnr(cube, truth) + 8


def test_all_components_are_the_cube():
    cube = noisy(low_rank_cube(4, (14, 25, 22)), 0.05)
    np.testing.assert_allclose(enhanced("mnf", cube, mnf_components=100)[0], cube, atol=1e-5)
