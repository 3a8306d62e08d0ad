"""Settings, EXIF, orientation and determinism, over every output format."""

import io
import struct
from typing import Any

import numpy as np
import OpenEXR
import pytest
import tifffile
from PIL import Image

from attnkit.pictures import DEPTHS, check_output, describe, encode_picture, ifd, read_picture, read_settings
from attnkit.runtime.errors import PictureError, UsageError

RNG = np.random.default_rng(0)
DISPLAY = RNG.random((24, 36, 3)).astype(np.float32)
SETTINGS: dict[str, Any] = {
    "method": "llf-lut",
    "exposure": -0.5,
    "set": {"a.b": [1, None, True]},
    "text": 'é "quoted" \\ 日本',
}
OUTPUTS = [(format, depth) for format, depths in DEPTHS.items() for depth in depths]


def exif(orientation: int = 1, order: str = "<") -> bytes:
    """A block as cameras write it, with a maker note and a position, in either byte order."""
    block = Image.Exif()
    block[0x0112] = orientation
    block[0x010F] = "Maker"
    block[0x0132] = "2026:01:02 03:04:05"
    inner = block.get_ifd(0x8769)
    inner[0x829A] = 0.005
    inner[0x9003] = "2026:01:02 03:04:05"
    inner[0x927C] = b"maker note bytes"
    position = block.get_ifd(0x8825)
    position[1] = "N"
    position[2] = (48.0, 12.0, 30.0)
    raw = block.tobytes()
    raw = raw.removeprefix(b"Exif\0\0")
    return raw if raw[:2] == (b"II" if order == "<" else b"MM") else swapped(raw)


def swapped(raw: bytes) -> bytes:
    """The same block in little-endian order, through the module under test's own writer."""
    main = ifd.parse(raw, ifd.first_offset(raw))
    inner = {tag: ifd.parse(raw, ifd.number(main, tag, 0)) for tag in (ifd.EXIF_POINTER, ifd.GPS_POINTER)}
    kept = {tag: entry for tag, entry in main.items() if tag not in inner}
    return b"II*\0" + struct.pack("<I", 8) + ifd.serialise(kept, 8, inner)


def pillow_exif(raw: bytes) -> dict[int, Any]:
    block = Image.Exif()
    block.load(b"Exif\0\0" + raw)
    return {**dict(block), "exif": dict(block.get_ifd(0x8769)), "gps": dict(block.get_ifd(0x8825))}


@pytest.mark.parametrize(("format", "depth"), OUTPUTS)
def test_settings_come_back(format: str, depth: int, tmp_path) -> None:
    path = tmp_path / "a"
    path.write_bytes(encode_picture(DISPLAY, format=format, depth=depth, settings=SETTINGS, exif=exif()))
    assert read_settings(path) == SETTINGS
    path.write_bytes(encode_picture(DISPLAY, format=format, depth=depth))
    assert read_settings(path) is None


@pytest.mark.parametrize("format", DEPTHS)
def test_settings_longer_than_a_segment(format: str, tmp_path) -> None:
    long = {"table": RNG.random(9000).tolist()}
    path = tmp_path / "a"
    path.write_bytes(encode_picture(DISPLAY, format=format, settings=long))
    assert path.stat().st_size > 150_000
    assert read_settings(path) == long
    assert read_picture(path).pixels.shape == DISPLAY.shape


@pytest.mark.parametrize("format", DEPTHS)
def test_settings_of_a_cut_file_or_none_never_raise(format: str, tmp_path) -> None:
    data = encode_picture(DISPLAY, format=format, settings=SETTINGS)
    path = tmp_path / "a"
    for length in range(0, len(data), max(1, len(data) // 60)):
        path.write_bytes(data[:length])
        assert read_settings(path) in (None, SETTINGS)
    assert read_settings(tmp_path / "missing") is None


@pytest.mark.parametrize(("format", "depth"), OUTPUTS)
def test_two_runs_are_equal_byte_for_byte(format: str, depth: int) -> None:
    options: dict[str, Any] = {
        "format": format,
        "depth": depth,
        "settings": SETTINGS,
        "exif": exif(),
        "space": "display-p3",
    }
    first = encode_picture(DISPLAY.copy(), **options)
    assert first == encode_picture(DISPLAY.copy(), **{**options, "settings": dict(reversed(SETTINGS.items()))})


@pytest.mark.parametrize("format", DEPTHS)
@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_is_carried_with_orientation_one(format: str, order: str) -> None:
    block = exif(6, order)
    assert block[:2] == (b"II" if order == "<" else b"MM")
    picture = read_picture(encode_picture(DISPLAY, format=format, exif=block))
    assert picture.pixels.shape == DISPLAY.shape
    assert picture.exif is not None
    found, given = pillow_exif(picture.exif), pillow_exif(block)
    assert found.get(0x0112, 1) == 1
    for tag in (0x010F, 0x0132, "exif", "gps"):
        assert found[tag] == given[tag]


def test_outside_readers_find_the_exif() -> None:
    block = exif(3)
    for format in ("png", "jpeg"):
        image = Image.open(io.BytesIO(encode_picture(DISPLAY, format=format, exif=block)))
        assert image.getexif()[0x010F] == "Maker"
        assert image.getexif()[0x0112] == 1
        assert image.getexif().get_ifd(0x8769)[0x829A] == 0.005
    with tifffile.TiffFile(io.BytesIO(encode_picture(DISPLAY, format="tiff", exif=block))) as file:
        tags = file.pages.first.tags
        assert tags["Make"].value == "Maker"
        assert tags["Software"].value == "attnkit"
        assert tags["ExifTag"].value["ExposureTime"] == 0.005
        assert tags["GPSTag"].value["GPSLatitudeRef"] == "N"
    assert "attnkit-exif" in OpenEXR.File(io.BytesIO(encode_picture(DISPLAY, format="exr", exif=block))).header()


def test_thumbnail_directory_is_cut_off() -> None:
    """It would show the picture as it was before."""
    block = bytearray(exif())
    (count,) = struct.unpack_from("<H", block, 8) if block[:2] == b"II" else struct.unpack_from(">H", block, 8)
    at = 10 + 12 * count
    block[at : at + 4] = b"\1\2\3\4"
    turned = ifd.upright(bytes(block))
    assert turned is not None
    assert turned[at : at + 4] == bytes(4)


@pytest.mark.parametrize("block", [b"junk", b"II*\0", b"II*\0\xff\xff\0\0", b"MM\0*\0\0\0\x08\0\x09"])
@pytest.mark.parametrize("format", DEPTHS)
def test_bad_exif_is_left_out(block: bytes, format: str) -> None:
    assert read_picture(encode_picture(DISPLAY, format=format, exif=block)).exif is None


# where Pillow's transpose puts pixels for each EXIF orientation is the outside truth
TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF"])
def test_orientation_is_applied_on_reading(orientation: int, format: str, tmp_path) -> None:
    stored = Image.fromarray(np.kron(RNG.integers(0, 2, (3, 4, 3)), np.ones((16, 16, 1))).astype(np.uint8) * 255)
    alpha = stored.getchannel(0)
    if format == "PNG":
        stored.putalpha(alpha)
    path = tmp_path / "a"
    block = Image.Exif()
    block[0x0112] = orientation
    options: dict[str, Any] = {"tiffinfo": {274: orientation}} if format == "TIFF" else {"exif": block, "quality": 95}
    stored.save(path, format, **options)
    shown = stored.transpose(TRANSPOSE[orientation]) if orientation > 1 else stored
    picture = read_picture(path)
    # the middle of each block of 16, where JPEG is clean
    middle = (slice(8, None, 16), slice(8, None, 16))
    np.testing.assert_allclose(picture.pixels[middle], np.asarray(shown)[middle][..., :3] / 255, atol=0.05)
    if format == "PNG":
        assert picture.alpha is not None
        np.testing.assert_array_equal(picture.alpha, np.asarray(shown)[..., 3] / 255)
    info = describe(path)
    assert (info.rows, info.columns) == picture.pixels.shape[:2]


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_an_orientation_that_is_none_is_ignored(orientation: int, tmp_path) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(path, tiffinfo={274: orientation})
    assert read_picture(path).pixels.shape == (4, 6, 3)


def test_integers_are_taken_as_they_are() -> None:
    eight = RNG.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    for format, depth in (("png", 8), ("png", 16), ("tiff", 8), ("tiff", 16), ("tiff", 32)):
        picture = read_picture(encode_picture(eight, format=format, depth=depth))
        wanted = read_picture(encode_picture(eight.astype(np.float32) / 255, format=format, depth=depth))
        np.testing.assert_allclose(picture.pixels, wanted.pixels, atol=1e-6)
    sixteen = RNG.integers(0, 65536, (5, 6, 3), dtype=np.uint16)
    lowered = np.asarray(Image.open(io.BytesIO(encode_picture(sixteen, format="png", depth=8))))
    np.testing.assert_array_equal(lowered, np.rint(sixteen / 257))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"format": "webp"}, "--format: got 'webp'"),
        ({"format": "jpeg", "depth": 16}, "--depth: got 16 for jpeg, expected 8"),
        ({"format": "exr", "depth": 8}, "expected 16 or 32"),
        ({"format": "jpeg", "quality": 0}, "--quality: got 0"),
        ({"format": "png", "space": "rec2020"}, "--output-space: got 'rec2020'"),
    ],
)
def test_arguments_that_do_not_fit(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        encode_picture(DISPLAY, **options)


def test_default_depths() -> None:
    assert [check_output(format) for format in DEPTHS] == [8, 8, 8, 16]


@pytest.mark.parametrize("format", DEPTHS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_pixels_that_are_no_display_values_are_refused(format: str, bad: float) -> None:
    display = DISPLAY.copy()
    display[3, 4, 1] = bad
    with pytest.raises(PictureError, match="NaN or Inf"):
        encode_picture(display, format=format)
    with pytest.raises(PictureError, match="shape"):
        encode_picture(DISPLAY[..., 0], format=format)
    with pytest.raises(PictureError, match="alpha has shape"):
        encode_picture(DISPLAY, format=format, alpha=DISPLAY[:2, :, 0])


@pytest.mark.parametrize(("format", "depth"), OUTPUTS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1)])
def test_the_smallest_pictures(format: str, depth: int, shape: tuple[int, int]) -> None:
    display = np.full((*shape, 3), 0.5, np.float32)
    picture = read_picture(encode_picture(display, format=format, depth=depth))
    np.testing.assert_allclose(picture.pixels, 0.214, atol=0.004)
