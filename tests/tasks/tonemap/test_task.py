"""Every method on every frame, and the options that all of them share."""

import numpy as np
import pytest
from frames import broken, ordinary

from attnkit.runtime.errors import UsageError
from attnkit.tasks.tonemap.methods import valid_settings
from attnkit.tasks.tonemap.task import METHODS, TonemapRequest, tonemap

CLASSICAL = ("llf", "drago", "reinhard", "mantiuk", "linear")
BROKEN = broken()


def shown(pixels, **options):
    return tonemap(TonemapRequest(pixels, **options)).display


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", BROKEN)
def test_every_frame_gives_a_finite_picture(method, name):
    frame = BROKEN[name]
    before = frame.copy()
    result = tonemap(TonemapRequest(frame, method=method))
    assert result.display.shape == frame.shape
    assert result.display.dtype == np.float32
    assert np.isfinite(result.display).all()
    assert result.display.min() >= 0
    assert result.display.max() <= 1
    assert np.array_equal(frame, before)


@pytest.mark.parametrize("method", METHODS)
def test_black_stays_black(method):
    result = tonemap(TonemapRequest(BROKEN["black"], method=method))
    assert result.display.max() == 0
    assert result.record["degenerate_frame"] == "black"


@pytest.mark.parametrize("method", CLASSICAL)
def test_a_constant_frame_is_shown_as_it_is(method):
    result = tonemap(TonemapRequest(np.full((5, 7, 3), 0.18, np.float32), method=method))
    assert result.display == pytest.approx(0.18 ** (1 / 2.2), abs=1e-6)
    assert result.record["degenerate_frame"] == "constant"
    assert shown(np.full((5, 7, 3), 40.0, np.float32), method=method) == pytest.approx(1.0)


@pytest.mark.parametrize("method", METHODS)
def test_values_that_are_no_light_are_repaired_and_counted(method):
    frame = ordinary()
    repaired = frame.copy()
    repaired[0, 0], repaired[1, 1, 2], repaired[2, 2, 0] = 0, frame.max(), 0
    frame[0, 0], frame[1, 1, 2], frame[2, 2, 0] = np.nan, np.inf, -4
    result = tonemap(TonemapRequest(frame, method=method))
    assert result.record["repaired_values"] == {"nan": 3, "inf": 1, "negative": 1}
    assert np.array_equal(result.display, shown(repaired, method=method))


@pytest.mark.parametrize("method", METHODS)
def test_double_precision_and_odd_strides_are_taken(method):
    frame = ordinary()
    expected = shown(frame, method=method)
    assert np.array_equal(shown(frame.astype(np.float64), method=method), expected)
    assert np.array_equal(shown(np.asfortranarray(frame), method=method), expected)


@pytest.mark.parametrize("method", METHODS)
def test_grey_stays_grey(method):
    picture = shown(BROKEN["grey"], method=method, depth=8)
    spread = picture.max(axis=2).astype(int) - picture.min(axis=2)
    # the learned tables are not exactly neutral
    assert spread.max() <= (12 if method == "llf-lut" else 1)


@pytest.mark.parametrize("method", METHODS)
def test_eight_bits_are_the_rounded_picture(method):
    frame = ordinary()
    exact = shown(frame, method=method)
    codes = shown(frame, method=method, depth=8)
    assert codes.dtype == np.uint8
    assert np.abs(codes - exact * 255.0).max() <= 0.5 + 1e-4


@pytest.mark.parametrize("operator", ["drago", "reinhard", "mantiuk", "linear"])
def test_classical_operators_are_those_of_opencv(operator):
    import cv2

    make = {
        "drago": cv2.createTonemapDrago,
        "reinhard": cv2.createTonemapReinhard,
        "mantiuk": cv2.createTonemapMantiuk,
        "linear": cv2.createTonemap,
    }[operator]
    frame = ordinary()
    expected = np.clip(np.nan_to_num(make(2.2).process(frame)), 0, 1)
    assert np.abs(shown(frame, method=operator) - expected).max() < 1e-5


@pytest.mark.parametrize("method", METHODS)
def test_exposure_brightens_by_stops(method):
    frame = ordinary()
    means = [shown(frame, method=method, exposure=stops).mean() for stops in (-2.0, 0.0, 2.0)]
    assert means[0] < means[1] < means[2]


def test_exposure_of_a_classical_method_is_a_factor_on_shown_light():
    frame = ordinary()
    darker = shown(frame, method="reinhard", exposure=-1.0) ** 2.2
    assert darker == pytest.approx(shown(frame, method="reinhard") ** 2.2 / 2, abs=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_no_saturation_is_grey(method):
    picture = shown(ordinary(), method=method, saturation=0.0, depth=8)
    assert np.ptp(picture.astype(int), axis=2).max() <= 1


def test_gamma_replaces_the_curve():
    frame = ordinary()
    assert shown(frame, method="drago", gamma=1.0) == pytest.approx(shown(frame, method="drago") ** 2.2, abs=1e-5)
    result = tonemap(TonemapRequest(frame, gamma=2.2))
    assert result.record["transfer"] == "gamma 2.2"
    # the sRGB curve and gamma 2.2 differ by a few codes, most in the dark
    assert np.abs(result.display - shown(frame)).max() < 0.035


@pytest.mark.parametrize("method", METHODS)
def test_display_p3_shows_the_same_colours(method):
    from attnkit.pictures import spaces

    frame = ordinary()
    wide = tonemap(TonemapRequest(frame, method=method, output_space="display-p3", gamma=2.2))
    plain = shown(frame, method=method, gamma=2.2)
    back = spaces.convert((wide.display**2.2).astype(np.float32), "display-p3", "rec709")
    assert np.abs(back - plain**2.2).max() < 2e-3
    assert wide.record["space"] == "display-p3"


@pytest.mark.parametrize("method", ["llf-lut", "llf"])
def test_strength_scales_the_local_part(method):
    frame = ordinary(96, 128)
    none, half, full = (shown(frame, method=method, strength=s) for s in (0.0, 0.5, 1.0))
    assert 0 < np.abs(half - none).mean() < np.abs(full - none).mean()


def test_settings_change_the_picture():
    frame = ordinary()
    for key, value in {"drago.bias": 0.6, "reinhard.intensity": 2.0, "mantiuk.scale": 0.9, "llf.beta": 0.9,
                       "linear.white": 90.0}.items():  # fmt: skip
        method = key.partition(".")[0]
        assert not np.array_equal(shown(frame, method=method, settings={key: value}), shown(frame, method=method))
        default = {key: valid_settings()[key]}
        assert np.array_equal(shown(frame, method=method, settings=default), shown(frame, method=method))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "gamma"}, "--method: got 'gamma', expected one of llf-lut, llf, drago"),
        ({"method": "drago", "strength": 0.5}, "--strength: method drago has no local part .* llf-lut, llf"),
        ({"method": "llf", "model": "x"}, "--model: method llf uses no model"),
        ({"method": "llf", "want_lut": True}, "--lut-out: got --method llf"),
        ({"method": "drago", "parameters": {}}, "--sequence: method drago has no parameters"),
        ({"settings": {"llf.alfa": 1}}, "--set llf.alfa: unknown key, expected one of llf.alpha, llf.beta"),
        ({"settings": {"llf.alpha": 0}}, "--set llf.alpha: got 0, expected 0.05 to 4"),
        ({"settings": {"llf.alpha": "much"}}, "--set llf.alpha: got 'much', expected a number"),
        ({"output_space": "p3"}, "--output-space: got 'p3', expected srgb or display-p3"),
        ({"lut_interp": "cubic"}, "--lut-interp: got 'cubic', expected trilinear or tetrahedral"),
        ({"gamma": 0.0}, "--gamma: got 0, expected 0.1 to 10"),
        ({"exposure": float("nan")}, "--exposure: got nan"),
    ],
)
def test_wrong_options_are_refused_in_one_line(options, message):
    with pytest.raises(UsageError, match=message) as caught:
        tonemap(TonemapRequest(ordinary(), **options))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4), (0, 4, 3)])
def test_shapes_that_are_no_picture_are_refused(shape):
    with pytest.raises(UsageError, match="expected \\(rows, columns, 3\\)"):
        tonemap(TonemapRequest(np.ones(shape, np.float32), method="linear"))


def test_the_default_method_needs_no_torch():
    import subprocess
    import sys

    code = (
        "import sys, numpy as np\n"
        "from attnkit.tasks.tonemap.task import TonemapRequest, tonemap\n"
        "tonemap(TonemapRequest(np.ones((20, 20, 3), np.float32) * np.arange(1, 21, dtype=np.float32)[:, None]))\n"
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
