"""The options that all commands on files share: one dataclass, and the decorator that adds them to a command.

A command function reads like this; its docstring is its help and its man page (see attnkit/runtime/help.py):

    @batch_command
    def tonemap(batch: BatchOptions, inputs: Inputs, method: Annotated[Method, typer.Option(help="...")] = "llf-lut"):
        \"\"\"Turn HDR pictures into finished pictures for a screen.

        A paragraph or two.

        Examples:
          attnkit tonemap room.hdr
          attnkit tonemap examples/hdr --out out/
        \"\"\"
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, overload

import typer

from attnkit.runtime.errors import UsageError
from attnkit.runtime.values import parse_device, parse_seed

INPUT_PANEL = "Inputs"
OUTPUT_PANEL = "Outputs"
RUN_PANEL = "Running"
TALK_PANEL = "Reporting"

Inputs = Annotated[
    list[str],
    typer.Argument(metavar="INPUT...", help="Files, folders, globs (quoted too), or - for standard input"),
]


@dataclass(frozen=True)
class BatchOptions:
    """What every command on files can be told, whatever it does with them. Paths stay as typed."""

    out: str | None = None
    overwrite: bool = False
    skip_existing: bool = False
    update: bool = False
    recursive: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    limit: int | None = None
    input_format: str | None = None
    dry_run: bool = False
    fail_fast: bool = False
    jobs: int = 1
    device: str = "auto"
    seed: int = 0
    json: bool = False
    jsonl: bool = False
    record: Path | None = None
    quiet: bool = False
    verbose: bool = False
    log_file: Path | None = None
    wait: float = 0.0
    engine: str = "local"
    scheduler: str | None = None
    resume: bool = False
    offline: bool = False
    config: Path | None = None
    debug: bool = False
    # the command's own options as they were resolved, by long name: what records and --json show
    command_options: Mapping[str, Any] = field(default_factory=dict)


def _option(panel: str, *names: str, **settings: Any) -> Any:
    return typer.Option(*names, rich_help_panel=panel, **settings)


# field of BatchOptions -> (type as written on a command line, how it is offered, default)
BATCH_OPTIONS: dict[str, tuple[Any, Any, Any]] = {
    "recursive": (bool, _option(INPUT_PANEL, "--recursive", help="Go into sub-folders; outputs keep them"), False),
    "include": (
        list[str] | None,
        _option(INPUT_PANEL, "--include", metavar="GLOB", help="Only files whose name matches; repeatable"),
        None,
    ),
    "exclude": (
        list[str] | None,
        _option(INPUT_PANEL, "--exclude", metavar="GLOB", help="No files whose name matches; repeatable"),
        None,
    ),
    "limit": (int | None, _option(INPUT_PANEL, "--limit", metavar="N", min=1, help="At most N items"), None),
    "input_format": (
        str | None,
        _option(INPUT_PANEL, "--input-format", metavar="KIND", help="What the inputs are, if not as they look"),
        None,
    ),
    "out": (
        str | None,
        _option(
            OUTPUT_PANEL,
            "--out",
            "-o",
            metavar="PATH",
            help="A file, a folder (existing, ending in /, or for several items), or - for standard output",
        ),
        None,
    ),
    "overwrite": (bool, _option(OUTPUT_PANEL, "--overwrite", help="Replace outputs that exist"), False),
    "skip_existing": (
        bool,
        _option(OUTPUT_PANEL, "--skip-existing", help="Leave out items whose output exists, by name"),
        False,
    ),
    "update": (
        bool,
        _option(OUTPUT_PANEL, "--update", help="Redo only outputs whose input or settings have changed"),
        False,
    ),
    "dry_run": (bool, _option(RUN_PANEL, "--dry-run", "-n", help="Say what would be done; write nothing"), False),
    "fail_fast": (
        bool,
        _option(RUN_PANEL, "--fail-fast/--keep-going", help="Stop at the first item that fails, or do the others"),
        False,
    ),
    "jobs": (int, _option(RUN_PANEL, "--jobs", "-j", metavar="N", min=1, help="Processes; they share the cores"), 1),
    "device": (
        str,
        _option(RUN_PANEL, "--device", metavar="auto|cpu|cuda[:N]", parser=parse_device, help="Where to compute"),
        "auto",
    ),
    "seed": (
        int,
        _option(
            RUN_PANEL, "--seed", metavar="N|random", parser=parse_seed, help="Seed; random draws one and records it"
        ),
        0,
    ),
    "engine": (
        Literal["local", "dask"],
        _option(RUN_PANEL, "--engine", help="This machine, or a Dask cluster"),
        "local",
    ),
    "scheduler": (
        str | None,
        _option(RUN_PANEL, "--scheduler", metavar="ADDRESS", help="Dask scheduler, such as tcp://host:8786"),
        None,
    ),
    "resume": (bool, _option(RUN_PANEL, "--resume", help="Go on inside an item that was interrupted"), False),
    "wait": (
        float,
        _option(RUN_PANEL, "--wait", metavar="S", min=0.0, help="Seconds to wait for another run on the same folder"),
        0.0,
    ),
    "offline": (bool, _option(RUN_PANEL, "--offline", help="Never use the network"), False),
    "json": (bool, _option(TALK_PANEL, "--json", help="One JSON document on standard output"), False),
    "jsonl": (bool, _option(TALK_PANEL, "--jsonl", help="One JSON line per item on standard output"), False),
    "record": (
        Path | None,
        _option(TALK_PANEL, "--record", metavar="FILE", help="Append one JSON line per item and one for the run"),
        None,
    ),
    "quiet": (bool, _option(TALK_PANEL, "--quiet", "-q", help="Errors only"), False),
    "verbose": (bool, _option(TALK_PANEL, "--verbose", "-v", help="Details of each item"), False),
    "log_file": (
        Path | None,
        _option(TALK_PANEL, "--log-file", metavar="FILE", help="Append the talk to this file as well"),
        None,
    ),
}

# one way out of each; where a flag meets a configured sibling, the flag wins
EXCLUSIVE: tuple[tuple[str, ...], ...] = (
    ("overwrite", "skip_existing", "update"),
    ("json", "jsonl"),
    ("quiet", "verbose"),
)


@overload
def batch_command(function: Callable[..., Any]) -> Callable[..., Any]: ...
@overload
def batch_command(*, leave_out: Collection[str]) -> Callable[[Callable[..., Any]], Callable[..., Any]]: ...


def batch_command(function: Callable[..., Any] | None = None, *, leave_out: Collection[str] = ()) -> Callable[..., Any]:
    """Adds the shared options to a command whose first parameter is `batch: BatchOptions`.

    `leave_out` names fields of BatchOptions that have no meaning for the command (`resume` for small items); they
    keep their defaults. --config and --debug belong to every command and are added by its class (runtime/config.py).
    """
    if function is None:
        return lambda wrapped: _with_batch_options(wrapped, leave_out)
    return _with_batch_options(function, leave_out)


def _with_batch_options(function: Callable[..., Any], leave_out: Collection[str]) -> Callable[..., Any]:
    unknown = set(leave_out) - set(BATCH_OPTIONS)
    if unknown:
        raise TypeError(f"leave_out: got {sorted(unknown)}, expected some of {sorted(BATCH_OPTIONS)}")
    signature = inspect.signature(function, eval_str=True)
    own = [parameter for name, parameter in signature.parameters.items() if name != "batch"]
    offered = [name for name in BATCH_OPTIONS if name not in leave_out]
    shared = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=BATCH_OPTIONS[name][2],
            annotation=Annotated[BATCH_OPTIONS[name][0], BATCH_OPTIONS[name][1]],
        )
        for name in offered
    ]

    def command(**given: Any) -> Any:
        batch = collect({name: given.pop(name) for name in offered}, given)
        return function(batch=batch, **given)

    positional = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    command.__signature__ = signature.replace(parameters=[*positional, *shared])  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in [*positional, *shared]}
    for name in ("__name__", "__qualname__", "__doc__", "__module__"):
        setattr(command, name, getattr(function, name))
    return command


def collect(shared: dict[str, Any], own: Mapping[str, Any]) -> BatchOptions:
    """The resolved options as one BatchOptions.

    Raises UsageError where two options exclude each other at the same level of precedence.
    """
    from attnkit.runtime.config import current

    values: dict[str, Any] = {
        name: tuple(value or ()) if name in ("include", "exclude") else value for name, value in shared.items()
    }
    running = current()
    for group in EXCLUSIVE:
        chosen = [name for name in group if values.get(name)]
        if len(chosen) < 2:
            continue
        ranks = {name: running.rank(name) if running else 0 for name in chosen}
        kept = [name for name in chosen if ranks[name] == min(ranks.values())]
        if len(kept) > 1:
            flags = " and ".join("--" + name.replace("_", "-") for name in kept)
            raise UsageError(f"{flags} exclude each other; give one of them")
        values.update({name: False for name in chosen if name not in kept})
    if values.get("scheduler") and values.get("engine") == "local":
        raise UsageError(f"--scheduler: got {values['scheduler']} with --engine local, expected --engine dask")
    if running is not None:
        values.update(config=running.config_file, debug=running.debug)
        values["command_options"] = running.shown(skip={option.name for option in fields(BatchOptions)})
    else:
        values["command_options"] = {name.replace("_", "-"): value for name, value in own.items()}
    return BatchOptions(**values)
