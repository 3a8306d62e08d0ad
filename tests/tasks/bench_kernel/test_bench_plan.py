"""Names, sweeps and settings as written, turned into cases."""

from __future__ import annotations

import math

import pytest

from attnkit.runtime.errors import UsageError
from attnkit.tasks.bench_kernel.operators import OPERATORS
from attnkit.tasks.bench_kernel.plan import Wanted, cases_of
from attnkit.tasks.bench_kernel.suites import SUITES


def test_sweeps_make_the_product() -> None:
    cases = cases_of(Wanted(("dense", "radial"), ("tokens=512,1024", "heads=1,2,4", "dtype=float32,float64")))
    assert len(cases) == len(set(cases)) == 2 * 2 * 3 * 2
    assert [case.operator for case in cases[:12]] == ["dense"] * 12
    assert {case.tokens for case in cases} == {512, 1024}
    assert {case.kv_heads for case in cases if case.heads == 4} == {4}


def test_sweep_of_several_axes_and_of_one_operators_setting() -> None:
    wanted = Wanted(("blocked", "radial"), ("window=4x8,8x8", "radial.decay=.5,1"), {"canvas": "16,32"})
    cases = cases_of(wanted)
    # the window is none of radial's, the decay none of blocked: no case is measured twice
    assert [dict(case.settings)["window"] for case in cases if case.operator == "blocked"] == [(4, 8), (8, 8)]
    assert [dict(case.settings)["decay"] for case in cases if case.operator == "radial"] == [0.5, 1.0]


def test_short_flags_and_set() -> None:
    values = {"canvas": "8,16,16", "window": "4,8,8", "stride": "2,4,4", "causal": "1,0,0"}
    [case] = cases_of(Wanted(("neighborhood",), (), values, ("neighborhood.stride=4,8,8",)))
    assert dict(case.settings) == {"window": (4, 8, 8), "stride": (4, 8, 8), "causal": (True, False, False)}
    assert case.canvas == (8, 16, 16)


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("tokens", [1024, 4096, 16384])
def test_tokens_become_a_canvas(name: str, tokens: int) -> None:
    canvas = OPERATORS[name].canvas_of(tokens)
    assert math.prod(canvas) == tokens and len(canvas) == OPERATORS[name].axes
    assert list(canvas) == sorted(canvas) and canvas[-1] <= 4 * canvas[0]


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Wanted(("radail",)), ("radail", "did you mean radial?", "neighborhood")),
        (Wanted(("dense",), ("tokens",)), ("'tokens'", "KEY=A,B")),
        (Wanted(("dense",), ("tokens=1,,2",)), ("tokens=1,,2",)),
        (Wanted(("dense",), ("token=1",)), ("'token'", "did you mean tokens?")),
        (Wanted(("dense",), ("tokens=8", "tokens=9")), ("tokens twice",)),
        (Wanted(("dense",), ("tokens=8,x",)), ("'x'", "whole number")),
        (Wanted(("dense",), (), {"tokens": "8", "canvas": "2,4"}), ("tokens", "--canvas")),
        (Wanted(("dense",), (), {"window": "3"}), ("--window", "dense", "neighborhood")),
        (Wanted(("dense",), (), {"heads": "4", "kv-heads": "3"}), ("3", "4")),
        (Wanted(("radial",), (), {"tokens": "1021"}), ("1021", "--canvas")),
        (Wanted(("radial",), (), {}, ("radial.deacy=1",)), ("deacy", "did you mean decay?")),
        (Wanted(("radial",), (), {}, ("blocked.window=1",)), ("blocked", "radial")),
        (Wanted(("radial",), (), {}, ("decay=1",)), ("decay=1", "NAME.KEY=VALUE", "radial.decay")),
        (Wanted(("radial",), (), {}, ("radial.decay=high",)), ("radial.decay", "high")),
        (Wanted(("dense",), ("dtype=float8",)), ("float8", "bfloat16")),
        (Wanted(("dense",), ("direction=forward",)), ("forward", "fwdbwd")),
    ],
)
def test_what_cannot_be_meant(wanted: Wanted, words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError) as refused:
        cases_of(wanted)
    assert all(word in str(refused.value) for word in words), str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", SUITES)
def test_suites_can_be_read(name: str) -> None:
    cases = [case for part in SUITES[name].parts for case in cases_of(Wanted(part.names, part.sweeps, part.values))]
    assert len(cases) == len(set(cases)) and len(cases) >= 5


def test_the_suites_of_whole_machines_hold_every_pattern() -> None:
    for name in ("cpu", "gpu"):
        measured = {operator for part in SUITES[name].parts for operator in part.names}
        assert measured >= {name for name, operator in OPERATORS.items() if operator.kind in ("static", "routed")}
