"""What every cube file has in common: the facts of its header, its axes and its types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from attnkit.runtime.errors import ItemError, UsageError

if TYPE_CHECKING:
    import numpy as np

AXES = ("bands", "rows", "columns")
DEFAULT_AXIS_ORDER = "rows,columns,bands"
ONE_BAND = ("rows", "columns")
NM_PER_UNIT = {
    **dict.fromkeys(("nanometers", "nanometer", "nanometres", "nanometre", "nm"), 1.0),
    **dict.fromkeys(("micrometers", "micrometer", "micrometres", "micrometre", "microns", "micron"), 1e3),
    **dict.fromkeys(("um", "µm", "μm"), 1e3),
    **dict.fromkeys(("angstroms", "angstrom"), 0.1),
    **dict.fromkeys(("millimeters", "mm"), 1e6),
    **dict.fromkeys(("centimeters", "cm"), 1e7),
    **dict.fromkeys(("meters", "m"), 1e9),
}
# units of numbers that are no wavelengths
NO_WAVELENGTHS = frozenset({"index", "ghz", "mhz"})
# below this a wavelength without a unit is one in micrometres
MICROMETRES_BELOW = 100.0


class CubeError(ItemError):
    """A cube file could not be read or written."""


@dataclass(frozen=True)
class CubeInfo:
    """What a cube's header tells.

    dtype               of the stored values, in the machine's byte order
    wavelengths         as in the file, in `wavelength_units`
    bad_bands           True for a band that the file marks as bad
    reflectance_scale   what reflectance was multiplied by, where the file says so
    interleave, big_endian    of an ENVI file
    key                 variable, dataset or array that the cube is, where the file may hold several
    axis_order          of the stored array; without "bands" it has two axes and is one band
    version             of a MATLAB file: "5" or "7.3"
    geotiff             values by tag number of a TIFF file's georeference
    extra               further fields of an ENVI header, carried as they are
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
    version: str | None = None
    geotiff: Mapping[int, tuple[Any, ...]] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def wavelengths_nm(self) -> tuple[float, ...] | None:
        """Wavelengths in nm; without a known unit, numbers below 100 are taken for micrometres."""
        unit = (self.wavelength_units or "").strip().lower()
        if self.wavelengths is None or unit in NO_WAVELENGTHS:
            return None
        if unit.startswith("wavenumber") or unit in ("cm-1", "cm^-1", "1/cm"):
            return None if min(self.wavelengths) <= 0 else tuple(round(1e7 / value, 6) for value in self.wavelengths)
        factor = NM_PER_UNIT.get(unit)
        if factor is None:
            factor = 1e3 if max(self.wavelengths) < MICROMETRES_BELOW else 1.0
        return tuple(round(value * factor, 6) for value in self.wavelengths)

    def cut(self, bands: Sequence[int], rows: tuple[int, int], columns: tuple[int, int]) -> CubeInfo:
        """The header of a part of the cube: these bands, rows and columns from start to stop.

        Fields that name bands and georeferences follow; an RPC model, which cannot, is left out.
        """
        from .cutting import cut

        return cut(self, [int(band) for band in bands], rows, columns)


def axes_of(order: str) -> tuple[str, ...]:
    """The axes that --axis-order names; UsageError unless it is bands, rows and columns in some order."""
    names = tuple(part.strip() for part in order.split(","))
    if sorted(names) != sorted(AXES):
        raise UsageError(f"--axis-order: got {order!r}, expected rows, columns and bands in the order of the array")
    return names


def stored_axes(info: CubeInfo) -> tuple[str, ...]:
    """Axes of the array that `info.axis_order` tells of: two of them only where one band is all there is."""
    if info.axis_order == ",".join(ONE_BAND):
        return ONE_BAND if info.bands == 1 else axes_of(DEFAULT_AXIS_ORDER)
    return axes_of(info.axis_order)


def cube_axes(shape: Sequence[int], order: str | None, where: str) -> tuple[str, ...]:
    """Names of an array's axes; two axes are one band. CubeError for another number of axes or an empty array."""
    shape = tuple(shape)
    if len(shape) == 2:
        names: tuple[str, ...] = ONE_BAND
    elif len(shape) == 3:
        names = axes_of(order or DEFAULT_AXIS_ORDER)
    else:
        raise CubeError(f"{where}: has shape {shape}, expected two axes (one band) or three")
    if 0 in shape:
        raise CubeError(f"{where}: has shape {shape}, which holds nothing")
    return names


def sizes_of(shape: Sequence[int], axes: tuple[str, ...]) -> dict[str, Any]:
    """Bands, rows and columns of an array of these axes, by name."""
    return {"bands": 1, **dict(zip(axes, map(int, shape), strict=True))}


def shape_of(info: CubeInfo, axes: tuple[str, ...]) -> tuple[int, ...]:
    """Shape of the cube as an array of these axes."""
    sizes = {"bands": info.bands, "rows": info.rows, "columns": info.columns}
    return tuple(sizes[name] for name in axes)


def exact(value: float) -> str:
    """A number as short as it can be said exactly."""
    value = float(value)
    return str(int(value)) if abs(value) < 1e15 and value.is_integer() else repr(value)


def check_dtype(dtype: np.dtype[Any], where: str) -> np.dtype[Any]:
    """The type in native byte order, flags as uint8. CubeError for complex numbers, text and objects."""
    import numpy as np

    if dtype.kind == "c":
        raise CubeError(f"{where}: complex values ({dtype}), expected real ones; take magnitude or real part first")
    if dtype.kind not in "iufb":
        raise CubeError(f"{where}: values of type {dtype}, expected whole numbers or floats")
    return np.dtype(np.uint8) if dtype.kind == "b" else dtype.newbyteorder("=")
