"""NumPy arrays: .npy files, mapped, with their settings in a .json beside them."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cube import DEFAULT_AXIS_ORDER, CubeError, CubeInfo, check_dtype, cube_axes, shape_of, sizes_of, stored_axes
from .facts import facts_text, read_facts, with_facts
from .tiles import CubeReader, CubeWriter, check_size, map_written

if TYPE_CHECKING:
    import numpy as np

SIDE_SUFFIX = ".json"
MOST_SIDE_BYTES = 64_000_000


def side_file(path: Path) -> Path:
    """Where the facts of an array lie: NAME.npy.json."""
    return path.with_name(path.name + SIDE_SUFFIX)


def side_facts(path: Path) -> dict[str, Any]:
    """The facts beside an array; empty where there are none."""
    try:
        side = side_file(path)
        if side.stat().st_size > MOST_SIDE_BYTES:
            return {}
        return read_facts(side.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return {}


def array_header(stream: Any, where: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, column-major or not, and type of the .npy array that begins here. CubeError where there is none."""
    from numpy.lib import format as npy

    try:
        version = npy.read_magic(stream)
        if version == (1, 0):
            return npy.read_array_header_1_0(stream)
        if version == (2, 0):
            return npy.read_array_header_2_0(stream)
    except ValueError as error:
        raise CubeError(f"{where}: not a whole .npy array ({error}); copy the file again") from error
    raise CubeError(f"{where}: .npy version {'.'.join(map(str, version))}, which only records have; expected numbers")


def open_npy(path: Path, *, axis_order: str | None) -> CubeReader:
    """Open a .npy file: rows, columns, bands unless `axis_order` or the facts beside it say otherwise."""
    import numpy as np

    with path.open("rb") as stream:
        shape, column_major, stored = array_header(stream, str(path))
        offset = stream.tell()
    dtype = check_dtype(stored, str(path))
    facts = side_facts(path)
    order = axis_order or facts.get("axis_order")
    axes = cube_axes(shape, order if order and order.count(",") == 2 else None, str(path))
    wanted = offset + math.prod(shape) * stored.itemsize
    check_size(path, wanted, f"shape {shape} of {stored}", longer=True)
    info = CubeInfo(**sizes_of(shape, axes), dtype=dtype, kind="npy", axis_order=",".join(axes))
    if column_major:
        shape, axes = shape[::-1], axes[::-1]
    return CubeReader(with_facts(info, facts), np.memmap(path, stored, "r", offset, shape), axes)


def npy_prefix(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """The bytes of a .npy file before its values."""
    from numpy.lib import format as npy

    stream = io.BytesIO()
    fields = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": tuple(shape)}
    npy.write_array_header_1_0(stream, fields)
    return stream.getvalue()


def create_npy(
    path: Path,
    info: CubeInfo,
    *,
    dtype: np.dtype[Any],
    settings: dict[str, Any],
    history: str,
    side: Path,
    resume: bool,
) -> CubeWriter:
    """Begin an array file; its facts are written to `side` by `close`."""
    axes = stored_axes(info)
    shape = shape_of(info, axes)
    array = map_written(path, dtype, shape, prefix=npy_prefix(dtype, shape), resume=resume)
    order = ",".join(axes)
    text = facts_text(info, settings, history, axis_order=None if order == DEFAULT_AXIS_ORDER else order)

    def finish() -> None:
        side.write_text(text + "\n", encoding="ascii")

    return CubeWriter(array, axes, info, finish)
