"""What is told of the change of spectra."""

import numpy as np
import pytest
from spectral import spectral_angles

from attnkit.tasks.hsi_enhance.shape_check import ShapeCheck

NUMBERS = np.arange(100, 108)


def cubes(seed=0):
    draw = np.random.default_rng(seed)
    before = draw.uniform(0.1, 1.0, (8, 9, 7)).astype(np.float32)
    return before, (before * draw.uniform(0.8, 1.2, before.shape)).astype(np.float32)


def test_the_angle_is_that_of_spectral_whatever_the_tiles():
    before, after = cubes()
    check = ShapeCheck(before.shape)
    for bands in (slice(4, 8), slice(0, 4)):
        for rows in (slice(5, 9), slice(0, 5)):
            check.add(bands, rows, slice(0, 7), before[bands, rows], after[bands, rows])
    expected = [
        spectral_angles(after[:, row, column][None, None], before[:, row, column][None])[0, 0, 0]
        for row in range(9)
        for column in range(7)
    ]
    found = check.record(NUMBERS, np.zeros((9, 7), bool))["spectral_angle_deg"]
    assert found == pytest.approx(np.degrees(np.mean(expected)), abs=0.006)


def test_scaling_changes_no_angle_and_bands_are_told_by_how_much():
    before, _ = cubes()
    after = before * np.float32(1.0)
    after[3] *= np.float32(1.5)
    after[6] *= np.float32(0.9)
    check = ShapeCheck(before.shape)
    check.add(slice(0, 8), slice(0, 9), slice(0, 7), before, after)
    record = check.record(NUMBERS, np.zeros((9, 7), bool))
    assert record["bands_changed_most"] == [
        {"band": 103, "mean_change_percent": 50.0},
        {"band": 106, "mean_change_percent": -10.0},
    ]
    twice = ShapeCheck(before.shape)
    twice.add(slice(0, 8), slice(0, 9), slice(0, 7), before, before * 2)
    assert twice.record(NUMBERS, np.zeros((9, 7), bool))["spectral_angle_deg"] < 0.05


def test_masked_and_black_pixels_have_no_angle():
    before, after = cubes()
    masked = np.zeros((9, 7), bool)
    masked[2, 2] = True
    before[:, 4, 4] = 0
    after[:, 2, 2] = after[::-1, 2, 2] * 50
    check = ShapeCheck(before.shape)
    check.add(slice(0, 8), slice(0, 9), slice(0, 7), before, after)
    everything = check.record(NUMBERS, np.zeros((9, 7), bool))["spectral_angle_deg"]
    assert check.record(NUMBERS, masked)["spectral_angle_deg"] < everything
    assert ShapeCheck(before.shape).record(NUMBERS, masked)["spectral_angle_deg"] is None
