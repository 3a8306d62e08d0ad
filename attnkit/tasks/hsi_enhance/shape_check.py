"""How far the shape of the spectra was changed: what a user has to know before trusting an enhanced cube."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_BANDS = 5


class ShapeCheck:
    """Spectral angle between two cubes and the change of each band's mean, summed over tiles in any order.

    Memory: three float32 planes of rows x columns.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        import numpy as np

        self._dot, self._before, self._after = (np.zeros(shape[1:], np.float32) for _ in range(3))
        self._sums = np.zeros((2, shape[0]))

    def add(self, bands: slice, rows: slice, columns: slice, before: NDArray[Any], after: NDArray[Any]) -> None:
        """A tile [bands, rows, columns] of both cubes, in the same units."""
        import numpy as np

        place = rows, columns
        self._dot[place] += np.einsum("brc,brc->rc", before, after)
        self._before[place] += np.einsum("brc,brc->rc", before, before)
        self._after[place] += np.einsum("brc,brc->rc", after, after)
        self._sums[0, bands] += before.sum(axis=(1, 2), dtype=np.float64)
        self._sums[1, bands] += after.sum(axis=(1, 2), dtype=np.float64)

    def record(self, band_numbers: NDArray[Any], masked: NDArray[np.bool_]) -> dict[str, Any]:
        """spectral_angle_deg (mean over pixels with light) and bands_changed_most: number and change of mean in %."""
        import numpy as np

        lengths = np.sqrt(self._before.astype(np.float64) * self._after)
        lit = (lengths > 0) & ~masked
        cosine = np.clip(self._dot[lit] / lengths[lit], -1.0, 1.0)
        before, after = self._sums
        with np.errstate(divide="ignore", invalid="ignore"):
            change = 100 * (after / before - 1)
        change[~np.isfinite(change)] = 0.0
        most = np.argsort(-np.abs(change), kind="stable")[:MOST_BANDS]
        return {
            "spectral_angle_deg": round(float(np.degrees(np.arccos(cosine)).mean()), 2) if lit.any() else None,
            "bands_changed_most": [
                {"band": int(band_numbers[band]), "mean_change_percent": round(float(change[band]), 2)}
                for band in most
                if abs(change[band]) >= 0.005
            ],
        }
