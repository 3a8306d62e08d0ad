"""Method llf: what the recipe promises about range, colour and detail."""

import math

import numpy as np
import pytest
from frames import ordinary

from attnkit.tasks.tonemap import local_laplacian
from attnkit.tasks.tonemap.metrics import reversed_edges
from attnkit.tasks.tonemap.task import TonemapRequest, scene_parameters, tonemap


def wide_scene(rows=96, columns=128):
    """A bright and a dark half, 10 stops apart, with the same faint texture in both."""
    random = np.random.default_rng(2)
    texture = 0.15 * np.sin(np.arange(columns) * 0.9)[None, :] + 0.02 * random.standard_normal((rows, columns))
    stops = texture + np.where(np.arange(columns)[None, :] < columns // 2, 0, 10)
    return np.exp2(stops)[..., None].astype(np.float32) * np.ones(3, np.float32)


def test_output_range_is_kept():
    light, record = local_laplacian.render(wide_scene(), {"beta": 1.0, "alpha": 1.0, "range": 50.0})
    low, high = np.percentile(light, [0.5, 99.5])
    assert high / low == pytest.approx(50, rel=0.02)
    assert record["parameters"]["scale"] < 1


def test_a_scene_within_the_range_is_not_stretched():
    scene = np.exp2(np.linspace(0, 2, 64, dtype=np.float32))[None, :, None] * np.ones((48, 1, 3), np.float32)
    light, record = local_laplacian.render(scene, {"beta": 1.0, "alpha": 1.0})
    assert record["parameters"]["scale"] == 1.0
    ratio = light[:, 5:-5] / scene[:, 5:-5]
    assert np.ptp(ratio) < 1e-4 * ratio.mean()


def test_colour_ratios_are_kept():
    scene = ordinary(64, 80)
    light, _ = local_laplacian.render(scene, {})
    inside = light.max(axis=2) < 0.999
    assert inside.mean() > 0.8
    ratios = (light / light.sum(axis=2, keepdims=True) - scene / scene.sum(axis=2, keepdims=True))[inside]
    assert np.abs(ratios).max() < 1e-5


def test_scale_of_the_scene_changes_nothing():
    scene = wide_scene()
    first, _ = local_laplacian.render(scene, {})
    second, _ = local_laplacian.render(scene * np.float32(1024), {})
    assert np.abs(first - second).max() < 2e-4


def contrast(light, left):
    """Texture of one half in log light, from pixel to pixel, so that slow shading does not count."""
    half = light[20:-20, 16:48] if left else light[20:-20, 80:112]
    return float(np.diff(np.log(half[..., 1]), axis=1).std())


def test_detail_survives_where_a_global_curve_loses_it():
    scene = wide_scene()
    without, _ = local_laplacian.render(scene, {}, strength=0.0)
    with_filter, _ = local_laplacian.render(scene, {})
    for left in (True, False):
        assert contrast(with_filter, left) > 1.5 * contrast(without, left)


def test_alpha_below_one_raises_detail():
    scene = wide_scene()
    # a range that the scene does not fill, so that only the curve differs
    plain, _ = local_laplacian.render(scene, {"alpha": 1.0, "range": 1e6})
    raised, _ = local_laplacian.render(scene, {"alpha": 0.5, "range": 1e6})
    assert contrast(raised, True) > 1.2 * contrast(plain, True)


def test_there_are_no_halos():
    scene = ordinary(96, 128)
    assert reversed_edges(scene, tonemap(TonemapRequest(scene, method="llf")).display) < 0.01


def test_more_references_change_little():
    scene = ordinary(64, 80)
    few, _ = local_laplacian.render(scene, {})
    many, _ = local_laplacian.render(scene, {"steps": 8.0})
    assert np.abs(few ** (1 / 2.2) - many ** (1 / 2.2)).mean() * 255 < 1.5


def test_given_parameters_are_used():
    scene = ordinary(64, 80)
    request = TonemapRequest(scene, method="llf")
    own = scene_parameters(request)
    same = tonemap(TonemapRequest(scene, method="llf", parameters=own)).display
    assert np.array_equal(same, tonemap(request).display)
    brighter = {**own, "white": own["white"] - math.log(2) / own["scale"]}
    doubled = tonemap(TonemapRequest(scene, method="llf", parameters=brighter, gamma=1.0)).display
    plain = tonemap(TonemapRequest(scene, method="llf", gamma=1.0)).display
    assert np.abs(doubled - np.clip(plain * 2, 0, 1))[plain.max(axis=2) < 0.49].max() < 1e-4


def test_highlights_keep_luminance_and_hue():
    from attnkit.pictures.spaces import srgb_encode
    from attnkit.tasks.tonemap.metrics import hue_error

    # red sticks out, luminance does not; the second colour fits and stays
    colours = np.array([[[2.0, 0.6, 0.1], [0.9, 0.2, 0.4]]], np.float32)
    luminance = (colours @ [0.2126, 0.7152, 0.0722]).astype(np.float32)
    mixed = colours.copy()
    local_laplacian._into_gamut(mixed, luminance)
    assert mixed.max() == pytest.approx(1.0, abs=1e-6)
    assert mixed @ [0.2126, 0.7152, 0.0722] == pytest.approx(luminance, abs=1e-6)
    assert np.array_equal(mixed[0, 1], colours[0, 1])
    clipped = np.clip(colours, 0, 1)
    assert hue_error(colours, srgb_encode(mixed)) < 0.5 * hue_error(colours, srgb_encode(clipped))
