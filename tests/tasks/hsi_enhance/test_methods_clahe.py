"""clahe: OpenCV's equalisation of each band, in a range that the facts tell."""

import cv2
import numpy as np
import pytest
from low_rank_cubes import low_rank_cube
from test_methods import enhanced

from attnkit.tasks.hsi_enhance.methods.clahe import histogram_bits


def test_a_band_is_equalised_in_the_range_of_the_facts():
    cube = 3 * low_rank_cube(3, (4, 40, 48)) - 0.5
    result, _, facts = enhanced("clahe", cube, clahe_clip=3.0, clahe_tiles=4)
    np.testing.assert_array_equal(np.float32(facts["band_low"]), cube.min(axis=(1, 2)))
    np.testing.assert_array_equal(np.float32(facts["band_high"]), cube.max(axis=(1, 2)))
    low, high = facts["band_low"][2], facts["band_high"][2]
    equaliser = cv2.createCLAHE(3.0, (4, 4))
    equaliser.setBitShift(8)
    codes = np.rint((cube[2] - low) / (high - low) * 65535).astype(np.uint16)
    expected = low + (equaliser.apply(codes) + 127.5) / 65535 * (high - low)
    np.testing.assert_allclose(result[2], expected, atol=2 * (high - low) / 65535)
    assert facts["histogram_levels"] == 256


def test_contrast_grows_with_the_clip_limit_and_stays_in_the_range():
    cube = 0.4 + 0.1 * low_rank_cube(2, (3, 128, 128))
    cube[:, 0, 0], cube[:, 0, 1] = 0, 1
    spread = [enhanced("clahe", cube, clahe_clip=clip, clahe_tiles=4)[0].std() for clip in (1.0, 2.0, 8.0)]
    assert cube.std() < spread[0] < spread[1] < spread[2]
    result = enhanced("clahe", cube, clahe_clip=40.0, clahe_tiles=4)[0]
    assert result.min() >= 0 and result.max() <= 1


@pytest.mark.parametrize(("pixels", "bits"), [(1, 8), (324, 8), (62_500, 11), (10**7, 16)])
def test_bins_hold_pixels_enough_to_be_limited(pixels, bits):
    assert histogram_bits(pixels) == bits
