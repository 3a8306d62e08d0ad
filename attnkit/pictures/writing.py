"""Turn display pixels into the bytes of a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attnkit.pictures import exr, ifd, jpeg, png, tiff
from attnkit.runtime.errors import PictureError, UsageError

if TYPE_CHECKING:
    import numpy as np

# bits a sample that each format can hold, the first by default
DEPTHS: dict[str, tuple[int, ...]] = {"png": (8, 16), "jpeg": (8,), "tiff": (8, 16, 32), "exr": (16, 32)}
DEFAULT_QUALITY = 92


def check_output(format: str, depth: int | None = None, quality: int | None = None, space: str = "srgb") -> int:
    """The depth that will be written; UsageError where format, depth, quality or space do not go together."""
    from attnkit.pictures.spaces import OUTPUT_SPACES

    if format not in DEPTHS:
        raise UsageError(f"--format: got {format!r}, expected one of {', '.join(DEPTHS)}")
    depth = DEPTHS[format][0] if depth is None else depth
    if depth not in DEPTHS[format]:
        raise UsageError(f"--depth: got {depth} for {format}, expected {' or '.join(map(str, DEPTHS[format]))}")
    if quality is not None and not 1 <= quality <= 100:
        raise UsageError(f"--quality: got {quality}, expected 1 to 100")
    if space not in OUTPUT_SPACES:
        raise UsageError(f"--output-space: got {space!r}, expected one of {', '.join(OUTPUT_SPACES)}")
    return depth


def encode_picture(
    display: np.ndarray,
    *,
    format: str,
    depth: int | None = None,
    quality: int | None = None,
    space: str = "srgb",
    alpha: np.ndarray | None = None,
    exif: bytes | None = None,
    settings: dict[str, Any] | None = None,
    grey: bool = False,
) -> bytes:
    """Bytes of a picture file; the same arguments give the same bytes.

    display   (rows, columns, 3) display-encoded in space ("srgb" or "display-p3"): float32 0..1 (clipped), uint8 or
              uint16
    depth     8, 16 or 32; see DEPTHS. EXR takes linear display light as half (16) or float (32), TIFF 32 the encoded
              values
    alpha     (rows, columns) float32 0..1, not multiplied in; JPEG, which has none, gets the picture over black
    exif      EXIF block of the source; written with orientation 1 and without its thumbnail
    settings  a JSON-able dictionary that read_settings gives back
    grey      write one channel (the green one)
    Raises UsageError for arguments that do not go together, PictureError for pixels that cannot be written.
    """
    import numpy as np

    depth = check_output(format, depth, quality, space)
    if display.ndim != 3 or display.shape[2] != 3 or not display.size:
        raise PictureError(f"cannot encode {format}: pixels have shape {display.shape}, expected (rows, columns, 3)")
    if alpha is not None and alpha.shape != display.shape[:2]:
        raise PictureError(f"cannot encode {format}: alpha has shape {alpha.shape}, expected {display.shape[:2]}")
    if display.dtype.kind == "f" and not np.isfinite((display.min(), display.max())).all():
        raise PictureError(f"cannot encode {format}: pixels hold NaN or Inf, expected display values from 0 to 1")
    exif = ifd.upright(exif) if exif else None
    values = np.ascontiguousarray(display[..., 1] if grey else display)
    if format == "exr":
        from attnkit.pictures.spaces import srgb_decode

        linear = srgb_decode(quantise(values, 32))
        primaries = "rec709" if space == "srgb" else space
        return exr.encode(linear, alpha, depth=depth, space=primaries, exif=exif, settings=settings)
    if format == "jpeg":
        if alpha is not None:
            values = _over_black(values, alpha)
        quality = DEFAULT_QUALITY if quality is None else quality
        return jpeg.encode(quantise(values, 8), quality=quality, space=space, exif=exif, settings=settings)
    stored_alpha = None if alpha is None else quantise(alpha, depth)
    encode = png.encode if format == "png" else tiff.encode
    return encode(quantise(values, depth), stored_alpha, space=space, exif=exif, settings=settings)


def quantise(values: np.ndarray, depth: int) -> np.ndarray:
    """float32 0..1, uint8 or uint16 as uint8 (depth 8), uint16 (16) or float32 0..1 (32), rounded to nearest and
    clipped."""
    import cv2
    import numpy as np

    target = {8: np.dtype(np.uint8), 16: np.dtype(np.uint16), 32: np.dtype(np.float32)}[depth]
    if values.dtype == target and depth != 32:
        return values
    flat = values.reshape(values.shape[0], -1)
    if values.dtype.kind == "u":
        flat = flat.astype(np.float32) / np.float32(np.iinfo(values.dtype).max)
    if depth == 32:
        return np.clip(flat, 0, 1).astype(np.float32, copy=False).reshape(values.shape)
    # one pass, saturating: three times as fast as clip, multiply, round and cast
    code = cv2.CV_8U if depth == 8 else cv2.CV_16U
    scale = 255.0 if depth == 8 else 65535.0
    whole = np.ascontiguousarray(flat, np.float32)
    return np.asarray(cv2.multiply(whole, np.array([scale]), dtype=code)).reshape(values.shape)


def _over_black(values: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    from attnkit.pictures.spaces import srgb_decode, srgb_encode

    return srgb_encode(srgb_decode(quantise(values, 32)) * (alpha if values.ndim == 2 else alpha[..., None]))
