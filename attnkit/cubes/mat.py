"""MATLAB files before 7.3, read by SciPy; written plainly, so that tiles go straight to their places."""

from __future__ import annotations

import io
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cube import CubeError, CubeInfo, check_dtype, shape_of, sizes_of, stored_axes
from .facts import facts_text, read_facts, with_facts
from .tiles import CubeReader, CubeWriter, Packed, map_written
from .variables import DEFAULT_KEY, FACTS, WAVELENGTHS, Variable, choose, settle_axes, wavelength_names

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NUMBERS = frozenset(
    {"double", "single", "logical", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))}
)
# MATLAB's class of an array and type of its stored values, by NumPy's name
CLASSES = {
    "float64": (6, 9), "float32": (7, 7), "int8": (8, 1), "uint8": (9, 2), "int16": (10, 3), "uint16": (11, 4),
    "int32": (12, 5), "uint32": (13, 6), "int64": (14, 12), "uint64": (15, 13),
}  # fmt: skip
MATLAB_NAMES = {"float64": "double", "float32": "single"}
NUMPY_NAMES = {"logical": "uint8", **{name: own for own, name in MATLAB_NAMES.items()}}
MATRIX, INT8, INT32, UINT32 = 14, 1, 5, 6
HEADER_TEXT_BYTES = 116
# what MATLAB takes for one variable of such a file
MOST_BYTES = 2**31 - 1


def open_mat5(path: Path, *, key: str | None, axis_order: str | None) -> CubeReader:
    """Open a variable, to be read whole: such files are at most 2 GB and mostly compressed. Its type is its class.

    Complex values show when it is read.
    """
    import numpy as np

    variables = _variables(path)
    chosen = choose(path, variables, key)
    where = f"{path} ({chosen})"
    if not variables[chosen].numbers:
        raise CubeError(f"{where}: is a {variables[chosen].type}, expected numbers; it holds {', '.join(variables)}")
    shape = variables[chosen].shape
    beside = wavelength_names(variables, shape)
    loaded = _load(path, [FACTS, *beside])
    # MATLAB stores the whole numbers of a wide class in a narrow type
    dtype = np.dtype(NUMPY_NAMES.get(variables[chosen].type, variables[chosen].type))
    facts = facts_in(loaded)
    count = loaded[beside[0]].size if beside else None
    axes = settle_axes(shape, asked=axis_order, stored=facts.get("axis_order"), wavelengths=count, where=where)
    info = CubeInfo(
        **sizes_of(shape, axes), dtype=dtype, kind="mat", key=chosen, axis_order=",".join(axes), version="5"
    )
    if beside and count == info.bands:
        info = replace(info, wavelengths=tuple(map(float, loaded[beside[0]].ravel())))

    def unpack() -> NDArray[Any]:
        values = _load(path, [chosen])[chosen]
        check_dtype(values.dtype, where)
        return values

    return CubeReader(with_facts(info, facts), Packed(shape, unpack), axes)


def _variables(path: Path) -> dict[str, Variable]:
    import scipy.io

    try:
        found = scipy.io.whosmat(str(path), appendmat=False)
    except Exception as error:
        # SciPy raises whatever its parser stumbles over
        raise _damaged(path, error) from error
    return {name: Variable(tuple(shape), type, type in NUMBERS) for name, shape, type in found}


def _load(path: Path, names: list[str]) -> dict[str, Any]:
    import scipy.io

    try:
        return scipy.io.loadmat(str(path), appendmat=False, variable_names=names)
    except Exception as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> CubeError:
    said = " ".join(str(error).split()) or type(error).__name__
    return CubeError(f"{path}: not a whole MATLAB file ({said[:200]}); copy the file again")


def facts_in(loaded: Mapping[str, Any]) -> dict[str, Any]:
    """The facts among loaded variables."""
    text = loaded.get(FACTS)
    return {} if text is None or text.size != 1 else read_facts(str(text.ravel()[0]))


def mat5_facts(path: Path) -> dict[str, Any]:
    """The facts in a file of ours; empty in another's."""
    return facts_in(_load(path, [FACTS]))


def variable_name(key: str | None) -> str:
    """A name that MATLAB takes."""
    name = (key or DEFAULT_KEY).rpartition("/")[2]
    return name if re.fullmatch(r"[A-Za-z]\w{0,62}", name, re.ASCII) and name != FACTS else DEFAULT_KEY


def check_class(dtype: np.dtype[Any]) -> None:
    if dtype.name not in CLASSES:
        raise CubeError(f"MATLAB has no type for {dtype}; give --dtype float32 or uint16, or another --format")


def create_mat5(
    path: Path, info: CubeInfo, *, dtype: np.dtype[Any], settings: dict[str, Any], history: str, resume: bool
) -> CubeWriter:
    """Begin a file of version 5 whose last variable is the cube, not compressed."""
    import numpy as np
    import scipy.io

    check_class(dtype)
    axes = stored_axes(info)
    shape = shape_of(info, axes)
    small: dict[str, Any] = {FACTS: facts_text(info, settings, history, axis_order=",".join(axes))}
    if info.wavelengths is not None:
        small[WAVELENGTHS] = np.array(info.wavelengths)
    stream = io.BytesIO()
    scipy.io.savemat(stream, small, oned_as="row")
    # SciPy puts the time here
    start = b"MATLAB 5.0 MAT-file, attnkit".ljust(HEADER_TEXT_BYTES) + stream.getvalue()[HEADER_TEXT_BYTES:]
    count = math.prod(shape) * dtype.itemsize
    end = -count % 8
    prefix = start + _matrix_start(variable_name(info.key), dtype.name, shape, count, end)
    # MATLAB counts the first axis fastest
    array = map_written(path, dtype.newbyteorder("<"), shape[::-1], prefix=prefix, end=end, resume=resume)
    return CubeWriter(array, axes[::-1], info, lambda: None)


def _matrix_start(name: str, dtype: str, shape: tuple[int, ...], count: int, end: int) -> bytes:
    """Tags of a numeric array before its values; the values and `end` bytes follow."""
    class_code, type_code = CLASSES[dtype]
    flags = struct.pack("<IIII", UINT32, 8, class_code, 0)
    dimensions = _element(INT32, struct.pack(f"<{len(shape)}i", *shape))
    inner = flags + dimensions + _element(INT8, name.encode("ascii")) + struct.pack("<II", type_code, count)
    return struct.pack("<II", MATRIX, len(inner) + count + end) + inner


def _element(type_code: int, data: bytes) -> bytes:
    return struct.pack("<II", type_code, len(data)) + data + bytes(-len(data) % 8)
