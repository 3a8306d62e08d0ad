"""What a header says of a part of its cube."""

import numpy as np
import pytest

from attnkit.cubes import CubeInfo


def facts(**more) -> CubeInfo:
    return CubeInfo(
        **{
            "rows": 10,
            "columns": 8,
            "bands": 6,
            "dtype": np.dtype("f4"),
            "kind": "envi",
            "wavelengths": (400.0, 500.0, 600.0, 700.0, 800.0, 900.0),
            "bad_bands": (False, True, False, False, True, False),
            **more,
        }
    )


def test_every_field_that_names_bands_follows_them() -> None:
    names = list("abcdef")
    extra = {"fwhm": names, "band names": names, "data gain values": names, "data offset values": names,
             "default bands": ["4", "3", "2"], "binning": ["4", "2"], "vroi": names, "sensor type": "x"}  # fmt: skip
    found = facts(extra=extra).cut(np.array([1, 2, 3]), (0, 10), (0, 8))
    assert (found.bands, found.rows, found.columns) == (3, 10, 8)
    assert found.wavelengths == (500.0, 600.0, 700.0)
    assert found.bad_bands == (True, False, False)
    assert dict(found.extra) == {
        **{name: ["b", "c", "d"] for name in ("fwhm", "band names", "data gain values", "data offset values")},
        "default bands": ["3", "2", "1"],
        "binning": ["4", "2"],
        "vroi": names,
        "sensor type": "x",
    }
    # one of the three is gone: none is left
    assert "default bands" not in facts(extra=extra).cut([1, 2], (0, 10), (0, 8)).extra


def place_of(map_info: list[str], row: float, column: float) -> tuple[float, float]:
    """Where the upper left corner of a pixel lies: pixels count from 1 in a header."""
    tie_column, tie_row, x, y, wide, high = map(float, map_info[1:7])
    return x + (column + 1 - tie_column) * wide, y - (row + 1 - tie_row) * high


@pytest.mark.parametrize("tie", [("1", "1"), ("4.5", "2.25"), ("1.0000", "1.0000")])
def test_a_pixel_stays_where_it_is_on_the_map(tie) -> None:
    map_info = ["UTM", *tie, "500000", "4000000", "30", "20", "11", "North", "WGS-84"]
    extra = {"map info": map_info, "x start": "247", "y start": "425",
             "geo points": ["1.5", "2", "48.5", "-3", "8", "10", "48.6", "-2.9"], "rpc info": ["1"] * 93}  # fmt: skip
    found = facts(extra=extra).cut(range(6), (3, 9), (2, 8))
    assert (found.rows, found.columns) == (6, 6)
    assert place_of(found.extra["map info"], 0, 0) == place_of(map_info, 3, 2)
    assert place_of(found.extra["map info"], 5, 4) == place_of(map_info, 8, 6)
    assert found.extra["map info"][3:] == map_info[3:]
    assert (found.extra["x start"], found.extra["y start"]) == ("249", "428")
    assert found.extra["geo points"] == ["-0.5", "-1", "48.5", "-3", "6", "7", "48.6", "-2.9"]
    assert "rpc info" not in found.extra
    # nothing moves where the origin does not
    assert dict(facts(extra=extra).cut(range(6), (0, 5), (0, 4)).extra) == extra


def test_a_georeference_that_cannot_be_read_is_left_out() -> None:
    extra = {"map info": ["UTM", "one", "1", "2", "3"], "x start": "left"}
    assert dict(facts(extra=extra).cut(range(6), (1, 2), (1, 8)).extra) == {}


def test_the_tags_of_a_geotiff_follow() -> None:
    matrix = (2.0, 0.5, 0.0, 100.0, -0.25, -3.0, 0.0, 200.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
    tags = {33550: (2.0, 3.0, 0.0), 33922: (0.0, 0.0, 0.0, 100.0, 200.0, 0.0), 34264: matrix}
    found = facts(geotiff=tags).cut(range(6), (4, 9), (3, 8)).geotiff
    assert found[33550] == tags[33550]
    assert found[33922] == (-3.0, -4.0, 0.0, 100.0, 200.0, 0.0)
    before = np.reshape(matrix, (4, 4)) @ [3 + 1, 4 + 2, 0, 1]
    np.testing.assert_allclose(np.reshape(found[34264], (4, 4)) @ [1, 2, 0, 1], before)


@pytest.mark.parametrize(
    ("values", "unit", "expected"),
    [
        ((0.4, 2.5), "Micrometers", (400.0, 2500.0)),
        ((400.0, 2500.0), "Nanometers", (400.0, 2500.0)),
        ((0.4, 2.5), None, (400.0, 2500.0)),
        ((400.0, 2500.0), "Unknown", (400.0, 2500.0)),
        ((4000.0, 25000.0), "Angstroms", (400.0, 2500.0)),
        ((4000.0, 25000.0), "Wavenumber", (2500.0, 400.0)),
        ((1.0, 2.0), "Index", None),
        ((1.0, 2.0), "GHz", None),
    ],
)
def test_wavelengths_come_in_nanometres(values, unit, expected) -> None:
    assert facts(bands=2, wavelengths=values, wavelength_units=unit).wavelengths_nm == expected
