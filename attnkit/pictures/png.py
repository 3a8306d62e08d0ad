"""PNG pictures, 8 and 16 bits: OpenCV decodes the pixels, ISA-L deflates them, the chunks are read, checked and written
here.

Format: W3C PNG specification, third edition (2025).
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from attnkit.pictures import ifd
from attnkit.pictures.native import captured_messages
from attnkit.pictures.picture import Chromaticities, PictureInfo, Samples
from attnkit.runtime.errors import PictureError

if TYPE_CHECKING:
    import numpy as np

SIGNATURE = b"\x89PNG\r\n\x1a\n"
KEYWORD = b"attnkit-settings"
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# first row and column, row and column step of each pass
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
_SUB, _UP, _AVERAGE = 1, 2, 3
# of 0 to 3
_LEVEL = 2
_BLOCK_BYTES = 1 << 17
# every sixteenth row is asked for the filter
_SAMPLED = 16
# ITU-T H.273 numbers
_CICP_SPACES = {1: "rec709", 9: "rec2020", 12: "display-p3"}
_CICP_TRANSFERS = {8: "linear", 13: "srgb"}


def _chunks(data: Any, *, verify: bool) -> Iterator[tuple[bytes, bytes]]:
    """(name, content) of every chunk up to IEND; PictureError where the file ends early or a checksum is wrong."""
    at = len(SIGNATURE)
    while True:
        if at + 12 > len(data):
            raise PictureError(f"truncated: it ends at byte {len(data)} without the IEND chunk")
        size, name = struct.unpack_from(">I4s", data, at)
        if at + 12 + size > len(data):
            raise PictureError(f"truncated: chunk {name!r} needs {size} bytes at byte {at}, the file has {len(data)}")
        content = data[at + 8 : at + 8 + size]
        if verify and zlib.crc32(content, zlib.crc32(name)) != struct.unpack_from(">I", data, at + 8 + size)[0]:
            raise PictureError(f"damaged: wrong checksum in chunk {name!r} at byte {at}")
        yield name, content
        if name == b"IEND":
            return
        at += 12 + size


def _header(content: bytes) -> tuple[int, int, int, int, int]:
    """(rows, columns, bits, colour type, interlace)."""
    if len(content) != 13:
        raise PictureError(f"damaged: its IHDR chunk has {len(content)} bytes, expected 13")
    columns, rows, bits, colour, _, _, interlace = struct.unpack(">IIBBBBB", content)
    if not rows or not columns or colour not in _SAMPLES or bits not in (1, 2, 4, 8, 16):
        raise PictureError(f"damaged: its IHDR chunk says {columns}x{rows}, {bits} bits, colour type {colour}")
    return rows, columns, bits, colour, interlace


def describe(data: Any) -> PictureInfo:
    rows = columns = 0
    exif = None
    for name, content in _chunks(data, verify=False):
        if name == b"IHDR":
            rows, columns, *_ = _header(content)
        elif name == b"eXIf":
            exif = content
        elif name == b"IDAT":
            break
    if ifd.orientation(exif) > 4:
        rows, columns = columns, rows
    return PictureInfo("png", rows, columns, hdr=False)


def read_settings(data: Any) -> str | None:
    for name, content in _chunks(data, verify=False):
        if name == b"iTXt" and content[: len(KEYWORD) + 1] == KEYWORD + b"\0":
            # two bytes about compression, then empty language and translated keyword
            return content[len(KEYWORD) + 5 :].decode("utf-8")
        if name == b"IDAT":
            return None
    return None


def read(data: bytes) -> Samples:
    import cv2
    import numpy as np

    found: dict[bytes, bytes] = {}
    packed = []
    for name, content in _chunks(data, verify=True):
        if name == b"IDAT":
            packed.append(content)
        else:
            found[name] = content
    if b"IHDR" not in found:
        raise PictureError("damaged: it has no IHDR chunk")
    header = _header(found[b"IHDR"])
    _check_pixels(packed, header)
    with captured_messages() as messages:
        try:
            values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        except cv2.error as error:
            values = None
            messages.append(error.err)
    if values is None:
        raise PictureError(f"damaged: {messages[-1] if messages else 'its pixels cannot be decoded'}")
    grey = header[3] in (0, 4)
    alpha = None
    if values.ndim == 3 and values.shape[2] == 4:
        alpha = np.ascontiguousarray(values[..., 3])
    elif values.ndim == 2 and len(found.get(b"tRNS", b"")) == 2:
        # OpenCV leaves the transparent grey out; it is stored at the file's own depth
        (hidden,) = struct.unpack(">H", found[b"tRNS"])
        hidden = hidden * 255 // (2 ** header[2] - 1) if header[2] < 8 else hidden
        alpha = np.where(values == hidden, 0, 255 if header[2] <= 8 else 65535).astype(values.dtype)
    if values.ndim == 3:
        values = np.ascontiguousarray(values[..., 0] if grey else values[..., 2::-1])
    exif = found.get(b"eXIf")
    samples = Samples(values, alpha, exif=exif, orientation=ifd.orientation(exif))
    _colour(found, samples)
    return samples


def _check_pixels(packed: list[bytes], header: tuple[int, int, int, int, int]) -> None:
    """libpng fills rows that are missing with black and only warns: so count the bytes."""
    rows, columns, bits, colour, interlace = header
    depth = bits * _SAMPLES[colour]
    wanted = 0
    for row, column, row_step, column_step in _ADAM7 if interlace else ((0, 0, 1, 1),):
        height, width = -(-(rows - row) // row_step), -(-(columns - column) // column_step)
        if height > 0 and width > 0:
            wanted += height * (1 + (width * depth + 7) // 8)
    stream = zlib.decompressobj()
    held = 0
    try:
        for content in packed:
            held += len(stream.decompress(content, wanted - held + 1))
            if held > wanted:
                break
    except zlib.error as error:
        raise PictureError(f"damaged: its pixels do not unpack ({error})") from error
    if held < wanted:
        raise PictureError(f"truncated: its pixels unpack to {held} of {wanted} bytes")


def _colour(found: dict[bytes, bytes], samples: Samples) -> None:
    """cICP before iCCP before sRGB before gAMA and cHRM, as the specification orders them."""
    if b"cICP" in found and len(found[b"cICP"]) == 4:
        primaries, transfer, _, full = found[b"cICP"]
        if primaries not in _CICP_SPACES or transfer not in _CICP_TRANSFERS or not full:
            raise PictureError(
                f"its cICP chunk says primaries {primaries}, transfer {transfer}, full range {full}; expected "
                "primaries 1, 9 or 12 and transfer 8 or 13 at full range; convert it to EXR first"
            )
        samples.space, samples.transfer = _CICP_SPACES[primaries], _CICP_TRANSFERS[transfer]
        return
    if b"iCCP" in found:
        name_end = found[b"iCCP"].find(b"\0")
        try:
            samples.icc = zlib.decompress(found[b"iCCP"][name_end + 2 :])
        except zlib.error as error:
            raise PictureError(f"damaged: its ICC profile does not unpack ({error})") from error
        return
    if b"sRGB" in found:
        samples.space, samples.transfer = "rec709", "srgb"
        return
    if b"cHRM" in found and len(found[b"cHRM"]) == 32:
        white, *primaries_xy = zip(
            *[iter(number / 1e5 for number in struct.unpack(">8I", found[b"cHRM"]))] * 2, strict=True
        )
        samples.space = cast(Chromaticities, tuple(value for pair in (*primaries_xy, white) for value in pair))
    if b"gAMA" in found and len(found[b"gAMA"]) == 4:
        (stored,) = struct.unpack(">I", found[b"gAMA"])
        if stored == 100000:
            samples.transfer = "linear"
        elif stored and stored != 45455:
            samples.transfer = f"gamma:{1e5 / stored}"


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(content, zlib.crc32(name)))


def encode(
    values: np.ndarray,
    alpha: np.ndarray | None,
    *,
    space: str,
    exif: bytes | None,
    settings: dict[str, Any] | None,
) -> bytes:
    """(rows, columns[, 3]) uint8 or uint16 and alpha of the same type, as a PNG with its colour tagged.

    sRGB is said by an sRGB chunk with the gAMA and cHRM that go with it, Display P3 by a profile.
    """
    import numpy as np

    from attnkit.pictures.icc import profile

    if values.ndim == 2 and alpha is not None:
        values = np.repeat(values[..., None], 3, axis=2)
    stored = values if alpha is None else np.dstack([values, alpha])
    rows, columns = stored.shape[:2]
    channels = 1 if stored.ndim == 2 else stored.shape[2]
    colour = {1: 0, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", columns, rows, 8 * stored.itemsize, colour, 0, 0, 0)
    extra = []
    if space == "display-p3" and values.ndim == 3:
        extra.append(_chunk(b"iCCP", b"Display P3\0\0" + zlib.compress(profile(space), 9)))
    else:
        extra.append(_chunk(b"sRGB", b"\0"))
        extra.append(_chunk(b"gAMA", struct.pack(">I", 45455)))
        extra.append(_chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)))
    if exif is not None:
        extra.append(_chunk(b"eXIf", exif))
    if settings is not None:
        text = json.dumps(settings, sort_keys=True, allow_nan=False).encode("utf-8")
        extra.append(_chunk(b"iTXt", KEYWORD + b"\0\0\0\0\0" + text))
    body = (_chunk(b"IDAT", part) for part in _packed(stored, channels * stored.itemsize))
    return b"".join((SIGNATURE, _chunk(b"IHDR", header), *extra, *body, _chunk(b"IEND", b"")))


def _packed(values: np.ndarray, step: int) -> Iterator[bytes]:
    """The pixels as pieces of one zlib stream: every row filtered, then deflated. `step` is the bytes of a pixel.

    A photograph takes about a third of the time of OpenCV and zlib at their fastest, and the same space
    (tests/bench/png_writing.py); other threads run meanwhile.
    """
    import numpy as np
    from isal import isal_zlib

    bytes_of = np.ascontiguousarray(values, values.dtype.newbyteorder(">")).view(np.uint8).reshape(len(values), -1)
    kind = _best_filter(bytes_of, step)
    stream = isal_zlib.compressobj(_LEVEL)
    above = np.zeros_like(bytes_of[:1])
    # as many rows as stay in the processor's cache
    block = max(1, _BLOCK_BYTES // bytes_of.shape[1])
    for at in range(0, len(bytes_of), block):
        rows = bytes_of[at : at + block]
        filtered = np.full((len(rows), rows.shape[1] + 1), kind, np.uint8)
        filtered[:, 1:] = _filtered(rows, np.concatenate((above, rows[:-1])), step, kind)
        above = rows[-1:]
        if part := stream.compress(filtered.data):
            yield part
    yield stream.flush()


def _filtered(rows: np.ndarray, above: np.ndarray, step: int, kind: int) -> np.ndarray:
    """Rows of bytes less what the filter foretells from the rows above and the pixels to the left (section 9)."""
    import numpy as np

    if kind == _UP:
        return rows - above
    left = np.zeros_like(rows)
    left[:, step:] = rows[:, :-step]
    # the average of two bytes without their ninth bit
    return rows - (left if kind == _SUB else (left & above) + ((left ^ above) >> 1))


def _best_filter(rows: np.ndarray, step: int) -> int:
    """The filter that leaves a sample of the rows with the least entropy, which is about what Huffman codes cost."""
    import numpy as np

    sample, above = rows[1::_SAMPLED], rows[:-1:_SAMPLED]
    if not sample.size:
        return _SUB

    def cost(kind: int) -> float:
        counts = np.bincount(_filtered(sample, above, step, kind).ravel())
        return float(np.sum(counts * np.log2(sample.size / np.maximum(counts, 1))))

    return min((_SUB, _UP, _AVERAGE), key=cost)
