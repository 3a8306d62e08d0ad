"""Multi-band TIFF as tifffile, Pillow and GDAL write it."""

import importlib.util

import numpy as np
import pytest
import tifffile
from PIL import Image

from attnkit.cubes import CubeError, create_cube, open_cube, read_settings, sniff

BANDS, ROWS, COLUMNS = 5, 37, 50
GEO = {33550: ("d", (2.0, 3.0, 0.0)), 33922: ("d", (0.0, 0.0, 0.0, 100.0, 200.0, 0.0)),
       34735: ("H", (1, 1, 0, 1, 1024, 0, 1, 1)), 34737: ("s", "WGS 84|")}  # fmt: skip
LAYOUTS = {
    "pages": {"photometric": "minisblack"},
    "planes": {"photometric": "minisblack", "planarconfig": "separate"},
    "pixels": {"photometric": "minisblack", "planarconfig": "contig"},
}
PACKINGS = {
    "plain": {},
    "strips": {"rowsperstrip": 8},
    "packed": {"compression": "zlib", "rowsperstrip": 8},
    "predicted": {"compression": "zlib", "predictor": 2, "rowsperstrip": 10},
    "tiles": {"tile": (16, 32)},
    "packed tiles": {"tile": (16, 32), "compression": "zlib"},
}


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_windows_equal_slices_of_what_tifffile_reads(tmp_path, cube, layout, packing, dtype) -> None:
    if packing == "predicted" and dtype == "f4":
        pytest.skip("this predictor is for whole numbers")
    values = cube(dtype, (BANDS, ROWS, COLUMNS))
    stored = values.transpose(1, 2, 0) if layout == "pixels" else values
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stored, metadata=None, byteorder=">" if dtype == "u2" else "<", **LAYOUTS[layout],
                     **PACKINGS[packing])  # fmt: skip
    np.testing.assert_array_equal(tifffile.imread(path), stored)
    with open_cube(path) as reader:
        info = reader.info
        assert (info.bands, info.rows, info.columns, info.dtype) == (BANDS, ROWS, COLUMNS, values.dtype)
        np.testing.assert_array_equal(reader.read(), values)
        for rows, columns in (((0, 1), (0, 50)), ((7, 25), (30, 33)), ((36, 37), (1, 49))):
            place = [0, 2, 4], slice(*rows), slice(*columns)
            np.testing.assert_array_equal(reader.read(*place), values[place])
    # the result lies as its input did
    writer = create_cube(tmp_path / "b.tif", info, format="tiff", dtype=values.dtype, settings={}, history="h")
    writer.write(values, slice(0, BANDS), slice(0, ROWS), slice(0, COLUMNS))
    writer.close()
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "b.tif"), stored)


def test_only_the_strips_that_a_window_meets_are_unpacked(tmp_path, cube, monkeypatch) -> None:
    values = cube("u2", (BANDS, ROWS, COLUMNS))
    tifffile.imwrite(tmp_path / "a.tif", values, metadata=None, **LAYOUTS["planes"], **PACKINGS["packed"])
    from attnkit.cubes.tiff_segments import Segments

    seen = []
    unpacked = Segments._unpacked
    monkeypatch.setattr(Segments, "_unpacked", lambda *args: seen.append(args[2]) or unpacked(*args))
    with open_cube(tmp_path / "a.tif") as reader:
        seen.clear()
        reader.read(slice(2, 3), slice(9, 17), slice(0, 4))
    # plane 2 begins with strip 10, and rows 9 to 16 are in its second and third
    assert seen == [11, 12]


def test_an_rgb_picture_and_one_band_are_cubes(tmp_path) -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (20, 30, 3)).astype(np.uint8)
    for compression in (None, "tiff_adobe_deflate", "packbits"):
        Image.fromarray(pixels).save(tmp_path / "a.tif", compression=compression)
        Image.fromarray(pixels[..., 0]).save(tmp_path / "b.tif", compression=compression)
        with open_cube(tmp_path / "a.tif") as reader:
            np.testing.assert_array_equal(reader.read(), pixels.transpose(2, 0, 1))
        with open_cube(tmp_path / "b.tif") as reader:
            np.testing.assert_array_equal(reader.read(), pixels[None, ..., 0])


def test_a_compression_that_needs_a_library_is_told_at_once(tmp_path) -> None:
    if importlib.util.find_spec("imagecodecs"):
        pytest.skip("imagecodecs, which unpacks it, is installed")
    Image.new("L", (30, 20)).save(tmp_path / "a.tif", compression="tiff_lzw")
    with pytest.raises(CubeError, match=r"a\.tif: compression LZW needs a library; install imagecodecs"):
        open_cube(tmp_path / "a.tif")


def test_the_axis_order_overrides_what_the_pages_suggest(tmp_path, cube) -> None:
    values = cube("f4", (BANDS, ROWS, COLUMNS))
    # what tifffile makes of rows, columns, bands without being told more: a page a row
    tifffile.imwrite(tmp_path / "a.tif", values.transpose(1, 2, 0), photometric="minisblack")
    with open_cube(tmp_path / "a.tif", axis_order="rows,columns,bands") as reader:
        np.testing.assert_array_equal(reader.read(), values)


def test_what_gdal_stores_is_read_and_carried(tmp_path, cube) -> None:
    values = cube("f4", (BANDS, ROWS, COLUMNS))
    items = "".join(
        f'<Item name="wavelength" sample="{band}">{0.4 + band / 10:.1f}</Item>'
        f'<Item name="wavelength_units" sample="{band}">Micrometers</Item>'
        for band in range(BANDS)
    )
    tags = [(code, type, 0 if type == "s" else len(value), value, True) for code, (type, value) in GEO.items()]
    tags += [(42112, "s", 0, f"<GDALMetadata>{items}</GDALMetadata>", True), (42113, "s", 0, "-9999", True)]
    tifffile.imwrite(tmp_path / "a.tif", values, metadata=None, extratags=tags, description="over the field",
                     **LAYOUTS["planes"])  # fmt: skip
    with open_cube(tmp_path / "a.tif") as reader:
        info = reader.info
    assert info.wavelengths_nm == (400.0, 500.0, 600.0, 700.0, 800.0)
    assert (info.ignore_value, info.description) == (-9999.0, "over the field")
    part = info.cut([1, 2], (3, 20), (4, 40))
    create_cube(tmp_path / "b.tif", part, format="tiff", dtype=values.dtype, settings={"a": 1}, history="h").close()
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        found = file.pages[0].tags
        assert found[33550].value == GEO[33550][1]
        assert found[33922].value == (-4.0, -3.0, 0.0, 100.0, 200.0, 0.0)
        assert found[34735].value == GEO[34735][1]
        assert found[34737].value == GEO[34737][1]
        assert found[42113].value == "-9999"
        assert file.pages[0].software == "attnkit"
    with open_cube(tmp_path / "b.tif") as reader:
        assert reader.info.wavelengths_nm == (500.0, 600.0)
        assert reader.info.description == "over the field\nh"
    assert read_settings(tmp_path / "b.tif") == {"a": 1}
    # a value that the type does not hold is no value of GDAL's
    create_cube(tmp_path / "c.tif", part, format="tiff", dtype=np.dtype("u2"), settings={}, history="h").close()
    with tifffile.TiffFile(tmp_path / "c.tif") as file:
        assert 42113 not in file.pages[0].tags


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_file_cut_short_names_both_numbers(tmp_path, packing) -> None:
    values = np.random.default_rng(2).integers(0, 2**16, (BANDS, ROWS, COLUMNS)).astype("u2")
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values, metadata=None, **LAYOUTS["planes"], **PACKINGS[packing])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    message = rf"a\.tif: cut short: holds {len(whole) * 2 // 3} bytes, expected \d+ \(50x37 pixels"
    with pytest.raises(CubeError, match=message):
        open_cube(path)
    path.write_bytes(whole[:20])
    with pytest.raises(CubeError, match=r"a\.tif"):
        open_cube(path)


def test_damaged_strips_complex_values_and_too_many_axes(tmp_path, capfd) -> None:
    values = np.random.default_rng(2).integers(0, 2**16, (BANDS, ROWS, COLUMNS)).astype("u2")
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values, metadata=None, **LAYOUTS["planes"], **PACKINGS["packed"])
    whole = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        start = file.pages[0].dataoffsets[3]
    whole[start : start + 40] = bytes(40)
    path.write_bytes(whole)
    with pytest.raises(CubeError, match=r"a\.tif: strip or tile 3 cannot be unpacked"), open_cube(path) as reader:
        reader.read()
    tifffile.imwrite(path, values.astype("c8"), photometric="minisblack")
    with pytest.raises(CubeError, match="complex values"):
        open_cube(path)
    tifffile.imwrite(path, np.zeros((2, 8, 9, 3), "u1"), photometric="rgb")
    with pytest.raises(CubeError, match=r"has shape \(2, 8, 9, 3\), expected two axes"):
        open_cube(path)
    assert capfd.readouterr().err == ""


def test_a_camera_raw_file_is_no_cube(tmp_path) -> None:
    tifffile.imwrite(tmp_path / "a.dng", np.zeros((8, 8), "u2"), extratags=[(50706, "B", 4, (1, 4, 0, 0), True)])
    assert sniff((tmp_path / "a.dng").read_bytes()[:512], tmp_path / "a.dng") is None
