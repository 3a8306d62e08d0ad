"""Tell what a file is by its bytes, and which files make one item. Imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

from attnkit.pictures.detect import sniff as picture_kind
from attnkit.runtime.items import Identity

from .envi_files import data_file, header_of, is_header

# suffix of an output -> its kind
SUFFIXES = {
    ".hdr": "envi",
    ".mat": "mat",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".he5": "hdf5",
    ".npy": "npy",
    ".npz": "npz",
    ".tif": "tiff",
    ".tiff": "tiff",
}
# kinds whose files may hold several arrays, and those whose arrays do not say which axis is which
KINDS_WITH_KEYS = frozenset({"mat", "hdf5", "npz"})
KINDS_WITH_AXES = KINDS_WITH_KEYS | {"npy", "tiff"}
HDF5_START = b"\x89HDF\r\n\x1a\n"
MATLAB_73_START = b"MATLAB 7.3"
HDF5_OFFSETS = (0, 512, 1024, 2048, 4096)
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def sniff(head: bytes, path: Path | None = None) -> str | None:
    """Kind of a cube file by its first bytes (512 suffice): a value of SUFFIXES, or None for anything else.

    An ENVI header is told from a Radiance picture by its content; the data file of a pair has no mark of its own.
    `path` settles what bytes leave open: MATLAB files before version 5 and HDF5 behind a user's block.
    """
    suffix = "" if path is None else path.suffix.lower()
    if is_header(head):
        return "envi"
    if head.startswith(b"\x93NUMPY"):
        return "npy"
    if head.startswith(b"PK\x03\x04"):
        name = head[30 : 30 + int.from_bytes(head[26:28], "little")]
        return "npz" if name.endswith(b".npy") else None
    if head.startswith((b"MATLAB 5", MATLAB_73_START)):
        return "mat"
    if head.startswith(HDF5_START):
        return "mat" if suffix == ".mat" else "hdf5"
    if head.startswith(TIFF_STARTS):
        # most camera RAW files are TIFF files inside
        return None if picture_kind(head, path) == "raw" else "tiff"
    if path is not None and suffix in SUFFIXES and holds_hdf5(path):
        return "mat" if suffix == ".mat" else "hdf5"
    return "mat" if suffix == ".mat" else None


def holds_hdf5(path: Path) -> bool:
    """Whether HDF5 is inside, at the start or behind a block of someone else's, as in MATLAB files of version 7.3."""
    try:
        with path.open("rb") as stream:
            if stream.read(len(MATLAB_73_START)) == MATLAB_73_START:
                return True
            for offset in HDF5_OFFSETS:
                stream.seek(offset)
                if stream.read(len(HDF5_START)) == HDF5_START:
                    return True
    except OSError:
        pass
    return False


def identify(path: Path, head: bytes) -> Identity | None:
    """What a file is, with the files that belong to it; both files of an ENVI pair give the same answer."""
    kind = sniff(head, path)
    if kind is None:
        header = header_of(path)
        return None if header is None else Identity("envi", header, (path,))
    if kind == "envi":
        data = data_file(path)
        return Identity(kind, path, () if data is None else (data,))
    if kind == "npy":
        from .npy import side_file

        side = side_file(path)
        return Identity(kind, path, (side,) if side.is_file() else ())
    return Identity(kind)
