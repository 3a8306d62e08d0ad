"""What one command line asks for: a list, a compilation without a GPU, the fit of a cost model, or a benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnkit.runtime.errors import UsageError

if TYPE_CHECKING:
    from attnkit.runtime.options import BatchOptions

# the options that are a mode, and the other options that mean something with each
MODES: Mapping[str, tuple[str, ...]] = {
    "--list": ("NAME",),
    "--compile-only": ("--target", "--dim", "--dtype", "--out", "NAME"),
    "--fit-cost": ("--heads", "--dim", "--dtype", "--direction", "--impl", "--repeats"),
}


def run(
    batch: BatchOptions,
    *,
    listed: bool,
    compile_only: bool,
    fit_cost: Path | None,
    targets: tuple[str, ...] | None,
    **asked: Any,
) -> int:
    """Run the mode; returns the exit code. UsageError for two modes, or an option that its mode does not know."""
    from . import run as runs

    given = _given(asked, targets)
    chosen = [mode for mode, on in zip(MODES, (listed, compile_only, fit_cost is not None), strict=True) if on]
    if len(chosen) > 1:
        raise UsageError(f"{' and '.join(chosen)} exclude each other; give one of them")
    for mode in chosen:
        strange = [name for name in given if name not in MODES[mode]]
        if strange:
            raise UsageError(f"{strange[0]}: means nothing with {mode}; leave it out")
    if not chosen and targets is not None:
        raise UsageError("--target: got it without --compile-only, which it belongs to")
    if listed:
        return runs.show_list(batch, asked["names"])
    if compile_only:
        from .compiling import run_compile

        return run_compile(batch, asked["names"], targets, asked["values"], asked["tables"])
    if fit_cost is not None:
        from .fitting import run_fit

        return run_fit(batch, fit_cost, asked["values"], asked["repeats"])
    return runs.run_bench(runs.Bench(**asked), batch)


def _given(asked: Mapping[str, Any], targets: tuple[str, ...] | None) -> list[str]:
    """The options that were given, as they are typed."""
    from .run import Bench

    spelled = {"names": "NAME", "sweeps": "--sweep", "settings": "--set", "baselines": "--baseline", "tables": "--out"}
    given = [f"--{key}" for key in asked["values"]]
    for one in fields(Bench):
        if one.name != "values" and asked[one.name] not in (one.default, ()):
            given.append(spelled.get(one.name, f"--{one.name}"))
    return [*given, *(["--target"] if targets is not None else [])]
