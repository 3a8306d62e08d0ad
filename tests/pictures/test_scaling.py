"""--resize."""

import numpy as np
import pytest

from attnkit.pictures import Picture, parse_resize, resize, resize_picture, target_size
from attnkit.runtime.errors import UsageError


@pytest.mark.parametrize(
    ("spec", "size"),
    [
        ("50%", (300, 400)),
        ("200%", (1200, 1600)),
        ("12.5%", (75, 100)),
        ("400", (300, 400)),
        ("30x20", (20, 30)),
        ("1", (1, 1)),
    ],
)
def test_sizes_of_800_by_600(spec: str, size: tuple[int, int]) -> None:
    assert target_size(spec, 600, 800) == size


def test_the_long_side_may_be_the_rows() -> None:
    assert target_size("100", 1000, 500) == (100, 50)


@pytest.mark.parametrize("spec", ["", "0", "0%", "-50%", "1001%", "x", "10x", "10x0", "1e3", "99999999", "half"])
def test_nonsense_is_a_usage_error_with_the_value_in_it(spec: str) -> None:
    with pytest.raises(UsageError, match="--resize: got '" + spec):
        parse_resize(spec)


def test_shrinking_averages_light() -> None:
    """A lone lamp of 1600 in a 4x4 block becomes 100, and the light as a whole is kept."""
    pixels = np.zeros((8, 8, 3), np.float32)
    pixels[1, 2] = 1600
    small = resize(pixels, "25%")
    assert small[0, 0, 0] == pytest.approx(100)
    assert small.mean() == pytest.approx(pixels.mean())


def test_shrinking_one_side_and_enlarging_the_other() -> None:
    pixels = np.random.default_rng(0).random((8, 8, 3)).astype(np.float32)
    turned = resize(pixels, "16x4")
    assert turned.shape == (4, 16, 3)
    assert turned.min() >= pixels.min() - 1e-6
    assert turned.max() <= pixels.max() + 1e-6


def test_same_size_changes_nothing() -> None:
    pixels = np.random.default_rng(0).random((5, 7, 3)).astype(np.float32)
    assert resize(pixels, "100%") is pixels


def test_hidden_colours_do_not_bleed() -> None:
    pixels = np.zeros((2, 2, 3), np.float32)
    pixels[:, 0], pixels[:, 1] = (1, 2, 3), (900, 900, 900)
    alpha = np.array([[1, 0], [1, 0]], np.float32)
    picture = Picture(pixels, alpha, "exr", False, True, "rec709", "file")
    small = resize_picture(picture, "50%")
    np.testing.assert_allclose(small.pixels[0, 0], (1, 2, 3), rtol=1e-6)
    assert small.alpha is not None
    assert small.alpha[0, 0] == pytest.approx(0.5)
