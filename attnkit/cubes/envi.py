"""ENVI: a text header and a binary data file. SPy reads and writes the header, the data are mapped."""

from __future__ import annotations

import json
import locale
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cube import CubeError, CubeInfo, check_dtype, exact, shape_of
from .envi_files import DATA_SUFFIXES, MOST_HEADER_BYTES, data_file, header_of, is_header
from .facts import described
from .tiles import CubeReader, CubeWriter, check_size, map_written

if TYPE_CHECKING:
    import numpy as np

INTERLEAVES = {
    "bsq": ("bands", "rows", "columns"),
    "bil": ("rows", "bands", "columns"),
    "bip": ("rows", "columns", "bands"),
}
TYPES = {
    1: "u1", 2: "i2", 3: "i4", 4: "f4", 5: "f8", 6: "c8", 9: "c16", 12: "u2", 13: "u4", 14: "i8", 15: "u8",
}  # fmt: skip
# fields that CubeInfo holds, or that say how the data lie
OWN_FIELDS = frozenset(
    {
        "samples", "lines", "bands", "header offset", "data type", "interleave", "byte order", "wavelength",
        "wavelength units", "bbl", "data ignore value", "reflectance scale factor", "description", "file type",
        "attnkit settings", "major frame offsets", "minor frame offsets", "file compression",
    }
)  # fmt: skip
SETTINGS_FIELD = "attnkit settings"
# the header's parser takes a value that begins with a brace for a list
SETTINGS_MARK = "json "


def read_header(path: Path) -> dict[str, Any]:
    """The header's fields by lower-case name. CubeError where it cannot be understood."""
    import spectral.io.envi as spy

    if path.stat().st_size > MOST_HEADER_BYTES:
        raise CubeError(f"{path}: {path.stat().st_size} bytes, expected an ENVI header of {MOST_HEADER_BYTES} at most")
    content = path.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            try:
                content.decode("utf-8")
                plain = not content.startswith(b"\xef\xbb\xbf")
            except UnicodeDecodeError:
                plain = False
            if plain:
                return spy.read_envi_header(str(path))
            # SPy knows one encoding only
            with tempfile.TemporaryDirectory() as folder:
                copy = Path(folder) / "copy.hdr"
                copy.write_text(_decoded(content), encoding="utf-8")
                return spy.read_envi_header(str(copy))
        except (spy.EnviException, UnicodeDecodeError) as error:
            raise CubeError(f"{path}: no ENVI header that can be read ({error}); check for unclosed braces") from error


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def read_info(path: Path) -> tuple[CubeInfo, int]:
    """What a header tells, and where in the data file the values begin, in bytes."""
    import numpy as np

    header = read_header(path)
    _check_kind(path, header)
    rows, columns, bands = (_whole(path, header, name) for name in ("lines", "samples", "bands"))
    code = _whole(path, header, "data type")
    if code not in TYPES:
        raise CubeError(f"{path}: data type {code}, expected one of {', '.join(map(str, TYPES))}")
    interleave = str(header.get("interleave", "bsq")).strip().lower()
    if interleave not in INTERLEAVES:
        raise CubeError(f"{path}: interleave {interleave!r}, expected bsq, bil or bip")
    if min(rows, columns, bands) < 1:
        raise CubeError(f"{path}: {columns}x{rows} pixels with {bands} bands, which holds nothing")
    byte_order, offset = _whole(path, header, "byte order", 0), _whole(path, header, "header offset", 0)
    if byte_order not in (0, 1):
        raise CubeError(f"{path}: byte order {byte_order}, expected 0 (little end first) or 1 (big end first)")
    if offset < 0:
        raise CubeError(f"{path}: header offset {offset}, expected 0 or more")
    dtype = check_dtype(np.dtype(TYPES[code]), str(path))
    flags = _numbers(path, header, "bbl", bands)
    info = CubeInfo(
        rows=rows,
        columns=columns,
        bands=bands,
        dtype=dtype,
        kind="envi",
        wavelengths=_numbers(path, header, "wavelength", bands),
        wavelength_units=header.get("wavelength units"),
        bad_bands=None if flags is None else tuple(flag == 0 for flag in flags),
        ignore_value=_number(path, header, "data ignore value"),
        reflectance_scale=_number(path, header, "reflectance scale factor"),
        description=header.get("description"),
        interleave=interleave,
        big_endian=byte_order == 1,
        extra={name: value for name, value in header.items() if name not in OWN_FIELDS},
    )
    return info, offset


def _check_kind(path: Path, header: dict[str, Any]) -> None:
    """Refuse what is no plain image."""
    kind = str(header.get("file type", "ENVI Standard")).strip()
    if "library" in kind.lower():
        raise CubeError(f"{path}: file type {kind}: spectra without a place, expected an image; name a cube instead")
    if not kind.lower().startswith("envi") or "meta" in kind.lower():
        raise CubeError(f"{path}: file type {kind}, expected ENVI Standard; if it is TIFF or HDF5, name the data file")
    if _whole(path, header, "file compression", 0):
        raise CubeError(f"{path}: file compression is on, expected plain data; decompress it first")
    for name in ("major frame offsets", "minor frame offsets"):
        value = header.get(name, [])
        if any(str(part).strip() not in ("", "0") for part in ([value] if isinstance(value, str) else value)):
            raise CubeError(f"{path}: {name} are {value}, expected none; save the image without them")


def _whole(path: Path, header: dict[str, Any], name: str, default: int | None = None) -> int:
    if name not in header and default is not None:
        return default
    try:
        return int(header[name])
    except KeyError:
        raise CubeError(f"{path}: the header has no field {name!r}, expected a whole number; add it") from None
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
    listed = [values] if isinstance(values, str) else list(values)
    if listed and not listed[-1]:
        # a comma after the last one
        listed.pop()
    try:
        found = tuple(float(value) for value in listed)
    except ValueError:
        raise CubeError(f"{path}: {name} is not a list of numbers; correct the header") from None
    if found and len(found) != bands:
        raise CubeError(f"{path}: {name} has {len(found)} values, the cube {bands} bands; correct the header")
    return found or None


def open_envi(path: Path) -> CubeReader:
    """Open a pair by its header or its data file. CubeError where the data are missing, short or too long."""
    import numpy as np

    with path.open("rb") as stream:
        named_header = is_header(stream.read(64))
    header = path if named_header else header_of(path)
    if header is None:
        raise CubeError(f"{path}: no ENVI header beside it that fits; expected {path.with_suffix('.hdr').name}")
    info, offset = read_info(header)
    data = data_file(header) if named_header else path
    if data is None:
        names = ", ".join(header.with_suffix(suffix).name for suffix in DATA_SUFFIXES[1:4])
        raise CubeError(f"{header}: its data file is missing; looked for {header.stem}, {names} and the like")
    hint = data.suffix.lower().lstrip(".")
    if hint in INTERLEAVES and hint != info.interleave:
        raise CubeError(f"{data}: named {hint}, its header says interleave {info.interleave}; correct the wrong one")
    said = f"its header says {info.columns}x{info.rows} pixels, {info.bands} bands of {info.dtype}"
    check_size(data, offset + info.rows * info.columns * info.bands * info.dtype.itemsize, said)
    axes = INTERLEAVES[info.interleave or "bsq"]
    array = np.memmap(data, _stored_dtype(info, info.dtype), "r", offset=offset, shape=shape_of(info, axes))
    return CubeReader(info, array, axes)


def _stored_dtype(info: CubeInfo, dtype: np.dtype[Any]) -> np.dtype[Any]:
    return dtype.newbyteorder(">" if info.big_endian else "<")


def create_envi(
    path: Path,
    info: CubeInfo,
    *,
    dtype: np.dtype[Any],
    settings: dict[str, Any],
    history: str,
    data: Path,
    resume: bool,
) -> CubeWriter:
    """Begin a pair: the data file is mapped at its full size, the header is written to `path` by `close`."""
    import numpy as np

    code = next((code for code, name in TYPES.items() if np.dtype(name) == dtype), None)
    if code is None:
        raise CubeError(f"ENVI has no type for {dtype}; give --dtype float32 or uint16, or another --format")
    axes = INTERLEAVES[info.interleave or "bsq"]
    array = map_written(data, _stored_dtype(info, dtype), shape_of(info, axes), resume=resume)
    return CubeWriter(array, axes, info, lambda: write_header(path, info, code, settings, history))


def write_header(path: Path, info: CubeInfo, code: int, settings: dict[str, Any], history: str) -> None:
    """Write a header that carries the fields of the input's."""
    import spectral.io.envi as spy

    fields: dict[str, Any] = {
        # a brace would end the description
        "description": described(info, history).translate(str.maketrans("{}", "()")),
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
        "data ignore value": None if info.ignore_value is None else exact(info.ignore_value),
        "reflectance scale factor": None if info.reflectance_scale is None else exact(info.reflectance_scale),
        "bbl": None if info.bad_bands is None else [int(not bad) for bad in info.bad_bands],
        "wavelength": None if info.wavelengths is None else [exact(value) for value in info.wavelengths],
        SETTINGS_FIELD: SETTINGS_MARK + json.dumps(settings, sort_keys=True),
    }
    fields.update({name: value for name, value in optional.items() if value is not None})
    spy.write_envi_header(str(path), {name: _encodable(value) for name, value in fields.items()})


def _encodable(value: Any) -> Any:
    """Text as SPy can write it: in the encoding of the locale."""
    if isinstance(value, list | tuple):
        return [_encodable(part) for part in value]
    if not isinstance(value, str):
        return value
    encoding = locale.getpreferredencoding(False)
    return value.encode(encoding, "replace").decode(encoding)


def read_settings(path: Path) -> dict[str, Any] | None:
    """The settings in a header, or None."""
    text = read_header(path).get(SETTINGS_FIELD)
    if not isinstance(text, str) or not text.startswith(SETTINGS_MARK):
        return None
    found = json.loads(text[len(SETTINGS_MARK) :])
    return found if isinstance(found, dict) else None
