"""`attnkit train tonemap`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attnkit.runtime.training_options import Device, Json, Overwrite, Quiet, Resume, Threads, talk


def train_tonemap(
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="Folder of HDR panoramas (2:1), sub-folders too")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Weight file to write (.safetensors)")],
    minutes: Annotated[float, typer.Option("--minutes", min=0.05, help="Most time to train")] = 90.0,
    steps: Annotated[
        int, typer.Option("--steps", min=1, help="Batches to train on; the rate falls to 0 by then")
    ] = 2600,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of weights, views and noise")] = 0,
    init: Annotated[
        Path | None, typer.Option("--init", metavar="FILE", help="Weights to begin with, for a second stage")
    ] = None,
    rate: Annotated[
        float, typer.Option("--rate", min=0.0, help="Highest learning rate; the tables' is 0.4 of it")
    ] = 1e-3,
    halo_weight: Annotated[
        float, typer.Option("--halo-weight", min=0.0, help="Weight of slopes that the picture turns round")
    ] = 60.0,
    local_amount: Annotated[
        float, typer.Option("--local-amount", min=0.0, help="Share of the trained local part that the model uses")
    ] = 1.0,
    without: Annotated[
        list[str] | None,
        typer.Option("--without", metavar="map|remap", help="Leave a part of the model out (ablation); repeatable"),
    ] = None,
    device: Device = "cpu",
    threads: Threads = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train the model of tonemap on views of HDR panoramas.

    The loss is TMQI itself, made differentiable, with penalties for halos, hue shifts and noise in the dark. Scenes of
    the built-in split are used by their part; in a folder without them every tenth panorama validates. A checkpoint is
    kept beside the result every two minutes.

    Examples:
      attnkit train tonemap --data hdr --out llf-lut.safetensors
      attnkit train tonemap --data hdr --init llf-lut.safetensors --halo-weight 300 --steps 500 --out second.safetensors
      attnkit train tonemap --data hdr --out no-map.safetensors --steps 600 --without map
    """
    from attnkit.runtime.answers import print_document
    from attnkit.runtime.errors import UsageError
    from attnkit.tasks.tonemap.training import Recipe, train

    unknown = set(without or []) - {"map", "remap"}
    if unknown:
        raise UsageError(f"--without: got {min(unknown)!r}, expected map or remap")
    recipe = Recipe(
        seed=seed,
        minutes=minutes,
        steps=steps,
        rate=rate,
        reversal_weight=halo_weight,
        local_amount=local_amount,
        use_map="map" not in (without or []),
        use_remap="remap" not in (without or []),
    )

    say = talk(quiet)
    result = train(
        data, out, recipe, device=device, threads=threads, resume=resume, overwrite=overwrite, init=init, say=say
    )
    if json:
        print_document(result)
    else:
        say(f"{out}: TMQI {result['validation_tmqi']:.4f} on {result['validation_views']} validation views")
