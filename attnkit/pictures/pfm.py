"""Portable float maps (.pfm), grey and colour, both byte orders. Rows are stored bottom up."""

from __future__ import annotations

import re
from typing import Any

from attnkit.pictures.picture import PictureInfo, Samples
from attnkit.runtime.errors import PictureError

_HEADER = re.compile(rb"P([Ff])\s+(\d+)\s+(\d+)\s+([-+]?[0-9.]+(?:[eE][-+]?\d+)?)(?:\r\n|\s)")


def _parse(data: Any) -> tuple[int, int, int, float, int]:
    found = _HEADER.match(bytes(data[:256]))
    if found is None:
        raise PictureError(
            f"truncated or damaged PFM header {bytes(data[:24])!r}, expected like b'PF\\n1024 768\\n-1.0\\n'"
        )
    columns, rows, scale = int(found[2]), int(found[3]), float(found[4])
    if not columns or not rows or not scale:
        raise PictureError(f"its PFM header says {columns}x{rows}, scale {scale}; expected numbers other than 0")
    return rows, columns, 3 if found[1] == b"F" else 1, scale, found.end()


def describe(data: Any) -> PictureInfo:
    rows, columns, *_ = _parse(data)
    return PictureInfo("pfm", rows, columns, hdr=True)


def read(data: bytes) -> Samples:
    import numpy as np

    rows, columns, channels, scale, body = _parse(data)
    wanted = rows * columns * channels
    if len(data) - body < 4 * wanted:
        held = (len(data) - body) // (4 * columns * channels)
        raise PictureError(f"truncated: it holds {held} of {rows} rows")
    values = np.frombuffer(data, "<f4" if scale < 0 else ">f4", wanted, body).astype(np.float32)
    values = values.reshape((rows, columns, 3) if channels == 3 else (rows, columns))[::-1]
    # the size of the scale is the light that 1.0 stands for
    values = values * np.float32(abs(scale)) if abs(scale) != 1 else np.ascontiguousarray(values)
    return Samples(values, transfer="linear")
