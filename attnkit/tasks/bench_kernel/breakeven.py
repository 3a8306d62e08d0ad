"""From which length on an operator is faster than dense attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# lengths beyond this many times the longest that was measured are guesses
FARTHEST = 64.0
FEWEST_LENGTHS = 3


@dataclass(frozen=True)
class BreakEven:
    """tokens: the length, or None where there is none in reach; `method` says how it was found."""

    tokens: int | None
    method: str


def by_fit(lengths: Sequence[int], own: Sequence[float], dense: Sequence[float]) -> BreakEven:
    """From times (seconds) at three lengths or more.

    Both are fitted as a + b n + c n^2 with a, b, c >= 0 by relative least squares; the answer is the smallest length
    from which the fitted operator stays below the fitted dense one, up to 64 times the longest length measured.
    """
    if not len(lengths) == len(own) == len(dense) or len(set(lengths)) < FEWEST_LENGTHS:
        raise ValueError(f"a fit needs times at {FEWEST_LENGTHS} lengths or more, got {list(lengths)}")
    method = f"fit of {len(set(lengths))} lengths"
    tokens = np.asarray(lengths, np.float64)
    difference = _fit(tokens, dense) - _fit(tokens, own)
    roots = [float(root.real) for root in np.roots(difference[::-1]) if abs(root.imag) < 1e-9 * max(1, abs(root))]
    farthest = FARTHEST * tokens.max()
    if np.polynomial.polynomial.polyval(farthest, difference) <= 0:
        return BreakEven(None, f"{method}: dense is faster up to {farthest:.0f} tokens")
    crossings = [root for root in roots if 0 < root <= farthest]
    return BreakEven(max(1, int(np.ceil(max(crossings)))) if crossings else 1, method)


def by_formula(tokens: int, own: float, dense: float, linear: bool) -> BreakEven:
    """From times at one length, where the work of the operator is linear in it: n * own / dense.

    That length holds if its time is proportional to the length and that of dense attention to the square of it.
    """
    if not linear:
        return BreakEven(None, f"its density does not fall with the length; sweep {FEWEST_LENGTHS} lengths for a fit")
    return BreakEven(max(1, int(np.ceil(tokens * own / dense))), "n * time / dense time: keys per query fixed")


def _fit(lengths: NDArray[np.float64], seconds: Sequence[float]) -> NDArray[np.float64]:
    """Coefficients a, b, c >= 0 of a + b n + c n^2."""
    from scipy.optimize import nnls

    times = np.asarray(seconds, np.float64)
    scale = lengths.max()
    powers = np.stack([np.ones_like(lengths), lengths / scale, (lengths / scale) ** 2], axis=1)
    found, _ = nnls(powers / times[:, None], np.ones_like(times))
    return np.asarray(found) / scale ** np.arange(3)
