"""The task itself: a cube in memory, its tiles, and what is said of them."""

import numpy as np
import pytest

from attnkit.runtime.errors import ItemError, UsageError
from attnkit.tasks.hsi_enhance.methods import regions
from attnkit.tasks.hsi_enhance.source import Region
from attnkit.tasks.hsi_enhance.task import ArrayReader, Enhancement, EnhanceRequest, enhance

GAIN = EnhanceRequest(method="gain")


def dark_cube(bands=12, rows=14, columns=11, seed=0):
    """Counts [bands, rows, columns] of three materials, and what they would be without noise."""
    draw = np.random.default_rng(seed)
    spectra = draw.uniform(40, 220, (3, bands))
    which = draw.integers(0, 3, (rows, columns))
    clean = np.moveaxis(spectra[which], -1, 0)
    return draw.poisson(clean).astype(np.uint16), clean


def test_gain_brightens_and_nothing_else():
    cube, _ = dark_cube()
    result, record = enhance(cube, EnhanceRequest(method="gain", gain=4.0, scale=1023.0))
    np.testing.assert_allclose(result, 4.0 * cube, rtol=1e-6)
    assert record["spectral_angle_deg"] == 0 and record["bands_changed_most"] == [] and record["scale"] == 1023
    assert record["size"] == "11x14" and record["bands"] == 12


@pytest.mark.parametrize("method", ["mnf", "lowrank"])
def test_noise_is_taken_out_and_the_change_of_shape_is_told(method):
    cube, clean = dark_cube(rows=40, columns=37)
    result, record = enhance(cube, EnhanceRequest(method=method, gain=2.0))
    noisy = np.sqrt(np.mean((2.0 * cube - 2 * clean) ** 2))
    assert np.sqrt(np.mean((result - 2 * clean) ** 2)) < 0.7 * noisy
    cosine = (result * cube).sum(0) / np.linalg.norm(result, axis=0) / np.linalg.norm(cube, axis=0)
    assert record["spectral_angle_deg"] == pytest.approx(np.degrees(np.arccos(cosine)).mean(), abs=0.02)


def test_the_part_asked_for_is_that_part_of_the_cube():
    cube, _ = dark_cube()
    request = EnhanceRequest(method="gain", gain=2.0, bands=(2, 7), rows=(1, 9), columns=(3, 10))
    result, record = enhance(cube, request)
    np.testing.assert_allclose(result, 2.0 * cube[2:7, 1:9, 3:10])
    for part in ({"bands": (0, 13)}, {"rows": (14, 15)}, {"columns": (5, 5)}):
        with pytest.raises(UsageError, match="expected a part of 0:"):
            enhance(cube, EnhanceRequest(method="gain", **part))
    # bands go by their number in the file
    cube[5] = 3
    _, record = enhance(cube, request)
    assert record["dead_bands"] == [5]


def test_tiles_cover_the_cube_once_and_done_ones_are_left_out(monkeypatch):
    monkeypatch.setattr(regions, "ROW_REGION_SAMPLES", 12 * 11 * 3)
    cube, _ = dark_cube()
    enhancement = Enhancement(ArrayReader(cube), GAIN)
    seen = np.zeros(cube.shape, int)
    order = []
    for region, before, after in enhancement.tiles():
        seen[region.slices] += 1
        order.append(region)
        np.testing.assert_array_equal(before, after)
    assert (seen == 1).all() and len(order) == 5
    rest = [region for region, *_ in Enhancement(ArrayReader(cube), GAIN).tiles({order[0], order[3]})]
    assert rest == [order[1], order[2], order[4]]


def test_scale_and_gain_do_not_depend_on_the_memory():
    cube, _ = dark_cube(bands=40, rows=300, columns=200)
    little = Enhancement(ArrayReader(cube), EnhanceRequest(method="gain", memory=1))
    much = Enhancement(ArrayReader(cube), EnhanceRequest(method="gain", memory=10**10))
    assert little.radiometry == much.radiometry


def test_whole_numbers_are_rounded_and_clipped_ones_counted():
    cube, _ = dark_cube()
    enhancement = Enhancement(ArrayReader(cube), EnhanceRequest(method="gain", gain=1.0, scale=255.0))
    region = Region(0, 1, 0, 1, 0, 4)
    bright = np.array([[[0.5, -0.1, 300.0, 1.0]]], np.float32)
    stored, clipped = enhancement.stored(region, bright, np.dtype(np.uint16))
    assert stored.tolist() == [[[128, 0, 65535, 255]]] and clipped == 2
    stored, clipped = enhancement.stored(region, bright, np.dtype(np.int16))
    assert stored.tolist() == [[[128, -26, 32767, 255]]] and clipped == 1
    stored, clipped = enhancement.stored(region, bright, np.dtype(np.float64))
    np.testing.assert_allclose(stored, bright * 255.0, rtol=1e-6)
    assert clipped == 0
    huge = bright * np.float32(1e30)
    for dtype, count in (("float16", 3), ("int64", 4), ("uint64", 4)):
        stored, clipped = enhancement.stored(region, huge, np.dtype(dtype))
        assert clipped == count + (dtype == "float16") and stored[0, 0, 0] > 0 and stored[0, 0, 1] <= 0
        assert np.isfinite(stored).all()


def test_cubes_without_a_number_and_things_that_are_no_cubes():
    with pytest.raises(ItemError, match="no finite value"):
        enhance(np.full((2, 3, 4), np.nan), GAIN)
    for cube in (np.zeros((2, 3)), np.zeros((2, 3, 4), complex), np.zeros((0, 3, 4))):
        with pytest.raises(UsageError, match="cube"):
            enhance(cube, GAIN)


def test_nothing_is_denoised_where_nothing_varies():
    result, record = enhance(np.full((3, 5, 4), 20.0), EnhanceRequest(method="lowrank", gain=2.0, scale=100.0))
    np.testing.assert_allclose(result, 40.0, rtol=1e-6)
    assert record["warnings"] == ["every band holds one value: brightened only"]
