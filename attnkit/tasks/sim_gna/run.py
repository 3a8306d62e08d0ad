"""One simulation from the command line to its answer: checks, the task, files, then standard output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnkit.runtime.errors import AttnkitError, UsageError

if TYPE_CHECKING:
    from attnkit.runtime.options import BatchOptions

    from .task import SimulationResult


@dataclass(frozen=True)
class Asked:
    """What is not a number of the simulation itself.

    shorthands : values of --window, --stride, --dilation and --causal that were given. settings : texts of --set
    cost : a cost file or the name of a shipped one. tables, plot : files to write
    """

    shorthands: Mapping[str, Any]
    settings: tuple[str, ...] = ()
    cost: str | None = None
    tables: tuple[Path, ...] = ()
    plot: Path | None = None


def run(asked: Asked, numbers: Mapping[str, Any], batch: BatchOptions) -> None:
    """Simulate and answer. `numbers` are fields of SimulationRequest.

    UsageError for what does not fit; AttnkitError, after the answer, where --verify found a difference.
    """
    from attnkit.scoring.files import check_files

    from .files import TABLE_SUFFIXES, write_tables
    from .report import verified
    from .task import SimulationRequest, run_simulation

    check_files(asked.tables, asked.plot, batch.overwrite, TABLE_SUFFIXES)
    try:
        settings = settings_of_pattern(numbers["pattern"], asked.shorthands, asked.settings)
        request = SimulationRequest(**numbers, settings=settings, cost=_cost(asked.cost))
        result = run_simulation(request)
    except ValueError as error:
        raise UsageError(str(error)) from error
    stored = _stored(asked, numbers, settings)
    if asked.plot is not None:
        from attnkit.runtime.tables import replace_file

        from .plot import plot_bytes

        replace_file(asked.plot, plot_bytes(result, stored))
    write_tables(result, asked.tables, stored)
    answer(result, batch)
    if result.verification is not None and result.verification.differences:
        raise AttnkitError(f"--verify: {verified(result)}; the simulator or the engine is wrong, please report it")


def settings_of_pattern(name: str, shorthands: Mapping[str, Any], texts: tuple[str, ...]) -> dict[str, Any]:
    """The pattern's settings from --set and the plain flags. ValueError for what it does not have, or has not got."""
    from attnkit_kernels.patterns import REQUIRED, parse_settings, settings_of

    known = settings_of(name)
    parsed = parse_settings(texts)
    others = [other for other in parsed if other != name]
    if others:
        raise ValueError(f"--set {others[0]}: got --pattern {name}, expected --set {name}.KEY=VALUE")
    settings = parsed.get(name, {})
    for key, value in shorthands.items():
        if key not in known:
            raise ValueError(f"--{key}: {name} has no such setting, it has {', '.join(known) or 'none'}")
        if key in settings:
            raise ValueError(f"--{key} and --set {name}.{key}: got both, expected one of them")
        # a pattern of one axis takes a number where others take one per axis
        one = isinstance(known[key].default, int) or known[key].type is int
        if one and len(value) != 1:
            raise ValueError(f"--{key}: got {len(value)} values {value}, expected one for {name}")
        settings[key] = value[0] if one else value
    for key, setting in known.items():
        if setting.default is REQUIRED and key not in settings:
            where = f"--{key}" if key in ("window", "stride", "dilation", "causal") else f"--set {name}.{key}"
            raise ValueError(f"{where}: not given, expected {setting.help}; see attnkit sim-gna --help")
    return settings


def answer(result: SimulationResult, batch: BatchOptions) -> None:
    """One JSON document, or tables; nothing when quiet."""
    from attnkit.runtime.answers import print_document, print_table

    from .report import fields_of, tables_of

    if batch.json:
        print_document(fields_of(result))
    elif not batch.quiet:
        for title, headers, rows in tables_of(result):
            if title:
                print(f"\n{title}")
            print_table(headers, rows)


def _cost(name: str | None) -> Any:
    from attnkit_kernels.simulate import cost_named

    if name is None:
        return None
    try:
        return cost_named(name)
    except FileNotFoundError as error:
        raise UsageError(f"--cost {error}") from None
    except OSError as error:
        raise UsageError(f"--cost {name}: {error.strerror}, expected a cost file") from None
    except ValueError as error:
        raise UsageError(f"--cost {error}") from None


def _stored(asked: Asked, numbers: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What made the answer, for the files that hold it: no path, no time."""
    cost = None if asked.cost is None else Path(asked.cost).name
    return {"command": "sim-gna", **numbers, "set": dict(settings), "cost": cost}
