"""What one command line asks for: a list, a cost model, compiled kernels or a benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnkit.runtime.errors import UsageError

if TYPE_CHECKING:
    from attnkit.runtime.options import BatchOptions


def run(
    batch: BatchOptions, *, listed: bool, fit_cost: Path | None, compile_only: bool, target: str | None, **asked: Any
) -> int:
    """Run the mode; returns the exit code. UsageError for an option that means nothing in it."""
    from . import run as runs

    chosen = {"--list": listed, "--fit-cost": fit_cost is not None, "--compile-only": compile_only}
    modes = [name for name, is_asked in chosen.items() if is_asked]
    if len(modes) > 1:
        raise UsageError(f"{' and '.join(modes)}: got both, expected one of them")
    if target is not None and not compile_only:
        raise UsageError("--target: means nothing without --compile-only; add that or leave it out")
    if listed:
        _refuse("--list", [name for name in _given(asked) if name != "NAME"])
        return runs.show_list(batch, asked["names"])
    if fit_cost is not None:
        _refuse("--fit-cost", _given(asked))
        from .fitting import run_fit

        return run_fit(fit_cost, batch)
    if compile_only:
        here = ("NAME", "--out", "--dim", "--dtype", "--direction")
        _refuse("--compile-only", [name for name in _given(asked) if name not in here])
        from .compiling import run_compile

        return run_compile(batch, asked["names"], target, asked["values"], asked["tables"])
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
