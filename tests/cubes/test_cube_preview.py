"""Which bands a picture shows, and how they are stretched."""

import numpy as np
import pytest

from attnkit.cubes import CubeError
from attnkit.cubes.preview import preview_bands, stretch


def test_true_colour_where_the_sensor_sees_it() -> None:
    nm = tuple(np.arange(400.0, 1000.0, 10.0))
    assert [nm[band] for band in preview_bands(60, nm)] == [640, 550, 460]
    # a sensor that counts down, as some do
    assert [nm[::-1][band] for band in preview_bands(60, nm[::-1])] == [640, 550, 460]


def test_spread_bands_elsewhere_the_longest_is_red() -> None:
    assert preview_bands(6) == (5, 3, 1)
    assert preview_bands(100, tuple(np.linspace(1000, 2500, 100))) == (83, 50, 16)
    assert preview_bands(100, tuple(np.linspace(2500, 1000, 100))) == (16, 49, 83)
    assert preview_bands(3) == (2, 1, 0)
    assert preview_bands(2) == (1, 1, 0)
    assert preview_bands(1) == (0, 0, 0)


def test_bands_that_are_asked_for() -> None:
    assert preview_bands(50, None, (40, 25, 10)) == (40, 25, 10)
    with pytest.raises(CubeError, match=r"--preview-bands: got 40,25,50, the cube has bands 0 to 49"):
        preview_bands(50, None, (40, 25, 50))


def test_one_line_for_all_channels_between_two_percentiles() -> None:
    picture = np.random.default_rng(0).random((100, 100, 3)) * (1, 2, 4) + 5
    low, high = np.percentile(picture, (1, 99))
    expected = np.clip((picture - low) / (high - low) * 255, 0, 255)
    found = stretch(picture)
    assert found.dtype == np.uint8
    assert np.abs(found - expected).max() <= 0.51
    # brightness and offset do not matter, the balance of the channels does
    assert np.abs(stretch(picture * 300 - 7).astype(int) - found).max() <= 1
    assert found[..., 2].mean() > found[..., 1].mean() > found[..., 0].mean()


def test_holes_are_black_and_a_flat_picture_too() -> None:
    picture = np.random.default_rng(0).random((50, 50, 3)) + 1
    picture[3, 4] = (np.nan, np.inf, -np.inf)
    found = stretch(picture)
    assert tuple(found[3, 4]) == (0, 255, 0)
    assert found.max() == 255
    assert not stretch(np.full((4, 4, 3), 3.0)).any()
    assert not stretch(np.full((4, 4, 3), np.nan)).any()
    # one bright pixel in the dark, which no percentile sees
    dark = np.zeros((50, 50, 3))
    dark[1, 1] = 9
    assert stretch(dark)[1, 1].tolist() == [255, 255, 255]
