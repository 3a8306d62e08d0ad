"""JPEG pictures: OpenCV codes the pixels, the segments around them are read, checked and written here (ITU-T T.81,
EXIF, ICC.1)."""

from __future__ import annotations

import io
import json
import re
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from attnkit.pictures import ifd
from attnkit.pictures.native import captured_messages
from attnkit.pictures.picture import PictureInfo, Samples
from attnkit.runtime.errors import PictureError

if TYPE_CHECKING:
    import numpy as np

SETTINGS = b"attnkit-settings:"
_EXIF, _ICC = b"Exif\0\0", b"ICC_PROFILE\0"
_SEGMENT_LIMIT = 65533
_LARGEST_SIDE = 65500
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
# in entropy-coded data FF is followed by 00 (a stuffed byte), a restart mark, or fill
_NEXT_MARK = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]", re.DOTALL)


@dataclass
class _Segments:
    rows: int = 0
    columns: int = 0
    components: int = 0
    exif: bytes | None = None
    icc: dict[int, bytes] = field(default_factory=dict)
    settings: bytes = b""
    complete: bool = False

    @property
    def profile(self) -> bytes | None:
        return b"".join(self.icc[index] for index in sorted(self.icc)) or None


def _parse(data: Any, *, headers_only: bool) -> _Segments:
    """Segments up to the first scan, or up to the end mark; PictureError where the file ends first."""
    found = _Segments()
    at = 2
    while True:
        mark = _NEXT_MARK.search(data, at)
        if mark is None:
            raise PictureError(f"truncated: it ends at byte {len(data)} without an end mark")
        code, at = data[mark.end() - 1], mark.end()
        if code == 0xD9:
            found.complete = True
            return found
        if code in (0x01, 0xD8):
            continue
        if at + 2 > len(data):
            raise PictureError(f"truncated in its segment {code:02X}")
        (size,) = struct.unpack_from(">H", data, at)
        content = bytes(data[at + 2 : at + size])
        if len(content) != size - 2:
            raise PictureError(f"truncated in its segment {code:02X}: it needs {size} bytes at byte {at}")
        if code in _FRAMES and len(content) >= 6:
            found.rows, found.columns, found.components = struct.unpack_from(">HHB", content, 1)
        elif code == 0xE1 and content.startswith(_EXIF) and found.exif is None:
            found.exif = content[len(_EXIF) :]
        elif code == 0xE2 and content.startswith(_ICC) and len(content) > 14:
            found.icc[content[12]] = content[14:]
        elif code == 0xFE and content.startswith(SETTINGS):
            found.settings += content[len(SETTINGS) :]
        at += size
        if code == 0xDA and headers_only:
            return found


def describe(data: Any) -> PictureInfo:
    found = _parse(data, headers_only=True)
    if not found.rows or not found.columns:
        raise PictureError("damaged: it has no frame header")
    turned = ifd.orientation(found.exif) > 4
    size = (found.columns, found.rows) if turned else (found.rows, found.columns)
    return PictureInfo("jpeg", *size, hdr=False)


def read_settings(data: Any) -> str | None:
    text = _parse(data, headers_only=True).settings
    return text.decode("utf-8") if text else None


def read(data: bytes) -> Samples:
    import cv2
    import numpy as np

    found = _parse(data, headers_only=False)
    if not found.rows or not found.columns:
        raise PictureError("damaged: it has no frame header")
    orientation = ifd.orientation(found.exif)
    if found.components == 4:
        return Samples(
            _read_cmyk(data, found.profile), space="rec709", transfer="srgb", exif=found.exif, orientation=orientation
        )
    flags = cv2.IMREAD_GRAYSCALE if found.components == 1 else cv2.IMREAD_COLOR
    with captured_messages() as messages:
        try:
            values = cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
        except cv2.error as error:
            values = None
            messages.append(error.err)
    # libjpeg goes on with grey blocks where data is missing, and only warns
    bad = next((line for line in messages if "Corrupt JPEG" in line or "Premature end" in line), None)
    if values is None or bad:
        raise PictureError(f"truncated or damaged: {bad or (messages or ['its pixels cannot be decoded'])[-1]}")
    if values.ndim == 3:
        values = cv2.cvtColor(values, cv2.COLOR_BGR2RGB)
    return Samples(values, exif=found.exif, icc=found.profile, orientation=orientation)


def _read_cmyk(data: bytes, profile: bytes | None) -> np.ndarray:
    import numpy as np
    from PIL import Image, ImageCms

    try:
        with Image.open(io.BytesIO(data)) as image:
            if profile is None:
                return np.asarray(image.convert("RGB"))
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            target = ImageCms.createProfile("sRGB")
            turned = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
            return np.asarray(turned)
    except (OSError, ImageCms.PyCMSError) as error:
        raise PictureError(f"its CMYK pixels cannot be decoded: {error}") from error


def _segment(code: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, code, len(content) + 2) + content


def encode(
    values: np.ndarray, *, quality: int, space: str, exif: bytes | None, settings: dict[str, Any] | None
) -> bytes:
    """(rows, columns[, 3]) uint8 as a baseline JPEG with an ICC profile; full-size chroma from quality 90 on.

    EXIF that does not fit in one segment is left out; settings go into comments.
    """
    import cv2

    from attnkit.pictures.icc import profile

    stored = cv2.cvtColor(values, cv2.COLOR_RGB2BGR) if values.ndim == 3 else values
    sampling = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444 if quality >= 90 else cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    if values.ndim == 3:
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    if max(values.shape[:2]) > _LARGEST_SIDE:
        raise PictureError(f"cannot encode JPEG of {values.shape[1]}x{values.shape[0]} pixels: at most 65500 a side")
    done, buffer = cv2.imencode(".jpg", stored, options)
    if not done:
        raise PictureError(f"cannot encode JPEG of {values.shape[1]}x{values.shape[0]} pixels")
    body = buffer.tobytes()
    extra = []
    if exif is not None and len(exif) + len(_EXIF) <= _SEGMENT_LIMIT:
        extra.append(_segment(0xE1, _EXIF + exif))
    extra.append(_segment(0xE2, _ICC + b"\1\1" + profile(space if values.ndim == 3 else "grey")))
    if settings is not None:
        text = json.dumps(settings, sort_keys=True, allow_nan=False).encode("utf-8")
        step = _SEGMENT_LIMIT - len(SETTINGS)
        extra += [_segment(0xFE, SETTINGS + text[start : start + step]) for start in range(0, len(text), step)]
    # behind the start mark and the JFIF segment, which must be the first
    at = 4 + struct.unpack_from(">H", body, 4)[0] if body[2:4] == b"\xff\xe0" else 2
    return b"".join((body[:at], *extra, body[at:]))
