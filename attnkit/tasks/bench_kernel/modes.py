"""What one command line asks for: a list or a benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from attnkit.runtime.errors import UsageError

if TYPE_CHECKING:
    from attnkit.runtime.options import BatchOptions


def run(batch: BatchOptions, *, listed: bool, **asked: Any) -> int:
    """Run the mode; returns the exit code. UsageError for an option that means nothing with --list."""
    from . import run as runs

    if not listed:
        return runs.run_bench(runs.Bench(**asked), batch)
    strange = [name for name in _given(asked) if name != "NAME"]
    if strange:
        raise UsageError(f"{strange[0]}: means nothing with --list; leave it out")
    return runs.show_list(batch, asked["names"])


def _given(asked: Mapping[str, Any]) -> list[str]:
    """The options that were given, as they are typed."""
    from .run import Bench

    spelled = {"names": "NAME", "sweeps": "--sweep", "settings": "--set", "baselines": "--baseline", "tables": "--out"}
    given = [f"--{key}" for key in asked["values"]]
    for one in fields(Bench):
        if one.name != "values" and asked[one.name] not in (one.default, ()):
            given.append(spelled.get(one.name, f"--{one.name}"))
    return given
