"""JPEG in and out, against Pillow; truncation that decoders forgive."""

import io
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from attnkit.pictures import describe, encode_picture, read_picture, spaces
from attnkit.runtime.errors import PictureError

RNG = np.random.default_rng(0)
RGB = cv2.GaussianBlur(RNG.integers(0, 256, (120, 160, 3), dtype=np.uint8), (0, 0), 4)


def saved(image: Image.Image, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", **options)
    return stream.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("progressive", [False, True])
def test_reads_what_pillow_reads(mode: str, progressive: bool, tmp_path) -> None:
    data = saved(Image.fromarray(RGB).convert(mode), progressive=progressive, quality=90)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    picture = read_picture(data)
    assert np.abs(spaces.srgb_encode(picture.pixels) * 255 - expected).max() < 3.5
    assert picture.grey == (mode == "L")
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    info = describe(path)
    assert (info.kind, info.rows, info.columns, info.hdr) == ("jpeg", 120, 160, False)


def test_cmyk_is_converted() -> None:
    picture = read_picture(saved(Image.fromarray(RGB).convert("CMYK"), quality=95))
    assert np.abs(spaces.srgb_encode(picture.pixels) * 255 - RGB).mean() < 3


@pytest.mark.parametrize("progressive", [False, True])
def test_a_file_cut_anywhere_is_an_error(progressive: bool, capfd) -> None:
    data = saved(Image.fromarray(RGB), progressive=progressive)
    for length in (3, 10, 100, 400, 700, len(data) // 2, len(data) - 50, len(data) - 2, len(data) - 1):
        with pytest.raises(PictureError, match="truncated"):
            read_picture(data[:length])
    assert capfd.readouterr() == ("", "")


def test_a_cut_file_with_an_end_mark_is_an_error() -> None:
    """Decoders paint the rest grey and only warn."""
    data = saved(Image.fromarray(RGB))
    with pytest.raises(PictureError, match="premature end"):
        read_picture(data[: len(data) // 2] + b"\xff\xd9")


def test_bytes_behind_the_end_and_a_thumbnail_inside_do_not_confuse() -> None:
    thumbnail = saved(Image.fromarray(RGB[:20, :20]))
    data = saved(Image.fromarray(RGB))
    plain = read_picture(data).pixels
    inside = (
        data[:2] + b"\xff\xed" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail + data[2:] + b"trailer\xff\xd8"
    )
    np.testing.assert_array_equal(read_picture(inside).pixels, plain)
    with pytest.raises(PictureError, match="truncated"):
        read_picture(inside[: len(thumbnail) + 900])


@pytest.mark.parametrize("grey", [False, True])
def test_pillow_reads_what_we_write(grey: bool) -> None:
    display = RGB.astype(np.float32) / 255
    if grey:
        display = np.repeat(display[..., 1:2], 3, axis=2)
    data = encode_picture(display, format="jpeg", quality=95, grey=grey)
    image = Image.open(io.BytesIO(data))
    assert image.mode == ("L" if grey else "RGB")
    assert np.abs(np.asarray(image.convert("RGB")) / 255 - display).mean() < 0.01
    assert image.info["icc_profile"][16:20] == (b"GRAY" if grey else b"RGB ")


def test_quality_is_obeyed_and_chroma_kept_from_90_on() -> None:
    display = RGB.astype(np.float32) / 255
    sizes = [len(encode_picture(display, format="jpeg", quality=quality)) for quality in (30, 70, 90, 98)]
    assert sizes == sorted(sizes)
    samplings = []
    for quality in (89, 90):
        image = Image.open(io.BytesIO(encode_picture(display, format="jpeg", quality=quality)))
        samplings.append(image.layer[0][1:3])  # type: ignore[attr-defined]
    assert samplings == [(2, 2), (1, 1)]


def test_alpha_is_laid_over_black_in_linear_light() -> None:
    display = np.ones((16, 16, 3), np.float32)
    data = encode_picture(display, format="jpeg", quality=100, alpha=np.full((16, 16), 0.5, np.float32))
    # 188 is the sRGB code of half the light
    assert np.abs(np.asarray(Image.open(io.BytesIO(data))).astype(int) - 188).max() <= 1


def test_too_large_for_the_format() -> None:
    with pytest.raises(PictureError, match="65500"):
        encode_picture(np.zeros((1, 65501, 3), np.uint8), format="jpeg")
