"""--wavelengths: a text file with a number a line, or a table with a column of them."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from pathlib import Path

from .cube import MICROMETRES_BELOW, CubeError

# names of the column, the surest first
COLUMN_NAMES = (
    re.compile(r"wave|lambda|\bwl\b|\bwvl\b", re.I),
    re.compile(r"cent(er|re)", re.I),
    re.compile(r"\b(nm|um)\b|µm|μm", re.I),
)
MICROMETRES = re.compile(r"(?<![a-z])(um|µm|μm|microns?|micromet(er|re)s?)(?![a-z])", re.I)
NANOMETRES = re.compile(r"(?<![a-z])(nm|nanomet(er|re)s?)(?![a-z])", re.I)
MOST_BYTES = 64_000_000


def read_wavelengths(path: Path, bands: int) -> tuple[float, ...]:
    """Wavelengths in nm, one a band.

    A heading may name the column and its unit; without a unit, numbers below 100 are micrometres. Lines that begin
    with # are left out. Of several columns without a heading the first one that rises or falls all the way and is more
    than a count counts. Raises CubeError where the numbers are not one a band.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise CubeError(f"--wavelengths {path}: {path.stat().st_size} bytes, expected a short text file")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise CubeError(f"--wavelengths {path}: not a text file, expected one number a line") from None
    except OSError as error:
        raise CubeError(f"--wavelengths {path}: cannot be read ({error.strerror or error})") from error
    numbered = enumerate(map(str.strip, text.splitlines()), 1)
    lines = {number: line for number, line in numbered if line and not line.startswith("#")}
    numbers, table = list(lines), [_cells(line) for line in lines.values()]
    heading: list[str] = []
    if table and all(_number(cell) is None for cell in table[0]):
        heading = table.pop(0)
        del numbers[0]
    if not table:
        raise CubeError(f"--wavelengths {path}: holds no numbers, expected {bands}, one a line")
    column = _column(path, table, heading)
    values = [_value(path, row, column, number) for number, row in zip(numbers, table, strict=True)]
    if len(values) == 1 and len(table[0]) == bands:
        # all of them in one line
        values = [_value(path, table[0], place, numbers[0]) for place in range(bands)]
    if len(values) != bands:
        raise CubeError(f"--wavelengths {path}: has {len(values)} numbers, the cube {bands} bands; expected one a band")
    unit = heading[column] if column < len(heading) else " ".join(heading)
    small = MICROMETRES.search(unit) or (not NANOMETRES.search(unit) and max(values) < MICROMETRES_BELOW)
    return tuple(round(value * 1000, 6) for value in values) if small else tuple(values)


def _cells(line: str) -> list[str]:
    if any(sign in line for sign in ";,\t"):
        cells = [cell.strip().strip('"') for cell in re.split(r"[;,\t]", line)]
    else:
        cells = [cell.strip('"') for cell in line.split()]
    # a separator at the end begins no column
    return cells[:-1] if len(cells) > 1 and not cells[-1] else cells


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _column(path: Path, table: list[list[str]], heading: list[str]) -> int:
    named = [
        place for name in COLUMN_NAMES for place, cell in enumerate(heading) if name.search(cell.replace("_", " "))
    ]
    width = min(map(len, table))
    if named and named[0] < width:
        return named[0]
    if width == 1 or len(table) == 1:
        return 0
    columns = [[_number(row[place]) for row in table] for place in range(width)]
    steady = [place for place, values in enumerate(columns) if _steady(values)]
    telling = [place for place in steady if not _counting(columns[place])]
    if not steady:
        raise CubeError(f"--wavelengths {path}: none of its {width} columns rises or falls all the way; keep only one")
    return (telling or steady)[0]


def _steady(values: list[float | None]) -> bool:
    known = [value for value in values if value is not None]
    steps = [after - before for before, after in pairwise(known)]
    return len(known) == len(values) and (all(step > 0 for step in steps) or all(step < 0 for step in steps))


def _counting(values: list[float | None]) -> bool:
    return values in ([float(n) for n in range(len(values))], [float(n + 1) for n in range(len(values))])


def _value(path: Path, row: list[str], column: int, line: int) -> float:
    value = _number(row[column]) if column < len(row) else None
    if value is None or value <= 0:
        got = row[column] if column < len(row) else ""
        raise CubeError(f"--wavelengths {path}: line {line}: got {got!r}, expected a number above 0")
    return value
