"""PSNR and SSIM against scikit-image, and bootstrap intervals against what they must be."""

import math

import numpy as np
import pytest

from attnkit.tasks.tonemap.metrics import bootstrap, psnr, scene_means, ssim


def pair(shape, seed=0):
    random = np.random.default_rng(seed)
    first = random.integers(0, 256, shape, dtype=np.uint8)
    return first, np.clip(first + random.integers(-20, 21, shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("shape", [(40, 51, 3), (11, 11, 3), (33, 20)])
def test_agree_with_scikit_image(shape):
    metrics = pytest.importorskip("skimage.metrics")
    first, second = pair(shape)
    assert psnr(first, second) == pytest.approx(metrics.peak_signal_noise_ratio(first, second), abs=1e-9)
    expected = metrics.structural_similarity(
        first, second, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255,
        channel_axis=2 if len(shape) == 3 else None,
    )  # fmt: skip
    assert ssim(first, second) == pytest.approx(expected, abs=1e-6)


def test_equal_pictures():
    first, _ = pair((20, 20, 3))
    assert psnr(first, first) == math.inf
    assert ssim(first, first) == pytest.approx(1.0)


def test_psnr_of_a_known_error():
    assert psnr(np.full((4, 4, 3), 100, np.uint8), np.full((4, 4, 3), 110, np.uint8)) == pytest.approx(
        20 * math.log10(25.5)
    )


def test_ssim_needs_its_window():
    first, second = pair((10, 40, 3))
    assert math.isnan(ssim(first, second))


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="same shape"):
        psnr(np.zeros((3, 3, 3)), np.zeros((3, 4, 3)))


def test_scene_means_weigh_scenes_not_views():
    means = scene_means([1.0, 3.0, 10.0, math.nan], ["a", "a", "b", "c"])
    assert means == {"a": 2.0, "b": 10.0}


def test_bootstrap_covers_the_spread_of_scene_means():
    values = np.random.default_rng(0).normal(0.8, 0.1, 200)
    mean, low, high = bootstrap({str(k): v for k, v in enumerate(values)}, seed=1)
    assert mean == pytest.approx(values.mean())
    # 1.96 standard errors on either side
    assert high - low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(200), rel=0.1)
    assert (mean, low, high) == bootstrap({str(k): v for k, v in enumerate(values)}, seed=1)


def test_bootstrap_of_one_scene_and_of_none():
    assert bootstrap({"a": 0.5}) == (0.5, 0.5, 0.5)
    assert all(math.isnan(value) for value in bootstrap({}))
