"""What a header says of a part of its cube."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from .cube import CubeInfo, exact

# one value a band
BAND_FIELDS = frozenset({"fwhm", "band names", "data gain values", "data offset values", "data reflectance gain values",
                         "data reflectance offset values"})  # fmt: skip
# GeoTIFF: pixel (column, row, 0) = place, and the 4 x 4 matrix from pixels to places
TIE_POINTS, TRANSFORMATION = 33922, 34264


def cut(info: CubeInfo, bands: Sequence[int], rows: tuple[int, int], columns: tuple[int, int]) -> CubeInfo:
    """The facts of `bands` and of rows and columns from start to stop; see CubeInfo.cut."""

    def kept(values: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        return None if values is None else tuple(values[band] for band in bands)

    extra = {
        name: [value[band] for band in bands] if _per_band(name, value, info.bands) else value
        for name, value in info.extra.items()
    }
    _renumber(extra, bands)
    if (rows[0], columns[0]) != (0, 0):
        _shift(extra, rows[0], columns[0])
    return replace(
        info,
        bands=len(bands),
        rows=rows[1] - rows[0],
        columns=columns[1] - columns[0],
        wavelengths=kept(info.wavelengths),
        bad_bands=kept(info.bad_bands),
        geotiff=_shifted_tags(info.geotiff, rows[0], columns[0]),
        extra=extra,
    )


def _per_band(name: str, value: Any, bands: int) -> bool:
    return name in BAND_FIELDS and isinstance(value, list | tuple) and len(value) == bands


def _renumber(extra: dict[str, Any], bands: Sequence[int]) -> None:
    # the bands of a picture, counted from 1: worthless once one of them is gone
    shown = extra.get("default bands")
    if shown is None:
        return
    places = {band + 1: place + 1 for place, band in enumerate(bands)}
    try:
        extra["default bands"] = [str(places[int(text)]) for text in ([shown] if isinstance(shown, str) else shown)]
    except (KeyError, ValueError):
        del extra["default bands"]


def _shift(extra: dict[str, Any], row: int, column: int) -> None:
    """Move the origin of all that counts pixels to (row, column)."""
    for name, step in (("x start", column), ("y start", row)):
        if name in extra:
            moved = _moved([extra[name]], [-step])
            if moved is None:
                del extra[name]
            else:
                extra[name] = moved[0]
    map_info = extra.get("map info")
    if isinstance(map_info, list) and len(map_info) > 2:
        # projection, then the tie point's column and row, counted from 1
        moved = _moved(map_info[1:3], (column, row))
        if moved is None:
            del extra["map info"]
        else:
            extra["map info"] = [map_info[0], *moved, *map_info[3:]]
    points = extra.get("geo points")
    if isinstance(points, list):
        # column, row, latitude, longitude of each point
        moved = _moved(points, [(column, row, 0, 0)[place % 4] for place in range(len(points))])
        if moved is None:
            del extra["geo points"]
        else:
            extra["geo points"] = moved
    extra.pop("rpc info", None)


def _moved(values: Sequence[str], steps: Sequence[int]) -> list[str] | None:
    try:
        return [
            value if step == 0 else exact(float(value) - step) for value, step in zip(values, steps, strict=True)
        ]
    except (TypeError, ValueError):
        return None


def _shifted_tags(tags: Mapping[int, tuple[Any, ...]], row: int, column: int) -> dict[int, tuple[Any, ...]]:
    moved = dict(tags)
    if TIE_POINTS in moved:
        steps = (column, row, 0, 0, 0, 0)
        moved[TIE_POINTS] = tuple(value - steps[place % 6] for place, value in enumerate(moved[TIE_POINTS]))
    matrix = moved.get(TRANSFORMATION, ())
    if len(matrix) == 16:
        moved[TRANSFORMATION] = tuple(
            value + matrix[place - 3] * column + matrix[place - 2] * row if place % 4 == 3 else value
            for place, value in enumerate(matrix)
        )
    return moved
