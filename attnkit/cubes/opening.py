"""One door to all kinds of cube files."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnkit.runtime.errors import UsageError
from attnkit.runtime.items import Identity

from .cube import DEFAULT_AXIS_ORDER, CubeError, CubeInfo, axes_of
from .detect import SUFFIXES, holds_hdf5, identify
from .facts import settings_of
from .npy import SIDE_SUFFIX
from .tiff import PLANES
from .tiles import CubeReader, CubeWriter

if TYPE_CHECKING:
    import numpy as np

KINDS = tuple(dict.fromkeys(SUFFIXES.values()))
# the further file of an output, beside its main one
SIDE_SUFFIXES = {"npy": ".npy" + SIDE_SUFFIX}


def open_cube(
    path: Path,
    *,
    input_format: str | None = None,
    key: str | None = None,
    axis_order: str | None = None,
    wavelengths: Path | None = None,
) -> CubeReader:
    """Open a cube file of any kind for reading in tiles.

    input_format    its kind, else judged by its content
    key             variable of a .mat, dataset of an HDF5, array of an .npz
    axis_order      axes of an array that does not tell them, such as "bands,rows,columns"
    wavelengths     text file that takes the place of the wavelengths in the cube
    Raises CubeError for a file that cannot be used, UsageError for an axis_order that names no axes.
    """
    if axis_order is not None:
        axes_of(axis_order)
    try:
        # libraries have each their own words for a file that is not there
        path.open("rb").close()
        reader = _open(input_format or _identity(path).kind, path, key, axis_order)
    except OSError as error:
        raise CubeError(f"cannot read {path}: {error.strerror or error}") from error
    reader.name = str(path)
    if wavelengths is not None:
        from .wavelengths import read_wavelengths

        try:
            found = read_wavelengths(wavelengths, reader.info.bands)
        except BaseException:
            reader.close()
            raise
        reader.info = replace(reader.info, wavelengths=found, wavelength_units="Nanometers")
    return reader


def _identity(path: Path) -> Identity:
    with path.open("rb") as stream:
        identity = identify(path, stream.read(512))
    if identity is None:
        raise CubeError(f"{path}: no cube that this reads, expected {', '.join(KINDS)}; --input-format says which")
    return identity


def _open(kind: str, path: Path, key: str | None, axis_order: str | None) -> CubeReader:
    if kind == "envi":
        from .envi import open_envi

        return open_envi(path)
    if kind == "npy":
        from .npy import open_npy

        return open_npy(path, axis_order=axis_order)
    if kind == "npz":
        from .npz import open_npz

        return open_npz(path, key=key, axis_order=axis_order)
    if kind == "tiff":
        from .tiff import open_tiff

        return open_tiff(path, axis_order=axis_order)
    if kind == "hdf5" or (kind == "mat" and holds_hdf5(path)):
        from .hdf5 import open_hdf5

        return open_hdf5(path, kind=kind, key=key, axis_order=axis_order)
    if kind == "mat":
        from .mat import open_mat5

        return open_mat5(path, key=key, axis_order=axis_order)
    raise UsageError(f"--input-format: got {kind}, expected one of {', '.join(KINDS)}")


def read_settings(path: Path) -> dict[str, Any] | None:
    """The settings stored in an output of attnkit, or None where a file holds none or cannot be read."""
    with suppress(CubeError, OSError, ValueError):
        identity = _identity(path)
        if identity.kind == "envi":
            from .envi import read_settings as settings_of_envi

            return settings_of_envi(identity.path or path)
        return settings_of(_facts(identity.kind, path))
    return None


def _facts(kind: str, path: Path) -> dict[str, Any]:
    if kind == "npy":
        from .npy import side_facts

        return side_facts(path)
    if kind == "npz":
        from .npz import npz_facts

        return npz_facts(path)
    if kind == "tiff":
        from .tiff import tiff_facts

        return tiff_facts(path)
    if kind == "hdf5" or holds_hdf5(path):
        from .hdf5 import hdf5_facts

        return hdf5_facts(path)
    from .mat import mat5_facts

    return mat5_facts(path)


def create_cube(
    path: Path,
    info: CubeInfo,
    *,
    format: str,
    dtype: np.dtype[Any],
    settings: Mapping[str, Any],
    history: str,
    data_path: Path | None = None,
    resume: bool = False,
) -> CubeWriter:
    """Begin a cube file that takes tiles in any order.

    info        the header of the result
    format      a value of SUFFIXES; layout, interleave and key follow `info` where its kind is the same
    settings    stored in the file, for read_settings
    history     one line that is added to the description
    data_path   data file of an ENVI header (NAME.img beside it by default), facts of a .npy (NAME.npy.json)
    resume      go on with a file that an aborted writer of the same arguments has left
    Raises OSError where the disk has no room, CubeError for a type that the format has not.
    """
    import numpy as np

    if format != info.kind:
        # a TIFF of many bands is mostly wanted band by band
        order = PLANES if format == "tiff" else DEFAULT_AXIS_ORDER
        info = replace(info, key=None, version=None, axis_order=order, interleave=None, big_endian=False)
        info = replace(info, kind=format)
    dtype = np.dtype(dtype)
    common: dict[str, Any] = {"dtype": dtype, "settings": dict(settings), "history": history, "resume": resume}
    data = data_path or path.with_suffix(".img")
    side = data_path or path.with_name(path.name + SIDE_SUFFIX)
    try:
        return _create(path, info, format, data, side, common)
    except OSError:
        if not resume:
            (data if format == "envi" else path).unlink(missing_ok=True)
        raise


def _create(path: Path, info: CubeInfo, format: str, data: Path, side: Path, common: dict[str, Any]) -> CubeWriter:
    if format == "envi":
        from .envi import create_envi

        return create_envi(path, info, data=data, **common)
    if format == "npy":
        from .npy import create_npy

        return create_npy(path, info, side=side, **common)
    if format == "npz":
        from .npz import create_npz

        return create_npz(path, info, **common)
    if format == "tiff":
        from .tiff import create_tiff

        return create_tiff(path, info, **common)
    if format == "mat":
        from .mat import MOST_BYTES, create_mat5

        if info.version != "7.3" and info.bands * info.rows * info.columns * common["dtype"].itemsize <= MOST_BYTES:
            return create_mat5(path, info, **common)
    if format in ("hdf5", "mat"):
        from .hdf5 import create_hdf5

        return create_hdf5(path, info, **common)
    raise UsageError(f"--format: got {format}, expected one of {', '.join(KINDS)}")


def resumable(format: str) -> bool:
    """Whether a partial file of this format can be gone on with: all of them are mapped at their full size."""
    return format in KINDS
