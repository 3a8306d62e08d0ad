"""The risk estimate that chooses thresholds, shrinkage of pictures, and what lowrank leaves of noise."""

import numpy as np
import pytest
import pywt
from low_rank_cubes import low_rank_cube, mpsnr, noisy, spectral_angle
from test_methods import enhanced

from attnkit.tasks.hsi_enhance.darkening import darken
from attnkit.tasks.hsi_enhance.methods import shrinkage
from attnkit.tasks.hsi_enhance.methods.shrinkage import linear_shrinkage, most_levels, shrink, sure_threshold


def soft(values, threshold):
    return np.sign(values) * np.maximum(np.abs(values) - threshold, 0)


@pytest.mark.parametrize(("share", "size"), [(0.02, 8.0), (0.1, 4.0), (0.5, 2.0), (0.0, 0.0)])
def test_the_estimated_risk_is_the_true_one_on_average(share, size):
    draw = np.random.default_rng(0)
    estimated, true, least = [], [], []
    for _ in range(30):
        signal = size * draw.standard_normal(4096) * (draw.random(4096) < share)
        seen = signal + draw.standard_normal(4096)
        threshold, risk = sure_threshold(seen.reshape(64, 64))
        estimated.append(risk)
        true.append(np.mean((soft(seen, threshold) - signal) ** 2))
        least.append(min(np.mean((soft(seen, one) - signal) ** 2) for one in np.linspace(0, 5, 51)))
    assert np.mean(estimated) == pytest.approx(np.mean(true), abs=0.02)
    # and no other threshold would have been better by much
    assert np.mean(true) < np.mean(least) + 0.02


def test_the_risk_is_that_of_the_formula():
    values = np.array([0.5, -1.0, 3.0])

    def risk(threshold):
        return 3 - 2 * (np.abs(values) <= threshold).sum() + np.minimum(np.abs(values), threshold) @ np.minimum(
            np.abs(values), threshold
        )

    threshold, found = sure_threshold(values)
    assert threshold == min((0.5, 1.0, 3.0), key=risk)
    assert found == pytest.approx(risk(threshold) / 3)
    # far above the noise nothing is taken
    assert sure_threshold(np.array([50.0, -60.0, 70.0])) == (0.0, 1.0)


def test_many_coefficients_are_thinned_out(monkeypatch):
    values = np.random.default_rng(0).laplace(0, 1.5, 40_000)
    every = sure_threshold(values)[0]
    monkeypatch.setattr(shrinkage, "COEFFICIENTS", 10_000)
    assert sure_threshold(values)[0] == pytest.approx(every, rel=0.2)


def test_linear_shrinkage_is_james_and_steins():
    draw = np.random.default_rng(0)
    assert linear_shrinkage(draw.normal(0, 2, (300, 300))) == pytest.approx(0.75, abs=0.01)
    assert linear_shrinkage(draw.normal(0, 0.9, (30, 30))) == 0
    assert linear_shrinkage(np.zeros((3, 3))) == 0


@pytest.mark.parametrize(
    ("size", "levels"), [((1, 1), 0), ((3, 90), 0), ((4, 4), 1), ((23, 38), 3), ((145, 145), 6), ((5000, 900), 6)]
)
def test_levels(size, levels):
    assert most_levels(*size) == levels


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 2), (5, 5), (16, 16), (23, 38), (40, 7), (64, 65)])
@pytest.mark.parametrize("wavelet", ["haar", "sym4", "coif2"])
def test_pictures_far_above_their_noise_come_back(size, wavelet):
    picture = (1e6 * np.random.default_rng(0).standard_normal(size)).astype(np.float32)
    np.testing.assert_allclose(shrink(picture, wavelet), picture, atol=5)


@pytest.mark.parametrize("size", [(3, 3), (21, 34), (64, 64)])
def test_noise_is_taken_away(size):
    noise = np.random.default_rng(0).standard_normal(size).astype(np.float32)
    assert shrink(noise, "sym4").std() < (0.3 if size[0] > 3 else 1)


def test_without_shifts_it_is_the_transform_of_pywavelets(monkeypatch):
    monkeypatch.setattr(shrinkage, "SHIFTS", ((0, 0),))
    picture = np.cumsum(np.random.default_rng(0).standard_normal((32, 32)), axis=0).astype(np.float32)
    coarse, *details = pywt.wavedec2(picture, "db3", mode="periodization", level=2)
    kept = [tuple(soft(band, sure_threshold(band)[0]) for band in level) for level in details]
    expected = pywt.waverec2([coarse * linear_shrinkage(coarse), *kept], "db3", mode="periodization")
    np.testing.assert_allclose(shrink(picture, "db3", 2), expected, atol=1e-5)


def test_strips_differ_little_from_the_whole(monkeypatch):
    truth = 20 * low_rank_cube(1, (1, 1200, 40))[0]
    picture = noisy(truth[None], 1.0)[0]
    whole = shrink(picture, "sym4")
    monkeypatch.setattr(shrinkage, "STRIP_SAMPLES", 1)
    strips = shrink(picture, "sym4")
    error = [np.sqrt(np.mean((one - truth) ** 2)) for one in (whole, strips)]
    assert error[1] < 1.05 * error[0]
    assert np.abs(strips - whole).max() < 1


@pytest.mark.parametrize(("shape", "least"), [((31, 64, 64), 17), ((60, 33, 47), 15), ((120, 17, 14), 14)])
def test_it_gains_more_than_mnf(shape, least):
    truth = low_rank_cube(4, shape)
    cube = noisy(truth, 0.1)
    result, _, facts = enhanced("lowrank", cube)
    assert 1 <= facts["rank"] <= 4
    assert facts["noise"] == pytest.approx(0.1, rel=0.05)
    mnf = enhanced("mnf", cube)[0]
    assert mpsnr(result, truth) > max(mpsnr(mnf, truth) + 0.5, mpsnr(cube, truth) + least)
    assert spectral_angle(result, truth) < spectral_angle(mnf, truth)


def test_dark_cubes_with_shot_noise_and_stripes():
    truth = low_rank_cube(4, (60, 48, 48))
    cube = 15 * darken(truth, seed=3)
    result = enhanced("lowrank", cube)[0]
    assert mpsnr(result, truth) > mpsnr(cube, truth) + 14
    assert spectral_angle(result, truth) < spectral_angle(cube, truth) / 5


def test_a_rank_that_is_too_large_does_little_harm_and_one_that_is_too_small_a_lot():
    truth = low_rank_cube(4, (60, 48, 48))
    cube = noisy(truth, 0.05)
    automatic, many, few = (mpsnr(enhanced("lowrank", cube, lowrank_rank=rank)[0], truth) for rank in (0, 12, 1))
    assert automatic > many > automatic - 3
    assert few < automatic - 5


def test_one_band_is_a_wavelet_denoiser():
    truth = low_rank_cube(1, (1, 64, 64))
    cube = noisy(truth, 0.1)
    assert mpsnr(enhanced("lowrank", cube)[0], truth) > mpsnr(cube, truth) + 6
