"""OpenEXR pictures (.exr) through the OpenEXR package."""

from __future__ import annotations

import base64
import binascii
import io
import json
from typing import TYPE_CHECKING, Any

from attnkit.pictures import exr_header
from attnkit.pictures.exr_header import Layer, Part
from attnkit.pictures.native import captured_messages
from attnkit.pictures.picture import PictureInfo, Samples
from attnkit.runtime.errors import PictureError

if TYPE_CHECKING:
    import numpy as np

SETTINGS, EXIF = "attnkit-settings", "attnkit-exif"


def describe(data: Any) -> PictureInfo:
    parts = exr_header.parse(data)
    layers = exr_header.layers(parts)
    rows, columns = parts[layers[0].part if layers else 0].size
    return PictureInfo("exr", rows, columns, hdr=True, layers=tuple(layer.name for layer in layers))


def read_settings(data: Any) -> str | None:
    return exr_header.parse(data)[0].strings.get(SETTINGS)


def read(data: bytes, layer: str | None = None) -> Samples:
    """One layer over its display window: what lies outside the data window is black (and transparent where there is
    alpha).

    Chroma of luminance/chroma files is interpolated linearly. Colours are as stored, so premultiplied where there is
    alpha.
    """
    import numpy as np

    parts = exr_header.parse(data)
    chosen = exr_header.choose(parts, layer)
    part = parts[chosen.part]
    if part.storage.startswith("deep"):
        raise PictureError(f"its part {part.name or chosen.part!r} holds deep data; flatten it first")
    planes = _planes(data, parts, chosen)
    if len(chosen.colours) == 1:
        values = planes[chosen.colours[0]]
    elif chosen.colours[1].endswith("RY"):
        values = _from_luminance_chroma([planes[name] for name in chosen.colours], part)
    else:
        values = np.stack([planes[name] for name in chosen.colours], axis=-1)
    alpha = planes[chosen.alpha] if chosen.alpha else None
    values = _over_display_window(values, part)
    if alpha is not None:
        alpha = _over_display_window(alpha, part)
    try:
        exif = base64.b64decode(part.strings[EXIF], validate=True) if EXIF in part.strings else None
    except binascii.Error:
        exif = None
    name = None if chosen.name == exr_header.MAIN else chosen.name
    return Samples(values, alpha, True, part.chromaticities, "linear", exif=exif, layer=name)


def _planes(data: bytes, parts: list[Part], chosen: Layer) -> dict[str, np.ndarray]:
    """float32 planes of the chosen channels at full size; chroma planes at their own size."""
    import numpy as np
    import OpenEXR

    wanted = [*chosen.colours, *([chosen.alpha] if chosen.alpha else [])]
    failure, found = "", {}
    with captured_messages() as messages:
        try:
            file = OpenEXR.File(io.BytesIO(data), separate_channels=True)
            if len(file.parts) == len(parts):
                channels = file.channels(chosen.part)
                found = {name: channels[name].pixels for name in wanted if name in channels}
        except (RuntimeError, ValueError, TypeError, MemoryError) as error:
            failure = str(error)
    # a part that fails is left out with a message and no exception
    if len(found) < len(set(wanted)):
        reason = next((line for line in messages if "EXR_ERR" in line), failure or (messages or [""])[0])
        raise PictureError(f"truncated or damaged: {reason.rpartition('>: ')[2] or 'its pixels cannot be decoded'}")
    x0, y0, x1, y1 = parts[chosen.part].data_window
    planes = {}
    for name, pixels in found.items():
        if pixels.shape[:2] != (y1 - y0 + 1, x1 - x0 + 1) and not name.endswith(("RY", "BY")):
            raise PictureError(
                f"its channel {name} is sub-sampled to {pixels.shape[1]}x{pixels.shape[0]}, expected full size"
            )
        planes[name] = np.asarray(pixels, np.float32)
    return planes


def _from_luminance_chroma(planes: list[np.ndarray], part: Part) -> np.ndarray:
    """RY = (R - Y) / Y, BY = (B - Y) / Y; Y weighs R, G, B by the luminances of the primaries."""
    import numpy as np

    from attnkit.pictures.spaces import to_xyz

    weights = to_xyz(part.chromaticities or "rec709")[1].astype(np.float32)
    luminance, red, blue = planes
    shape = luminance.shape
    r = (_enlarge(red, shape) + 1) * luminance
    b = (_enlarge(blue, shape) + 1) * luminance
    g = (luminance - weights[0] * r - weights[2] * b) / weights[1]
    return np.stack([r, g, b], axis=-1)


def _enlarge(plane: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Linear interpolation of samples that lie on every n-th row and column, the first on the first; the last is
    held."""
    import numpy as np

    for axis in (0, 1):
        count = plane.shape[axis]
        if count == shape[axis]:
            continue
        step = -(-shape[axis] // count)
        position = np.minimum(np.arange(shape[axis], dtype=np.float32) / np.float32(step), np.float32(count - 1))
        before = position.astype(np.intp)
        after = np.minimum(before + 1, count - 1)
        share = (position - before).reshape((-1, 1) if axis == 0 else (1, -1))
        plane = plane.take(before, axis) * (1 - share) + plane.take(after, axis) * share
    return plane


def _over_display_window(values: np.ndarray, part: Part) -> np.ndarray:
    import numpy as np

    data, shown = part.data_window, part.display_window
    if data == shown:
        return values
    x0, y0 = max(data[0], shown[0]), max(data[1], shown[1])
    x1, y1 = min(data[2], shown[2]), min(data[3], shown[3])
    if x1 < x0 or y1 < y0:
        raise PictureError(f"its data window {data} lies outside its display window {shown}")
    rows, columns = part.size
    whole = np.zeros((rows, columns, *values.shape[2:]), np.float32)
    source = values[y0 - data[1] : y1 - data[1] + 1, x0 - data[0] : x1 - data[0] + 1]
    whole[y0 - shown[1] : y1 - shown[1] + 1, x0 - shown[0] : x1 - shown[0] + 1] = source
    return whole


def encode(
    linear: np.ndarray,
    alpha: np.ndarray | None,
    *,
    depth: int,
    space: str,
    exif: bytes | None,
    settings: dict[str, Any] | None,
) -> bytes:
    """(rows, columns[, 3]) float32 linear light as a ZIP-compressed scan-line file, half (depth 16) or float (32).

    Colours are multiplied by alpha, as the format asks; a grey picture is one channel Y.
    """
    import numpy as np
    import OpenEXR

    from attnkit.pictures.spaces import PRIMARIES

    kind = np.float16 if depth == 16 else np.float32
    header: dict[str, Any] = {
        "compression": OpenEXR.ZIP_COMPRESSION,
        "type": OpenEXR.scanlineimage,
        "chromaticities": PRIMARIES[space],
    }
    if settings is not None:
        header[SETTINGS] = json.dumps(settings, sort_keys=True, allow_nan=False)
    if exif is not None:
        header[EXIF] = base64.b64encode(exif).decode("ascii")
    if alpha is not None:
        linear = linear * (alpha if linear.ndim == 2 else alpha[..., None])
    if depth == 16:
        linear = np.minimum(linear, np.float32(65504))
    names = "Y" if linear.ndim == 2 else "RGB"
    planes = [linear] if linear.ndim == 2 else [linear[..., index] for index in range(3)]
    if alpha is not None:
        names += "A"
        planes.append(alpha)
    channels = {name: np.ascontiguousarray(plane, kind) for name, plane in zip(names, planes, strict=True)}
    stream = io.BytesIO()
    with captured_messages() as messages:
        try:
            OpenEXR.File(header, channels).write(stream)
        except (RuntimeError, ValueError, TypeError) as error:
            messages.append(str(error))
    if not stream.getbuffer():
        raise PictureError(f"cannot encode EXR: {messages[-1] if messages else 'nothing was written'}")
    return stream.getvalue()
