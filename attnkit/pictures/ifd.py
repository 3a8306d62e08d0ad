"""Directories of TIFF and EXIF: parsing, editing and writing them, without a picture library.

Facts from TIFF 6.0 (1992), BigTIFF and EXIF 2.32.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from attnkit.runtime.errors import PictureError

WIDTHS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_CODES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I", 16: "Q", 17: "q", 18: "Q"}

ASCII, SHORT, LONG, RATIONAL, UNDEFINED = 2, 3, 4, 5, 7
ORIENTATION, EXIF_POINTER, GPS_POINTER, INTEROP_POINTER = 0x0112, 0x8769, 0x8825, 0xA005
# what describes the photograph, not the way its samples are stored or the program that stored them
_DESCRIPTIVE = (0x010E, 0x010F, 0x0110, 0x0132, 0x013B, 0x8298)


@dataclass(frozen=True)
class Field:
    """One entry of a directory: its type number, how many values, and their bytes, little-endian."""

    kind: int
    count: int
    raw: bytes

    @property
    def values(self) -> tuple[Any, ...]:
        """Numbers of the field; of rationals, the numerators and denominators in turn; of text, one string."""
        if self.kind == ASCII:
            return (self.raw.rstrip(b"\0").decode("utf-8", "replace"),)
        code = _CODES.get(self.kind)
        if code is None:
            return tuple(self.raw) if self.kind == UNDEFINED else struct.unpack(f"<{2 * self.count}I", self.raw)
        return struct.unpack(f"<{self.count}{code}", self.raw)


Directory = dict[int, Field]


def _swapped(kind: int, raw: bytes) -> bytes:
    width = {5: 4, 10: 4}.get(kind, WIDTHS[kind])
    if width == 1:
        return raw
    return b"".join(raw[start : start + width][::-1] for start in range(0, len(raw), width))


def byte_order(data: Any) -> str:
    """ "<" or ">" of TIFF-structured data; PictureError where it does not begin as such."""
    mark = bytes(data[:2])
    if mark not in (b"II", b"MM"):
        raise PictureError(f"TIFF directory begins with {mark!r}, expected b'II' or b'MM'")
    return "<" if mark == b"II" else ">"


def first_offset(data: Any) -> int:
    """Offset of the first directory."""
    order = byte_order(data)
    if len(data) < 8:
        raise PictureError("truncated in the TIFF header")
    big = struct.unpack_from(f"{order}H", data, 2)[0] == 43
    if big and len(data) < 16:
        raise PictureError("truncated in the BigTIFF header")
    return int(struct.unpack_from(f"{order}Q", data, 8)[0] if big else struct.unpack_from(f"{order}I", data, 4)[0])


def parse(data: Any, offset: int) -> Directory:
    """Fields of the directory at offset, of classic or Big TIFF; entries of unknown type are left out.

    Raises PictureError where the directory or a value lies outside the data.
    """
    order = byte_order(data)
    big = struct.unpack_from(f"{order}H", data, 2)[0] == 43
    count_code, entry_size, inline = ("Q", 20, 8) if big else ("H", 12, 4)
    start = offset + struct.calcsize(f"={count_code}")
    if start > len(data):
        raise PictureError(f"truncated: its directory lies at byte {offset}, the file has {len(data)}")
    (count,) = struct.unpack_from(f"{order}{count_code}", data, offset)
    if start + count * entry_size > len(data):
        raise PictureError(
            f"truncated in its directory: {count} entries at byte {offset}, the file has {len(data)} bytes"
        )
    found: Directory = {}
    for index in range(count):
        at = start + index * entry_size
        tag, kind, length = struct.unpack_from(f"{order}HH{'Q' if big else 'I'}", data, at)
        if kind not in WIDTHS:
            continue
        size = WIDTHS[kind] * length
        at += 12 if big else 8
        if size > inline:
            (at,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, at)
        if at + size > len(data):
            raise PictureError(f"truncated: tag {tag} needs {size} bytes at byte {at}, the file has {len(data)}")
        raw = bytes(data[at : at + size])
        found[tag] = Field(kind, length, raw if order == "<" else _swapped(kind, raw))
    return found


def number(directory: Mapping[int, Field], tag: int, default: int) -> int:
    """First value of a tag as a whole number."""
    entry = directory.get(tag)
    return int(entry.values[0]) if entry is not None and entry.count else default


def text_field(text: str) -> Field:
    raw = text.encode("utf-8") + b"\0"
    return Field(ASCII, len(raw), raw)


def short_field(*values: int) -> Field:
    return Field(SHORT, len(values), struct.pack(f"<{len(values)}H", *values))


def long_field(*values: int) -> Field:
    return Field(LONG, len(values), struct.pack(f"<{len(values)}I", *values))


def serialise(
    directory: Mapping[int, Field], base: int, inner: Mapping[int, Mapping[int, Field]] | None = None
) -> bytes:
    """Bytes of a little-endian classic directory that will lie at offset base, its values and inner directories
    behind it.

    inner maps a pointer tag (EXIF, GPS) to the directory that it points to; an inner directory may hold none of its
    own.
    """
    inner = inner or {}
    tags = sorted({*directory, *inner})
    tail_at = base + 2 + 12 * len(tags) + 4
    head, tail = [struct.pack("<H", len(tags))], bytearray()
    for tag in tags:
        if tag in inner:
            tail += bytes(-len(tail) % 2)
            position = tail_at + len(tail)
            tail += serialise(inner[tag], position)
            head.append(struct.pack("<HHII", tag, LONG, 1, position))
            continue
        entry = directory[tag]
        head.append(struct.pack("<HHI", tag, entry.kind, entry.count))
        if len(entry.raw) <= 4:
            head.append(entry.raw.ljust(4, b"\0"))
        else:
            tail += bytes(-len(tail) % 2)
            head.append(struct.pack("<I", tail_at + len(tail)))
            tail += entry.raw
    return b"".join(head) + bytes(4) + bytes(tail)


def orientation(exif: bytes | None) -> int:
    """EXIF orientation, 1 to 8; 1 where there is none or it cannot be read (a bad tag must not lose the picture)."""
    if not exif:
        return 1
    try:
        value = number(parse(exif, first_offset(exif)), ORIENTATION, 1)
    except (PictureError, struct.error):
        return 1
    return value if 1 <= value <= 8 else 1


def upright(exif: bytes) -> bytes | None:
    """The same EXIF block saying orientation 1 and without its thumbnail, which would show the picture as it was.

    Edited in place, so that maker notes, which count from the start of the block, stay valid. None where it cannot be
    read.
    """
    try:
        order = byte_order(exif)
        offset = first_offset(exif)
        block = bytearray(exif)
        (count,) = struct.unpack_from(f"{order}H", block, offset)
        for index in range(count):
            at = offset + 2 + 12 * index
            if struct.unpack_from(f"{order}H", block, at)[0] == ORIENTATION:
                struct.pack_into(f"{order}HIHH", block, at + 2, SHORT, 1, 1, 0)
        struct.pack_into(f"{order}I", block, offset + 2 + 12 * count, 0)
    except (PictureError, struct.error):
        return None
    return bytes(block)


def split_exif(exif: bytes) -> tuple[Directory, dict[int, Directory]]:
    """Descriptive tags of an EXIF block, and its EXIF and GPS directories by pointer tag; empty where it cannot be
    read."""
    try:
        main = parse(exif, first_offset(exif))
        inner = {tag: parse(exif, number(main, tag, 0)) for tag in (EXIF_POINTER, GPS_POINTER) if tag in main}
    except (PictureError, struct.error):
        return {}, {}
    for directory in inner.values():
        directory.pop(INTEROP_POINTER, None)
    return {tag: main[tag] for tag in _DESCRIPTIVE if tag in main}, inner


def exif_of_tiff(data: Any, main: Directory) -> bytes | None:
    """A free-standing EXIF block with what a TIFF file's first directory says of the photograph, or None."""
    kept = {tag: main[tag] for tag in _DESCRIPTIVE if tag in main}
    inner = {}
    for tag in (EXIF_POINTER, GPS_POINTER):
        if tag in main:
            inner[tag] = parse(data, number(main, tag, 0))
            inner[tag].pop(INTEROP_POINTER, None)
    if not kept and not inner:
        return None
    return b"II*\0" + struct.pack("<I", 8) + serialise(kept, 8, inner)
