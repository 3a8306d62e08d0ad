"""HDF5 files, MATLAB's of version 7.3 among them: those hold each array with its axes reversed."""

from __future__ import annotations

import math
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cube import CubeError, CubeInfo, check_dtype, shape_of, sizes_of, stored_axes
from .facts import facts_text, read_facts, with_facts
from .mat import HEADER_TEXT_BYTES, MATLAB_NAMES, NUMBERS, check_class, variable_name
from .tiles import CubeReader, CubeWriter, allocate
from .variables import (
    DEFAULT_KEY,
    FACTS,
    WAVELENGTH_NAME,
    WAVELENGTHS,
    Variable,
    choose,
    settle_axes,
    wavelength_names,
)

if TYPE_CHECKING:
    import numpy as np

MATLAB_CLASS, MATLAB_DECODE = "MATLAB_class", "MATLAB_int_decode"
# chunks of a compressed dataset that are kept unpacked
CACHE_BYTES = 64_000_000
USER_BLOCK_BYTES = 512
MATLAB_VERSION = b"\x00\x02IM"
ALIGNMENT_BYTES = 64


def open_hdf5(path: Path, *, kind: str, key: str | None, axis_order: str | None) -> CubeReader:
    """Open a dataset by its path: rows, columns, bands unless `axis_order`, facts or wavelengths say otherwise."""
    file = _file(path)
    try:
        reader = _open(path, file, kind, key, axis_order)
    except (OSError, RuntimeError, KeyError) as error:
        file.close()
        raise _damaged(path, error) from error
    except BaseException:
        file.close()
        raise
    return reader


def _file(path: Path) -> Any:
    import h5py

    try:
        return h5py.File(path, "r", rdcc_nbytes=CACHE_BYTES)
    except OSError as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> CubeError:
    return CubeError(f"{path}: not a whole HDF5 file ({' '.join(str(error).split())[:200]}); copy the file again")


def _open(path: Path, file: Any, kind: str, key: str | None, axis_order: str | None) -> CubeReader:
    variables = _variables(file)
    chosen = choose(path, variables, key)
    where = f"{path} ({chosen})"
    dataset = file[chosen]
    stored = _real(dataset.dtype, where)
    shape = variables[chosen].shape
    facts = _facts(file)
    wavelengths, units = _wavelengths(file, dataset, variables, shape)
    count = None if wavelengths is None else len(wavelengths)
    axes = settle_axes(shape, asked=axis_order, stored=facts.get("axis_order"), wavelengths=count, where=where)
    matlab = MATLAB_CLASS in dataset.attrs
    info = CubeInfo(
        **sizes_of(shape, axes),
        dtype=stored,
        kind=kind,
        key=chosen,
        axis_order=",".join(axes),
        version="7.3" if matlab else None,
        ignore_value=_number(dataset.attrs.get("_FillValue")),
    )
    if wavelengths is not None and count == info.bands:
        info = replace(info, wavelengths=wavelengths, wavelength_units=units)
    return CubeReader(with_facts(info, facts), dataset, axes[::-1] if matlab else axes, close=file.close)


def _variables(file: Any) -> dict[str, Variable]:
    """All datasets by path, with the axes that their maker gave them."""
    import h5py

    found: dict[str, Variable] = {}

    def add(name: str, node: Any) -> None:
        if not isinstance(node, h5py.Dataset) or name.startswith("#"):
            return
        shape = node.shape or ()
        given = _text(node.attrs.get(MATLAB_CLASS))
        type = str(node.dtype) if given is None else given
        numbers = node.dtype.kind in "iufb" and (given is None or given in NUMBERS)
        found[name] = Variable(shape if given is None else shape[::-1], type, numbers)

    file.visititems(add)
    return found


def _real(dtype: np.dtype[Any], where: str) -> np.dtype[Any]:
    import numpy as np

    if dtype.names and set(dtype.names) in ({"real", "imag"}, {"r", "i"}):
        return check_dtype(np.dtype(np.complex128), where)
    return check_dtype(dtype, where)


def _wavelengths(
    file: Any, dataset: Any, variables: dict[str, Variable], shape: tuple[int, ...]
) -> tuple[tuple[float, ...] | None, str | None]:
    """Numbers and unit of the wavelengths: an attribute of the dataset or the file, or a dataset of its own."""
    for attributes in (dataset.attrs, file.attrs):
        for name in attributes:
            values = _numbers(attributes[name]) if WAVELENGTH_NAME.fullmatch(name.lower()) else None
            if values and len(values) in shape:
                return values, _unit(attributes, "wavelength_units", "wavelength_unit", "wavelength units")
    for name in wavelength_names(variables, shape):
        return tuple(map(float, file[name][()].ravel())), _unit(file[name].attrs, "units", "unit", "Units")
    return None, None


def _numbers(value: Any) -> tuple[float, ...] | None:
    import numpy as np

    text = _text(value)
    try:
        return tuple(map(float, text.strip("{}[] ").split(",") if text is not None else np.ravel(value)))
    except (TypeError, ValueError):
        return None


def _unit(attributes: Any, *names: str) -> str | None:
    return next((_text(attributes[name]) for name in names if name in attributes), None)


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value) if isinstance(value, str) else None


def _number(value: Any) -> float | None:
    numbers = None if value is None else _numbers(value)
    return numbers[0] if numbers and len(numbers) == 1 else None


def _facts(file: Any) -> dict[str, Any]:
    import h5py

    node = file.get(FACTS)
    if not isinstance(node, h5py.Dataset):
        return {}
    value = node[()]
    if MATLAB_CLASS in node.attrs:
        return read_facts("".join(map(chr, value.ravel())))
    return read_facts(_text(value) or "")


def hdf5_facts(path: Path) -> dict[str, Any]:
    """The facts in a file of ours; empty in another's."""
    with _file(path) as file:
        return _facts(file)


def create_hdf5(
    path: Path, info: CubeInfo, *, dtype: np.dtype[Any], settings: dict[str, Any], history: str, resume: bool
) -> CubeWriter:
    """Begin a file whose cube lies in one piece; tiles go to their places past the HDF5 library.

    A MATLAB file of version 7.3 where `info.kind` is "mat".
    """
    import numpy as np

    matlab = info.kind == "mat"
    if matlab:
        check_class(dtype)
    axes = stored_axes(info)
    order = axes[::-1] if matlab else axes
    shape = shape_of(info, order)
    text = facts_text(info, settings, history, axis_order=",".join(axes))
    key = variable_name(info.key) if matlab else (info.key or DEFAULT_KEY)
    if resume:
        offset = _begun(path, key, shape, dtype, text)
    else:
        # a full disk is a plain OSError here, and an error without a number in the library
        path.touch()
        allocate(path, math.prod(shape) * dtype.itemsize)
        try:
            offset = _begin(path, key, shape, dtype, text, info, matlab)
        except (OSError, RuntimeError) as error:
            raise _system_error(error) from error
        allocate(path, path.stat().st_size)
    return CubeWriter(np.memmap(path, dtype, "r+", offset, shape), order, info, lambda: None)


def _begin(
    path: Path, key: str, shape: tuple[int, ...], dtype: np.dtype[Any], text: str, info: CubeInfo, matlab: bool
) -> int:
    import h5py
    import numpy as np

    block = USER_BLOCK_BYTES if matlab else 0
    with h5py.File(
        path, "w", userblock_size=block, alignment_threshold=ALIGNMENT_BYTES, alignment_interval=ALIGNMENT_BYTES
    ) as file:
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_layout(h5py.h5d.CONTIGUOUS)
        plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        plan.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        plan.set_obj_track_times(False)
        links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
        links.set_create_intermediate_group(True)
        wavelengths = None if info.wavelengths is None else np.array(info.wavelengths)
        if matlab:
            letters = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.uint16)[:, None]
            file.create_dataset(FACTS, data=letters).attrs.update(
                {MATLAB_CLASS: np.bytes_("char"), MATLAB_DECODE: np.int32(2)}
            )
            if wavelengths is not None:
                row = file.create_dataset(WAVELENGTHS, data=wavelengths[:, None])
                row.attrs[MATLAB_CLASS] = np.bytes_("double")
        else:
            file[FACTS] = np.bytes_(text)
            if wavelengths is not None and key != WAVELENGTHS:
                file[WAVELENGTHS] = wavelengths
                if info.wavelength_units:
                    file[WAVELENGTHS].attrs["units"] = info.wavelength_units
        h5py.h5d.create(
            file.id, key.encode(), h5py.h5t.py_create(dtype), h5py.h5s.create_simple(shape), dcpl=plan, lcpl=links
        )
        if matlab:
            file[key].attrs[MATLAB_CLASS] = np.bytes_(MATLAB_NAMES.get(dtype.name, dtype.name))
        offset = file[key].id.get_offset()
    if matlab:
        with path.open("r+b") as stream:
            start = b"MATLAB 7.3 MAT-file, attnkit, HDF5 schema 1.00 .".ljust(HEADER_TEXT_BYTES)
            stream.write(start + bytes(8) + MATLAB_VERSION)
    return int(offset)


def _system_error(error: Exception) -> Exception:
    """The system's error behind one of the HDF5 library, which tells its number in words only."""
    number = re.search(r"errno = (\d+)", str(error))
    return error if number is None else OSError(int(number[1]), os.strerror(int(number[1])))


def _begun(path: Path, key: str, shape: tuple[int, ...], dtype: np.dtype[Any], text: str) -> int:
    """Where the cube lies in a file begun before. CubeError where it is another's."""
    import h5py

    with _file(path) as file:
        node = file.get(key)
        stored = _facts(file)
        if isinstance(node, h5py.Dataset) and stored == read_facts(text) and (node.shape, node.dtype) == (shape, dtype):
            return int(node.id.get_offset())
    raise CubeError(f"{path}: begun by a run with other options; remove it and start again")
