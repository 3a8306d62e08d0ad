"""`attnkit models heads`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from attnkit.runtime.values import parse_device


def choose_model_heads(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Registry name, folder or hub id")],
    tasks: Annotated[
        Path, typer.Option("--tasks", metavar="FILE.jsonl", help="JSON lines with image, question and label, or answer")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE.json", help="File for --set act.heads=FILE")
    ] = None,
    image_root: Annotated[
        Path | None, typer.Option("--image-root", metavar="DIR", help="Folder of the images; else that of --tasks")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="Only the first N questions")] = None,
    held_out: Annotated[
        float,
        typer.Option("--held-out", metavar="SHARE", min=0, max=0.9, help="Share of the images that only measures"),
    ] = 0.25,
    choose: Annotated[
        Literal["helps", "harmless"], typer.Option("--choose", help="Heads that help, or also those that cost nothing")
    ] = "helps",
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="act.KEY=VALUE", help="A setting of ACT, such as act.layers=2:20; repeatable"),
    ] = None,
    max_tokens: Annotated[int, typer.Option("--max-tokens", metavar="N", min=1, help="Longest answer")] = 16,
    batch_size: Annotated[
        int, typer.Option("--batch-size", metavar="N", min=1, help="Questions in one generation")
    ] = 8,
    device: Annotated[
        str, typer.Option("--device", metavar="auto|cpu|cuda[:N]", parser=parse_device, help="Where to compute")
    ] = "auto",
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"], typer.Option("--dtype", help="Numbers to compute in")
    ] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an unfinished FILE")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FILE")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Never use the network, not even for a hub id")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors only")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output")] = False,
) -> int:
    """Choose the heads that ACT should calibrate, by questions with known answers.

    Every head is calibrated alone and the answers are counted; heads that help are kept. Layers are ACT's own: all but
    the first two. One head costs about as much as all questions asked once, less where it has few sinks: --limit bounds
    it. FILE grows head by head, so that --resume takes up a run that was cut off. Questions about held-out images do
    not choose: on them the plain model, the chosen heads together and all heads together are compared.

    `vlm-ask --calibrate act --set act.heads=FILE` uses the file; act.heads=auto means act_heads.json in the model's
    folder.

    Examples:
      attnkit models heads tiny-llava --tasks examples/vlm/tasks.jsonl --limit 16
      attnkit models heads ./llava-1.5-7b-hf --tasks pope.jsonl --limit 300 --out ./llava-1.5-7b-hf/act_heads.json
    """
    from attnkit.runtime.answers import print_document, print_table
    from attnkit.runtime.errors import EXIT_DONE, EXIT_SOME_FAILED
    from attnkit.runtime.progress import Talk
    from attnkit.runtime.values import parse_settings
    from attnkit.tasks.vlm_ask.calibrations.act_selection import Selection, choose_heads
    from attnkit.tasks.vlm_ask.calibrations.settings import valid_settings

    valid = {key: value for key, value in valid_settings().items() if key.startswith("act.") and key != "act.heads"}
    talk = Talk("models heads", quiet=quiet, verbose=False, log_file=None)
    selection = Selection(
        model=model, tasks=tasks, image_root=image_root, limit=limit, held_out=held_out, choice=choose,
        own_settings=parse_settings(setting or (), valid), max_tokens=max_tokens, batch_size=batch_size, out=out,
        resume=resume, overwrite=overwrite, device=device, dtype=dtype, offline=offline,
    )  # fmt: skip
    chosen = choose_heads(selection, talk)
    measured, kept = chosen.record["measured"], chosen.record["heads"]
    if json:
        print_document(chosen.record, {"heads": len(kept), "failed": len(chosen.lost)})
    elif not quiet:
        columns = ("layer", "head", "changed", "right", "gained", "lost")
        rows = [[str(one[key]) for key in columns] for one in measured]
        chosen_too = ["yes" if [one["layer"], one["head"]] in kept else "no" for one in measured]
        print_table((*columns, "chosen"), [[*row, said] for row, said in zip(rows, chosen_too, strict=True)])
    for line in chosen.told():
        talk.info(line)
    return EXIT_SOME_FAILED if chosen.lost else EXIT_DONE
