"""ENVI: a text header and a binary data file. SPy reads and writes the header, the data are mapped."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnkit.runtime.errors import UsageError

from .cube import CubeError, CubeInfo, CubeReader, CubeWriter, check_dtype

if TYPE_CHECKING:
    import numpy as np

INTERLEAVES = {"bsq": ("bands", "rows", "columns"), "bil": ("rows", "bands", "columns"), "bip": ("rows", "columns", "bands")}
TYPES = {
    1: "u1", 2: "i2", 3: "i4", 4: "f4", 5: "f8", 6: "c8", 9: "c16", 12: "u2", 13: "u4", 14: "i8", 15: "u8",
}  # fmt: skip
DATA_SUFFIXES = ("", ".dat", ".img", ".raw", ".bin", ".bsq", ".bil", ".bip", ".sli", ".cube")
# fields that CubeInfo holds, or that say how the data lie
OWN_FIELDS = frozenset(
    {
        "samples", "lines", "bands", "header offset", "data type", "interleave", "byte order", "wavelength",
        "wavelength units", "bbl", "data ignore value", "reflectance scale factor", "description", "file type",
        "attnkit settings", "major frame offsets", "minor frame offsets", "file compression",
    }
)  # fmt: skip
# fields that name a band, and mean others once bands are cut away
BAND_FIELDS = frozenset({"fwhm", "band names", "default bands", "data gain values", "data offset values"})
SETTINGS_FIELD = "attnkit settings"
# the header's parser takes a value that begins with a brace for a list
SETTINGS_MARK = "json "


def data_file(header: Path) -> Path | None:
    """The data of a header, beside it under the same name; None where there is none."""
    stem = header.with_suffix("")
    for suffix in DATA_SUFFIXES:
        for name in {suffix, suffix.upper()}:
            found = stem.with_name(stem.name + name)
            if found.is_file() and found != header:
                return found
    return None


def header_of(data: Path) -> Path | None:
    """The header of a data file: NAME.hdr or NAME.SUFFIX.hdr."""
    for found in (data.with_suffix(".hdr"), data.with_name(data.name + ".hdr"), data.with_suffix(".HDR")):
        if found != data and found.is_file():
            with found.open("rb") as stream:
                if stream.read(4) == b"ENVI":
                    return found
    return None


def read_header(path: Path) -> dict[str, Any]:
    """The header's fields by lower-case name. CubeError where it cannot be understood."""
    import spectral.io.envi as spy

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return spy.read_envi_header(str(path))
        except (spy.EnviException, UnicodeDecodeError) as error:
            raise CubeError(f"{path}: not an ENVI header that can be read ({error}); check for unclosed braces") from error


def read_info(path: Path) -> tuple[CubeInfo, int]:
    """What a header tells, and where in the data file the values begin, in bytes."""
    import numpy as np

    header = read_header(path)
    rows, columns, bands = (_whole(path, header, name) for name in ("lines", "samples", "bands"))
    code = _whole(path, header, "data type")
    if code not in TYPES:
        raise CubeError(f"{path}: data type {code}, expected one of {', '.join(map(str, TYPES))}")
    interleave = str(header.get("interleave", "bsq")).strip().lower()
    if interleave not in INTERLEAVES:
        raise CubeError(f"{path}: interleave {interleave!r}, expected bsq, bil or bip")
    if min(rows, columns, bands) < 1:
        raise CubeError(f"{path}: {columns}x{rows} pixels with {bands} bands, which holds nothing")
    if _whole(path, header, "file compression", 0):
        raise CubeError(f"{path}: file compression is on, expected plain data; decompress it first")
    dtype = check_dtype(np.dtype(TYPES[code]), str(path))
    wavelengths = _numbers(path, header, "wavelength", bands)
    flags = _numbers(path, header, "bbl", bands)
    info = CubeInfo(
        rows=rows,
        columns=columns,
        bands=bands,
        dtype=dtype,
        kind="envi",
        wavelengths=wavelengths,
        wavelength_units=header.get("wavelength units"),
        bad_bands=None if flags is None else tuple(flag == 0 for flag in flags),
        ignore_value=_number(path, header, "data ignore value"),
        reflectance_scale=_number(path, header, "reflectance scale factor"),
        description=header.get("description"),
        interleave=interleave,
        big_endian=_whole(path, header, "byte order", 0) == 1,
        extra={name: value for name, value in header.items() if name not in OWN_FIELDS},
    )
    return info, _whole(path, header, "header offset", 0)


def _whole(path: Path, header: dict[str, Any], name: str, default: int | None = None) -> int:
    if name not in header and default is not None:
        return default
    try:
        return int(header[name])
    except KeyError:
        raise CubeError(f"{path}: the header has no field {name!r}") from None
    except (TypeError, ValueError):
        raise CubeError(f"{path}: {name} is {header[name]!r}, expected a whole number") from None


def _number(path: Path, header: dict[str, Any], name: str) -> float | None:
    if name not in header:
        return None
    try:
        return float(header[name])
    except (TypeError, ValueError):
        raise CubeError(f"{path}: {name} is {header[name]!r}, expected a number") from None


def _numbers(path: Path, header: dict[str, Any], name: str, bands: int) -> tuple[float, ...] | None:
    values = header.get(name)
    if values is None:
        return None
    try:
        found = tuple(float(value) for value in ([values] if isinstance(values, str) else values))
    except ValueError:
        raise CubeError(f"{path}: {name} is not a list of numbers") from None
    if len(found) != bands:
        raise CubeError(f"{path}: {name} has {len(found)} values, the cube {bands} bands; correct the header")
    return found


def open_envi(path: Path) -> CubeReader:
    """Open a pair by its header or its data file. CubeError where the data are missing, short or too long."""
    import numpy as np

    header = path
    with path.open("rb") as stream:
        if stream.read(4) != b"ENVI":
            found = header_of(path)
            if found is None:
                raise CubeError(f"{path}: no ENVI header beside it; expected {path.with_suffix('.hdr').name}")
            header = found
    info, offset = read_info(header)
    data = data_file(header) if header == path else path
    if data is None:
        names = ", ".join(header.with_suffix(suffix).name for suffix in DATA_SUFFIXES[1:4])
        raise CubeError(f"{header}: its data file is missing; looked for {header.stem}, {names} and the like")
    wanted = offset + info.rows * info.columns * info.bands * info.dtype.itemsize
    size = data.stat().st_size
    if size != wanted:
        said = f"{info.columns}x{info.rows} pixels, {info.bands} bands of {info.dtype}"
        what = "is cut short or the header is another's" if size < wanted else "does not fit the header"
        raise CubeError(f"{data}: holds {size} bytes, its header says {wanted} ({said}); the file {what}")
    axes = INTERLEAVES[info.interleave or "bsq"]
    sizes = {"bands": info.bands, "rows": info.rows, "columns": info.columns}
    array = np.memmap(
        data, _stored_dtype(info, info.dtype), "r", offset=offset, shape=tuple(sizes[name] for name in axes)
    )
    return CubeReader(info, array, axes)


def _stored_dtype(info: CubeInfo, dtype: np.dtype[Any]) -> np.dtype[Any]:
    return dtype.newbyteorder(">" if info.big_endian else "<")


def create_envi(
    path: Path, info: CubeInfo, dtype: np.dtype[Any], settings: dict[str, Any], history: str, data: Path, resume: bool
) -> CubeWriter:
    """Begin a pair: the data file is mapped at its full size, the header is written by `close`."""
    import numpy as np

    interleave = info.interleave or "bsq"
    axes = INTERLEAVES[interleave]
    code = next((code for code, name in TYPES.items() if np.dtype(name) == dtype), None)
    if code is None:
        raise UsageError(f"{path}: ENVI has no type for {dtype}; expected --dtype float32 or uint16, or another --format")
    sizes = {"bands": info.bands, "rows": info.rows, "columns": info.columns}
    if not resume:
        allocate(data, info.bands * info.rows * info.columns * dtype.itemsize)
    array = np.memmap(data, _stored_dtype(info, dtype), "r+", shape=tuple(sizes[name] for name in axes))

    def finish(array: Any) -> None:
        array.flush()
        write_header(path, info, code, settings, history)

    return CubeWriter(array, axes, (info.bands, info.rows, info.columns), finish=finish)


def allocate(path: Path, size: int) -> None:
    """Make a file of this size whose blocks are there: a full disk shows now, not as a crash while it is mapped."""
    import os

    with path.open("wb") as stream:
        if hasattr(os, "posix_fallocate") and size:
            os.posix_fallocate(stream.fileno(), 0, size)
        else:
            stream.truncate(size)


def write_header(path: Path, info: CubeInfo, code: int, settings: dict[str, Any], history: str) -> None:
    """Write a header that carries the fields of the input's."""
    import spectral.io.envi as spy

    fields: dict[str, Any] = {
        "description": "\n".join(part for part in (info.description, history) if part),
        "samples": info.columns,
        "lines": info.rows,
        "bands": info.bands,
        "header offset": 0,
        "file type": "ENVI Standard",
        "data type": code,
        "interleave": info.interleave or "bsq",
        "byte order": int(info.big_endian),
        **{name: value for name, value in info.extra.items() if name not in OWN_FIELDS},
    }
    optional = {
        "wavelength units": info.wavelength_units,
        "data ignore value": None if info.ignore_value is None else f"{info.ignore_value:g}",
        "reflectance scale factor": None if info.reflectance_scale is None else f"{info.reflectance_scale:g}",
        "bbl": None if info.bad_bands is None else [int(not bad) for bad in info.bad_bands],
        "wavelength": None if info.wavelengths is None else [f"{value:.10g}" for value in info.wavelengths],
        SETTINGS_FIELD: SETTINGS_MARK + json.dumps(settings, sort_keys=True),
    }
    fields.update({name: value for name, value in optional.items() if value is not None})
    spy.write_envi_header(str(path), fields)


def read_settings(path: Path) -> dict[str, Any] | None:
    """The settings in a header, or None."""
    text = read_header(path).get(SETTINGS_FIELD)
    if not isinstance(text, str) or not text.startswith(SETTINGS_MARK):
        return None
    found = json.loads(text[len(SETTINGS_MARK) :])
    return found if isinstance(found, dict) else None
