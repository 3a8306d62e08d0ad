"""ICC profiles: matrix profiles are applied at full depth and written here; table profiles go through LittleCMS at 8
bits.

Format: ICC.1:2022. Profiles that are written have no date of today, so that two runs give the same bytes.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from attnkit.pictures import spaces
from attnkit.runtime.errors import PictureError

if TYPE_CHECKING:
    from collections.abc import Callable

_D65_XYZ = spaces._white("rec709")


def _tags(profile: bytes) -> dict[bytes, bytes]:
    if len(profile) < 132 or profile[36:40] != b"acsp":
        raise PictureError(f"its ICC profile of {len(profile)} bytes is damaged: no profile signature")
    (count,) = struct.unpack_from(">I", profile, 128)
    if len(profile) < 132 + 12 * count:
        raise PictureError(f"its ICC profile of {len(profile)} bytes is damaged: {count} tags do not fit")
    found = {}
    for index in range(count):
        name, offset, size = struct.unpack_from(">4sII", profile, 132 + 12 * index)
        found[name] = profile[offset : offset + size]
    return found


def _fixed(content: bytes, at: int, count: int) -> tuple[float, ...]:
    return tuple(number / 65536 for number in struct.unpack_from(f">{count}i", content, at))


def _curve(content: bytes) -> Callable[[np.ndarray], np.ndarray]:
    """Function from stored values in 0..1 to linear light, of a curv or para tag."""
    if content[:4] == b"curv":
        (count,) = struct.unpack_from(">I", content, 8)
        if count == 0:
            return lambda values: values
        table = np.frombuffer(content, ">u2", count, 12).astype(np.float64)
        if count == 1:
            exponent = float(table[0]) / 256
            return lambda values: np.power(values, exponent)
        at = np.linspace(0, 1, count)
        return lambda values: np.interp(values, at, table / 65535)
    if content[:4] == b"para":
        (form,) = struct.unpack_from(">H", content, 8)
        if form > 4:
            raise PictureError(f"its ICC profile has a parametric curve of type {form}, expected 0 to 4")
        numbers = _fixed(content, 12, (1, 3, 4, 5, 7)[form])
        g, a, b, c, d, e, f = (*numbers, *(1.0, 0.0, 0.0, 0.0, 0.0, 0.0)[len(numbers) - 1 :])
        if form in (1, 2):
            # these two begin at -b/a; type 2 adds its c on both sides
            offset = c if form == 2 else 0.0
            return lambda v: np.where(v >= -b / a, np.power(np.maximum(a * v + b, 0), g), 0.0) + offset
        return lambda v: np.where(v >= d, np.power(np.maximum(a * v + b, 0), g) + e, c * v + f)
    raise PictureError(f"its ICC profile has a curve of type {content[:4]!r}, expected curv or para")


def decode(values: np.ndarray, profile: bytes) -> tuple[np.ndarray, str]:
    """Stored values of a picture to linear Rec.709, float32 (rows, columns[, 3]), and the name of the profile's space.

    values: uint8, uint16 or float32 in 0..1, RGB or grey. Colours outside Rec.709 come out negative or above 1 from a
    matrix profile; a table profile goes through LittleCMS to sRGB, 8 bits, and is clipped there.
    PictureError where the profile is damaged or for another number of channels.
    """
    try:
        tags = _tags(profile)
        grey = values.ndim == 2
        if grey and b"kTRC" in tags:
            return _apply(values, _curve(tags[b"kTRC"])), "rec709"
        names = (b"r", b"g", b"b")
        if all(name + part in tags for name in names for part in (b"XYZ", b"TRC")):
            curves = [_curve(tags[name + b"TRC"]) for name in names]
            if grey:
                return _apply(values, curves[1]), "rec709"
            to_d50 = np.array([_fixed(tags[name + b"XYZ"], 8, 3) for name in names]).T
            to_rec709 = np.linalg.inv(spaces.to_xyz("rec709")) @ spaces.adaptation(spaces.D50_XYZ, _D65_XYZ) @ to_d50
            linear = np.stack([_apply(values[..., index], curve) for index, curve in enumerate(curves)], axis=-1)
            name = spaces.name_of_matrix(to_rec709)
            return (linear if name == "rec709" else spaces.apply_matrix(linear, to_rec709)), name
    except (struct.error, ValueError, KeyError) as error:
        raise PictureError(f"its ICC profile of {len(profile)} bytes is damaged: {error}") from error
    return _through_littlecms(values, profile), "custom"


def _apply(values: np.ndarray, curve: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        return _evaluate(values, curve)


def _evaluate(values: np.ndarray, curve: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    if values.dtype.kind == "u":
        table = curve(np.linspace(0, 1, 256**values.dtype.itemsize)).astype(np.float32)
        return np.take(table, values)
    # above 1 formulas go on, so that float files keep their highlights; tables end there
    return curve(np.maximum(values, 0)).astype(np.float32)


def _through_littlecms(values: np.ndarray, profile: bytes) -> np.ndarray:
    import io

    from PIL import Image, ImageCms

    if values.dtype != np.uint8:
        unit = values / np.float32(65535) if values.dtype == np.uint16 else values
        values = np.rint(np.clip(unit, 0, 1) * 255).astype(np.uint8)
    image = Image.fromarray(values)
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        turned = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (OSError, ImageCms.PyCMSError) as error:
        raise PictureError(f"its ICC profile cannot be applied to {image.mode} pixels: {error}") from error
    return spaces.srgb_decode(np.asarray(turned))


@lru_cache(maxsize=3)
def profile(space: str) -> bytes:
    """An ICC 4.3 display profile of "srgb", "display-p3" or "grey" (the sRGB curve alone)."""
    title = {"srgb": "sRGB", "display-p3": "Display P3", "grey": "sRGB grey"}[space]

    def fixed(*numbers: float) -> bytes:
        return struct.pack(f">{len(numbers)}i", *(round(number * 65536) for number in numbers))

    def text(words: str) -> bytes:
        encoded = words.encode("utf-16-be")
        return b"mluc" + bytes(4) + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(encoded), 28) + encoded

    # IEC 61966-2-1 as a parametric curve of type 3
    curve = b"para" + bytes(4) + struct.pack(">HH", 3, 0) + fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    to_d50 = spaces.adaptation(_D65_XYZ, spaces.D50_XYZ)
    tags = {
        b"desc": text(title),
        b"cprt": text("No copyright, use freely"),
        b"wtpt": b"XYZ " + bytes(4) + fixed(*spaces.D50_XYZ),
    }
    tags[b"chad"] = b"sf32" + bytes(4) + fixed(*to_d50.ravel())
    if space == "grey":
        tags[b"kTRC"] = curve
    else:
        columns = (to_d50 @ spaces.to_xyz("rec709" if space == "srgb" else space)).T
        for name, column in zip((b"r", b"g", b"b"), columns, strict=True):
            tags[name + b"XYZ"] = b"XYZ " + bytes(4) + fixed(*column)
            tags[name + b"TRC"] = curve
    table, body, places = [], bytearray(), dict[bytes, int]()
    start = 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        if content not in places:
            places[content] = start + len(body)
            body += content + bytes(-len(content) % 4)
        table.append(struct.pack(">4sII", name, places[content], len(content)))
    kind = b"GRAY" if space == "grey" else b"RGB "
    date = struct.pack(">6H", 2026, 1, 1, 0, 0, 0)
    head = struct.pack(
        ">I4sI4s4s4s12s4s4sI", start + len(body), b"", 0x04300000, b"mntr", kind, b"XYZ ", date, b"acsp", b"", 0
    )
    head += bytes(8) + bytes(8) + struct.pack(">I", 0) + fixed(*spaces.D50_XYZ)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + b"".join(table) + bytes(body)
