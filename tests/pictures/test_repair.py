"""The repair rule on pictures small enough to work out by hand."""

import numpy as np
import pytest

from attnkit.pictures.repair import repair

NAN, INF = np.nan, np.inf


def plane(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float32)


def test_a_sound_picture_is_handed_through() -> None:
    values = np.random.default_rng(0).random((4, 5, 3)).astype(np.float32)
    fixed, counts = repair(values)
    assert fixed is values
    assert counts == {"nan": 0, "inf": 0, "negative": 0}


@pytest.mark.parametrize(
    ("values", "expected", "counts"),
    [
        # median of 1 2 3 4 6 7 8 9
        (plane([1, 2, 3], [4, NAN, 6], [7, 8, 9]), plane([1, 2, 3], [4, 5, 6], [7, 8, 9]), (1, 0, 0)),
        # a corner has three neighbours
        (plane([NAN, 2], [3, 40]), plane([3, 2], [3, 40]), (1, 0, 0)),
        (plane([NAN, NAN], [NAN, NAN]), plane([0, 0], [0, 0]), (4, 0, 0)),
        (plane([INF, 2], [-INF, 5]), plane([5, 2], [0, 5]), (0, 2, 0)),
        (plane([INF, INF]), plane([0, 0]), (0, 2, 0)),
        (plane([-1, 2], [-0.5, 5]), plane([0, 2], [0, 5]), (0, 0, 2)),
        # NaN looks neither at Inf nor at what is below 0: median of 0 (for -4) and 6
        (plane([NAN, INF], [-4, 6]), plane([3, 6], [0, 6]), (1, 1, 1)),
        (plane([-3, -INF]), plane([0, 0]), (0, 1, 1)),
    ],
)
def test_by_hand(values: np.ndarray, expected: np.ndarray, counts: tuple[int, int, int]) -> None:
    before = values.copy()
    fixed, found = repair(values)
    np.testing.assert_array_equal(fixed, expected)
    assert tuple(found.values()) == counts
    np.testing.assert_array_equal(values, before)


def test_channels_are_mended_apart_and_pixels_counted_once() -> None:
    values = np.ones((3, 3, 3), np.float32)
    values[1, 1] = (NAN, 7, NAN)
    values[0, 0] = (-1, -2, INF)
    fixed, counts = repair(values)
    assert counts == {"nan": 1, "inf": 1, "negative": 1}
    np.testing.assert_array_equal(fixed[1, 1], (1, 7, 1))
    np.testing.assert_array_equal(fixed[0, 0], (0, 0, 7))


def test_many_bad_samples_agree_with_a_loop() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(1, 1, (23, 17, 3)).astype(np.float32)
    values[rng.random(values.shape) < 0.3] = NAN
    values[rng.random(values.shape) < 0.1] = INF
    fixed, _ = repair(values)
    for row, column, channel in np.argwhere(np.isnan(values)):
        near = values[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2, channel]
        known = np.maximum(near[np.isfinite(near)], 0)
        assert fixed[row, column, channel] == pytest.approx(np.median(known) if known.size else 0.0, rel=1e-6)
