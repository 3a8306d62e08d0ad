"""Colour look-up tables in .cube files: read, apply, and write the global part of a method for other programs.

The format is Adobe's "Cube LUT Specification 1.0" (2013), with the two-stage files (a 1-D shaper before the 3-D table)
and the input ranges that grading programs write. A table reaches from 0 to 1 and scene light does not, so our own files
state the encoding that comes first in a comment; `read_cube` finds it there again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnkit.runtime.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SIZE_3D = (2, 256)
_SIZE_1D = (2, 65536)
_SHAPER_TAG = "attnkit shaper:"
_LINEAR_TAG = "attnkit input: linear"
_KEYWORD = re.compile(r"[A-Za-z_]")


@dataclass(frozen=True)
class LogShaper:
    """Encoding of linear light before the table: clip(slope * log2(gain * x + offset) + shift, 0, 1)."""

    gain: float
    offset: float
    slope: float
    shift: float

    def encode(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Linear light of any shape in the table's domain 0..1."""
        import cv2
        import numpy as np

        light = np.asarray(pixels, dtype=np.float32)
        flat = light.reshape(max(len(light), 1), -1) * np.float32(self.gain) + np.float32(self.offset)
        logarithm = cv2.log(np.maximum(flat, np.float32(1e-38)))
        encoded = logarithm * np.float32(self.slope / math.log(2.0)) + np.float32(self.shift)
        return np.clip(encoded, 0.0, 1.0, out=encoded).reshape(light.shape)

    def linear_at(self, encoded: float) -> float:
        """Linear light that is encoded as `encoded`."""
        return float((2.0 ** ((encoded - self.shift) / self.slope) - self.offset) / self.gain)


@dataclass(frozen=True)
class Cube:
    """A .cube file.

    table       [3, N, N, N] float32, index [channel, blue, green, red], or None in a 1-D file
    curves      [3, M] float32, applied before the table, or None
    domain      (low, high) of the table's (or 1-D file's) input, three numbers each
    curve_domain (low, high) of the curves' input
    shaper      encoding of linear light that comes first; None where there is none
    takes_linear  the input is linear light (our own files say so); files of other programs expect a finished picture
    """

    table: NDArray[np.float32] | None
    curves: NDArray[np.float32] | None = None
    domain: tuple[tuple[float, ...], tuple[float, ...]] = ((0.0,) * 3, (1.0,) * 3)
    curve_domain: tuple[tuple[float, ...], tuple[float, ...]] = ((0.0,) * 3, (1.0,) * 3)
    shaper: LogShaper | None = None
    takes_linear: bool = False
    title: str = ""

    def apply(self, pixels: NDArray[Any], interpolation: str = "tetrahedral") -> NDArray[np.float32]:
        """Send a picture (rows, columns, 3) through the table; the result is (rows, columns, 3) float32, not clipped.

        Linear light for a file that `takes_linear`, else display values. Input outside the domain is clamped to it.
        """
        import numpy as np

        values = np.asarray(pixels, dtype=np.float32)
        if self.shaper is not None:
            values = self.shaper.encode(values)
        if self.curves is not None:
            values = _through_curves(_normalise(values, self.curve_domain), self.curves)
        if self.table is None:
            return values
        from attnkit_kernels.image import lut3d

        planar = np.ascontiguousarray(_normalise(values, self.domain).transpose(2, 0, 1))[None]
        return np.ascontiguousarray(lut3d.lookup(planar, self.table, interpolation)[0].transpose(1, 2, 0))


def _normalise(values: NDArray[Any], domain: tuple[tuple[float, ...], tuple[float, ...]]) -> NDArray[np.float32]:
    import numpy as np

    low, high = (np.array(side, dtype=np.float32) for side in domain)
    if not low.any() and (high == 1.0).all():
        return values
    return (values - low) / (high - low)


def _through_curves(values: NDArray[Any], curves: NDArray[np.float32]) -> NDArray[np.float32]:
    import numpy as np

    positions = np.linspace(0.0, 1.0, curves.shape[1], dtype=np.float32)
    result = np.empty_like(values)
    for channel in range(3):
        result[..., channel] = np.interp(values[..., channel], positions, curves[channel])
    return result


def read_cube(path: str | Path) -> Cube:
    """Read a .cube file; UsageError names the line and what was expected there."""
    path = Path(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UsageError(f"--lut {path}: {error.strerror or error}; expected a .cube file") from None
    if b"\0" in raw[:4096]:
        raise UsageError(f"--lut {path}: got a binary file, expected a .cube text file")
    return parse_cube(raw.decode("utf-8-sig", errors="replace"), str(path))


def parse_cube(text: str, name: str = "cube") -> Cube:
    """The table of a .cube text; `name` stands in front of errors."""
    import numpy as np

    lines = text.splitlines()
    head = _Head(name)
    body = len(lines)
    for at, line in enumerate(lines):
        if not head.take(at + 1, line.strip()):
            body = at
            break
    head.check()
    rows = _numbers(name, lines, body)
    expected = (head.size_1d or 0) + (head.size_3d or 0) ** 3
    if len(rows) != expected:
        last = max((at + 1 for at, line in enumerate(lines) if line.strip()), default=1)
        raise UsageError(f"--lut {name}:{last}: got {len(rows)} rows of numbers, expected {expected} {head.sizes()}")
    curves = table = None
    if head.size_1d:
        curves = np.ascontiguousarray(rows[: head.size_1d].T)
    if head.size_3d:
        size = head.size_3d
        table = np.ascontiguousarray(rows[head.size_1d or 0 :].reshape(size, size, size, 3).transpose(3, 0, 1, 2))
    domain = (head.low, head.high)
    own = {"domain": head.range_3d or domain, "curve_domain": head.range_1d or domain}
    if head.size_1d and head.size_3d and not head.range_3d:
        # in a two-stage file the domain is that of the first stage; the curves lead into 0..1
        own["domain"] = ((0.0,) * 3, (1.0,) * 3)
    return Cube(table, curves, shaper=head.shaper, takes_linear=head.takes_linear, title=head.title, **own)


class _Head:
    """Keywords of a .cube file, taken line by line until the first row of numbers."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.title = ""
        self.size_1d: int | None = None
        self.size_3d: int | None = None
        self.low: tuple[float, ...] = (0.0,) * 3
        self.high: tuple[float, ...] = (1.0,) * 3
        self.range_1d: tuple[tuple[float, ...], tuple[float, ...]] | None = None
        self.range_3d: tuple[tuple[float, ...], tuple[float, ...]] | None = None
        self.shaper: LogShaper | None = None
        self.takes_linear = False

    def take(self, number: int, line: str) -> bool:
        """Use one line; False where the numbers begin."""
        if line.startswith("#"):
            comment = line.lstrip("# ")
            self.takes_linear |= comment.startswith((_LINEAR_TAG, _SHAPER_TAG))
            if comment.startswith(_SHAPER_TAG):
                self.shaper = self._shaper(number, comment)
            return True
        if not line:
            return True
        # nan and inf look like keywords but are numbers gone wrong: the number reader refuses them better
        if not _KEYWORD.match(line) or line.split()[0].lower() in ("nan", "inf", "infinity"):
            return False
        keyword, _, rest = line.partition(" ") if " " in line else line.partition("\t")
        rest = rest.strip()
        if keyword == "TITLE":
            self.title = rest.strip('"')
        elif keyword == "LUT_3D_SIZE":
            self.size_3d = self._size(number, keyword, rest, _SIZE_3D)
        elif keyword == "LUT_1D_SIZE":
            self.size_1d = self._size(number, keyword, rest, _SIZE_1D)
        elif keyword == "DOMAIN_MIN":
            self.low = self._values(number, keyword, rest, 3)
        elif keyword == "DOMAIN_MAX":
            self.high = self._values(number, keyword, rest, 3)
        elif keyword in ("LUT_1D_INPUT_RANGE", "LUT_3D_INPUT_RANGE"):
            low, high = self._values(number, keyword, rest, 2)
            if not low < high:
                self._refuse(number, f"{keyword}: got {low:g} {high:g}, expected the smaller number first")
            setattr(self, f"range_{keyword[4:6].lower()}", ((low,) * 3, (high,) * 3))
        else:
            self._refuse(
                number,
                f"unknown keyword {keyword!r}, expected TITLE, LUT_1D_SIZE, LUT_3D_SIZE, DOMAIN_MIN, DOMAIN_MAX, "
                "LUT_1D_INPUT_RANGE or LUT_3D_INPUT_RANGE",
            )
        return True

    def check(self) -> None:
        if self.size_1d is None and self.size_3d is None:
            self._refuse(1, "no LUT_3D_SIZE or LUT_1D_SIZE line, expected a .cube file")
        if any(not low < high for low, high in zip(self.low, self.high, strict=True)):
            low, high = (" ".join(f"{value:g}" for value in side) for side in (self.low, self.high))
            self._refuse(1, f"DOMAIN_MIN {low} must be below DOMAIN_MAX {high}")

    def sizes(self) -> str:
        parts = [f"LUT_1D_SIZE {self.size_1d}"] if self.size_1d else []
        parts += [f"LUT_3D_SIZE {self.size_3d}"] if self.size_3d else []
        return f"({' and '.join(parts)})"

    def _size(self, number: int, keyword: str, text: str, limits: tuple[int, int]) -> int:
        size = int(text) if text.isascii() and text.isdigit() else -1
        if not limits[0] <= size <= limits[1]:
            self._refuse(
                number, f"{keyword}: got {text or 'nothing'}, expected a whole number {limits[0]} to {limits[1]}"
            )
        return size

    def _values(self, number: int, keyword: str, text: str, count: int) -> tuple[float, ...]:
        try:
            values = tuple(float(part) for part in text.split())
        except ValueError:
            values = ()
        if len(values) != count or not all(math.isfinite(value) for value in values):
            self._refuse(number, f"{keyword}: got {text or 'nothing'}, expected {count} numbers")
        return values

    def _shaper(self, number: int, comment: str) -> LogShaper:
        parts = dict(part.split("=", 1) for part in comment[len(_SHAPER_TAG) :].split() if "=" in part)
        try:
            shaper = LogShaper(*(float(parts[key]) for key in ("gain", "offset", "slope", "shift")))
        except (KeyError, ValueError):
            self._refuse(number, f"{_SHAPER_TAG} got {comment[len(_SHAPER_TAG) :].strip()}, expected log2 gain= ...")
        if not (shaper.gain > 0 and shaper.slope > 0 and shaper.offset >= 0):
            self._refuse(number, f"{_SHAPER_TAG} gain and slope must be above 0 and offset not below")
        return shaper

    def _refuse(self, number: int, text: str) -> Any:
        raise UsageError(f"--lut {self.name}:{number}: {text}")


def _numbers(name: str, lines: Sequence[str], body: int) -> NDArray[np.float32]:
    """Rows of three numbers from line index `body` on; comments and empty lines between them are left out."""
    import numpy as np

    kept = [
        (at, line) for at, line in enumerate(lines[body:], body) if line.strip() and not line.lstrip().startswith("#")
    ]
    if not kept:
        return np.empty((0, 3), dtype=np.float32)
    try:
        rows = np.loadtxt([line for _, line in kept], dtype=np.float32, ndmin=2, comments=None)
        if rows.shape[1] == 3 and np.isfinite(rows).all():
            return rows
    except ValueError:
        pass
    # something is wrong: look for the line, slowly
    for at, line in kept:
        try:
            good = len([value for value in map(float, line.split()) if math.isfinite(value)]) == 3 == len(line.split())
        except ValueError:
            good = False
        if not good:
            raise UsageError(f"--lut {name}:{at + 1}: got {line.strip()[:60]!r}, expected three finite numbers")
    raise UsageError(f"--lut {name}: the rows hold numbers beyond float32")


def write_cube(cube: Cube, notes: Sequence[str] = ()) -> str:
    """Text of a .cube file with a 3-D table; `notes` become comment lines below the title.

    A shaper is written as a formula for people and as one line for `read_cube`.
    """
    if cube.table is None or cube.curves is not None:
        raise ValueError("write_cube: expected a cube with a 3-D table and no curves")
    import numpy as np

    size = cube.table.shape[1]
    head = [f'TITLE "{cube.title.replace(chr(34), chr(39))}"'] if cube.title else []
    head += [f"# {note}" for note in notes]
    if cube.shaper is not None:
        head += [f"# {line}" for line in _shaper_lines(cube.shaper)]
    elif cube.takes_linear:
        head += ["# input: linear light (Rec.709 primaries, D65) as it is, clipped to the domain", f"# {_LINEAR_TAG}"]
    head.append(f"LUT_3D_SIZE {size}")
    for keyword, values in zip(("DOMAIN_MIN", "DOMAIN_MAX"), cube.domain, strict=True):
        head.append(f"{keyword} {' '.join(f'{value:g}' for value in values)}")
    rows = np.asarray(cube.table, dtype=np.float64).transpose(1, 2, 3, 0).reshape(-1, 3).tolist()
    return "\n".join(head) + "\n" + "".join([f"{red:.7f} {green:.7f} {blue:.7f}\n" for red, green, blue in rows])


def _shaper_lines(shaper: LogShaper) -> list[str]:
    return [
        "input: linear light x of each channel (Rec.709 primaries, D65), encoded before the table by",
        f"  e = {shaper.slope:.9g} * log2({shaper.gain:.9g} * x + {shaper.offset:.9g}) + {shaper.shift:.9g}, "
        "clipped to 0..1",
        f"  so the domain 0..1 holds light from {max(shaper.linear_at(0.0), 0.0):.6g} to {shaper.linear_at(1.0):.6g}",
        "  (a program without such a shaper: encode the picture by this formula first)",
        f"{_SHAPER_TAG} log2 " + " ".join(f"{key}={float(value)!r}" for key, value in asdict(shaper).items()),
    ]
