"""ENVI pairs against SPy, and headers that are wrong."""

import numpy as np
import pytest
import spectral
import spectral.io.envi as spy

from attnkit.cubes import CubeError, create_cube, identify, open_cube, read_settings, sniff

TYPES = ("u1", "i2", "i4", "f4", "f8", "u2", "u4", "i8", "u8")
FIELDS = {
    "description": "a first line\na second one",
    "map info": ["UTM", "1", "1", "500000", "4000000", "30", "30", "11", "North", "WGS-84", "units=Meters"],
    "coordinate system string": ["PROJCS[\"UTM\"", "UNIT[\"Meter\"", "1.0]]"],
    "wavelength": ["0.4", "0.5123456789", "0.6", "0.7", "0.81"],
    "wavelength units": "Micrometers",
    "fwhm": ["0.01", "0.01", "0.02", "0.02", "0.02"],
    "band names": ["violet", "blue", "orange", "red", "beyond"],
    "bbl": [1, 0, 1, 1, 1],
    "default bands": ["4", "3", "2"],
    "data ignore value": "-3.4028234663852886e+38",
    "reflectance scale factor": "10000.5",
    "sensor type": "Unknown",
    "acquisition time": "2022-03-22T15:41:28Z",
}


def head_of(path) -> bytes:
    return path.read_bytes()[:512]


def edit(path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


@pytest.fixture
def pair(tmp_path, cube):
    """A header and its data, as SPy writes them."""
    values = cube("u2")
    spy.save_image(str(tmp_path / "a.hdr"), values.transpose(1, 2, 0), metadata=FIELDS, interleave="bil")
    return tmp_path / "a.hdr", values


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("interleave", ["bsq", "bil", "bip"])
@pytest.mark.parametrize("dtype", TYPES)
def test_every_type_interleave_and_byte_order_both_ways(tmp_path, cube, dtype, interleave, order) -> None:
    values = cube(dtype)
    spy.save_image(str(tmp_path / "a.hdr"), values.transpose(1, 2, 0), interleave=interleave, byteorder=order)
    with open_cube(tmp_path / "a.hdr") as reader:
        assert reader.info.dtype == values.dtype
        assert (reader.info.interleave, reader.info.big_endian) == (interleave, order == 1)
        np.testing.assert_array_equal(reader.read(), values)
        np.testing.assert_array_equal(reader.read([1, 4], slice(2, 5), slice(3, 6)), values[[1, 4], 2:5, 3:6])
        writer = create_cube(
            tmp_path / "b.hdr", reader.info, format="envi", dtype=values.dtype, settings={}, history="h"
        )
        writer.write(values, slice(0, 5), slice(0, 7), slice(0, 6))
        writer.close()
    # interleave and byte order are the input's
    assert (tmp_path / "b.img").read_bytes() == (tmp_path / "a.img").read_bytes()
    image = spectral.open_image(str(tmp_path / "b.hdr"))
    assert (image.metadata["interleave"], image.metadata["byte order"]) == (interleave, str(order))
    np.testing.assert_array_equal(image.open_memmap(interleave="bsq"), values)


def test_header_fields_are_carried_exactly(pair, tmp_path) -> None:
    header, values = pair
    with open_cube(header) as reader:
        info = reader.info
    assert info.wavelengths_nm == (400.0, 512.345679, 600.0, 700.0, 810.0)
    assert info.bad_bands == (False, True, False, False, False)
    assert info.ignore_value == float(np.finfo(np.float32).min)
    writer = create_cube(
        tmp_path / "b.hdr", info, format="envi", dtype=values.dtype, settings={"x": "{a} = 1"}, history="gain\n4 {new}"
    )
    writer.close()
    before, after = spy.read_envi_header(str(header)), spy.read_envi_header(str(tmp_path / "b.hdr"))
    assert after.pop("description") == "a first line\na second one\ngain 4 (new)"
    assert after.pop("attnkit settings")
    del before["description"]
    assert after == before
    assert read_settings(tmp_path / "b.hdr") == {"x": "{a} = 1"}
    assert read_settings(header) is None


@pytest.mark.parametrize("suffix", ["", ".dat", ".img", ".raw", ".bil", ".DAT", ".float"])
def test_either_file_of_a_pair_is_the_same_item(pair, suffix) -> None:
    header, values = pair
    data = header.with_suffix(".img").rename(header.with_name("a" + suffix))
    for path in (header, data):
        found = identify(path, head_of(path))
        assert (found.kind, found.path, found.companions) == ("envi", header, (data,))
        with open_cube(path) as reader:
            np.testing.assert_array_equal(reader.read(), values)


def test_a_header_may_carry_the_name_of_its_data(pair) -> None:
    header, values = pair
    header = header.rename(header.with_name("a.img.hdr"))
    data = header.with_name("a.img")
    assert identify(data, head_of(data)).path == header
    with open_cube(header) as reader:
        np.testing.assert_array_equal(reader.read(), values)


def test_of_several_data_files_the_one_whose_size_fits_is_meant(pair) -> None:
    header, _ = pair
    header.with_name("a.dat").write_bytes(b"something else")
    data = header.with_suffix(".img")
    assert identify(header, head_of(header)).companions == (data,)
    assert identify(header.with_name("a.dat"), b"something else") is None


def test_a_radiance_picture_and_other_headers_are_not_envi(tmp_path) -> None:
    assert sniff(b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n", tmp_path / "a.hdr") is None
    assert sniff(b"BYTEORDER I\nLAYOUT BIL\n", tmp_path / "a.hdr") is None
    assert sniff(b"ENVI ASCII Plot File [Mon]\n", tmp_path / "a.txt") is None
    assert sniff(b"ENVI\r\nsamples = 3\r\n") == "envi"
    (tmp_path / "a.txt").write_text("notes")
    (tmp_path / "a.hdr").write_text("ENVI\nsamples = 3\n")
    assert identify(tmp_path / "a.txt", b"notes") is None


def test_text_of_other_encodings_and_line_ends_is_read(pair) -> None:
    header, values = pair
    text = header.read_text().replace("Unknown", "Überflug").replace("\n", "\r\n")
    for content in (text.encode("latin-1"), b"\xef\xbb\xbf" + text.encode()):
        header.write_bytes(content)
        with open_cube(header) as reader:
            assert reader.info.extra["sensor type"] == "Überflug"
            np.testing.assert_array_equal(reader.read(), values)


def test_values_may_begin_behind_an_offset(pair) -> None:
    header, values = pair
    data = header.with_suffix(".img")
    data.write_bytes(bytes(100) + data.read_bytes())
    edit(header, "header offset = 0", "header offset = 100")
    with open_cube(header) as reader:
        np.testing.assert_array_equal(reader.read(), values)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("bands = 5", "bands = 6", r"bbl has 5 values, the cube 6 bands"),
        ("lines = 7", "lines = 8", r"cut short: holds 420 bytes, expected 480 \(its header says 6x8 pixels, 5 bands"),
        ("lines = 7", "lines = 6", r"too long: holds 420 bytes, expected 360 \(its header says 6x6 pixels, 5 bands"),
        ("lines = 7", "lines = many", "lines is 'many', expected a whole number"),
        ("lines = 7\n", "", "no field 'lines'"),
        ("lines = 7", "lines = 0", "holds nothing"),
        ("data type = 12", "data type = 6", "complex values"),
        ("data type = 12", "data type = 7", "data type 7, expected one of 1, 2"),
        ("interleave = bil", "interleave = bxl", "interleave 'bxl', expected bsq, bil or bip"),
        ("byte order = 0", "byte order = 2", "byte order 2, expected 0"),
        ("header offset = 0", "header offset = -2", "header offset -2"),
        ("header offset = 0", "file compression = 1", "file compression is on"),
        ("header offset = 0", "major frame offsets = {0, 8}", "major frame offsets are"),
        ("ENVI Standard", "ENVI Spectral Library", "ENVI Spectral Library: spectra without a place"),
        ("ENVI Standard", "TIFF", "file type TIFF, expected ENVI Standard"),
        ("0.81 }", "red }", "wavelength is not a list of numbers"),
        ("data ignore value = -3", "data ignore value = none", "data ignore value is 'none"),
    ],
)
def test_a_wrong_header_is_told_in_one_line(pair, before, after, message) -> None:
    header, _ = pair
    edit(header, before, after)
    with pytest.raises(CubeError, match=message) as caught:
        open_cube(header)
    assert "\n" not in str(caught.value)
    assert "a.hdr" in str(caught.value) or "a.img" in str(caught.value)


def test_a_brace_that_is_never_closed_is_told(pair) -> None:
    header, _ = pair
    header.write_text(header.read_text() + "spectra names = { one ,\n two\n")
    with pytest.raises(CubeError, match=r"a\.hdr: no ENVI header that can be read .* check for unclosed braces"):
        open_cube(header)


def test_a_missing_data_file_a_missing_header_and_a_name_that_contradicts(pair) -> None:
    header, _ = pair
    data = header.with_suffix(".img")
    moved = data.rename(header.with_suffix(".bsq"))
    with pytest.raises(CubeError, match=r"a\.bsq: named bsq, its header says interleave bil"):
        open_cube(header)
    moved.unlink()
    with pytest.raises(CubeError, match=r"a\.hdr: its data file is missing; looked for a, a\.dat, a\.img"):
        open_cube(header)
    lonely = header.with_name("b.img")
    lonely.write_bytes(bytes(10))
    with pytest.raises(CubeError, match=r"no ENVI header beside it that fits; expected b\.hdr"):
        open_cube(lonely, input_format="envi")
    with pytest.raises(CubeError, match="no cube that this reads, expected envi, mat, hdf5"):
        open_cube(lonely)
