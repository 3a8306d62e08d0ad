"""`attnkit train vlm-ask`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from attnkit.runtime.errors import UsageError
from attnkit.runtime.training_options import Device, Json, Overwrite, Quiet, Resume, Threads, talk

MINUTES, STEPS = 50.0, 12000
ADAPTER = "Adapters"


def train_vlm_ask(
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="DIR|FILE", help="Model folder, or adapter file (.safetensors), to write"),
    ],
    minutes: Annotated[
        float | None,
        typer.Option("--minutes", min=0.05, help="Most time to train", show_default=f"{MINUTES:g}; 10 with --adapter"),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps",
            min=1,
            help="Batches to train on; the rate falls towards 0 by then",
            show_default=f"{STEPS}; 2000 with --adapter",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of weights and of what is drawn")] = 0,
    precision: Annotated[
        Literal["float32", "bfloat16"],
        typer.Option("--precision", help="Of matrix products; bfloat16 is fast where the processor multiplies it"),
    ] = "float32",
    init: Annotated[Path | None, typer.Option("--init", metavar="DIR", help="Model folder to begin with")] = None,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile the model with torch first (needs a C++ compiler)")
    ] = False,
    adapter: Annotated[
        Literal["p-adapter", "adapter", "lora"] | None,
        typer.Option("--adapter", help="Train this on --data instead, beside a frozen model", rich_help_panel=ADAPTER),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", help="The model that it is for: name or folder", rich_help_panel=ADAPTER)
    ] = "tiny-llava",
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="DIR|FILE",
            rich_help_panel=ADAPTER,
            help="JSON lines with image, question (or text) and answer (or label), and the images beside them",
        ),
    ] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Questions a step", rich_help_panel=ADAPTER)] = 16,
    rate: Annotated[
        float, typer.Option("--rate", min=1e-8, help="Learning rate at its height", rich_help_panel=ADAPTER)
    ] = 1e-3,
    held_out: Annotated[
        float,
        typer.Option("--held-out", min=0, max=0.9, help="Share of the images that validates", rich_help_panel=ADAPTER),
    ] = 0.1,
    max_pixels: Annotated[
        int | None, typer.Option("--max-pixels", min=1, help="Make larger images smaller", rich_help_panel=ADAPTER)
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME.KEY=VALUE", help="A setting of the adapter; repeatable", rich_help_panel=ADAPTER
        ),
    ] = None,
    device: Device = "cpu",
    threads: Threads = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train the embedded model of vlm-ask on generated scenes, or an adapter on questions of your own.

    Scenes and questions (is it there, which colour, which shape, how many, where, describe) are made while training;
    seeds from 1000000 on are kept for tests. The result is a folder that transformers opens. A checkpoint is kept
    beside it every two minutes.

    With --adapter a model of any family stays as it is and a small addition to its layers learns the answers of --data:
    a p-adapter, a plain adapter or LoRA. The last images are held out and score it, before and after. The file holds
    the addition alone; vlm-ask takes it with --adapter, beside the model that it was trained on.

    Examples:
      attnkit train vlm-ask --out tiny-llava
      attnkit train vlm-ask --out tiny-llava --minutes 20 --precision bfloat16 --compile
      attnkit train vlm-ask --adapter p-adapter --data answered --out answered.safetensors
    """
    from attnkit.runtime.answers import print_document

    say = talk(quiet)

    shared: dict[str, Any] = {
        "device": device, "threads": threads, "resume": resume, "overwrite": overwrite, "say": say,
    }  # fmt: skip
    if adapter is None:
        from attnkit.tasks.vlm_ask.training import Recipe, train

        if data is not None or setting:
            raise UsageError("--data and --set: are for an adapter; give --adapter as well, or leave them out")
        recipe = Recipe(seed=seed, minutes=minutes or MINUTES, steps=steps or STEPS, precision=precision)
        result = train(out, recipe, init=init, compiled=compiled, **shared)
        said = ", ".join(f"{name} {value}" for name, value in result["validation"].items())
        said += f" on {result['validation_scenes']} validation scenes"
    else:
        from attnkit.tasks.vlm_ask.adapter_training import recipe_of, train_on

        others = {"--init": init is not None, "--compile": compiled, "--precision": precision != "float32"}
        for option in (option for option, given in others.items() if given):
            raise UsageError(f"{option}: is for a whole model, got --adapter {adapter} as well; leave it out")
        if data is None:
            raise UsageError("--adapter: needs --data, a folder of images with questions and answers")
        adapter_recipe = recipe_of(
            adapter, setting or (), seed=seed, minutes=minutes, steps=steps, batch=batch, rate=rate, held_out=held_out,
            max_pixels=max_pixels,
        )  # fmt: skip
        result = train_on(model, data, out, adapter_recipe, **shared)
        before, after = (100 * result[name]["right"] for name in ("validation_before", "validation"))
        said = f"{after:.1f} % of {result['validation_questions']} held-out answers right, {before:.1f} % without it"
    if json:
        print_document(result)
    else:
        say(f"{out}: {said}")
