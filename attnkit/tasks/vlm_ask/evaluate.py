"""From counts to scores: intervals over images, means and sums over parts, differences to a baseline."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from attnkit.scoring.bootstrap import resampled_sums

from .matching import Matched, Part
from .metrics import chair, mme, pope, vqa

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Metric = Literal["pope", "chair", "mme", "vqa"]
METRICS: tuple[Metric, ...] = ("pope", "chair", "mme", "vqa")
LEVELS = (0.025, 0.975)
MEAN_OF_SPLITS = "mean of splits"
EVERY = "all"
Row = dict[str, Any]
Values = Mapping[str, "NDArray[np.float64]"]


@dataclass(frozen=True)
class Scheme:
    """What tables need to know of a metric.

    measures    of sums of counts
    shown       key of a measure -> (header, digits)
    part        what its parts are called
    unit        what its units are called
    right       which units are right, where a unit is right or wrong
    """

    measures: Callable[[NDArray[Any]], dict[str, NDArray[Any]]]
    shown: Mapping[str, tuple[str, int]]
    part: str
    unit: str
    right: Callable[[NDArray[Any]], NDArray[Any]] | None = None


SCHEMES: Mapping[Metric, Scheme] = {
    "pope": Scheme(pope.measures, pope.MEASURES, "split", "questions", pope.right),
    "chair": Scheme(chair.measures, chair.MEASURES, "part", "captions", chair.right),
    "mme": Scheme(mme.measures, mme.MEASURES, "subtask", "images"),
    "vqa": Scheme(vqa.measures, vqa.MEASURES, "answer type", "questions"),
}


def summarise(metric: Metric, scored: Sequence[Matched], baseline: Matched | None, seed: int) -> list[Row]:
    """One row for each part of each prediction, and for means and sums over parts, with 95 % bootstrap intervals.

    Whole images are drawn again, with all questions about them. Differences to the baseline are over what both
    answered, with the same draws for both.
    """
    rows = []
    for one in scored:
        rows += [_row(metric, one.item, part.name, [part], baseline, "mean", seed) for part in one.parts]
        rows += _over_parts(metric, one.item, one.parts, baseline, seed)
    alone = [one.parts[0] for one in scored if len(one.parts) == 1]
    if metric == "pope" and len(alone) == len(scored):
        # one file for each split
        rows += _over_parts(metric, EVERY, alone, baseline, seed)
    return rows


def _over_parts(metric: Metric, item: str, parts: Sequence[Part], baseline: Matched | None, seed: int) -> list[Row]:
    named = {part.name: part for part in parts}
    if metric == "pope" and 1 < len(named) == len(parts):
        return [_row(metric, item, MEAN_OF_SPLITS, parts, baseline, "mean", seed)]
    if metric == "mme":
        return [
            _row(metric, item, total, [named[name] for name in names], baseline, "sum", seed)
            for total, names in mme.TOTALS.items()
            if set(names) <= set(named)
        ]
    return []


def _row(
    metric: Metric, item: str, name: str, parts: Sequence[Part], baseline: Matched | None, how: str, seed: int
) -> Row:
    scheme = SCHEMES[metric]
    row: Row = {"item": item, "metric": metric, "part": name, "images": len({one for p in parts for one in p.groups})}
    row[scheme.unit] = sum(len(part.units) for part in parts)
    row["missing"] = sum(part.missing for part in parts)
    if metric in ("pope", "mme"):
        row["unclear"] = sum(part.unclear for part in parts)
    if metric == "chair":
        row["ids_sha256"] = ids_hash([unit for part in parts for unit in part.units])
    keys = ["score"] if how == "sum" else list(scheme.shown)
    values = _combined([scheme.measures(part.counts.sum(axis=0)) for part in parts], how)
    draws = _drawn(scheme, parts, how, seed)
    for key in keys:
        row[key] = float(values[key])
        row[f"{key}_low"], row[f"{key}_high"] = _limits(draws[key])
    pairs = _pairs(parts, baseline)
    return {**row, **_difference(scheme, pairs, keys, how, seed)} if pairs else row


def _pairs(parts: Sequence[Part], baseline: Matched | None) -> list[tuple[Part, Part]]:
    """Each part and that of the baseline, of the units that both have; empty unless there is one for each."""
    others = {} if baseline is None else {part.name: part for part in baseline.parts}
    found = []
    for part in parts:
        other = others.get(part.name)
        shared = set() if other is None else set(other.units)
        both = [unit for unit in part.units if unit in shared]
        if other is not None and both:
            found.append((part.only(both), other.only(both)))
    return found if len(found) == len(parts) else []


def _difference(scheme: Scheme, pairs: Sequence[tuple[Part, Part]], keys: Sequence[str], how: str, seed: int) -> Row:
    import numpy as np

    sides = [[pair[at] for pair in pairs] for at in (0, 1)]
    values = [_combined([scheme.measures(part.counts.sum(axis=0)) for part in parts], how) for parts in sides]
    columns = pairs[0][0].counts.shape[1]
    # both sides in one table, so that they share their draws
    sums = [resampled_sums(np.hstack([one.counts, two.counts]), one.groups, seed=seed) for one, two in pairs]
    halves = ([drawn[:, :columns] for drawn in sums], [drawn[:, columns:] for drawn in sums])
    draws = [_combined([scheme.measures(half) for half in side], how) for side in halves]
    row: Row = {"compared": sum(len(one.units) for one, _ in pairs)}
    for key in keys:
        row[f"{key}_difference"] = float(values[0][key] - values[1][key])
        limits = _limits(draws[0][key] - draws[1][key])
        row[f"{key}_difference_low"], row[f"{key}_difference_high"] = limits
    if scheme.right is not None:
        mine, other = (np.concatenate([scheme.right(part.counts) for part in parts]) for parts in sides)
        row["only_prediction_right"] = int((mine & ~other).sum())
        row["only_baseline_right"] = int((other & ~mine).sum())
        row["mcnemar_p"] = mcnemar(row["only_prediction_right"], row["only_baseline_right"])
    return row


def mcnemar(first: int, second: int) -> float:
    """Exact two-sided p of McNemar's test, from how often only the one and only the other was right."""
    number = first + second
    term = total = 1
    for at in range(min(first, second)):
        term = term * (number - at) // (at + 1)
        total += term
    # whole numbers: 2**number is beyond floats soon
    return min(1.0, 2 * total / 2**number)


def ids_hash(ids: Sequence[str]) -> str:
    """SHA-256 of the ids in counting order, one a line: the same for the same choice of images."""
    import hashlib

    ordered = sorted(ids, key=lambda one: (len(one), one))
    return hashlib.sha256("".join(f"{one}\n" for one in ordered).encode()).hexdigest()


def _drawn(scheme: Scheme, parts: Sequence[Part], how: str, seed: int) -> Values:
    sums = partial(resampled_sums, seed=seed)
    return _combined([scheme.measures(sums(part.counts, part.groups)) for part in parts], how)


def _combined(each: Sequence[Values], how: str) -> Values:
    number = len(each) if how == "mean" else 1
    return {key: sum(one[key] for one in each) / number for key in each[0]}  # type: ignore[misc]


def _limits(values: NDArray[Any]) -> tuple[float, float]:
    import numpy as np

    finite = values[np.isfinite(values)]
    return tuple(map(float, np.quantile(finite, LEVELS))) if finite.size else (math.nan, math.nan)  # type: ignore[return-value]
