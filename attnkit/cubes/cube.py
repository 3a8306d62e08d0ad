"""What every cube file has in common: the facts of its header, and arrays read and written in tiles."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from attnkit.runtime.errors import ItemError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

AXES = ("bands", "rows", "columns")
DEFAULT_AXIS_ORDER = "rows,columns,bands"
# bytes of a mapped file that one step of a read or write may touch
STEP_BYTES = 64_000_000
NM_PER_UNIT = {"nanometers": 1.0, "nm": 1.0, "micrometers": 1000.0, "um": 1000.0, "microns": 1000.0, "µm": 1000.0}


class CubeError(ItemError):
    """A cube file could not be read or written."""


@dataclass(frozen=True)
class CubeInfo:
    """What a cube's header tells.

    dtype               of the stored values, in the machine's byte order
    wavelengths         as in the file, in `wavelength_units`
    bad_bands           True for a band that the file marks as bad
    reflectance_scale   what reflectance was multiplied by, where the file says so
    interleave, big_endian, data_suffix    of an ENVI file
    extra               further header fields, carried as they are
    """

    rows: int
    columns: int
    bands: int
    dtype: np.dtype[Any]
    kind: str
    wavelengths: tuple[float, ...] | None = None
    wavelength_units: str | None = None
    bad_bands: tuple[bool, ...] | None = None
    ignore_value: float | None = None
    reflectance_scale: float | None = None
    description: str | None = None
    interleave: str | None = None
    big_endian: bool = False
    key: str | None = None
    axis_order: str = DEFAULT_AXIS_ORDER
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def wavelengths_nm(self) -> tuple[float, ...] | None:
        """Wavelengths in nm; without a known unit, numbers below 100 are taken for micrometres."""
        if self.wavelengths is None:
            return None
        factor = NM_PER_UNIT.get((self.wavelength_units or "").strip().lower())
        if factor is None:
            factor = 1000.0 if max(self.wavelengths) < 100 else 1.0
        return tuple(round(value * factor, 6) for value in self.wavelengths)


def axes_of(order: str) -> tuple[str, ...]:
    """The axes that --axis-order names; UsageError unless it is bands, rows and columns in some order."""
    names = tuple(part.strip() for part in order.split(","))
    if sorted(names) != sorted(AXES):
        raise UsageError(f"--axis-order: got {order!r}, expected rows, columns and bands in the order of the array")
    return names


def cube_axes(shape: tuple[int, ...], order: str | None, where: str) -> tuple[str, ...]:
    """Names of an array's axes; two axes are one band. CubeError for another number of axes or an empty array."""
    if len(shape) == 2:
        names: tuple[str, ...] = ("rows", "columns")
    elif len(shape) == 3:
        names = axes_of(order or DEFAULT_AXIS_ORDER)
    else:
        raise CubeError(f"{where}: has shape {shape}, expected two axes (one band) or three")
    if 0 in shape:
        raise CubeError(f"{where}: has shape {shape}, which holds nothing")
    return names


def check_dtype(dtype: np.dtype[Any], where: str) -> np.dtype[Any]:
    """The type in native byte order. CubeError for complex numbers, text and objects."""
    if dtype.kind == "c":
        raise CubeError(f"{where}: complex values ({dtype}), expected real ones; take magnitude or real part first")
    if dtype.kind not in "iufb":
        raise CubeError(f"{where}: values of type {dtype}, expected whole numbers or floats")
    return dtype.newbyteorder("=")


class CubeReader:
    """A cube as [bands, rows, columns], read tile by tile from an array of any axis order.

    `array` may be mapped from a file or an HDF5 dataset: nothing but the tiles asked for is held in memory.
    """

    def __init__(
        self,
        info: CubeInfo,
        array: Any,
        axes: tuple[str, ...],
        *,
        in_memory: bool = False,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self.info = info
        self.in_memory = in_memory
        self._array = array
        self._axes = axes
        self._close = close

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self._array = None
        self._close()

    def read(self, bands: Any = slice(None), rows: Any = slice(None), columns: Any = slice(None)) -> NDArray[Any]:
        """Stored values [bands, rows, columns] in native byte order; bands a slice or increasing numbers."""
        import numpy as np

        shape = (self.info.bands, self.info.rows, self.info.columns)
        top, bottom, _ = rows.indices(shape[1])
        chosen = len(range(*bands.indices(shape[0]))) if isinstance(bands, slice) else len(bands)
        wide = len(range(*columns.indices(shape[2])))
        result = np.empty((chosen, max(0, bottom - top), wide), self.info.dtype)
        step = rows_at_once(self._axes, shape, chosen, self.info.dtype.itemsize)
        for start in range(top, bottom, step):
            stop = min(bottom, start + step)
            result[:, start - top : stop - top] = oriented(
                self._array[place(self._axes, bands, slice(start, stop), columns)], self._axes
            )
            release(self._array)
        return result


class CubeWriter:
    """An array of the file's axis order that takes tiles in any order; `close` makes the file whole."""

    def __init__(
        self,
        array: Any,
        axes: tuple[str, ...],
        shape: tuple[int, int, int],
        *,
        finish: Callable[[Any], None],
        abandon: Callable[[], None] = lambda: None,
    ) -> None:
        self._array = array
        self._axes = axes
        self._shape = shape
        self._finish = finish
        self._abandon = abandon

    def write(self, values: NDArray[Any], bands: slice, rows: slice, columns: slice) -> None:
        """Put a tile [bands, rows, columns] in its place."""
        top, bottom, _ = rows.indices(self._shape[1])
        step = rows_at_once(self._axes, self._shape, len(values), values.dtype.itemsize)
        for start in range(top, bottom, step):
            stop = min(bottom, start + step)
            self._array[place(self._axes, bands, slice(start, stop), columns)] = laid(
                values[:, start - top : stop - top], self._axes
            )
            release(self._array, written=True)

    def read(self, bands: slice, rows: slice, columns: slice) -> NDArray[Any]:
        """A tile [bands, rows, columns] that was written before."""
        import numpy as np

        return np.array(oriented(self._array[place(self._axes, bands, rows, columns)], self._axes))

    def close(self) -> None:
        """Write what is still held and make the file whole."""
        array, self._array = self._array, None
        self._finish(array)

    def abort(self) -> None:
        """Let go of the file as it is."""
        self._array = None
        self._abandon()


def place(axes: tuple[str, ...], bands: Any, rows: Any, columns: Any) -> tuple[Any, ...]:
    """The index of a tile in an array of these axes."""
    parts = {"bands": bands, "rows": rows, "columns": columns}
    return tuple(parts[name] for name in axes)


def oriented(block: Any, axes: tuple[str, ...]) -> Any:
    """An array of these axes as [bands, rows, columns]."""
    if "bands" not in axes:
        return block[None]
    return block.transpose([axes.index(name) for name in AXES])


def laid(block: Any, axes: tuple[str, ...]) -> Any:
    """[bands, rows, columns] as an array of these axes."""
    if "bands" not in axes:
        return block[0]
    return block.transpose([AXES.index(name) for name in axes])


def rows_at_once(axes: tuple[str, ...], shape: tuple[int, int, int], bands: int, itemsize: int) -> int:
    """Rows of a tile that touch STEP_BYTES of the file: all bands of them where bands lie beside one another."""
    touched = bands if axes[0] == "bands" else shape[0]
    return max(1, STEP_BYTES // max(1, touched * shape[2] * itemsize))


def release(array: Any, *, written: bool = False) -> None:
    """Give back the pages of a mapped file: they stay with the system, but no longer count as this process's."""
    base = array
    while base is not None and not isinstance(base, mmap.mmap):
        base = getattr(base, "base", None)
    if base is not None and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)
