"""`attnkit train hsi-enhance`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from attnkit.runtime.training_options import Device, Json, Overwrite, Quiet, Resume, Threads, talk


def train_hsi_enhance(
    data: Annotated[
        Path, typer.Option("--data", metavar="DIR", help="Folder of cubes, a spectral library (.npz) and pictures")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Weight file to write (.safetensors)")],
    arch: Annotated[
        Literal["hsie", "hsie-lptn"], typer.Option("--arch", help="The small default, or the published network")
    ] = "hsie",
    minutes: Annotated[float, typer.Option("--minutes", min=0.05, help="Most time to train, after the data")] = 60.0,
    steps: Annotated[
        int, typer.Option("--steps", min=1, help="Batches to train on; the rate falls towards 0 by then")
    ] = 5000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of weights, cubes and noise")] = 0,
    cubes: Annotated[
        int | None, typer.Option("--cubes", min=25, help="Cubes made before the first batch; else the recipe's number")
    ] = None,
    init: Annotated[Path | None, typer.Option("--init", metavar="FILE", help="Weights to begin with")] = None,
    device: Device = "cpu",
    threads: Threads = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train the model of hsi-enhance on bright cubes that are darkened by a physical model.

    The cubes are parts of measured ones and mixtures of a library's spectra in the shapes of photographs; shot noise,
    read noise, stripes and quantisation are drawn anew for each. What the built-in split keeps for tests (Indian Pines
    beyond column 96, the Fenix cube, four materials of the library) is left out. A checkpoint is kept beside the
    result every two minutes.

    Examples:
      attnkit train hsi-enhance --data data --out hsie.safetensors
      attnkit train hsi-enhance --data data --arch hsie-lptn --minutes 120 --out published.safetensors
    """
    from attnkit.runtime.answers import print_document
    from attnkit.tasks.hsi_enhance.training import recipe_of, train

    say = talk(quiet)
    recipe = recipe_of(arch, seed=seed, minutes=minutes, steps=steps, cubes=cubes)
    result = train(
        data, out, recipe, device=device, threads=threads, resume=resume, overwrite=overwrite, init=init, say=say
    )
    if json:
        print_document(result)
    else:
        said = ", ".join(f"{name} {value}" for name, value in result["validation"].items())
        say(f"{out}: {said} on {result['validation_cubes']} validation cubes")
