"""Commands that do nothing but say what they were told."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from attnkit.runtime.errors import AttnkitError, ItemError
from attnkit.runtime.options import BatchOptions, Inputs, batch_command


@batch_command(leave_out=("resume",))
def paint(
    batch: BatchOptions,
    inputs: Inputs,
    colour: Annotated[Literal["red", "green", "8"], typer.Option(help="Colour")] = "red",
    weight: Annotated[float, typer.Option(min=0, max=2, help="Weight")] = 1.0,
    table: Annotated[Path | None, typer.Option(help="A file")] = None,
    setting: Annotated[list[str] | None, typer.Option("--set", metavar="NAME.KEY=VALUE", help="A parameter")] = None,
) -> None:
    """Paint files.

    One paragraph that is
    wrapped by hand.

    Colours:
      red    as blood
      green  as grass

    Examples:
      # one file
      attnkit paint a.txt
    """
    told = asdict(batch) | {"inputs": inputs, "colour": colour, "weight": weight, "table": table, "set": setting}
    print(json.dumps(told, default=str))


def fail(kind: Annotated[str, typer.Argument(help="Which end")]) -> None:
    """End as it is told to."""
    if kind == "item":
        raise ItemError("a.hdr: broken\nin two lines")
    if kind == "check":
        raise AttnkitError("check failed")
    if kind == "interrupt":
        raise KeyboardInterrupt
    if kind == "memory":
        raise MemoryError
    if kind == "dask":
        raise ModuleNotFoundError("No module named 'dask'", name="dask.distributed")
    if kind == "own module":
        raise ModuleNotFoundError("No module named 'attnkit.nothing'", name="attnkit.nothing")
    if kind.isdigit():
        raise typer.Exit(int(kind))
    raise ValueError("out of the blue")


def train_paint(seed: Annotated[int, typer.Option(min=0, help="Seed")] = 0) -> None:
    """Train paint."""
    print(json.dumps({"seed": seed}))
