"""One pass over a cube before it is enhanced: ranges, white level, and the bands and pixels that are broken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .calibration import WHITE_PERCENTILE

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

# samples that the white level is estimated from
SAMPLES = 2_000_000
# broken pixels whose spectra are interpolated; beyond, the band's mean has to do
MOST_REPAIRS_BYTES = 64_000_000


@dataclass(frozen=True)
class Survey:
    """What a cube holds, in corrected units; NaN stands for samples that are not numbers or marked as missing.

    minimum, maximum, mean   [bands] over good samples; NaN for a band without any
    missing, saturated       [bands] samples
    masked                   [rows, columns] pixels that are zero or missing in every band
    broken                   [n, 2] row and column of other pixels with missing samples
    white_level              WHITE_PERCENTILE of the good samples of unmasked pixels
    """

    minimum: NDArray[np.float64]
    maximum: NDArray[np.float64]
    mean: NDArray[np.float64]
    missing: NDArray[np.int64]
    saturated: NDArray[np.int64]
    masked: NDArray[np.bool_]
    broken: NDArray[np.int64]
    white_level: float

    @property
    def empty(self) -> bool:
        """No good sample anywhere."""
        import numpy as np

        return bool(np.isnan(self.minimum).all())

    @property
    def dead(self) -> NDArray[np.bool_]:
        """[bands] that hold one value everywhere, or none, in a cube where others do not."""
        import numpy as np

        flat = np.isnan(self.minimum) | (self.minimum == self.maximum)
        return flat & bool((~flat).any())

    def record(self, band_numbers: NDArray[Any]) -> dict[str, Any]:
        """Counts for the item's record; bands by their number in the file."""
        import numpy as np

        dead = np.flatnonzero(self.dead)
        zero = [band for band in dead if self.maximum[band] == 0]
        return {
            "dead_bands": [int(band_numbers[band]) for band in dead],
            "zero_bands": [int(band_numbers[band]) for band in zero],
            "masked_pixels": int(self.masked.sum()),
            "broken_pixels": len(self.broken),
            "missing_samples": int(self.missing.sum()),
            "saturated_samples": int(self.saturated.sum()),
            "saturated_bands": [int(band_numbers[band]) for band in np.flatnonzero(self.saturated)],
        }


def survey(
    read: Callable[[slice], NDArray[np.float32]], rows: int, chunk: int, full_scale: float | None
) -> Survey:
    """Look at every sample once.

    read        a slice of rows -> corrected values [bands, rows, columns] float32, NaN where missing
    chunk       rows at a time
    full_scale  samples at or above are saturated; None counts none
    """
    import numpy as np

    low = high = total = good_count = missing = saturated = None
    masked, broken, samples = [], [], []
    for start in range(0, rows, chunk):
        block = read(slice(start, min(rows, start + chunk)))
        bad = np.isnan(block)
        if low is None:
            bands, _, columns = block.shape
            low, high = np.full(bands, np.inf), np.full(bands, -np.inf)
            total = np.zeros(bands)
            good_count, missing, saturated = (np.zeros(bands, np.int64) for _ in range(3))
            step = max(1, bands * rows * columns // SAMPLES)
        any_bad = bool(bad.any())
        nothing = (bad | (block == 0)).all(axis=0)
        masked.append(nothing)
        if any_bad:
            found = np.argwhere(bad.any(axis=0) & ~nothing)
            broken.append(found + (start, 0))
            missing += bad.sum(axis=(1, 2))
        low = np.minimum(low, np.where(bad, np.inf, block).min(axis=(1, 2)) if any_bad else block.min(axis=(1, 2)))
        high = np.maximum(high, np.where(bad, -np.inf, block).max(axis=(1, 2)) if any_bad else block.max(axis=(1, 2)))
        total += np.nansum(block, axis=(1, 2), dtype=np.float64)
        good_count += block[0].size - bad.sum(axis=(1, 2))
        if full_scale is not None:
            saturated += (block >= full_scale).sum(axis=(1, 2))
        shown = block[:, ~nothing].ravel()[::step]
        samples.append(shown[np.isfinite(shown)])
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(good_count > 0, total / good_count, np.nan)
    sample = np.concatenate(samples)
    return Survey(
        minimum=np.where(good_count > 0, low, np.nan),
        maximum=np.where(good_count > 0, high, np.nan),
        mean=mean,
        missing=missing,
        saturated=saturated,
        masked=np.concatenate(masked),
        broken=np.concatenate(broken) if broken else np.zeros((0, 2), np.int64),
        white_level=float(np.percentile(sample, WHITE_PERCENTILE)) if sample.size else 0.0,
    )
