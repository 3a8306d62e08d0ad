"""TMQI against a slow twin written from the definition, and against values worked out by hand.

The published example pair (561x396, Q .850092, S .828213, N .345486) is in no package, so it is not tested here.
"""

import math

import numpy as np
import pytest
from scipy.signal import convolve2d
from scipy.stats import beta, norm

from attnkit.tasks.tonemap.metrics.tmqi import naturalness, structural_fidelity, tmqi


def scene(rows, columns, seed=0):
    """A smooth linear picture over about ten stops, and a display version of it."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:rows, :columns]
    stops = 3 * np.sin(x / 17 + y / 29) + 2 * np.cos(y / 11) + 0.3 * random.standard_normal((rows, columns))
    linear = np.exp2(stops)[..., None] * np.array([1.0, 0.8, 0.6])
    return linear, np.rint(255 * (linear / (1 + linear)) ** (1 / 2.2)).astype(np.uint8)


def slow_structural_fidelity(first, second):
    """The definition with the 11x11 window as a full convolution, level by level."""
    first = np.round((2**32 - 1) / (first.max() - first.min())) * (first - first.min())
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets[:, None] ** 2 + offsets[None, :] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    weights = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333]
    result = 1.0
    for level, weight in enumerate(weights):
        frequency = 16 / 2**level

        def mean(image):
            return convolve2d(image, window, mode="valid")

        mu_1, mu_2 = mean(first), mean(second)
        sigma_1 = np.sqrt(np.maximum(mean(first**2) - mu_1**2, 0))
        sigma_2 = np.sqrt(np.maximum(mean(second**2) - mu_2**2, 0))
        sigma_12 = mean(first * second) - mu_1 * mu_2
        sensitivity = 100 * 2.6 * (0.0192 + 0.114 * frequency) * np.exp(-((0.114 * frequency) ** 1.1))
        mu = 128 / (1.4 * sensitivity)
        p_1, p_2 = norm.cdf(sigma_1, mu, mu / 3), norm.cdf(sigma_2, mu, mu / 3)
        fidelity = (2 * p_1 * p_2 + 0.01) / (p_1**2 + p_2**2 + 0.01) * (sigma_12 + 10) / (sigma_1 * sigma_2 + 10)
        result *= fidelity.mean() ** weight

        def halved(image):
            rows, columns = image.shape
            return np.array(
                [
                    [
                        np.mean([image[min(r + a, rows - 1), min(c + b, columns - 1)] for a in (0, 1) for b in (0, 1)])
                        for c in range(0, columns, 2)
                    ]
                    for r in range(0, rows, 2)
                ]
            )

        first, second = halved(first), halved(second)
    return result


def slow_naturalness(codes):
    rows, columns = codes.shape
    total = 0.0
    for top in range(0, rows, 11):
        for left in range(0, columns, 11):
            tile = codes[top : top + 11, left : left + 11]
            padded = np.zeros((11, 11))
            padded[: tile.shape[0], : tile.shape[1]] = tile
            total += padded.std(ddof=1) * tile.size
    spread = total / codes.size
    peak = beta.pdf((4.4 - 1) / (4.4 + 10.1 - 2), 4.4, 10.1)
    likely_mean = norm.pdf(codes.mean(), 115.94, 27.99) / norm.pdf(115.94, 115.94, 27.99)
    return beta.pdf(spread / 64.29, 4.4, 10.1) / peak * likely_mean


@pytest.mark.parametrize("shape", [(176, 176), (181, 203)])
def test_equals_the_definition_written_slowly(shape):
    linear, display = scene(*shape)
    weights = np.array([0.2126, 0.7152, 0.0722])
    s = slow_structural_fidelity(linear @ weights, display.astype(float) @ weights)
    n = slow_naturalness(display.astype(float) @ weights)
    score = tmqi(linear, display)
    assert score.s == pytest.approx(s, abs=1e-6)
    assert score.n == pytest.approx(n, abs=1e-9)
    assert score.q == pytest.approx(0.8012 * s**0.3046 + 0.1988 * n**0.7088, abs=1e-6)


def test_naturalness_is_one_at_the_mode_of_both_curves():
    # tiles of two values with a sample deviation of 64.29 * mode around a mean of 115.94
    deviation = 64.29 * 3.4 / 12.5
    signs = np.ones(121)
    signs[:60] = -1
    signs -= signs.mean()
    tile = (115.94 + signs * deviation / signs.std(ddof=1)).reshape(11, 11)
    assert naturalness(np.tile(tile, (3, 4))) == pytest.approx(1.0, abs=1e-12)


def test_naturalness_of_flat_and_wild_pictures_is_zero():
    assert naturalness(np.full((22, 22), 116.0)) == 0.0
    assert naturalness(np.indices((22, 22)).sum(0) % 2 * 255.0) == 0.0


def test_score_does_not_depend_on_the_scale_of_the_scene():
    linear, display = scene(180, 190)
    assert tmqi(linear * 4096, display) == pytest.approx(tmqi(linear, display), abs=1e-6)


def test_inverted_picture_has_no_structural_fidelity():
    linear, display = scene(200, 200)
    assert structural_fidelity(linear.mean(2), 255.0 - display.mean(2)) == 0.0
    assert tmqi(linear, 255 - display).q < tmqi(linear, display).q


def test_kinds_of_display_values_agree():
    linear, display = scene(180, 180)
    codes = tmqi(linear, display)
    assert tmqi(linear, display.astype(np.uint16) * 257) == codes
    # a float is rounded to the code that an 8-bit file would hold
    assert tmqi(linear, display / 255 + 0.001) == codes


@pytest.mark.parametrize(("side", "defined"), [(100, True), (11, True), (10, False), (1, False)])
def test_small_pictures_use_the_scales_that_fit(side, defined):
    linear, display = scene(side, side)
    score = tmqi(linear, display)
    assert math.isnan(score.s) is not defined
    assert math.isnan(score.q) is not defined
    assert math.isfinite(score.n)


def test_different_sizes_are_refused():
    linear, display = scene(20, 20)
    with pytest.raises(ValueError, match=r"same rows and columns, got \(20, 20\) and \(20, 19\)"):
        tmqi(linear, display[:, :-1])
