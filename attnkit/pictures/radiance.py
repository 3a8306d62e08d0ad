"""Radiance pictures (.hdr, .pic): RGBE and XYZE, flat, old and new run lengths, all eight orientations.

Format: Ward, "Real Pixels", Graphics Gems II (1991), and the Radiance file format notes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from attnkit.pictures.native import captured_messages
from attnkit.pictures.picture import Chromaticities, PictureInfo, Samples
from attnkit.runtime.errors import PictureError

if TYPE_CHECKING:
    import numpy as np

_HEADER_LIMIT = 1 << 20
_RESOLUTION = re.compile(rb"([-+])([XY]) +(\d+) +([-+])([XY]) +(\d+) *\r?\n")


@dataclass(frozen=True)
class _Header:
    lines: int
    line_length: int
    columns_first: bool
    flip_rows: bool
    flip_columns: bool
    xyz: bool
    exposure: float
    primaries: Chromaticities | None
    body: int

    @property
    def rows(self) -> int:
        return self.line_length if self.columns_first else self.lines

    @property
    def columns(self) -> int:
        return self.lines if self.columns_first else self.line_length


def _parse(data: Any) -> _Header:
    head = bytes(data[:_HEADER_LIMIT])
    blank = re.search(rb"\n\r?\n", head)
    if blank is None:
        raise PictureError("truncated in the Radiance header: no blank line ends it")
    found = _RESOLUTION.match(head, blank.end())
    if found is None:
        line = head[blank.end() : blank.end() + 40].split(b"\n")[0]
        raise PictureError(f"its resolution line is {line!r}, expected one like b'-Y 768 +X 1024'")
    sign_1, axis_1, count_1, sign_2, axis_2, count_2 = found.groups()
    if axis_1 == axis_2 or not int(count_1) or not int(count_2):
        raise PictureError(f"its resolution line is {found[0].strip()!r}, expected a size in X and one in Y")
    signs = {axis_1: sign_1, axis_2: sign_2}
    exposure, primaries, xyz = 1.0, None, False
    for line in head[: blank.start()].splitlines():
        name, _, value = line.partition(b"=")
        try:
            if name == b"EXPOSURE":
                # several programs each write what they multiplied by
                exposure *= float(value)
            elif name == b"PRIMARIES":
                numbers = tuple(float(number) for number in value.split())
                primaries = cast(Chromaticities, numbers) if len(numbers) == 8 else None
        except ValueError as error:
            raise PictureError(f"its header line {line[:60]!r} holds no number") from error
        if name == b"FORMAT":
            if value.strip() not in (b"32-bit_rle_rgbe", b"32-bit_rle_xyze"):
                raise PictureError(f"its FORMAT is {value.strip()!r}, expected 32-bit_rle_rgbe or 32-bit_rle_xyze")
            xyz = value.strip().endswith(b"xyze")
    if not 0 < exposure < float("inf"):
        raise PictureError(f"its EXPOSURE comes to {exposure}, expected a number above 0")
    return _Header(
        lines=int(count_1),
        line_length=int(count_2),
        columns_first=axis_1 == b"X",
        flip_rows=signs[b"Y"] == b"+",
        flip_columns=signs[b"X"] == b"-",
        xyz=xyz,
        exposure=exposure,
        primaries=primaries,
        body=found.end(),
    )


def describe(data: Any) -> PictureInfo:
    header = _parse(data)
    return PictureInfo("radiance", header.rows, header.columns, hdr=True)


def read(data: bytes) -> Samples:
    import numpy as np

    header = _parse(data)
    body = memoryview(data)[header.body :]
    width = header.line_length
    if 8 <= width < 32768 and bytes(body[:4]) == bytes((2, 2, width >> 8, width & 255)):
        values = _read_new(body, header)
    else:
        values = _read_old(body, header)
    if header.exposure != 1.0:
        values = values * np.float32(1 / header.exposure)
    if header.columns_first:
        values = values.transpose(1, 0, 2)
    values = values[:: -1 if header.flip_rows else 1, :: -1 if header.flip_columns else 1]
    space = "xyz" if header.xyz else header.primaries
    return Samples(np.ascontiguousarray(values), space=space, transfer="linear")


def _read_new(body: memoryview, header: _Header) -> np.ndarray:
    """Four runs-and-literals planes a line; OpenCV decodes them fast once the header is one that it knows."""
    import cv2
    import numpy as np

    plain = b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y %d +X %d\n" % (header.lines, header.line_length)
    stream = np.frombuffer(b"".join((plain, body)), np.uint8)
    with captured_messages():
        try:
            values = cv2.imdecode(stream, cv2.IMREAD_UNCHANGED)
        except cv2.error:
            values = None
    if values is None:
        raise PictureError(
            f"truncated or damaged: {len(body)} bytes do not make {header.lines} lines of {header.line_length} pixels"
        )
    return cv2.cvtColor(values, cv2.COLOR_BGR2RGB, dst=values)


def _read_old(body: memoryview, header: _Header) -> np.ndarray:
    """Flat pixels; (1, 1, 1, n) repeats the one before n times, and following repeats count 256, 65536 ... times
    more."""
    import numpy as np

    wanted = header.lines * header.line_length
    quads = np.frombuffer(body[: len(body) // 4 * 4], np.uint8).reshape(-1, 4)
    repeat = (quads[:, :3] == 1).all(axis=1)
    if repeat.any():
        if repeat[0]:
            raise PictureError("damaged: it begins with a repeat, expected a pixel")
        index = np.arange(len(quads))
        source = np.maximum.accumulate(np.where(repeat, 0, index))
        order = np.minimum(index - source - 1, 3)
        counts = np.where(repeat, quads[:, 3].astype(np.int64) << (8 * np.maximum(order, 0)), 1)
        total = np.cumsum(counts)
        used = int(np.searchsorted(total, wanted)) + 1
        if used > len(quads):
            raise PictureError(f"truncated: it holds {int(total[-1])} of {wanted} pixels")
        if total[used - 1] != wanted:
            raise PictureError("damaged: its last run goes past the last pixel")
        quads = np.repeat(quads[source[:used]], counts[:used], axis=0)
    if len(quads) < wanted:
        raise PictureError(f"truncated: it holds {len(quads)} of {wanted} pixels")
    quads = quads[:wanted]
    scale = np.where(quads[:, 3] > 0, np.ldexp(np.float32(1), quads[:, 3].astype(np.int32) - 136), np.float32(0))
    return (quads[:, :3] * scale[:, None]).astype(np.float32).reshape(header.lines, header.line_length, 3)
