"""Picture files as vlm-ask reads them."""

from __future__ import annotations

import io
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attnkit.runtime.errors import PictureError
from attnkit.tasks.vlm_ask import pictures
from attnkit.tasks.vlm_ask.pictures import kind_of, read_rgb, read_size

DRAW = np.random.default_rng(0)
NOISE = DRAW.integers(0, 256, (20, 30, 3), dtype=np.uint8)


def encoded(image: Image.Image, format: str, **more: object) -> bytes:
    target = io.BytesIO()
    image.save(target, format, **more)
    return target.getvalue()


def read(data: bytes) -> tuple[np.ndarray, list[str]]:
    image, notices = read_rgb(data, "a")
    assert image.mode == "RGB"
    return np.asarray(image).astype(int), notices


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM", "WebP"])
def test_lossless_kinds_keep_their_pixels(format: str) -> None:
    data = encoded(Image.fromarray(NOISE), format, **({"lossless": True} if format == "WebP" else {}))
    assert kind_of(data[:64]) == format.lower()
    pixels, notices = read(data)
    assert (pixels == NOISE).all() and notices == []
    assert read_size(data, "a") == (30, 20)


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    values = np.linspace(0, 65535, 30 * 20).reshape(20, 30).astype(np.uint16)
    for format in ("PNG", "TIFF"):
        pixels, _ = read(encoded(Image.fromarray(values), format))
        assert np.abs(pixels - values[..., None] / 257).max() <= 0.5
    with pytest.raises(PictureError, match="floating-point samples"):
        read(encoded(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"))


def test_alpha_is_laid_over_white() -> None:
    clear = np.dstack([NOISE, np.full((20, 30), 255, np.uint8)])
    clear[:, :10, 3], clear[:, 10:20, 3] = 0, 51
    pixels, notices = read(encoded(Image.fromarray(clear), "PNG"))
    assert (pixels[:, :10] == 255).all() and (pixels[:, 20:] == NOISE[:, 20:]).all()
    assert np.abs(pixels[:, 10:20] - (0.2 * NOISE[:, 10:20] + 0.8 * 255)).max() <= 1
    assert notices == ["transparent parts are laid over white"]
    clear[..., 3] = 255
    assert read(encoded(Image.fromarray(clear), "PNG"))[1] == []


def test_palettes_and_grey_become_rgb() -> None:
    flat = Image.fromarray(np.full((8, 8), 77, np.uint8))
    assert (read(encoded(flat, "PNG"))[0] == 77).all()
    assert (read(encoded(flat.convert("P"), "GIF"))[0] == 77).all()
    assert (read(encoded(flat.convert("1", dither=Image.Dither.NONE), "PNG"))[0] == 0).all()


def test_cmyk_is_converted() -> None:
    # no ink is white, full black ink is black
    inks = Image.new("CMYK", (16, 16), (0, 0, 0, 0))
    inks.paste((0, 0, 0, 255), (8, 0, 16, 16))
    pixels, _ = read(encoded(inks, "JPEG", quality=95))
    assert pixels[:, :7].min() > 245 and pixels[:, 9:].max() < 10


def test_exif_orientation_turns_the_picture() -> None:
    half = np.zeros((20, 30, 3), np.uint8)
    half[:10] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels, _ = read(encoded(Image.fromarray(half), "JPEG", exif=exif))
    # the stored top is the right-hand side
    assert pixels.shape == (30, 20, 3) and pixels[:, 12:].min() > 200 and pixels[:, :8].max() < 50


def test_of_an_animation_the_first_frame() -> None:
    frames = [Image.new("P", (8, 8), colour) for colour in range(3)]
    for frame in frames:
        frame.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    pixels, notices = read(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert (pixels == (255, 0, 0)).all() and notices == ["holds 3 frames, the first one is used"]


def test_a_jpeg_beyond_the_limit_is_reduced_and_others_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    ramp = np.tile(np.linspace(0, 255, 640).astype(np.uint8), (480, 1))
    monkeypatch.setattr(pictures, "MOST_PIXELS", 100_000)
    pixels, notices = read(encoded(Image.fromarray(ramp), "JPEG"))
    assert pixels.shape == (240, 320, 3) and notices == ["reduced from 640x480 to 320x240 pixels while reading"]
    assert np.abs(pixels[0, :, 0] - ramp[0, ::2]).max() < 4
    with pytest.raises(PictureError, match="640x480 pixels, at most"):
        read(encoded(Image.fromarray(ramp), "PNG"))


def test_a_huge_picture_is_refused_by_its_header_alone() -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")

    size = (20_000).to_bytes(4, "big") * 2
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size + b"\x08\2\0\0\0") + chunk(b"IDAT", zlib.compress(b"\0" * 99))
    limit = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_size(data, "a") == (20_000, 20_000)
        with pytest.raises(PictureError, match="20000x20000 pixels, at most 128 million are read"):
            read_rgb(data, "a")
    assert limit == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "the file is empty"),
        (b"hello, world", "no picture that this reads"),
        (b"#?RADIANCE\n", "is radiance; attnkit tonemap"),
        (b"\x89PNG\r\n\x1a\n" + b"junk" * 20, "damaged PNG"),
        (encoded(Image.fromarray(NOISE), "PNG")[:300], "damaged or cut off"),
        (encoded(Image.fromarray(NOISE), "JPEG")[:400], "damaged JPEG"),
        (encoded(Image.fromarray(NOISE), "JPEG")[:-200], "damaged or cut off"),
        (encoded(Image.fromarray(NOISE), "TIFF")[:900], "damaged"),
    ],
)
def test_what_is_no_whole_picture_is_one_line(data: bytes, text: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(data)
    for source in (data, tmp_path / "a"):
        with pytest.raises(PictureError, match=text) as caught:
            read_rgb(source, "it")
        assert str(caught.value).startswith("it: ") and "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="it: cannot read it"):
        read_rgb(tmp_path / "a.png", "it")
