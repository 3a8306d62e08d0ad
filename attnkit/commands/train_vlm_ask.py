"""`attnkit train vlm-ask`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer


def train_vlm_ask(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Model folder to write")],
    minutes: Annotated[float, typer.Option("--minutes", min=0.05, help="Most time to train")] = 50.0,
    steps: Annotated[
        int, typer.Option("--steps", min=1, help="Batches to train on; the rate falls towards 0 by then")
    ] = 6000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of weights, scenes and questions")] = 0,
    precision: Annotated[
        Literal["float32", "bfloat16"],
        typer.Option("--precision", help="Of matrix products; bfloat16 is fast where the processor multiplies it"),
    ] = "float32",
    init: Annotated[Path | None, typer.Option("--init", metavar="DIR", help="Model folder to begin with")] = None,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile the model with torch first (needs a C++ compiler)")
    ] = False,
    device: Annotated[str, typer.Option("--device", metavar="cpu|cuda[:N]", help="Where to compute")] = "cpu",
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="CPU threads; all cores when not given")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from DIR.checkpoint")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace DIR")] = False,
    json: Annotated[bool, typer.Option("--json", help="The result as one JSON document on standard output")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors only")] = False,
) -> None:
    """Train the embedded model of vlm-ask on generated scenes of coloured shapes.

    Scenes and questions (is it there, which colour, which shape, how many, where, describe) are made while training;
    seeds from 1000000 on are kept for tests. The result is a folder that transformers opens. A checkpoint is kept
    beside it every two minutes.

    Examples:
      attnkit train vlm-ask --out tiny-llava
      attnkit train vlm-ask --out tiny-llava --minutes 20 --precision bfloat16 --compile
    """
    from attnkit.runtime.answers import print_document
    from attnkit.tasks.vlm_ask.training import Recipe, train

    def say(line: str) -> None:
        if not quiet:
            print(line, file=sys.stderr, flush=True)

    recipe = Recipe(seed=seed, minutes=minutes, steps=steps, precision=precision)
    result = train(
        out, recipe, device=device, threads=threads, resume=resume, overwrite=overwrite, init=init,
        compiled=compiled, say=say,
    )  # fmt: skip
    if json:
        print_document(result)
    else:
        said = ", ".join(f"{name} {value}" for name, value in result["validation"].items())
        say(f"{out}: {said} on {result['validation_scenes']} validation scenes")
