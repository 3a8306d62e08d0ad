"""What a file says before its pixels are read: size, layers, and the settings that an output of ours was made with."""

from __future__ import annotations

import json
import mmap
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from attnkit.pictures import exr, jpeg, pfm, png, radiance, tiff
from attnkit.pictures.detect import sniff
from attnkit.pictures.picture import PictureInfo
from attnkit.runtime.errors import PictureError

_DESCRIBE: dict[str, Callable[[Any], PictureInfo]] = {
    "radiance": radiance.describe,
    "exr": exr.describe,
    "pfm": pfm.describe,
    "tiff": tiff.describe,
    "png": png.describe,
    "jpeg": jpeg.describe,
}
_SETTINGS: dict[str, Callable[[Any], str | None]] = {
    "exr": exr.read_settings,
    "tiff": tiff.read_settings,
    "png": png.read_settings,
    "jpeg": jpeg.read_settings,
}
EXPECTED = "expected Radiance, OpenEXR, PFM, TIFF, PNG or JPEG"


def refusal(kind: str | None, name: object, head: bytes) -> PictureError:
    """The error for a file that is no picture of ours."""
    if kind == "raw":
        return PictureError(
            f"cannot read {name}: it is a camera RAW file; convert it first, for example "
            "'darktable-cli FILE FILE.exr' (linear light), or 'dcraw -4 -T FILE' and then --input-space rec709"
        )
    if not head:
        return PictureError(f"cannot read {name}: the file is empty, {EXPECTED}")
    what = "an ENVI header" if head.startswith(b"ENVI") else f"no known picture (it begins with {head[:8]!r})"
    return PictureError(f"cannot read {name}: it is {what}, {EXPECTED}")


@contextmanager
def _mapped(path: str | os.PathLike[str]) -> Iterator[Any]:
    try:
        with open(path, "rb") as stream:
            if os.fstat(stream.fileno()).st_size == 0:
                yield b""
                return
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                yield data
    except OSError as error:
        raise PictureError(f"cannot read {path}: {error.strerror or error}") from error


def describe(path: str | os.PathLike[str]) -> PictureInfo:
    """Kind, upright size, HDR or not, and EXR layers, by the header alone; PictureError where that is damaged or no
    picture."""
    with _mapped(path) as data:
        kind = sniff(data[:64], path)
        if kind is None or kind == "raw":
            raise refusal(kind, path, data[:64])
        try:
            return _DESCRIBE[kind](data)
        except PictureError as error:
            raise PictureError(f"cannot read {path} ({kind}): {error}") from error
        except (struct.error, ValueError, IndexError) as error:
            raise PictureError(f"cannot read {path} ({kind}): damaged header ({error})") from error


def read_settings(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The settings that encode_picture stored in a file, or None where it holds none or is no readable picture."""
    try:
        with _mapped(path) as data:
            kind = sniff(data[:64])
            text = _SETTINGS[kind](data) if kind in _SETTINGS else None
        found = json.loads(text) if text is not None else None
    except (PictureError, struct.error, ValueError, IndexError):
        return None
    return found if isinstance(found, dict) else None
