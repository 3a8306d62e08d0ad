"""NumPy archives: an array of an .npz is mapped where it is stored plainly, and read whole where it is compressed."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cube import CubeError, CubeInfo, check_dtype, shape_of, sizes_of, stored_axes
from .facts import facts_text, read_facts, with_facts
from .npy import array_header, npy_prefix
from .tiles import ZEROS_BYTES, CubeReader, CubeWriter, Packed, map_written
from .variables import DEFAULT_KEY, FACTS, WAVELENGTHS, Variable, choose, settle_axes, wavelength_names

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SUFFIX = ".npy"
LOCAL_HEADER_BYTES = 30
# the same bytes from the same cube
ZIP_DATE = (1980, 1, 1, 0, 0, 0)


def open_npz(path: Path, *, key: str | None, axis_order: str | None) -> CubeReader:
    """Open an array of an archive: rows, columns, bands unless `axis_order`, facts or wavelengths say otherwise."""
    with _archive(path) as archive:
        variables = _variables(path, archive)
        facts = _facts(archive)
        chosen = choose(path, variables, key)
        where = f"{path} ({chosen})"
        info_of = archive.getinfo(chosen + SUFFIX)
        with archive.open(info_of) as stream:
            shape, column_major, stored = array_header(stream, where)
            prefix = stream.tell()
        dtype = check_dtype(stored, where)
        beside = [(name, variables[name]) for name in wavelength_names(variables, shape)]
        count = max(beside[0][1].shape) if beside else None
        axes = settle_axes(shape, asked=axis_order, stored=facts.get("axis_order"), wavelengths=count, where=where)
        info = CubeInfo(**sizes_of(shape, axes), dtype=dtype, kind="npz", key=chosen, axis_order=",".join(axes))
        if beside and count == info.bands:
            values = _load(path, archive, beside[0][0]).ravel()
            info = replace(info, wavelengths=tuple(map(float, values)))
        info = with_facts(info, facts)
    if column_major:
        shape, axes = shape[::-1], axes[::-1]
    if info_of.compress_type != zipfile.ZIP_STORED:

        def unpack() -> NDArray[Any]:
            with _archive(path) as archive:
                values = _load(path, archive, chosen)
            return values.T if column_major else values

        return CubeReader(info, Packed(shape, unpack), axes)
    wanted = prefix + math.prod(shape) * stored.itemsize
    if info_of.file_size < wanted:
        raise CubeError(f"{where}: cut short: holds {info_of.file_size} bytes, expected {wanted}; copy the file again")
    import numpy as np

    return CubeReader(info, np.memmap(path, stored, "r", _offset(path, info_of) + prefix, shape), axes)


def _archive(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, ValueError) as error:
        raise CubeError(f"{path}: not a whole .npz archive ({error}); copy the file again") from error


def _variables(path: Path, archive: zipfile.ZipFile) -> dict[str, Variable]:
    found = {}
    for member in archive.infolist():
        if not member.filename.endswith(SUFFIX):
            continue
        name = member.filename.removesuffix(SUFFIX)
        try:
            with archive.open(member) as stream:
                shape, _, dtype = array_header(stream, f"{path} ({name})")
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise CubeError(f"{path} ({name}): cannot be unpacked ({error}); copy the file again") from error
        found[name] = Variable(shape, str(dtype), dtype.kind in "iufb")
    return found


def _load(path: Path, archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    import numpy as np

    try:
        with archive.open(name + SUFFIX) as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
        raise CubeError(f"{path} ({name}): cannot be unpacked ({error}); copy the file again") from error


def _facts(archive: zipfile.ZipFile) -> dict[str, Any]:
    import numpy as np

    try:
        with archive.open(FACTS + SUFFIX) as stream:
            return read_facts(str(np.lib.format.read_array(stream, allow_pickle=False)))
    except (KeyError, ValueError, zipfile.BadZipFile, zlib.error, EOFError):
        return {}


def npz_facts(path: Path) -> dict[str, Any]:
    """The facts in an archive of ours; empty in another's."""
    with _archive(path) as archive:
        return _facts(archive)


def _offset(path: Path, member: zipfile.ZipInfo) -> int:
    """Where the bytes of a member begin: its local header may be longer than the directory's entry says."""
    with path.open("rb") as stream:
        stream.seek(member.header_offset)
        header = stream.read(LOCAL_HEADER_BYTES)
    name, extra = int.from_bytes(header[26:28], "little"), int.from_bytes(header[28:30], "little")
    return member.header_offset + LOCAL_HEADER_BYTES + name + extra


def create_npz(
    path: Path, info: CubeInfo, *, dtype: np.dtype[Any], settings: dict[str, Any], history: str, resume: bool
) -> CubeWriter:
    """Begin an archive whose first member is the cube, stored plainly; `close` adds checksum, facts and directory."""
    axes = stored_axes(info)
    shape = shape_of(info, axes)
    inner = npy_prefix(dtype, shape)
    member = zipfile.ZipInfo((info.key or DEFAULT_KEY) + SUFFIX, ZIP_DATE)
    member.file_size = member.compress_size = len(inner) + math.prod(shape) * dtype.itemsize
    member.CRC = member.header_offset = 0
    prefix = member.FileHeader(zip64=True) + inner
    array = map_written(path, dtype, shape, prefix=prefix, resume=resume)
    text = facts_text(info, settings, history, axis_order=",".join(axes))

    def finish() -> None:
        _finish(path, member, text, info)

    return CubeWriter(array, axes, info, finish)


def _finish(path: Path, member: zipfile.ZipInfo, text: str, info: CubeInfo) -> None:
    import numpy as np

    with path.open("r+b") as stream:
        start = len(member.FileHeader(zip64=True))
        stream.seek(start)
        left = member.file_size
        while left:
            block = stream.read(min(left, ZEROS_BYTES))
            member.CRC = zlib.crc32(block, member.CRC)
            left -= len(block)
        end = stream.tell()
        stream.seek(0)
        stream.write(member.FileHeader(zip64=True))
        stream.seek(end)
        with zipfile.ZipFile(stream, "w") as archive:
            archive.filelist.append(member)
            archive.NameToInfo[member.filename] = member
            further = {FACTS: np.array(text)}
            if info.wavelengths is not None:
                further[WAVELENGTHS] = np.array(info.wavelengths)
            for name, values in further.items():
                packed = io.BytesIO()
                np.save(packed, values, allow_pickle=False)
                archive.writestr(zipfile.ZipInfo(name + SUFFIX, ZIP_DATE), packed.getvalue())
