"""Files are judged by content."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from attnkit.pictures import describe, encode_picture, format_of_suffix, read_picture, sniff
from attnkit.pictures.detect import sniff_file
from attnkit.runtime.errors import PictureError, UsageError

DISPLAY = np.random.default_rng(0).random((6, 7, 3)).astype(np.float32)


def tiff_with(entries: list[tuple[int, int, int, int]], tail: bytes = b"") -> bytes:
    """A TIFF header and one directory of (tag, type, count, value)."""
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + packed + bytes(4) + tail


# Nikon: the first directory is a small preview, a sub-directory holds the mosaic
NESTED = tiff_with([(254, 4, 1, 1), (262, 3, 1, 2), (330, 4, 1, 50)])
NESTED += struct.pack("<H", 1) + struct.pack("<HHII", 262, 3, 1, 32803) + bytes(4)

RAW = {
    "a.cr2": b"II*\0\x10\0\0\0CR\x02\0" + bytes(60),
    "a.cr3": b"\0\0\0\x18ftypcrx " + bytes(60),
    "a.raf": b"FUJIFILMCCD-RAW 0201" + bytes(60),
    "a.orf": b"IIRO\x08\0\0\0" + bytes(60),
    "a.rw2": b"IIU\0\x18\0\0\0" + bytes(60),
    "a.dng": tiff_with([(50706, 1, 4, 1025)]),
    "a.nef": NESTED,
    "a.arw": tiff_with([(259, 3, 1, 32767)]),
}


@pytest.mark.parametrize("name", RAW)
def test_camera_raw_is_told_how_to_be_converted(name: str, tmp_path) -> None:
    path = tmp_path / name
    path.write_bytes(RAW[name])
    assert sniff_file(path) == "raw"
    for call in (read_picture, describe):
        with pytest.raises(PictureError, match="darktable-cli") as caught:
            call(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    # a RAW file is one under any name, and from a pipe
    with pytest.raises(PictureError, match="camera RAW"):
        read_picture(RAW[name])


def test_sixty_four_bytes_of_a_raw_file_are_enough_beside_its_path(tmp_path) -> None:
    path = tmp_path / "photo.tif"
    path.write_bytes(NESTED)
    assert sniff(NESTED[:48], path) == "raw"
    assert sniff(b"II*\0" + struct.pack("<I", 5000) + bytes(56), tmp_path / "missing.nef") == "raw"
    assert sniff(b"II*\0" + struct.pack("<I", 5000) + bytes(56), tmp_path / "missing.tif") == "tiff"


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"P",
        b"ENVI\nsamples = 38\nlines = 23\n",
        b"GIF89a",
        b"BM" + bytes(60),
        b"RIFF\0\0\0\0WEBPVP8 ",
        b"PFnot a float map",
        b"%PDF-1.7",
    ],
)
def test_other_content_is_no_picture(head: bytes, tmp_path) -> None:
    assert sniff(head) is None
    path = tmp_path / "a.hdr"
    path.write_bytes(head)
    for call in (read_picture, describe):
        with pytest.raises(PictureError, match="expected Radiance, OpenEXR") as caught:
            call(path)
        assert "\n" not in str(caught.value)
    assert ("ENVI" in str(caught.value)) == head.startswith(b"ENVI")


@pytest.mark.parametrize("format", ["png", "jpeg", "tiff", "exr"])
def test_a_wrong_suffix_does_not_matter(format: str, tmp_path) -> None:
    path = tmp_path / "picture.hdr"
    path.write_bytes(encode_picture(DISPLAY, format=format))
    assert read_picture(path).kind == describe(path).kind == sniff(path.read_bytes()[:64]) == format


def test_input_format_must_match_the_content() -> None:
    data = encode_picture(DISPLAY, format="jpeg")
    assert read_picture(data, input_format="jpg").kind == "jpeg"
    with pytest.raises(PictureError, match="content is jpeg, --input-format expects radiance"):
        read_picture(data, input_format="hdr")
    with pytest.raises(UsageError, match="'webp'"):
        read_picture(data, input_format="webp")


def test_bad_arguments_and_files(tmp_path) -> None:
    data = encode_picture(DISPLAY, format="png")
    with pytest.raises(UsageError, match="'srgb'"):
        read_picture(data, input_space="srgb")
    with pytest.raises(PictureError, match="only EXR files have layers"):
        read_picture(data, layer="diffuse")
    for call in (read_picture, describe, sniff_file):
        with pytest.raises(PictureError, match=r"missing\.png: No such file"):
            call(tmp_path / "missing.png")
        with pytest.raises(PictureError, match="directory"):
            call(tmp_path)


def test_output_formats_by_suffix() -> None:
    assert [format_of_suffix(f"a.{suffix}") for suffix in ("PNG", "jpg", "JPEG", "tif", "tiff", "exr", "hdr", "")] == [
        *("png", "jpeg", "jpeg", "tiff", "tiff", "exr", None, None),
    ]


def test_pillow_is_not_needed_to_know_a_size(tmp_path) -> None:
    """describe against Pillow on the formats that it reads."""
    for format in ("png", "jpeg", "tiff"):
        path = tmp_path / "a"
        path.write_bytes(encode_picture(DISPLAY, format=format))
        info = describe(path)
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            assert (info.columns, info.rows) == image.size
