"""One pass over a cube before it is enhanced: ranges, white level, and the bands and pixels that are broken."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .calibration import WHITE_PERCENTILE

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

# samples that the white level is estimated from
SAMPLES = 2_000_000


@dataclass(frozen=True)
class Survey:
    """What a cube holds, in corrected units; NaN stands for samples that are not numbers or marked as missing.

    minimum, maximum, mean   [bands] over good samples of unmasked pixels; NaN for a band without any
    missing                  [bands] samples
    saturated                [bands] samples at or above full scale, as they are stored
    largest_stored           the largest good sample as it is stored
    masked                   [rows, columns] pixels that are zero, before or after correction, or missing in every band
    broken                   [n, 2] row and column of other pixels with missing samples, in bands that have others
    white_level              WHITE_PERCENTILE of the good samples of unmasked pixels and bands that are not dead
    """

    minimum: NDArray[np.float64]
    maximum: NDArray[np.float64]
    mean: NDArray[np.float64]
    missing: NDArray[np.int64]
    saturated: NDArray[np.int64]
    largest_stored: float
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
        return _dead(self.minimum, self.maximum)

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
    read: Callable[[slice], tuple[NDArray[np.float32], NDArray[Any]]],
    shape: tuple[int, int, int],
    chunk: int,
    full_scale: float | None,
) -> Survey:
    """Look at every sample once.

    read        a slice of rows -> values [bands, rows, columns], corrected with NaN where missing, and as stored
    shape       (bands, rows, columns)
    chunk       rows at a time; nothing but rounding depends on it
    full_scale  stored samples at or above are saturated; None counts those at the largest value of the cube
    """
    import numpy as np

    bands, rows, columns = shape
    low, high = np.full(bands, np.inf), np.full(bands, -np.inf)
    total = np.zeros(bands)
    good_count, missing, saturated = (np.zeros(bands, np.int64) for _ in range(3))
    top = -math.inf
    masked, holes, samples = np.zeros((rows, columns), bool), np.zeros((rows, columns), np.int32), []
    step = _step(shape)
    for start in range(0, rows, chunk):
        part = slice(start, min(rows, start + chunk))
        block, stored = read(part)
        bad = np.isnan(block)
        any_bad = bool(bad.any())
        nothing = masked[part] = (bad | (block == 0) | (stored == 0)).all(axis=0)
        if any_bad:
            holes[part] = bad.sum(axis=0)
            missing += bad.sum(axis=(1, 2))
        highest = float(stored[~bad].max() if any_bad else stored.max()) if not bad.all() else -math.inf
        if full_scale is None and highest > top:
            saturated[:] = 0
        top = max(top, highest)
        limit = top if full_scale is None else full_scale
        if highest >= limit:
            saturated += ((stored >= limit) & ~bad).sum(axis=(1, 2))
        pixels = np.arange(start * columns, part.stop * columns)
        chosen = (pixels % step == 0) & ~nothing.ravel()
        samples.append(block.reshape(bands, -1)[:, chosen])
        out = bad | nothing if any_bad or nothing.any() else None
        low = np.minimum(low, (block if out is None else np.where(out, np.inf, block)).min(axis=(1, 2)))
        high = np.maximum(high, (block if out is None else np.where(out, -np.inf, block)).max(axis=(1, 2)))
        total += (block if out is None else np.where(out, 0, block)).sum(axis=(1, 2), dtype=np.float64)
        good_count += block[0].size - (0 if out is None else out.sum(axis=(1, 2)))
    if masked.all():
        # what is left is zero
        good_count = rows * columns - missing
        low, high = np.zeros(bands), np.zeros(bands)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(good_count > 0, total / good_count, np.nan)
    minimum, maximum = (np.where(good_count > 0, end, np.nan) for end in (low, high))
    sample = np.concatenate(samples, axis=1)[~_dead(minimum, maximum)]
    sample = sample[np.isfinite(sample)]
    return Survey(
        minimum=minimum,
        maximum=maximum,
        mean=mean,
        missing=missing,
        saturated=saturated,
        largest_stored=top,
        masked=masked,
        broken=np.argwhere((holes > (good_count == 0).sum()) & ~masked),
        white_level=float(np.percentile(sample, WHITE_PERCENTILE)) if sample.size else 0.0,
    )


def _dead(minimum: NDArray[np.float64], maximum: NDArray[np.float64]) -> NDArray[np.bool_]:
    import numpy as np

    flat = np.isnan(minimum) | (minimum == maximum)
    return flat & bool((~flat).any())


def _step(shape: tuple[int, int, int]) -> int:
    """Every how many pixels one is sampled; no divisor of a row's length, so that all columns have their turn."""
    bands, rows, columns = shape
    step = max(1, bands * rows * columns // SAMPLES)
    while math.gcd(step, columns) > 1:
        step += 1
    return step
