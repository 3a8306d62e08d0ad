"""The guards must see what they are for: halos, wrong hues, noise; and must not see what is not there."""

import math

import numpy as np
import pytest

from attnkit.tasks.tonemap.metrics import add_noise, dark_noise_gain, hue_error, noise_gain_between, reversed_edges


def steps():
    """Vertical edges of three stops on a ramp, neutral light (96, 160, 3)."""
    x = np.arange(160)
    stops = 3.0 * ((x // 20) % 2) + x / 40
    return np.tile(np.exp2(stops)[None, :, None], (96, 1, 3))


def curve(linear):
    """A global monotone rendering."""
    return (linear / (1 + linear)) ** (1 / 2.2)


def test_a_monotone_curve_reverses_nothing():
    assert reversed_edges(steps(), curve(steps())) == 0.0
    assert reversed_edges(steps(), np.rint(curve(steps()) * 255).astype(np.uint8)) == 0.0


def test_a_negative_reverses_everything():
    # but for a few pixels where the picture is too flat to tell
    assert reversed_edges(steps(), 1 - curve(steps())) > 0.98


def test_halos_are_found():
    import cv2

    shown = curve(steps()).astype(np.float32)
    # a broad unsharp mask that takes away more than the edge: the slope beside the edge turns round
    halo = shown - 1.4 * (cv2.GaussianBlur(shown, (0, 0), 6) - shown.mean())
    assert reversed_edges(steps(), np.clip(halo, 0, 1)) > 0.02


def test_flat_scene_has_no_edges():
    assert math.isnan(reversed_edges(np.ones((9, 9, 3)), np.ones((9, 9, 3))))
    assert math.isnan(reversed_edges(np.ones((1, 1, 3)), np.ones((1, 1, 3))))


def colours(seed=0):
    random = np.random.default_rng(seed)
    return random.uniform(0.05, 1.0, (40, 40, 3))


def srgb(light):
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def test_hue_of_an_exposed_picture_is_right():
    light = colours()
    assert hue_error(light * 300, srgb(light * 0.7)) < 0.01


def test_swapped_channels_have_a_large_hue_error():
    light = colours()
    assert hue_error(light, srgb(light[..., ::-1])) > 50


def test_hue_rotation_is_measured_in_degrees():
    # red against orange: OKLab hues 29.23 and 49.3 (of linear 1, .2, 0), by the published matrices
    red, orange = np.full((4, 4, 3), [1.0, 0.0, 0.0]), np.full((4, 4, 3), [1.0, 0.2, 0.0])
    lab = []
    for light in ([1.0, 0.0, 0.0], [1.0, 0.2, 0.0]):
        cones = np.cbrt(
            np.array([[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
                      [0.0883024619, 0.2817188376, 0.6299787005]]) @ light
        )  # fmt: skip
        a = 1.9779984951 * cones[0] - 2.4285922050 * cones[1] + 0.4505937099 * cones[2]
        b = 0.0259040371 * cones[0] + 0.7827717662 * cones[1] - 0.8086757660 * cones[2]
        lab.append(math.degrees(math.atan2(b, a)))
    assert lab[0] == pytest.approx(29.23, abs=0.01)
    assert hue_error(red, srgb(orange)) == pytest.approx(lab[1] - lab[0], abs=0.01)


def test_grey_and_black_pictures_have_no_hue():
    assert math.isnan(hue_error(np.ones((5, 5, 3)), np.ones((5, 5, 3))))
    assert math.isnan(hue_error(colours()[:5, :5], np.zeros((5, 5, 3))))
    assert math.isnan(hue_error(np.ones((5, 5)), np.ones((5, 5))))


def test_noise_gain_of_a_log_curve_is_its_slope():
    light = np.exp2(np.random.default_rng(1).uniform(-0.1, 0.1, (160, 160)))[..., None] * np.ones(3)

    # codes rise by 10 per doubling of light: 10 / ln 2 per unit of relative noise
    def codes(linear):
        code = 60 + 10 * np.log2(np.maximum(linear[..., 1], 1e-3))
        return np.repeat((code / 255)[..., None], 3, axis=2)

    # the picture shows the noise of green alone, the scene's luminance mixes that of three channels
    weights = np.array([0.2126, 0.7152, 0.0722])
    expected = 10 / math.log(2) / math.sqrt((weights**2).sum())
    assert dark_noise_gain(codes, light, seed=3) == pytest.approx(expected, rel=0.02)


def test_noise_is_seeded_and_small():
    light = steps()
    assert np.array_equal(add_noise(light, 5), add_noise(light, 5))
    assert not np.array_equal(add_noise(light, 5), add_noise(light, 6))
    relative = add_noise(light, 5) / light - 1
    dark = light[..., 0] <= np.quantile(light[..., 0], 0.25)
    # 400 electrons of shot noise and 4 of read noise: 5.1 %
    assert relative[dark].std() == pytest.approx(math.sqrt(400 + 16) / 400, rel=0.15)


def test_noise_gain_of_files_takes_off_the_rounding():
    light = steps()
    noisy = add_noise(light, 0)
    exact = noise_gain_between(light, noisy, curve(light), curve(noisy))
    rounded = noise_gain_between(
        light, noisy, np.rint(curve(light) * 255).astype(np.uint8), np.rint(curve(noisy) * 255).astype(np.uint8)
    )
    assert rounded == pytest.approx(exact, rel=0.02)


def test_black_scene_has_no_noise_gain():
    assert math.isnan(dark_noise_gain(curve, np.zeros((6, 6, 3))))


def test_sizes_must_agree():
    with pytest.raises(ValueError, match="same rows and columns"):
        reversed_edges(np.ones((4, 4, 3)), np.ones((4, 5, 3)))
