"""Read a picture file into linear light."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np

from attnkit.pictures import exr, jpeg, pfm, png, radiance, spaces, tiff
from attnkit.pictures.detect import KINDS, sniff
from attnkit.pictures.headers import refusal
from attnkit.pictures.picture import Picture, Samples
from attnkit.pictures.repair import repair
from attnkit.runtime.errors import PictureError, UsageError

_READERS = {"radiance": radiance.read, "pfm": pfm.read, "tiff": tiff.read, "png": png.read, "jpeg": jpeg.read}
_NAMES = {"hdr": "radiance", "rgbe": "radiance", "tif": "tiff", "jpg": "jpeg"}


def read_picture(
    source: str | os.PathLike[str] | bytes,
    *,
    input_space: str = "auto",
    layer: str | None = None,
    input_format: str | None = None,
) -> Picture:
    """A picture file, or its bytes, as linear Rec.709 light, upright, repaired (see Picture and repair.repair).

    input_space "auto" takes primaries and curve from the file: chromaticities, ICC profile, sRGB / gAMA / cHRM / cICP
    tags; without them float files are linear Rec.709 and integer files are sRGB. A named space overrides the file:
    its primaries are taken, float and 16-bit samples are linear light, 8-bit samples, which cannot hold that, keep
    the sRGB curve. layer picks a layer (or a single channel) of an EXR file. input_format is a kind that the content
    must have. Raises PictureError, one line, for what is missing, truncated, damaged, no picture or has no such
    layer.
    """
    name: object = "the standard input" if isinstance(source, bytes) else source
    if input_space not in spaces.INPUT_SPACES:
        raise UsageError(f"input space: got {input_space!r}, expected one of {', '.join(spaces.INPUT_SPACES)}")
    if isinstance(source, bytes):
        data, kind = source, sniff(source)
    else:
        try:
            data = Path(source).read_bytes()
        except OSError as error:
            raise PictureError(f"cannot read {source}: {error.strerror or error}") from error
        kind = sniff(data[:64], source)
    if kind is None or kind == "raw":
        raise refusal(kind, name, data[:64])
    _check_format(kind, input_format, name)
    try:
        if kind == "exr":
            samples = exr.read(data, layer)
        else:
            if layer is not None:
                raise PictureError(f"no layer {layer!r}: only EXR files have layers")
            samples = _READERS[kind](data)
        return _picture(samples, kind, input_space)
    except PictureError as error:
        # libraries word some reasons over several lines
        reason = " ".join(str(error).split())
        raise PictureError(f"cannot read {name} ({kind}): {reason}") from error
    except (struct.error, zlib.error, ValueError, IndexError, MemoryError, OverflowError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise PictureError(f"cannot read {name} ({kind}): damaged ({reason})") from error


def _check_format(kind: str, wanted: str | None, name: object) -> None:
    if wanted is None:
        return
    asked = _NAMES.get(wanted.lower(), wanted.lower())
    if asked not in KINDS:
        raise UsageError(f"--input-format: got {wanted!r}, expected one of {', '.join(KINDS)}")
    if asked != kind:
        raise PictureError(f"cannot read {name}: its content is {kind}, --input-format expects {asked}")


def _picture(samples: Samples, kind: str, input_space: str) -> Picture:
    values = samples.values
    counts = {"nan": 0, "inf": 0, "negative": 0}
    alpha = None if samples.alpha is None else _unit(samples.alpha)
    if values.dtype.kind == "f":
        if alpha is not None and samples.premultiplied:
            values = _unmultiplied(values, alpha)
        values, counts = repair(values)
    elif alpha is not None and samples.premultiplied:
        values = np.rint(
            np.minimum(_unmultiplied(values.astype(np.float32), alpha), np.iinfo(values.dtype).max)
        ).astype(values.dtype)
    linear, space, space_source, transfer = _linear_rec709(samples, values, input_space)
    if not np.isfinite((linear.min(), linear.max())).all():
        if values.dtype.kind == "u":
            raise PictureError("its ICC profile turns its values into NaN or Inf")
        # light near the largest float overflows in a conversion
        linear = np.nan_to_num(linear, nan=0.0, posinf=float(np.finfo(np.float32).max), neginf=0.0)
    outside = 0
    if linear.ndim == 3 and space != "rec709" and linear.size and float(linear.min()) < 0:
        outside = int((linear < -1e-6).any(axis=2).sum())
        linear = np.maximum(linear, np.float32(0))
    grey = linear.ndim == 2
    if grey:
        linear = np.repeat(linear[..., None], 3, axis=2)
    return Picture(
        pixels=np.ascontiguousarray(_upright(linear, samples.orientation), np.float32),
        alpha=None if alpha is None else np.ascontiguousarray(_upright(alpha, samples.orientation)),
        kind=kind,
        grey=grey,
        hdr=samples.values.dtype.kind == "f",
        source_space=space,
        space_source=space_source,
        transfer=transfer,
        exif=samples.exif,
        icc=samples.icc,
        layer=samples.layer,
        repaired=counts,
        outside_gamut=outside,
    )


def _unit(alpha: np.ndarray) -> np.ndarray:
    """Alpha as float32 in 0..1; what is not a number hides nothing."""
    if alpha.dtype.kind == "u":
        return alpha.astype(np.float32) / np.float32(np.iinfo(alpha.dtype).max)
    return np.clip(np.nan_to_num(alpha, nan=1.0), 0, 1).astype(np.float32)


def _unmultiplied(values: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Colours divided by alpha; light where alpha is 0 (a glow) stays as it is."""
    divisor = np.where(alpha > 0, alpha, np.float32(1))
    return values / (divisor if values.ndim == 2 else divisor[..., None])


def _linear_rec709(samples: Samples, values: np.ndarray, input_space: str) -> tuple[np.ndarray, str, str, str]:
    """(linear light in Rec.709, name of the file's space, where that is known from, curve that was undone)."""
    grey = values.ndim == 2
    if input_space != "auto":
        transfer = "srgb" if values.dtype == np.uint8 else "linear"
        linear = _decoded(values, transfer)
        return (linear if grey else spaces.convert(linear, input_space, "rec709")), input_space, "option", transfer
    if samples.icc is not None:
        linear, name = _by_profile(values, samples.icc)
        return linear, name, "file", "icc"
    transfer = samples.transfer or "srgb"
    linear = _decoded(values, transfer)
    if samples.space is None:
        source = "assumed" if samples.transfer in (None, "linear") else "file"
        return linear, "rec709", source, transfer.partition(":")[0]
    name = samples.space if isinstance(samples.space, str) else spaces.name_of(samples.space)
    if not grey:
        linear = spaces.convert(linear, samples.space if name == "custom" else name, "rec709")
    return linear, name, "file", transfer.partition(":")[0]


def _by_profile(values: np.ndarray, profile: bytes) -> tuple[np.ndarray, str]:
    from attnkit.pictures import icc

    return icc.decode(values, profile)


def _decoded(values: np.ndarray, transfer: str) -> np.ndarray:
    if transfer == "srgb":
        return spaces.srgb_decode(values)
    if values.dtype.kind == "u":
        values = values.astype(np.float32) / np.float32(np.iinfo(values.dtype).max)
    if transfer.startswith("gamma:"):
        return np.power(values, np.float32(transfer.partition(":")[2]))
    return np.asarray(values, np.float32)


def _upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation: 2 to 4 mirror or turn by half, 5 to 8 swap rows and columns as well."""
    if 5 <= orientation <= 8:
        values = values.swapaxes(0, 1)
    flip_rows = orientation in (3, 4, 7, 8)
    flip_columns = orientation in (2, 3, 6, 7)
    return values[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]
