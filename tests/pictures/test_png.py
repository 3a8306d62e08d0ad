"""PNG: colour types and tags in, pixels and chunks out, against Pillow and cv2."""

import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from attnkit.pictures import describe, encode_picture, read_picture, spaces
from attnkit.runtime.errors import PictureError

RNG = np.random.default_rng(0)
RGB = cv2.GaussianBlur(RNG.integers(0, 256, (31, 45, 3), dtype=np.uint8), (0, 0), 1)


def saved(image: Image.Image, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", **options)
    return stream.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def with_chunk(data: bytes, name: bytes, content: bytes) -> bytes:
    return data[:33] + chunk(name, content) + data[33:]


def names(data: bytes) -> list[bytes]:
    found, at = [], 8
    while at < len(data):
        (size,) = struct.unpack_from(">I", data, at)
        found.append(data[at + 4 : at + 8])
        at += 12 + size
    return found


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1"])
def test_eight_bits_of_every_colour_type(mode: str) -> None:
    image = Image.fromarray(RGB).convert(mode)
    picture = read_picture(saved(image))
    expected = np.asarray(image.convert("RGBA" if mode in ("RGBA", "LA") else "RGB"))
    np.testing.assert_array_equal(picture.pixels, spaces.srgb_decode(expected[..., :3]))
    assert picture.grey == (mode in ("L", "LA", "1"))
    assert (picture.alpha is not None) == (mode in ("RGBA", "LA"))
    assert (picture.hdr, picture.space_source, picture.transfer) == (False, "assumed", "srgb")


@pytest.mark.parametrize("mode", ["P", "RGB", "L", "1"])
def test_a_transparent_colour_becomes_alpha(mode: str) -> None:
    image = Image.fromarray(RGB).convert(mode)
    shown = np.asarray(image)
    key: Any = tuple(shown[4, 5].tolist()) if mode == "RGB" else int(shown[4, 5])
    picture = read_picture(saved(image, transparency=key))
    hidden = (shown == shown[4, 5]).all(axis=-1) if mode == "RGB" else shown == shown[4, 5]
    assert picture.alpha is not None
    np.testing.assert_array_equal(picture.alpha, np.where(hidden, 0, 1))


def test_sixteen_bits_and_alpha() -> None:
    stored = RNG.integers(0, 65536, (9, 11, 4), dtype=np.uint16)
    data = cv2.imencode(".png", stored)[1].tobytes()
    picture = read_picture(data)
    np.testing.assert_array_equal(picture.pixels, spaces.srgb_decode(stored[..., 2::-1]))
    assert picture.alpha is not None
    np.testing.assert_allclose(picture.alpha, stored[..., 3] / 65535, atol=1e-7)


def test_interlaced_files_pass_the_length_check() -> None:
    """Adam7 by hand: 3x2 grey pixels 1 to 6 fall on passes 1, 4, 6 (two rows of pass 6 do not exist) and 7."""
    passes = [b"\0\1", b"\0\3", b"\0\2", b"\0\4\5\6"]
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 3, 2, 8, 0, 0, 0, 1))
    whole = data + chunk(b"IDAT", zlib.compress(b"".join(passes))) + chunk(b"IEND", b"")
    np.testing.assert_array_equal(
        read_picture(whole).pixels[..., 0], spaces.srgb_decode(np.array([[1, 2, 3], [4, 5, 6]], np.uint8))
    )
    short = data + chunk(b"IDAT", zlib.compress(b"".join(passes[:-1]))) + chunk(b"IEND", b"")
    with pytest.raises(PictureError, match="6 of 10 bytes"):
        read_picture(short)


def test_tags_decide_the_colour() -> None:
    plain = saved(Image.fromarray(RGB))
    tagged = read_picture(with_chunk(plain, b"sRGB", b"\0"))
    assert (tagged.source_space, tagged.space_source, tagged.transfer) == ("rec709", "file", "srgb")
    linear = read_picture(with_chunk(plain, b"gAMA", struct.pack(">I", 100000)))
    np.testing.assert_allclose(linear.pixels, RGB / np.float32(255), atol=1e-7)
    power = read_picture(with_chunk(plain, b"gAMA", struct.pack(">I", 55556)))
    np.testing.assert_allclose(power.pixels, (RGB / 255) ** 1.8, atol=1e-4)
    chromaticities = [31270, 32900, 70800, 29200, 17000, 79700, 13100, 4600]
    wide = read_picture(with_chunk(plain, b"cHRM", struct.pack(">8I", *chromaticities)))
    assert wide.source_space == "rec2020"
    expected = spaces.convert(spaces.srgb_decode(RGB), "rec2020", "rec709")
    np.testing.assert_allclose(wide.pixels, np.maximum(expected, 0), atol=1e-5)
    p3 = read_picture(with_chunk(plain, b"cICP", bytes((12, 13, 0, 1))))
    assert p3.source_space == "display-p3"
    with pytest.raises(PictureError, match="transfer 16"):
        read_picture(with_chunk(plain, b"cICP", bytes((9, 16, 0, 1))))


def test_a_named_space_means_linear_samples_at_16_bits_only() -> None:
    deep = RNG.integers(0, 65536, (5, 6, 3), dtype=np.uint16)
    picture = read_picture(cv2.imencode(".png", deep[..., ::-1])[1].tobytes(), input_space="rec709")
    np.testing.assert_allclose(picture.pixels, deep / np.float32(65535), atol=1e-7)
    assert (picture.transfer, picture.space_source) == ("linear", "option")
    shallow = read_picture(saved(Image.fromarray(RGB)), input_space="rec709")
    assert shallow.transfer == "srgb"


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("grey", [False, True])
def test_pillow_and_opencv_read_our_eight_bits(alpha: bool, grey: bool) -> None:
    display = RGB.astype(np.float32) / 255
    if grey:
        display = np.repeat(display[..., 1:2], 3, axis=2)
    coverage = RNG.random(RGB.shape[:2]).astype(np.float32) if alpha else None
    data = encode_picture(display, format="png", alpha=coverage, grey=grey, settings={"x": 1})
    image = Image.open(io.BytesIO(data))
    image.load()
    assert image.mode == ("RGBA" if alpha else "L" if grey else "RGB")
    np.testing.assert_array_equal(np.asarray(image.convert("RGB")), np.rint(display * 255))
    if coverage is not None:
        np.testing.assert_allclose(np.asarray(image)[..., 3], coverage * 255, atol=0.51)
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) is not None


def test_opencv_reads_our_sixteen_bits() -> None:
    stored = RNG.integers(0, 65536, (9, 11, 3), dtype=np.uint16)
    data = encode_picture(stored, format="png", depth=16)
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)[..., ::-1], stored)


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1), (301, 257)])
def test_other_readers_see_every_row_of_pictures_of_any_size(shape: tuple[int, int], depth: int) -> None:
    """Rows are packed by blocks: the last of them, and the first row of each, are where a mistake would show."""
    top = 2**depth
    stored = RNG.integers(0, top, (*shape, 3)).astype(np.uint8 if depth == 8 else np.uint16)
    coverage = (RNG.integers(0, top, shape) / (top - 1)).astype(np.float32)
    for alpha in (None, coverage):
        data = encode_picture(stored, format="png", depth=depth, alpha=alpha)
        read = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(read[..., 2::-1], stored)
        if alpha is not None:
            np.testing.assert_allclose(read[..., 3], alpha * (top - 1), atol=0.51)


def test_the_filter_follows_the_picture() -> None:
    """Noise that repeats down the columns, and noise that repeats along the rows, cost next to nothing."""
    noise = RNG.integers(0, 256, (256, 1, 3), dtype=np.uint8)
    along, down = np.repeat(noise, 256, axis=1), np.repeat(noise.swapaxes(0, 1), 256, axis=0)
    plain = RNG.integers(0, 256, (256, 256, 3), dtype=np.uint8)
    sizes = [len(encode_picture(picture, format="png")) for picture in (along, down, plain)]
    assert max(sizes[:2]) < sizes[2] / 20
    for picture, kind in ((along, 1), (down, 2)):
        packed = encode_picture(picture, format="png")
        at = packed.index(b"IDAT") + 4
        assert zlib.decompressobj().decompress(packed[at:], 1) == bytes([kind])


def test_values_are_clipped_and_rounded_to_nearest() -> None:
    display = np.zeros((1, 5, 3), np.float32)
    display[0, :, 1] = (-0.5, 0.4 / 255, 0.6 / 255, 254.4 / 255, 3)
    data = encode_picture(display, format="png")
    assert np.asarray(Image.open(io.BytesIO(data)))[0, :, 1].tolist() == [0, 0, 1, 254, 255]


def test_colour_chunks_come_first_and_fit() -> None:
    display = RGB.astype(np.float32) / 255
    srgb = encode_picture(display, format="png", settings={"a": 1})
    assert names(srgb)[:5] == [b"IHDR", b"sRGB", b"gAMA", b"cHRM", b"iTXt"]
    image = Image.open(io.BytesIO(srgb))
    assert image.info["srgb"] == 0
    assert image.info["gamma"] == pytest.approx(0.45455)
    assert isinstance(image.info["attnkit-settings"], PngImagePlugin.iTXt)
    wide = encode_picture(display, format="png", space="display-p3")
    assert names(wide)[:2] == [b"IHDR", b"iCCP"]
    assert b"sRGB" not in names(wide)
    assert b"iCCP" not in names(encode_picture(display, format="png", space="display-p3", grey=True))


@pytest.mark.parametrize("deep", [False, True])
def test_a_file_cut_or_damaged_anywhere_is_an_error(deep: bool, capfd) -> None:
    data = cv2.imencode(".png", RGB.astype(np.uint16) * 257 if deep else RGB)[1].tobytes()
    for length in (
        8,
        20,
        33,
        50,
        len(data) // 2,
        len(data) - 60,
        len(data) - 16,
        len(data) - 12,
        len(data) - 4,
        len(data) - 1,
    ):
        with pytest.raises(PictureError, match="truncated"):
            read_picture(data[:length])
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 1
    with pytest.raises(PictureError, match="checksum"):
        read_picture(bytes(flipped))
    assert capfd.readouterr() == ("", "")


def test_missing_rows_behind_good_checksums_are_an_error() -> None:
    """libpng would fill them with black."""
    rows = b"".join(b"\0" + row.tobytes() for row in RGB)
    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 45, 31, 8, 2, 0, 0, 0))
    whole = head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    np.testing.assert_array_equal(read_picture(whole).pixels, spaces.srgb_decode(RGB))
    cut = head + chunk(b"IDAT", zlib.compress(rows[: -3 * 136])) + chunk(b"IEND", b"")
    with pytest.raises(PictureError, match=f"{28 * 136} of {31 * 136} bytes"):
        read_picture(cut)


def test_describe(tmp_path) -> None:
    path = tmp_path / "a.dat"
    path.write_bytes(saved(Image.fromarray(RGB)))
    info = describe(path)
    assert (info.kind, info.rows, info.columns, info.hdr) == ("png", 31, 45, False)
