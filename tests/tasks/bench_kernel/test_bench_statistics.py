"""Statistics, turns, break-even lengths and regressions, on times that are made up: their answers are known."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attnkit.runtime.errors import UsageError
from attnkit.tasks.bench_kernel import against, breakeven
from attnkit.tasks.bench_kernel.statistics import NO_DIFFERENCE, TOO_FEW, speed_up, spread_of
from attnkit.tasks.bench_kernel.timing import LEAST_ROUNDS, MOST_ROUNDS, in_turns, rounds_for


def test_spread_of_known_times() -> None:
    spread = spread_of([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    assert (spread.median, spread.p20, spread.p80, spread.runs) == (3.5, 2.0, 5.0, 6)
    assert spread.variation == pytest.approx(math.sqrt(3.5) / 3.5)
    assert spread.low is not None and spread.high is not None
    assert 1.0 <= spread.low < 3.5 < spread.high <= 6.0


def test_few_runs_have_no_interval() -> None:
    spread = spread_of([1.0, 1.1, 1.2, 1.3])
    assert spread.low is None and spread.high is None
    found = speed_up([1.0] * 4, [2.0] * 4)
    assert found.ratio == 2.0 and found.verdict == TOO_FEW
    assert spread_of([2.0]).variation == 0.0


@pytest.mark.parametrize("times", [[], [0.0, 1.0], [1.0, math.nan], [-1.0]])
def test_times_that_are_none(times: list[float]) -> None:
    with pytest.raises(ValueError, match="above 0"):
        spread_of(times)


def test_speed_up_is_paired() -> None:
    # rounds that differ tenfold, but the baseline takes exactly three times as long in each
    own = [1.0, 10.0, 2.0, 20.0, 5.0, 50.0, 3.0]
    found = speed_up(own, [3 * one for one in own])
    assert found.ratio == pytest.approx(3) and found.low == pytest.approx(3) and found.high == pytest.approx(3)
    assert found.verdict == "faster"
    assert speed_up([3 * one for one in own], own).verdict == "slower"


def test_equal_kernels_differ_seldom() -> None:
    """Of 200 pairs drawn from one distribution about 5 % may be called different, if the interval is one of 95 %."""
    generator = np.random.default_rng(0)
    verdicts = [speed_up(*generator.lognormal(0, 0.1, (2, 20)).tolist(), seed=seed).verdict for seed in range(200)]
    assert verdicts.count(NO_DIFFERENCE) >= 180


def test_the_interval_holds_the_true_ratio() -> None:
    generator = np.random.default_rng(1)
    inside = 0
    for seed in range(200):
        own, other = generator.lognormal(0, 0.1, (2, 25))
        found = speed_up(own.tolist(), (1.5 * other).tolist(), seed)
        inside += found.low <= 1.5 <= found.high  # type: ignore[operator]
    assert inside >= 180


def test_turns_rotate_and_a_failure_leaves_the_others() -> None:
    seen: list[str] = []
    calls = itertools.count()

    def broken() -> None:
        seen.append("broken")
        if next(calls) == 2:
            raise MemoryError("no room")

    def clock(run: Any) -> float:
        run()
        return 0.5

    kernels = {"a": lambda: seen.append("a"), "broken": broken, "c": lambda: seen.append("c")}
    times = in_turns(kernels, clock, repeats=4)
    assert seen == ["a", "broken", "c", "a", "broken", "c", "broken", "c", "a", "a", "c", "c", "a"]
    assert times.rounds == {"a": [0.5] * 4, "c": [0.5] * 4}
    assert isinstance(times.failed["broken"], MemoryError)


def test_a_kernel_that_never_runs() -> None:
    def refuse() -> None:
        raise ValueError("no")

    times = in_turns({"a": refuse}, lambda run: run(), repeats=3)
    assert times.rounds == {} and list(times.failed) == ["a"]


def test_rounds_follow_the_costs() -> None:
    assert rounds_for([0.1, 0.1], seconds=2) == 20
    assert rounds_for([10.0, 0.1], seconds=1) == LEAST_ROUNDS
    assert rounds_for([1e-6], seconds=1) == MOST_ROUNDS
    assert rounds_for([], seconds=1) == MOST_ROUNDS


def test_break_even_by_fit_finds_the_crossing() -> None:
    lengths = [500, 1000, 2000, 4000]
    # 1 + 0.01 n = 1e-5 n^2 at n = 500 + sqrt(350000)
    own = [1 + 0.01 * n for n in lengths]
    dense = [1e-5 * n * n for n in lengths]
    found = breakeven.by_fit(lengths, own, dense)
    assert found.tokens == pytest.approx(500 + math.sqrt(350000), rel=0.01)
    assert found.method == "fit of 4 lengths"


def test_break_even_by_fit_without_a_crossing() -> None:
    lengths = [100, 200, 400]
    never = breakeven.by_fit(lengths, [2.0 * n * n for n in lengths], [1.0 * n * n for n in lengths])
    assert never.tokens is None and "dense is faster up to 25600 tokens" in never.method
    always = breakeven.by_fit(lengths, [0.5 * n * n for n in lengths], [1.0 * n * n for n in lengths])
    assert always.tokens == 1
    with pytest.raises(ValueError, match="3 lengths"):
        breakeven.by_fit([100, 100, 200], [1.0] * 3, [1.0] * 3)


def test_break_even_by_formula() -> None:
    assert breakeven.by_formula(4096, 0.5, 1.0, linear=True).tokens == 2048
    assert breakeven.by_formula(4096, 0.5, 1.0, linear=False).tokens is None


def row(**changed: Any) -> dict[str, Any]:
    base = {"operator": "radial", "role": "operator", "tokens": 64, "canvas": [4, 4, 4], "settings": {"decay": 1.0}}
    times = {"status": "ok", "median_ms": 10.0, "median_low_ms": 9.8, "median_high_ms": 10.2}
    return {**base, **times, **changed}


@pytest.mark.parametrize(
    ("changed", "verdict"),
    [
        ({}, "same"),
        ({"median_ms": 10.4, "median_low_ms": 10.3, "median_high_ms": 10.5}, "same"),
        ({"median_ms": 12.0, "median_low_ms": 11.0, "median_high_ms": 13.0}, "regression"),
        ({"median_ms": 12.0, "median_low_ms": 10.1, "median_high_ms": 13.0}, "within the interval"),
        ({"median_ms": 8.0, "median_low_ms": 7.9, "median_high_ms": 8.1}, "faster"),
        ({"median_ms": 8.0, "median_low_ms": 7.9, "median_high_ms": 9.9}, "within the interval"),
        ({"median_ms": 12.0, "median_low_ms": None, "median_high_ms": None}, "regression"),
        ({"status": "wrong", "median_ms": None}, "regression: wrong"),
    ],
)
def test_regressions(changed: dict[str, Any], verdict: str) -> None:
    [entry] = against.compare([row()], [row(**changed)], threshold=5)
    assert entry["verdict"] == verdict
    assert bool(against.regressions([entry])) == verdict.startswith("regression")


def test_threshold_is_percent() -> None:
    new = row(median_ms=12.0, median_low_ms=11.9, median_high_ms=12.1)
    assert against.compare([row()], [new], threshold=19)[0]["verdict"] == "regression"
    assert against.compare([row()], [new], threshold=21)[0]["verdict"] == "same"


def test_only_equal_measurements_are_compared() -> None:
    others = [row(settings={"decay": 2.0}), row(canvas=[8, 4, 2]), row(direction="bwd"), row(role="baseline")]
    assert against.compare([row()], others, threshold=5) == []
    assert against.compare([row(median_ms=None)], [row()], threshold=5)[0]["verdict"] == "not measured before"


@pytest.mark.parametrize(
    ("other", "values"),
    [
        ({"device_name": "B"}, ("device", "B", "A")),
        ({"versions": {"torch": "2.12.0"}}, ("torch version", "2.12.0", "2.13.0")),
        ({"threads": 8}, ("threads", "8", "2")),
    ],
)
def test_other_devices_are_refused(other: dict[str, Any], values: tuple[str, ...]) -> None:
    here = {"device_name": "A", "threads": 2, "versions": {"torch": "2.13.0"}}
    against.check_same(Path("old.json"), dict(here), here)
    with pytest.raises(UsageError, match=r"old\.json: measured with") as refused:
        against.check_same(Path("old.json"), {**here, **other}, here)
    assert all(value in str(refused.value) for value in values)
