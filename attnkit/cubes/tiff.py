"""Multi-band TIFF, read by tifffile: bands as samples (beside one another or in planes) or as pages."""

from __future__ import annotations

import math
import struct
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cube import CubeError, CubeInfo, check_dtype, cube_axes, exact, shape_of, sizes_of, stored_axes
from .facts import facts_text, read_facts, with_facts
from .tiff_segments import Segments
from .tiles import CubeReader, CubeWriter, allocate, check_size
from .wavelengths import MICROMETRES

if TYPE_CHECKING:
    import numpy as np

PLANES, PIXELS = "bands,rows,columns", "rows,columns,bands"
# georeference: tag -> type
GEO_TAGS = {33550: "d", 33922: "d", 34264: "d", 34735: "H", 34736: "d", 34737: "s"}
GDAL_METADATA, GDAL_NODATA = 42112, 42113
STRIP_BYTES = 64_000_000
# a file that may grow beyond 4 GB needs wider offsets
BIG_BYTES = 2**32 - 2**25
MOST_BANDS = 65_535


def _tifffile() -> Any:
    """The library, kept from saying on standard error what it thinks of a file."""
    import logging

    import tifffile

    logger = logging.getLogger("tifffile")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return tifffile


def open_tiff(path: Path, *, axis_order: str | None) -> CubeReader:
    """Open a TIFF: mapped where its values lie in one piece, else strip by strip or tile by tile."""
    tifffile = _tifffile()
    try:
        file = tifffile.TiffFile(path)
        try:
            return _open(path, file, axis_order)
        except BaseException:
            file.close()
            raise
    except (tifffile.TiffFileError, struct.error, ValueError, IndexError, KeyError, TypeError) as error:
        said = " ".join(str(error).split())[:200]
        raise CubeError(f"{path}: not a whole TIFF file ({said}); copy the file again") from error


def _open(path: Path, file: Any, axis_order: str | None) -> CubeReader:
    import numpy as np

    if not file.series:
        raise CubeError(f"{path}: holds no picture, expected a cube")
    series = max(file.series, key=lambda found: found.size)
    page = series.keyframe
    shape, natural = _layout(series)
    if series.dtype is None:
        raise CubeError(f"{path}: {page.bitspersample} bits of sample format {page.sampleformat}, which no array has")
    dtype = check_dtype(series.dtype, str(path))
    axes = cube_axes(shape, axis_order or natural, str(path))
    info = CubeInfo(**sizes_of(shape, axes), dtype=dtype, kind="tiff", axis_order=",".join(axes))
    info = _described(info, series.pages[0])
    said = f"{info.columns}x{info.rows} pixels, {info.bands} bands of {dtype}"
    if series.dataoffset is not None:
        stored = series.dtype.newbyteorder(file.byteorder)
        check_size(path, series.dataoffset + math.prod(shape) * stored.itemsize, said, longer=True)
        array: Any = np.memmap(path, stored, "r", series.dataoffset, shape)
        file.close()
        return CubeReader(info, array, axes)
    segments = Segments(path, file, list(series.pages), shape)
    check_size(path, segments.end, said, longer=True)
    segments.check()
    return CubeReader(info, segments, axes, close=file.close)


def _layout(series: Any) -> tuple[tuple[int, ...], str]:
    """Shape of the whole with its axes of length 1, which tifffile leaves out, and the order that it suggests."""
    planes, depth, rows, columns, samples = series.keyframe.shaped
    pages = len(series.pages)
    if depth == 1 and pages * planes * rows * columns * samples == series.size:
        if pages == planes == samples == 1:
            return (rows, columns), PLANES
        if planes == samples == 1:
            return (pages, rows, columns), PLANES
        if pages == planes == 1:
            return (rows, columns, samples), PIXELS
        if pages == samples == 1:
            return (planes, rows, columns), PLANES
    return tuple(series.shape), PIXELS if series.axes.endswith("S") else PLANES


def _described(info: CubeInfo, page: Any) -> CubeInfo:
    """`info` with what the tags say."""
    tags = page.tags
    geotiff = {code: _values(tags[code].value) for code in GEO_TAGS if code in tags}
    text = page.description or ""
    facts = read_facts(text)
    ignore = None
    if GDAL_NODATA in tags:
        try:
            ignore = float(str(tags[GDAL_NODATA].value).strip("\0 "))
        except ValueError:
            ignore = None
    metadata = str(tags[GDAL_METADATA].value) if GDAL_METADATA in tags else ""
    wavelengths, units = _gdal_wavelengths(metadata, info.bands)
    # a description in JSON or XML is a program's, not a person's
    plain = text if text and not facts and text.lstrip()[:1] not in ("{", "<") else None
    info = replace(
        info,
        geotiff=geotiff,
        ignore_value=ignore,
        description=plain,
        wavelengths=wavelengths,
        wavelength_units=units,
    )
    return with_facts(info, facts)


def _values(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def _gdal_wavelengths(text: str, bands: int) -> tuple[tuple[float, ...] | None, str | None]:
    """Wavelengths that GDAL holds as one item a band."""
    from xml.etree import ElementTree

    try:
        items = ElementTree.fromstring(text.strip("\0 ")).iter("Item")
        found, unit = {}, None
        for item in items:
            name, value = item.get("name", "").lower(), (item.text or "").strip()
            if name in ("wavelength_units", "wavelength_unit"):
                unit = value
            elif name in ("wavelength", "central_wavelength_um", "central_wavelength_nm") and item.get("sample"):
                number, _, rest = value.partition(" ")
                found[int(item.get("sample", ""))] = float(number)
                unit = "Micrometers" if MICROMETRES.search(name.replace("_", " ") + " " + rest) else unit
    except (ElementTree.ParseError, ValueError):
        return None, None
    return (tuple(found[band] for band in range(bands)), unit) if set(found) == set(range(bands)) else (None, None)


def tiff_facts(path: Path) -> dict[str, Any]:
    """The facts in a file of ours; empty in another's."""
    tifffile = _tifffile()
    try:
        with tifffile.TiffFile(path) as file:
            return read_facts(file.pages.first.description or "")
    except (tifffile.TiffFileError, struct.error, ValueError, IndexError, KeyError, TypeError):
        return {}


def create_tiff(
    path: Path, info: CubeInfo, *, dtype: np.dtype[Any], settings: dict[str, Any], history: str, resume: bool
) -> CubeWriter:
    """Begin a TIFF with the bands as samples: in planes, or beside one another where `info.axis_order` says so."""
    import numpy as np

    tifffile = _tifffile()
    if info.bands > MOST_BANDS:
        raise CubeError(f"{path}: {info.bands} bands, TIFF takes {MOST_BANDS}; choose another --format")
    axes = ("rows", "columns") if info.bands == 1 else stored_axes(info)
    if axes not in (("rows", "columns"), tuple(PIXELS.split(","))):
        axes = tuple(PLANES.split(","))
    shape = shape_of(info, axes)
    text = facts_text(info, settings, history)
    if resume:
        offset = _begun(path, shape, dtype, text)
    else:
        line = info.columns * dtype.itemsize * (info.bands if axes[-1] == "bands" else 1)
        big = math.prod(shape) * dtype.itemsize > BIG_BYTES
        with tifffile.TiffWriter(path, bigtiff=big) as file:
            place = file.write(
                data=None,
                shape=shape,
                dtype=dtype,
                photometric="minisblack",
                planarconfig=None if info.bands == 1 else ("contig" if axes[-1] == "bands" else "separate"),
                rowsperstrip=max(1, min(info.rows, STRIP_BYTES // line)),
                description=text,
                metadata=None,
                software="attnkit",
                extratags=_further_tags(info, dtype),
                align=4096,
                returnoffset=True,
            )
        assert place is not None
        offset = place[0]
        allocate(path, path.stat().st_size)
    return CubeWriter(np.memmap(path, dtype, "r+", offset, shape), axes, info, lambda: None)


def _further_tags(info: CubeInfo, dtype: np.dtype[Any]) -> list[tuple[Any, ...]]:
    tags: list[tuple[Any, ...]] = []
    for code, values in sorted(info.geotiff.items()):
        type = GEO_TAGS[code]
        tags.append((code, type, 0, str(values[0]), True) if type == "s" else (code, type, len(values), values, True))
    text = _no_data(info.ignore_value, dtype)
    if text is not None:
        tags.append((GDAL_NODATA, "s", 0, text, True))
    return tags


def _no_data(value: float | None, dtype: np.dtype[Any]) -> str | None:
    """A value as GDAL writes it; None where the type cannot hold it."""
    import numpy as np

    if value is None:
        return None
    if dtype.kind == "f":
        return exact(value) if math.isnan(value) or abs(value) <= float(np.finfo(dtype).max) else None
    limits = np.iinfo(dtype)
    return str(int(value)) if limits.min <= value <= limits.max and float(value).is_integer() else None


def _begun(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], text: str) -> int:
    """Where the values lie in a file begun before. CubeError where it is another's."""
    with _tifffile().TiffFile(path) as file:
        series = file.series[0]
        if (_layout(series)[0], series.dtype, series.keyframe.description) == (shape, dtype, text):
            assert series.dataoffset is not None
            return series.dataoffset
    raise CubeError(f"{path}: begun by a run with other options; remove it and start again")
