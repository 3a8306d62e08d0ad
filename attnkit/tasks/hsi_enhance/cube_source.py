"""A cube file as the bright, whole array that methods read: cropped, corrected, scaled, holes filled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .calibration import Correction, Radiometry
from .survey import MOST_REPAIRS_BYTES, Survey, survey

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Crop:
    """The part of the file that is worked on: band numbers, rows start:stop, columns start:stop."""

    bands: NDArray[np.int64]
    rows: tuple[int, int]
    columns: tuple[int, int]

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self.bands), self.rows[1] - self.rows[0], self.columns[1] - self.columns[0]


class CubeSource:
    """What methods see of a cube file: bright float32 values [bands, rows, columns] without holes.

    Pixels with missing samples are interpolated along their spectrum, dead bands from the bands beside them, masked
    pixels hold their band's mean. What is written in those places is for the caller to decide.
    """

    def __init__(self, reader: Any, crop: Crop, correction: Correction, ignore_value: float | None) -> None:
        self.reader = reader
        self.crop = crop
        self.correction = correction
        self.ignore_value = ignore_value
        self.shape = crop.shape
        nm = reader.info.wavelengths_nm
        self.wavelengths = None if nm is None else tuple(nm[band] for band in crop.bands)
        self._factor = 1.0
        self._fill: NDArray[np.float32] | None = None
        self._repairs: tuple[NDArray[np.int64], NDArray[np.float32]] | None = None
        self._dead: dict[int, tuple[tuple[int, float], ...]] = {}
        self._masked: NDArray[np.bool_] | None = None

    def stored(self, bands: Any, rows: slice, columns: slice) -> NDArray[Any]:
        """Values as they are in the file, in the coordinates of the crop."""
        chosen = self.crop.bands[bands]
        run = len(chosen) and chosen[-1] - chosen[0] == len(chosen) - 1
        wanted: Any = slice(int(chosen[0]), int(chosen[-1]) + 1) if run else [int(band) for band in chosen]
        return self.reader.read(wanted, _shift(rows, self.crop.rows), _shift(columns, self.crop.columns))

    def corrected(self, bands: Any, rows: slice, columns: slice) -> NDArray[np.float32]:
        """Corrected values, NaN where a sample is missing: no number, infinite, or the file's ignore value."""
        import numpy as np

        raw = self.stored(bands, rows, columns)
        block = np.array(raw, dtype=np.float32)
        if raw.dtype.kind == "f":
            block[~np.isfinite(block)] = np.nan
        # zero marks what is outside of the scene and is treated as a masked pixel, not as a hole
        if self.ignore_value is not None and self.ignore_value != 0:
            block[raw == self.ignore_value] = np.nan
        return self.correction.apply(block, self.crop.bands[bands], _shift(columns, self.crop.columns))

    def survey(self, chunk: int, full_scale: float | None) -> Survey:
        """One pass over the whole crop."""
        return survey(lambda rows: self.corrected(slice(None), rows, slice(None)), self.shape[1], chunk, full_scale)

    def prepare(self, radiometry: Radiometry, found: Survey) -> None:
        """Settle the scale and how holes are filled; `read` works from here on."""
        import numpy as np

        self._factor = radiometry.factor
        self._fill = np.nan_to_num(found.mean).astype(np.float32)
        self._masked = found.masked if found.masked.any() else None
        self._dead = _neighbours(found.dead)
        if len(found.broken) and len(found.broken) * self.shape[0] * 4 <= MOST_REPAIRS_BYTES:
            spectra = [
                _interpolated(self.corrected(slice(None), slice(row, row + 1), slice(column, column + 1))[:, 0, 0])
                for row, column in found.broken
            ]
            self._repairs = found.broken, np.stack(spectra)

    def read(self, bands: Any, rows: slice, columns: slice) -> NDArray[np.float32]:
        """Bright values [bands, rows, columns]; bands a slice or numbers of the crop."""
        import numpy as np

        block = self.corrected(bands, rows, columns)
        numbers = np.arange(self.shape[0])[bands]
        if self._repairs is not None:
            self._mend(block, numbers, rows, columns)
        bad = np.isnan(block)
        if bad.any():
            block = np.where(bad, self._fill[numbers][:, None, None], block)
        if self._masked is not None:
            hidden = self._masked[rows, columns]
            block[:, hidden] = self._fill[numbers][:, None]
        for place, band in enumerate(numbers):
            if int(band) in self._dead:
                block[place] = sum(
                    np.float32(weight) * self._alone(beside, rows, columns)
                    for beside, weight in self._dead[int(band)]
                )
        block *= np.float32(self._factor)
        return block

    def _alone(self, band: int, rows: slice, columns: slice) -> NDArray[np.float32]:
        import numpy as np

        plane = self.corrected(slice(band, band + 1), rows, columns)[0]
        assert self._fill is not None
        return np.where(np.isnan(plane), self._fill[band], plane)

    def _mend(self, block: NDArray[Any], numbers: NDArray[Any], rows: slice, columns: slice) -> None:
        assert self._repairs is not None
        places, spectra = self._repairs
        top, bottom, _ = rows.indices(self.shape[1])
        left, right, _ = columns.indices(self.shape[2])
        row, column = places[:, 0], places[:, 1]
        inside = (row >= top) & (row < bottom) & (column >= left) & (column < right)
        if inside.any():
            block[:, row[inside] - top, column[inside] - left] = spectra[inside][:, numbers].T


def _shift(part: slice, limits: tuple[int, int]) -> slice:
    start, stop, _ = part.indices(limits[1] - limits[0])
    return slice(limits[0] + start, limits[0] + stop)


def _interpolated(spectrum: NDArray[np.float32]) -> NDArray[np.float32]:
    import numpy as np

    good = np.flatnonzero(~np.isnan(spectrum))
    return np.interp(np.arange(len(spectrum)), good, spectrum[good]).astype(np.float32)


def _neighbours(dead: Sequence[Any]) -> dict[int, tuple[tuple[int, float], ...]]:
    """For each dead band the good bands before and after it with the weights of linear interpolation."""
    import numpy as np

    alive = np.flatnonzero(~np.asarray(dead))
    found: dict[int, tuple[tuple[int, float], ...]] = {}
    for band in np.flatnonzero(dead):
        before, after = alive[alive < band], alive[alive > band]
        if before.size and after.size:
            low, high = int(before[-1]), int(after[0])
            share = (band - low) / (high - low)
            found[int(band)] = ((low, 1 - share), (high, share))
        else:
            found[int(band)] = ((int(before[-1] if before.size else after[0]), 1.0),)
    return found
