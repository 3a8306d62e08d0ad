"""Scale, gain, references, and what a survey finds broken."""

import numpy as np
import pytest

from attnkit.runtime.errors import ItemError
from attnkit.tasks.hsi_enhance.calibration import Correction, Reference, read_reference, settle
from attnkit.tasks.hsi_enhance.cube_source import Crop, CubeSource
from attnkit.tasks.hsi_enhance.task import ArrayReader, Enhancement, EnhanceRequest


def settled(**changed):
    options = {
        "scale": None,
        "gain": None,
        "white_level": 60.0,
        "maximum": 300.0,
        "integer": True,
        "largest": 65535.0,
    }
    return settle(**{**options, **changed})


def source_of(cube, correction=None, ignore=None, crop=None):
    bands, rows, columns = cube.shape
    return CubeSource(
        ArrayReader(cube), crop or Crop(np.arange(bands), (0, rows), (0, columns)), correction or Correction(), ignore
    )


@pytest.mark.parametrize(("maximum", "scale"), [(200, 255), (300, 1023), (4095, 4095), (4096, 16383), (65535, 65535)])
def test_the_scale_of_whole_numbers_is_the_smallest_full_scale_that_holds_them(maximum, scale):
    assert settled(maximum=float(maximum)).scale == scale


def test_floats_up_to_one_and_a_half_are_taken_as_they_are():
    assert settled(integer=False, maximum=1.2, white_level=0.06).scale == 1.0
    assert settled(integer=False, maximum=1.2, white_level=0.06).gain == pytest.approx(15.0)


def test_auto_gain_puts_white_at_nine_tenths_and_never_darkens():
    radiometry = settled(scale=1000.0)
    assert 60.0 * radiometry.factor == pytest.approx(0.9, rel=1e-3)
    assert settled(scale=10.0).gain == 1.0


def test_whole_numbers_of_reflectance_are_written_times_ten_thousand():
    assert settled(reflectance=True).output_scale == 10_000
    assert settled(reflectance=True, largest=None).output_scale == 1.0
    assert settled(reflectance=True, largest=255.0).output_scale == 255.0
    shares = settled(integer=False, maximum=1.2)
    assert (shares.scale, shares.output_scale, shares.reflectance_scale) == (1.0, 10_000, 10_000)
    # whole numbers of a small scale stay what they are
    assert settled(scale=100.0).output_scale == 100.0


def test_a_header_that_tells_the_scale_of_reflectance_is_believed():
    radiometry = settled(header_scale=10_000.0)
    assert (radiometry.scale, radiometry.output_scale, radiometry.reflectance_scale) == (10_000, 10_000, 10_000)
    assert settled(header_scale=10_000.0, scale=4095.0).scale == 4095
    assert settled(maximum=1e6).scale == 1e6 and settled(maximum=1e6).output_scale == 65535


def test_dark_and_white_give_reflectance_for_each_band_and_column():
    rng = np.random.default_rng(0)
    reflectance = rng.uniform(0.1, 0.9, (3, 4, 5)).astype(np.float32)
    dark = rng.uniform(5, 9, (3, 5)).astype(np.float32)
    white = dark + rng.uniform(50, 90, (3, 5)).astype(np.float32)
    raw = dark[:, None] + reflectance * (white - dark)[:, None]
    crop = Crop(np.arange(1, 3), (1, 4), (2, 5))
    source = source_of(raw, Correction(Reference(dark), Reference(white)), crop=crop)
    found = source.corrected(slice(0, 2), slice(0, 2), slice(1, 3))
    np.testing.assert_allclose(found, reflectance[1:3, 1:3, 3:5], rtol=2e-5)


def test_a_white_that_is_not_above_the_dark_is_missing_and_not_infinite():
    flat = Reference(np.ones((1, 1), np.float32))
    assert np.isnan(Correction(flat, flat).apply(np.ones((1, 2, 2), np.float32), np.array([0]), slice(0, 2))).all()


def test_a_reference_is_averaged_over_its_rows_and_must_fit():
    reference = np.arange(24, dtype=np.float64).reshape(2, 3, 4)
    found = read_reference("--dark", reference, ArrayFile, 2, 4)
    np.testing.assert_allclose(found.values, reference.mean(axis=1))
    with pytest.raises(ItemError, match="has 2 bands, the cube 5"):
        read_reference("--dark", reference, ArrayFile, 5, 4)
    with pytest.raises(ItemError, match="has 4 columns, expected 7"):
        read_reference("--white", reference, ArrayFile, 2, 7)


class ArrayFile(ArrayReader):
    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None


def test_the_survey_tells_dead_masked_broken_and_saturated_apart():
    rng = np.random.default_rng(1)
    cube = rng.uniform(10, 50, (5, 8, 6)).astype(np.float32)
    cube[2] = 0.0
    cube[:, 3, 4] = 0.0
    cube[1, 0, 0] = np.nan
    cube[4, 5, 5] = np.inf
    cube[3, 7, 1] = 100.0
    found = source_of(cube).survey(3, 100.0)
    assert np.flatnonzero(found.dead).tolist() == [2]
    assert np.argwhere(found.masked).tolist() == [[3, 4]]
    assert found.broken.tolist() == [[0, 0], [5, 5]]
    assert found.missing.tolist() == [0, 1, 0, 0, 1]
    assert found.saturated.tolist() == [0, 0, 0, 1, 0]
    record = found.record(np.arange(10, 15))
    assert record["dead_bands"] == record["zero_bands"] == [12]
    assert record["missing_samples"] == 2


def test_a_pixel_without_light_stays_masked_under_a_dark_reference():
    rng = np.random.default_rng(3)
    cube = rng.integers(150, 250, (4, 6, 5)).astype(np.uint16)
    cube[:, 2, 3] = 0
    dark = Reference(np.full((4, 5), 100, np.float32))
    request = EnhanceRequest(method="gain", scale=1023.0, gain=2.0, correction=Correction(dark=dark))
    enhancement = Enhancement(ArrayReader(cube), request)
    assert np.argwhere(enhancement.found.masked).tolist() == [[2, 3]]
    ((region, _, after),) = enhancement.tiles()
    stored, clipped = enhancement.stored(region, after, cube.dtype)
    assert clipped == 0 and not stored[:, 2, 3].any() and stored[0, 0, 0] == 2 * (int(cube[0, 0, 0]) - 100)


def test_a_number_too_large_for_float32_is_a_hole_and_no_warning(recwarn):
    cube = np.random.default_rng(4).uniform(0.1, 0.2, (3, 4, 5))
    cube[1, 2, 3] = 1e300
    assert source_of(cube).survey(2, None).missing.tolist() == [0, 1, 0] and not recwarn.list


def test_holes_are_filled_along_the_spectrum_and_dead_bands_between_their_neighbours():
    cube = np.broadcast_to(np.arange(1, 7, dtype=np.float32)[:, None, None], (6, 4, 4)).copy()
    cube += np.random.default_rng(2).uniform(0, 1e-3, cube.shape).astype(np.float32)
    cube[3, 1, 1] = np.nan
    cube[2] = 77.0
    source = source_of(cube)
    found = source.survey(2, None)
    source.prepare(settle(scale=1.0, gain=2.0, white_level=1.0, maximum=77.0, integer=False, reflectance=False,
                          ), found)  # fmt: skip
    whole = source.read(slice(None), slice(None), slice(None))
    np.testing.assert_allclose(whole[2], 6.0, atol=5e-3)
    assert whole[4, 0, 0] == pytest.approx(2 * cube[4, 0, 0])
    np.testing.assert_array_equal(source.read(slice(2, 5), slice(1, 3), slice(0, 2)), whole[2:5, 1:3, 0:2])


def test_the_ignore_value_marks_missing_samples():
    cube = np.full((2, 3, 3), 5, np.int16)
    cube[0, 0, 0] = -9999
    assert np.isnan(source_of(cube, ignore=-9999.0).corrected(slice(None), slice(None), slice(None))).sum() == 1


def test_nothing_of_a_survey_but_rounding_depends_on_the_rows_read_at_a_time():
    rng = np.random.default_rng(3)
    cube = rng.integers(1, 4000, (4, 13, 9)).astype(np.uint16)
    cube[1, 5, 5] = cube[2, 11, 0] = 4095
    whole, rows = source_of(cube).survey(13, None), source_of(cube).survey(2, None)
    assert whole.white_level == rows.white_level and whole.largest_stored == rows.largest_stored == 4095
    assert whole.saturated.tolist() == rows.saturated.tolist() == [0, 1, 1, 0]
    np.testing.assert_allclose(whole.mean, rows.mean)


def test_a_stuck_band_does_not_set_the_white_level():
    cube = np.random.default_rng(4).uniform(1, 50, (3, 20, 20)).astype(np.float32)
    cube[1] = 60_000.0
    assert source_of(cube).survey(7, None).white_level < 50


def test_broken_pixels_beside_dead_and_masked_ones_are_filled_from_what_is_good():
    cube = np.broadcast_to(np.arange(1, 7, dtype=np.float32)[:, None, None], (6, 4, 4)).copy()
    cube += np.random.default_rng(2).uniform(0, 1e-3, cube.shape).astype(np.float32)
    cube[2] = 900.0
    cube[:, 0, 0] = 0.0
    cube[2, 0, 0] = 900.0
    cube[:2, 1, 1] = np.nan
    cube[3:, 1, 1] = np.nan
    cube[3, 2, 2] = np.nan
    source = source_of(cube)
    found = source.survey(2, None)
    source.prepare(settled(scale=1.0, gain=1.0, integer=False), found)
    whole = source.read(slice(None), slice(None), slice(None))
    # nothing but the dead band is left of this pixel
    np.testing.assert_allclose(whole[:, 1, 1], whole.reshape(6, -1).mean(axis=1), rtol=0.3)
    np.testing.assert_allclose(whole[:, 2, 2], np.arange(1, 7), atol=5e-3)
    np.testing.assert_array_equal(source.read([1, 4], slice(2, 4), slice(1, 3)), whole[[1, 4], 2:4, 1:3])
