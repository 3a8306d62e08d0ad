"""Samples that no display can show: NaN, Inf and negative light."""

from __future__ import annotations

import numpy as np

_BLOCK = 1 << 18


def repair(values: np.ndarray) -> tuple[np.ndarray, dict[str, int]]:
    """Replace bad samples and count the pixels that had one.

    values: (rows, columns) or (rows, columns, channels) float32. Per channel: NaN becomes the median of the finite
    samples among its 3x3 neighbours (negative ones taken as 0), or 0 where there is none; +Inf becomes the largest
    finite value of the picture (0 where there is none); -Inf and negatives become 0. Negative light is common in real
    files (resampled light probes ring around the sun). Returns the values, the very same array where nothing was
    wrong, and {"nan", "inf", "negative"} in pixels; -Inf counts as inf.
    """
    counts = {"nan": 0, "inf": 0, "negative": 0}
    # both are NaN where any sample is
    low, high = float(values.min()), float(values.max())
    if low >= 0 and high < np.inf:
        return values, counts
    cube = values if values.ndim == 3 else values[..., None]
    missing, endless = np.isnan(cube), np.isinf(cube)
    negative = (cube < 0) & ~endless
    for name, mask in (("nan", missing), ("inf", endless), ("negative", negative)):
        counts[name] = int(mask.any(axis=2).sum())
    if not counts["nan"] and not counts["inf"]:
        return np.maximum(values, np.float32(0)), counts
    finite = ~(missing | endless)
    largest = max(float(cube[finite].max()), 0.0) if finite.any() else 0.0
    fixed = np.where(endless, np.float32(largest), np.maximum(cube, np.float32(0)))
    fixed[endless & (cube < 0)] = 0
    if counts["nan"]:
        # the median looks at the file's own samples, so neither at repaired ones nor at Inf
        known = np.pad(np.where(finite, fixed, np.float32(np.nan)), ((1, 1), (1, 1), (0, 0)), constant_values=np.nan)
        row, column, channel = np.nonzero(missing)
        for start in range(0, len(row), _BLOCK):
            part = slice(start, start + _BLOCK)
            around = [known[row[part] + dy, column[part] + dx, channel[part]] for dy in range(3) for dx in range(3)]
            fixed[row[part], column[part], channel[part]] = _median(np.stack(around))
    return fixed.reshape(values.shape), counts


def _median(stack: np.ndarray) -> np.ndarray:
    """Median over the first axis of what is not NaN, 0 where all is; np.nanmedian warns there."""
    ordered = np.sort(stack, axis=0)
    count = np.isfinite(ordered).sum(axis=0)
    below = np.take_along_axis(ordered, np.maximum((count - 1) // 2, 0)[None], axis=0)[0]
    above = np.take_along_axis(ordered, (count // 2)[None], axis=0)[0]
    return np.where(count > 0, (below + above) / 2, 0).astype(np.float32)
