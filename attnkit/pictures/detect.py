"""Tell what a file is by its bytes. Imports nothing heavy: planning looks at thousands of files."""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path
from typing import Any

from attnkit.pictures import ifd
from attnkit.runtime.errors import PictureError

KINDS = ("radiance", "exr", "pfm", "tiff", "png", "jpeg")
_SUFFIX_FORMATS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".tif": "tiff", ".tiff": "tiff", ".exr": "exr"}
_RAW_SUFFIXES = {
    *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos", ".mrw"),
    *(".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
}
_RAW_STARTS = (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FOVb", b"\0MRM", b"II\x1a\0\0\0HEAPCCDR")
_SUB_DIRECTORIES, _PHOTOMETRIC, _COMPRESSION, _DNG_VERSION = 330, 262, 259, 50706
_MOSAIC, _LINEAR_RAW = 32803, 34892
# Nikon, Sony, Pentax and Samsung raw codings
_RAW_CODINGS = {34713, 32767, 65535, 32770}


def format_of_suffix(path: str | os.PathLike[str]) -> str | None:
    """Output format that a file name asks for: "png", "jpeg", "tiff", "exr", or None."""
    return _SUFFIX_FORMATS.get(Path(path).suffix.lower())


def sniff(head: bytes, path: str | os.PathLike[str] | None = None) -> str | None:
    """Kind of a picture file by its first bytes (64 suffice): one of KINDS, "raw" for camera RAW, None for anything
    else.

    Most camera RAW files are TIFF files inside: to tell them apart, path is opened where given and head is not the
    whole file; where there is no file behind path, a RAW suffix decides. An ENVI header (also called .hdr) is None.
    """
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head.startswith(b"\x76\x2f\x31\x01"):
        return "exr"
    if head.startswith(b"#?"):
        return "radiance"
    if head[:2] in (b"PF", b"Pf") and head[2:3].isspace():
        return "pfm"
    if head.startswith(_RAW_STARTS) or head[4:12] == b"ftypcrx ":
        return "raw"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        if head[8:10] == b"CR" or head[8:12] == b"IIII":
            return "raw"
        return "raw" if _holds_raw(head, path) else "tiff"
    return None


def sniff_file(path: str | os.PathLike[str]) -> str | None:
    """sniff of a file on disk; PictureError where it cannot be opened."""
    try:
        with open(path, "rb") as stream:
            return sniff(stream.read(64), path)
    except OSError as error:
        raise PictureError(f"cannot read {path}: {error.strerror or error}") from error


def _holds_raw(head: bytes, path: str | os.PathLike[str] | None) -> bool:
    if path is not None:
        try:
            with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as whole:
                return _directories_hold_raw(whole)
        except (OSError, ValueError):
            if Path(path).suffix.lower() in _RAW_SUFFIXES:
                return True
    return _directories_hold_raw(head)


def _directories_hold_raw(data: Any) -> bool:
    try:
        main = ifd.parse(data, ifd.first_offset(data))
        if _DNG_VERSION in main:
            return True
        inner = [int(offset) for offset in main[_SUB_DIRECTORIES].values] if _SUB_DIRECTORIES in main else []
        for directory in (main, *(ifd.parse(data, offset) for offset in inner)):
            if ifd.number(directory, _PHOTOMETRIC, 0) in (_MOSAIC, _LINEAR_RAW):
                return True
            if ifd.number(directory, _COMPRESSION, 1) in _RAW_CODINGS:
                return True
    except (PictureError, struct.error):
        # a cut file: the TIFF reader will say so
        return False
    return False
