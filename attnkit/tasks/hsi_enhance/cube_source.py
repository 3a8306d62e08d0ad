"""A cube file as the bright, whole array that methods read: cropped, corrected, scaled, holes filled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .calibration import Correction, Radiometry
from .survey import Survey, survey

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


# interpolated spectra of broken pixels that are kept; in a cube with more the band's mean has to do
MOST_REPAIRS_BYTES = 64_000_000


@dataclass(frozen=True)
class Crop:
    """The part of the file that is worked on: band numbers, rows start:stop, columns start:stop."""

    bands: NDArray[np.int64]
    rows: tuple[int, int]
    columns: tuple[int, int]

    @property
    def band_range(self) -> tuple[int, int]:
        """First band and the one after the last."""
        return int(self.bands[0]), int(self.bands[-1]) + 1

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
        self.wavelengths: Sequence[float] | None = None if nm is None else tuple(nm[band] for band in crop.bands)
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
        return self._correct(self.stored(bands, rows, columns), bands, columns)

    def _correct(self, raw: NDArray[Any], bands: Any, columns: slice) -> NDArray[np.float32]:
        import numpy as np

        # a float64 that is too large becomes infinite, and so a hole that is counted
        with np.errstate(over="ignore"):
            block = np.array(raw, dtype=np.float32)
        if raw.dtype.kind == "f":
            block[~np.isfinite(block)] = np.nan
        # zero marks what is outside of the scene and is treated as a masked pixel, not as a hole
        if self.ignore_value is not None and self.ignore_value != 0:
            block[raw == self.ignore_value] = np.nan
        return self.correction.apply(block, self.crop.bands[bands], _shift(columns, self.crop.columns))

    def survey(self, chunk: int, full_scale: float | None) -> Survey:
        """One pass over the whole crop."""
        everything = slice(None)

        def read(rows: slice) -> tuple[NDArray[np.float32], NDArray[Any]]:
            raw = self.stored(everything, rows, everything)
            return self._correct(raw, everything, everything), raw

        return survey(read, self.shape, chunk, full_scale)

    def prepare(self, radiometry: Radiometry, found: Survey) -> None:
        """Settle the scale and how holes are filled; `read` works from here on."""
        import numpy as np

        self._factor = radiometry.factor
        self._fill = np.nan_to_num(found.mean).astype(np.float32)
        self._dead = _neighbours(found.dead)
        for band, beside in self._dead.items():
            self._fill[band] = sum(weight * self._fill[other] for other, weight in beside)
        self._masked = found.masked if found.masked.any() else None
        if len(found.broken) and len(found.broken) * self.shape[0] * 4 <= MOST_REPAIRS_BYTES:
            self._repairs = found.broken, self._interpolated(found)

    def _interpolated(self, found: Survey) -> NDArray[np.float32]:
        """Spectra [n, bands] of the broken pixels, filled from their good samples."""
        import numpy as np

        across = np.arange(self.shape[0])
        spectra = np.empty((len(found.broken), self.shape[0]), np.float32)
        for row in np.unique(found.broken[:, 0]):
            values = self.corrected(slice(None), slice(int(row), int(row) + 1), slice(None))[:, 0]
            values[found.dead] = np.nan
            for place in np.flatnonzero(found.broken[:, 0] == row):
                spectrum = values[:, found.broken[place, 1]]
                good = np.flatnonzero(~np.isnan(spectrum))
                spectra[place] = np.interp(across, good, spectrum[good]) if len(good) else self._fill
        return spectra

    def read(self, bands: Any, rows: slice, columns: slice) -> NDArray[np.float32]:
        """Bright values [bands, rows, columns]; bands a slice or numbers of the crop."""
        import numpy as np

        block = self._whole(np.arange(self.shape[0])[bands], bands, rows, columns)
        block *= np.float32(self._factor)
        return block

    def _whole(self, numbers: NDArray[Any], bands: Any, rows: slice, columns: slice) -> NDArray[np.float32]:
        """Corrected values without holes."""
        import numpy as np

        assert self._fill is not None
        block = self.corrected(bands, rows, columns)
        if self._repairs is not None:
            self._mend(block, numbers, rows, columns)
        bad = np.isnan(block)
        if bad.any():
            block = np.where(bad, self._fill[numbers][:, None, None], block)
        for place, band in enumerate(numbers):
            beside = self._dead.get(int(band))
            if beside is not None:
                others = [self._whole(np.array([other]), slice(other, other + 1), rows, columns) for other, _ in beside]
                block[place] = sum(
                    np.float32(weight) * other[0] for (_, weight), other in zip(beside, others, strict=True)
                )
        if self._masked is not None:
            block[:, self._masked[rows, columns]] = self._fill[numbers][:, None]
        return block

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


def _neighbours(dead: NDArray[np.bool_]) -> dict[int, tuple[tuple[int, float], ...]]:
    """For each dead band the good bands before and after it with the weights of linear interpolation."""
    import numpy as np

    alive = np.flatnonzero(~dead)
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
