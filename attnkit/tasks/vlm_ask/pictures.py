"""Picture files as a vision-language model takes them: upright RGB of 8 bits, and what was done to get there."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from attnkit.pictures.detect import sniff
from attnkit.runtime.errors import PictureError

if TYPE_CHECKING:
    from PIL.Image import Image

# what Pillow calls them, and how such files begin
KINDS: dict[str, bytes | tuple[bytes, ...]] = {
    "png": b"\x89PNG\r\n\x1a\n",
    "jpeg": b"\xff\xd8\xff",
    "gif": b"GIF8",
    "webp": b"RIFF",
    "bmp": b"BM",
    "tiff": (b"II*\0", b"MM\0*"),
    "ppm": (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6"),
}
SUFFIXES = frozenset({"png", "jpg", "jpeg", "gif", "webp", "bmp", "tif", "tiff", "ppm", "pgm"})
EXPECTED = "expected PNG, JPEG, WebP, GIF, BMP, TIFF or PPM"
# 0.4 GB as RGB; more is either a mistake or reduced while it is decoded
MOST_PIXELS = 128_000_000
SIXTEEN_BITS = 65535
# by which a JPEG can be made smaller while it is decoded
JPEG_FACTORS = (2, 4, 8)


def kind_of(head: bytes) -> str | None:
    """The kind of a picture by its first bytes, or None."""
    for kind, start in KINDS.items():
        if head.startswith(start) and (kind != "webp" or head[8:12] == b"WEBP"):
            return kind if kind != "ppm" or head[2:3].isspace() else None
    return None


def read_size(source: Path | bytes, name: str) -> tuple[int, int]:
    """Width and height by the header alone, as stored; PictureError where it is no picture."""
    with _opened(source, name) as image:
        return image.size


def read_rgb(source: Path | bytes, name: str) -> tuple[Image, list[str]]:
    """A picture upright as RGB, and a notice on each thing that had to be decided.

    The first of several frames is taken; alpha is laid over white; 16 bits become 8; a JPEG of more than 128 million
    pixels is decoded at half, a quarter or an eighth of its size. Raises PictureError for what is missing, empty,
    damaged, no picture, larger, or of floating-point samples, which have no brightness that a model could see.
    """
    from PIL import ImageOps

    notices: list[str] = []
    with _opened(source, name) as image:
        width, height = image.size
        if width * height > MOST_PIXELS and image.format in ("JPEG", "MPO"):
            factor = next((one for one in JPEG_FACTORS if width * height <= MOST_PIXELS * one**2), JPEG_FACTORS[-1])
            image.draft("RGB", (width // factor, height // factor))
            notices.append(f"reduced from {width}x{height} to {image.width}x{image.height} pixels while reading")
        if image.width * image.height > MOST_PIXELS:
            raise PictureError(
                f"{name}: {width}x{height} pixels, at most {MOST_PIXELS // 1_000_000} million are read; make it smaller"
            )
        try:
            frames = getattr(image, "n_frames", 1)
            if frames > 1:
                notices.append(f"holds {frames} frames, the first one is used")
                image.seek(0)
            image.load()
            return _rgb(ImageOps.exif_transpose(image), name, notices), notices
        except PictureError:
            raise
        except MemoryError:
            raise PictureError(f"{name}: not enough memory for {width}x{height} pixels; make it smaller") from None
        except Exception as error:
            # Pillow's readers raise whatever their format's parser met
            reason = " ".join(str(error).split()) or type(error).__name__
            raise PictureError(f"{name}: damaged or cut off ({reason}); expected a whole file") from error


@contextmanager
def _opened(source: Path | bytes, name: str) -> Iterator[Image]:
    from PIL import Image as images

    try:
        stream: IO[bytes] = io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
    except OSError as error:
        raise PictureError(f"{name}: cannot read it ({error.strerror})") from error
    # sizes are judged by read_rgb, in its own words
    limit, images.MAX_IMAGE_PIXELS = images.MAX_IMAGE_PIXELS, None
    try:
        with stream, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kind = _known_kind(stream.read(64), name)
            stream.seek(0)
            try:
                image = images.open(stream, formats=[kind.upper()])
            except Exception as error:
                reason = "its header cannot be read" if isinstance(error, images.UnidentifiedImageError) else error
                raise PictureError(f"{name}: damaged {kind.upper()} ({reason}); expected a whole file") from error
            with image:
                yield image
    finally:
        images.MAX_IMAGE_PIXELS = limit


def _known_kind(head: bytes, name: str) -> str:
    if not head:
        raise PictureError(f"{name}: the file is empty, {EXPECTED}")
    kind = kind_of(head)
    if kind is None:
        known = sniff(head)
        more = f"is {known}; attnkit tonemap makes a PNG of it" if known else f"begins with {head[:8]!r}"
        raise PictureError(f"{name}: no picture that this reads ({more}), {EXPECTED}")
    return kind


def _rgb(image: Image, name: str, notices: list[str]) -> Image:
    if image.mode == "F":
        raise PictureError(f"{name}: floating-point samples, expected 8 or 16 bits; attnkit tonemap makes a PNG of it")
    if image.mode.startswith("I"):
        return _eight_bits(image, name).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        from PIL import Image as images

        clear = image.convert("RGBA")
        if clear.getchannel("A").getextrema() != (255, 255):
            notices.append("transparent parts are laid over white")
        return images.alpha_composite(images.new("RGBA", clear.size, "white"), clear).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image, name: str) -> Image:
    import numpy as np
    from PIL import Image as images

    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > SIXTEEN_BITS:
        raise PictureError(f"{name}: samples from {values.min()} to {values.max()}, expected 8 or 16 bits")
    return images.fromarray((values * 255 / SIXTEEN_BITS + 0.5).astype(np.uint8))
