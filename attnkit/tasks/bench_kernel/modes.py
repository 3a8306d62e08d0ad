"""What one command line asks for: a list, a cost model or a benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnkit.runtime.errors import UsageError

if TYPE_CHECKING:
    from attnkit.runtime.options import BatchOptions


def run(batch: BatchOptions, *, listed: bool, fit_cost: Path | None, **asked: Any) -> int:
    """Run the mode; returns the exit code. UsageError for an option that means nothing in it."""
    from . import run as runs

    if listed and fit_cost is not None:
        raise UsageError("--list and --fit-cost: got both, expected one of them")
    if listed:
        _refuse("--list", [name for name in _given(asked) if name != "NAME"])
        return runs.show_list(batch, asked["names"])
    if fit_cost is not None:
        _refuse("--fit-cost", _given(asked))
        from .fitting import run_fit

        return run_fit(fit_cost, batch)
    return runs.run_bench(runs.Bench(**asked), batch)


def _refuse(mode: str, strange: list[str]) -> None:
    if strange:
        raise UsageError(f"{strange[0]}: means nothing with {mode}; leave it out")


def _given(asked: Mapping[str, Any]) -> list[str]:
    """The options that were given, as they are typed."""
    from .run import Bench

    spelled = {"names": "NAME", "sweeps": "--sweep", "settings": "--set", "baselines": "--baseline", "tables": "--out"}
    given = [f"--{key}" for key in asked["values"]]
    for one in fields(Bench):
        if one.name != "values" and asked[one.name] not in (one.default, ()):
            given.append(spelled.get(one.name, f"--{one.name}"))
    return given
