"""What times say: their spread, and whether two of them differ at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
# below this a bootstrap interval is narrower than what it stands for
LEAST_RUNS = 5
NO_DIFFERENCE = "no difference"
TOO_FEW = "too few runs"


@dataclass(frozen=True)
class Spread:
    """Times of one kernel in seconds; low and high bound the median (95 % bootstrap), None with too few runs."""

    median: float
    p20: float
    p80: float
    variation: float
    runs: int
    low: float | None
    high: float | None


@dataclass(frozen=True)
class SpeedUp:
    """How many times faster than a baseline, with a 95 % bootstrap interval over the rounds; None with too few."""

    ratio: float
    low: float | None
    high: float | None

    @property
    def verdict(self) -> str:
        """faster, slower, "no difference" where the interval holds 1, "too few runs" where there is none."""
        if self.low is None or self.high is None:
            return TOO_FEW
        if self.low > 1:
            return "faster"
        return "slower" if self.high < 1 else NO_DIFFERENCE


def spread_of(seconds: Sequence[float], seed: int = 0) -> Spread:
    """Median, percentiles, coefficient of variation (deviation of the sample / mean) and the median's interval."""
    times = _checked(seconds)
    deviation = float(times.std(ddof=1)) if len(times) > 1 else 0.0
    low, high = _interval(np.median(times[_draws(len(times), seed)], axis=1), len(times))
    p20, median, p80 = np.quantile(times, (0.2, 0.5, 0.8)).tolist()
    return Spread(median, p20, p80, deviation / float(times.mean()), len(times), low, high)


def speed_up(kernel: Sequence[float], baseline: Sequence[float], seed: int = 0) -> SpeedUp:
    """median(baseline) / median(kernel) of times taken in turns: round by round, resampled as pairs."""
    own, other = _checked(kernel), _checked(baseline)
    if len(own) != len(other):
        raise ValueError(f"times in turns must be as many, got {len(own)} and {len(other)}")
    draws = _draws(len(own), seed)
    ratios = np.median(other[draws], axis=1) / np.median(own[draws], axis=1)
    return SpeedUp(float(np.median(other) / np.median(own)), *_interval(ratios, len(own)))


def _checked(seconds: Sequence[float]) -> NDArray[np.float64]:
    times = np.asarray(seconds, np.float64)
    if not len(times) or not (np.isfinite(times).all() and (times > 0).all()):
        raise ValueError(f"times must be finite seconds above 0, got {list(seconds)}")
    return times


def _draws(runs: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, runs, (RESAMPLES, runs))


def _interval(values: NDArray[np.float64], runs: int) -> tuple[float | None, float | None]:
    if runs < LEAST_RUNS:
        return None, None
    low, high = np.quantile(values, (0.025, 0.975)).tolist()
    return low, high


def geometric_mean(values: Sequence[float]) -> float:
    """The mean of ratios."""
    return math.exp(sum(map(math.log, values)) / len(values))
