"""TIFF pictures: 8, 16 and 32-bit, integer and float, also SGI LogLuv. Written here, read through tifffile or else
OpenCV.

Format: TIFF 6.0, Adobe Photoshop TIFF Technical Notes (Deflate), EXIF 2.32.
"""

from __future__ import annotations

import io
import json
import logging
import struct
import zlib
from typing import TYPE_CHECKING, Any

from attnkit.pictures import ifd
from attnkit.pictures.ifd import Directory, Field
from attnkit.pictures.native import captured_messages
from attnkit.pictures.picture import PictureInfo, Samples
from attnkit.runtime.errors import PictureError

if TYPE_CHECKING:
    import numpy as np

# of the range that TIFF leaves to private use
SETTINGS_TAG = 65323
_COLUMNS, _ROWS, _BITS, _COMPRESSION, _PHOTOMETRIC, _STRIP_OFFSETS = 256, 257, 258, 259, 262, 273
_SAMPLES, _ROWS_PER_STRIP, _STRIP_SIZES, _PLANAR, _SOFTWARE, _PREDICTOR = 277, 278, 279, 284, 305, 317
_TILE_OFFSETS, _TILE_SIZES, _EXTRA_SAMPLES, _SAMPLE_FORMAT, _ICC = 324, 325, 338, 339, 34675
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6
_LOG_L, _LOG_LUV = 32844, 32845
_FLOAT, _ASSOCIATED, _UNASSOCIATED = 3, 1, 2
_STRIP_BYTES = 1 << 18


def _main(data: Any) -> Directory:
    main = ifd.parse(data, ifd.first_offset(data))
    if ifd.number(main, _COLUMNS, 0) < 1 or ifd.number(main, _ROWS, 0) < 1:
        raise PictureError("damaged: its first directory gives no size")
    return main


def _is_float(main: Directory) -> bool:
    return ifd.number(main, _SAMPLE_FORMAT, 1) == _FLOAT or ifd.number(main, _PHOTOMETRIC, 1) in (_LOG_L, _LOG_LUV)


def describe(data: Any) -> PictureInfo:
    main = _main(data)
    rows, columns = ifd.number(main, _ROWS, 0), ifd.number(main, _COLUMNS, 0)
    if ifd.number(main, ifd.ORIENTATION, 1) > 4:
        rows, columns = columns, rows
    return PictureInfo("tiff", rows, columns, hdr=_is_float(main))


def read_settings(data: Any) -> str | None:
    entry = ifd.parse(data, ifd.first_offset(data)).get(SETTINGS_TAG)
    return str(entry.values[0]) if entry is not None and entry.kind == ifd.ASCII else None


def read(data: bytes) -> Samples:
    """The first picture of the file; PictureError for colour models other than grey, RGB, palette, YCbCr and LogLuv."""
    import numpy as np

    main = _main(data)
    _check_extents(data, main)
    photometric = ifd.number(main, _PHOTOMETRIC, _BLACK_IS_ZERO)
    if photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _YCBCR, _LOG_L, _LOG_LUV):
        raise PictureError(f"its colour model (PhotometricInterpretation) is {photometric}; convert it to RGB first")
    pixels = _decode(data, photometric)
    rows, columns = ifd.number(main, _ROWS, 0), ifd.number(main, _COLUMNS, 0)
    if pixels.shape[:2] != (rows, columns):
        raise PictureError(f"damaged: it unpacks to {pixels.shape}, expected {rows} rows of {columns}")
    kinds = tuple(main[_EXTRA_SAMPLES].values) if _EXTRA_SAMPLES in main else ()
    held = pixels.shape[2] if pixels.ndim == 3 else 1
    colours = held - (len(kinds) or int(held in (2, 4)))
    if colours not in (1, 3) or (colours == 1 and held > 2):
        raise PictureError(f"it has {held} samples a pixel, expected grey or RGB with or without alpha")
    # a single extra sample that the file does not explain is how many programs write alpha; several are something else
    has_alpha = held == colours + 1 or bool({_ASSOCIATED, _UNASSOCIATED} & set(kinds[:1]))
    alpha = pixels[..., colours] if has_alpha else None
    if pixels.ndim == 3:
        pixels = pixels[..., 0] if colours == 1 else pixels[..., :3]
    if photometric == _WHITE_IS_ZERO and pixels.dtype.kind == "u":
        pixels = np.iinfo(pixels.dtype).max - pixels
    icc = main[_ICC].raw if _ICC in main else None
    linear = _is_float(main) and icc is None
    return Samples(
        values=np.ascontiguousarray(pixels),
        alpha=None if alpha is None else np.ascontiguousarray(alpha),
        premultiplied=_ASSOCIATED in kinds[:1],
        transfer="linear" if linear else None,
        exif=ifd.exif_of_tiff(data, main),
        icc=icc,
        orientation=ifd.number(main, ifd.ORIENTATION, 1),
    )


def _check_extents(data: bytes, main: Directory) -> None:
    """Decoders fill strips that are missing with zeros."""
    offsets = main.get(_TILE_OFFSETS) or main.get(_STRIP_OFFSETS)
    sizes = main.get(_TILE_SIZES) or main.get(_STRIP_SIZES)
    if offsets is None or sizes is None or offsets.count != sizes.count:
        raise PictureError("damaged: its first directory does not say where the pixels are")
    for index, (offset, size) in enumerate(zip(offsets.values, sizes.values, strict=True)):
        if not offset or not size or offset + size > len(data):
            raise PictureError(
                f"truncated: strip {index + 1} of {offsets.count} has {size} bytes at byte {offset}, "
                f"the file has {len(data)}"
            )


def _decode(data: bytes, photometric: int) -> np.ndarray:
    """uint8, uint16 or float32, (rows, columns[, samples])."""
    import numpy as np

    pixels = None
    if photometric not in (_YCBCR, _LOG_L, _LOG_LUV):
        import tifffile

        logger = logging.getLogger("tifffile")
        before, logger.disabled = logger.disabled, True
        try:
            with tifffile.TiffFile(io.BytesIO(data)) as file:
                page = file.pages.first
                pixels = page.asarray()
                if page.planarconfig == 2 and pixels.ndim == 3:
                    pixels = np.moveaxis(pixels, 0, -1)
                if photometric == _PALETTE:
                    pixels = np.moveaxis(np.asarray(page.colormap, np.uint16)[:, pixels], 0, -1)
        except (zlib.error, tifffile.TiffFileError) as error:
            raise PictureError(f"truncated or damaged: {error}") from error
        except Exception:
            # tifffile alone lacks LZW and predicted floats, which OpenCV has; damaged tags may raise anything
            pixels = None
        finally:
            logger.disabled = before
    if pixels is None:
        pixels = _decode_with_opencv(data)
    if pixels.dtype == bool:
        return pixels.astype(np.uint8) * np.uint8(255)
    if pixels.dtype.kind == "f":
        return pixels.astype(np.float32)
    if pixels.dtype.kind != "u" or pixels.dtype.itemsize > 2:
        raise PictureError(f"its samples are {pixels.dtype}; expected 8 or 16-bit unsigned integers or floating point")
    return pixels.astype(pixels.dtype.newbyteorder("="))


def _decode_with_opencv(data: bytes) -> np.ndarray:
    import cv2
    import numpy as np

    with captured_messages() as messages:
        try:
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        except cv2.error as error:
            pixels = None
            messages.append(error.err)
    if pixels is None or any("ERROR" in line for line in messages):
        raise PictureError(
            f"truncated, damaged or of an unknown compression: {(messages or ['its pixels cannot be decoded'])[0]}"
        )
    if pixels.ndim == 3:
        pixels = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    return pixels


def encode(
    values: np.ndarray,
    alpha: np.ndarray | None,
    *,
    space: str,
    exif: bytes | None,
    settings: dict[str, Any] | None,
) -> bytes:
    """(rows, columns[, 3]) uint8, uint16 or float32 and straight alpha of the same type, with an ICC profile.

    Integers are differenced and deflated, floats stored plain: the predictor that would help them is one that few
    programs read.
    """
    import numpy as np

    from attnkit.pictures.icc import profile

    grey = values.ndim == 2
    planes = values[..., None] if grey else values
    if alpha is not None:
        planes = np.concatenate([planes, alpha[..., None]], axis=2)
    rows, columns, samples = planes.shape
    planes = planes.astype(planes.dtype.newbyteorder("<"), copy=False)
    packed = values.dtype.kind == "u"
    if packed:
        differences = planes.copy()
        differences[:, 1:] -= planes[:, :-1]
        planes = differences
    step = max(1, _STRIP_BYTES // (columns * samples * planes.dtype.itemsize))
    strips = [np.ascontiguousarray(planes[start : start + step]).tobytes() for start in range(0, rows, step)]
    if packed:
        strips = [_deflated(strip) for strip in strips]
    if sum(map(len, strips)) > 0xFFF00000:
        raise PictureError(f"cannot encode TIFF of {columns}x{rows} pixels: it holds at most 4 GB; write EXR or resize")
    offsets, at = [], 8
    for strip in strips:
        offsets.append(at)
        at += len(strip) + len(strip) % 2

    described, inner = ifd.split_exif(exif) if exif is not None else ({}, {})
    depth = 8 * values.dtype.itemsize
    directory: dict[int, Field] = {
        **described,
        _COLUMNS: ifd.long_field(columns),
        _ROWS: ifd.long_field(rows),
        _BITS: ifd.short_field(*[depth] * samples),
        _COMPRESSION: ifd.short_field(8 if packed else 1),
        _PHOTOMETRIC: ifd.short_field(_BLACK_IS_ZERO if grey else _RGB),
        _STRIP_OFFSETS: ifd.long_field(*offsets),
        ifd.ORIENTATION: ifd.short_field(1),
        _SAMPLES: ifd.short_field(samples),
        _ROWS_PER_STRIP: ifd.long_field(step),
        _STRIP_SIZES: ifd.long_field(*map(len, strips)),
        _PLANAR: ifd.short_field(1),
        _SOFTWARE: ifd.text_field("attnkit"),
        _SAMPLE_FORMAT: ifd.short_field(*[1 if packed else _FLOAT] * samples),
    }
    if packed:
        directory[_PREDICTOR] = ifd.short_field(2)
    if alpha is not None:
        directory[_EXTRA_SAMPLES] = ifd.short_field(_UNASSOCIATED)
    colours = profile("grey" if grey else space)
    directory[_ICC] = Field(ifd.UNDEFINED, len(colours), colours)
    if settings is not None:
        directory[SETTINGS_TAG] = ifd.text_field(json.dumps(settings, sort_keys=True, allow_nan=False))
    body = (part for strip in strips for part in (strip, bytes(len(strip) % 2)))
    return b"".join((b"II*\0", struct.pack("<I", at), *body, ifd.serialise(directory, at, inner)))


def _deflated(strip: bytes) -> bytes:
    # as in PNG: on differences of photographs runs alone are smaller and several times faster than matches
    coder = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_RLE)
    return coder.compress(strip) + coder.flush()
