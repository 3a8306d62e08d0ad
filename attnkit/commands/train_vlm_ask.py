"""`attnkit train vlm-ask`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from attnkit.runtime.errors import UsageError
from attnkit.runtime.training_options import Device, Json, Overwrite, Quiet, Resume, Threads, talk

ADAPTER = "Adapters"
DEFAULT: Literal["tiny-llava"] = "tiny-llava"


def train_vlm_ask(
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="DIR|FILE", help="Model folder, or weight file (.safetensors), to write"),
    ],
    arch: Annotated[
        Literal["tiny-llava", "smol-llava"],
        typer.Option("--arch", help="The embedded model, or the projector between two published towers on --data"),
    ] = DEFAULT,
    minutes: Annotated[
        float | None,
        typer.Option(
            "--minutes", min=0.05, help="Most time to train", show_default="50; 90 of smol-llava, 10 of adapters"
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps",
            min=1,
            help="Batches to train on; the rate falls towards 0 by then",
            show_default="12000; 20000 of smol-llava, 2000 of adapters",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of weights and of what is drawn")] = 0,
    pictures: Annotated[
        int | None,
        typer.Option(
            "--pictures", min=8, help="Pictures of smol-llava, made before the first batch", show_default="16000"
        ),
    ] = None,
    precision: Annotated[
        Literal["float32", "bfloat16"] | None,
        typer.Option(
            "--precision",
            help="Of matrix products; bfloat16 is fast where the processor multiplies it",
            show_default="float32; bfloat16 of smol-llava",
        ),
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option("--init", metavar="DIR|FILE", help="Model folder, or weight file, to begin with at half the rate"),
    ] = None,
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
            help="Of adapters: JSON lines with image, question (or text) and answer (or label), images beside them; "
            "of smol-llava: folder with stamps, photographs, easy_vqa",
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

    With --arch smol-llava the projector between DINOv2 and SmolLM2, and a low-rank change of the latter, learn from
    captioned cut-outs on photographs, easy-VQA and scenes; the model's card says what --data holds. Checkpoint and
    pictures stay beside the weight file, so that --resume can go on for more minutes.

    With --adapter a model of any family stays as it is and a small addition to its layers learns the answers of --data:
    a p-adapter, a plain adapter or LoRA. The last images are held out and score it, before and after. The file holds
    the addition alone; vlm-ask takes it with --adapter, beside the model that it was trained on.

    Examples:
      attnkit train vlm-ask --out tiny-llava
      attnkit train vlm-ask --out tiny-llava --minutes 20 --precision bfloat16 --compile
      attnkit train vlm-ask --arch smol-llava --data data --out smol-llava.safetensors --compile
      attnkit train vlm-ask --adapter p-adapter --data answered --out answered.safetensors
    """
    from attnkit.runtime.answers import print_document

    say = talk(quiet)
    shared: dict[str, Any] = {
        "device": device, "threads": threads, "resume": resume, "overwrite": overwrite, "say": say,
    }  # fmt: skip
    own: dict[str, Any] = {"seed": seed, "minutes": minutes, "steps": steps}
    if adapter is not None:
        kind = f"--adapter {adapter}"
        _refuse(kind, {"--arch": arch != DEFAULT, "--init": init, "--compile": compiled, "--precision": precision,
                       "--pictures": pictures})  # fmt: skip
        data = _needed(kind, data, "a folder of images with questions and answers")
        own |= {"batch": batch, "rate": rate, "held_out": held_out, "max_pixels": max_pixels}
        result, said = _train_adapter(adapter, model, data, out, setting or [], own, shared)
    elif arch == "smol-llava":
        _refuse(f"--arch {arch}", {"--set": setting})
        data = _needed(f"--arch {arch}", data, "a folder with stamps, photographs and easy_vqa")
        own |= {"pictures": pictures, "precision": precision}
        result, said = _train_projector(data, out, own, {**shared, "init": init, "compiled": compiled})
    else:
        if data is not None or setting:
            raise UsageError("--data and --set: are for an adapter; give --adapter as well, or leave them out")
        _refuse(f"--arch {arch}", {"--pictures": pictures})
        own |= {"precision": precision}
        result, said = _train_scenes(out, own, {**shared, "init": init, "compiled": compiled})
    if json:
        print_document(result)
    else:
        say(f"{out}: {said}")


def _refuse(kind: str, options: dict[str, Any]) -> None:
    """UsageError for the first option that is given though what is trained has no use for it."""
    for option in (option for option, given in options.items() if given):
        raise UsageError(f"{option}: has no use with {kind}; leave it out")


def _needed(kind: str, data: Path | None, what: str) -> Path:
    if data is None:
        raise UsageError(f"{kind}: needs --data, {what}")
    return data


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _train_scenes(out: Path, own: dict[str, Any], shared: dict[str, Any]) -> tuple[dict[str, Any], str]:
    from attnkit.tasks.vlm_ask.training import Recipe, train

    result = train(out, Recipe(**_given(own)), **shared)
    said = ", ".join(f"{name} {value}" for name, value in result["validation"].items())
    return result, f"{said} on {result['validation_scenes']} validation scenes"


def _train_projector(data: Path, out: Path, own: dict[str, Any], shared: dict[str, Any]) -> tuple[dict[str, Any], str]:
    from attnkit.tasks.vlm_ask.captioned.training import Recipe, train

    result = train(data, out, Recipe(**_given(own)), **shared)
    scores = result["validation"].items()
    said = ", ".join(f"{name} {score['right']} ({score['blind']} blind)" for name, score in scores)
    return result, f"{said} on {sum(score['questions'] for _, score in scores)} validation questions"


def _train_adapter(
    adapter: str,
    model: str,
    data: Path,
    out: Path,
    setting: list[str],
    own: dict[str, Any],
    shared: dict[str, Any],
) -> tuple[dict[str, Any], str]:
    from attnkit.tasks.vlm_ask.adapter_training import recipe_of, train_on

    result = train_on(model, data, out, recipe_of(adapter, setting, **own), **shared)
    before, after = (100 * result[name]["right"] for name in ("validation_before", "validation"))
    return (
        result,
        f"{after:.1f} % of {result['validation_questions']} held-out answers right, {before:.1f} % without it",
    )
