"""`attnkit vlm-ask`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from attnkit.runtime.errors import UsageError
from attnkit.runtime.options import BatchOptions, batch_command

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
ASKED, MODEL, CALIBRATION, ANSWER, SHOWN = "Questions", "The model", "Calibration", "The answer", "To look at"


def _option(panel: str, text: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=panel, **more)


@batch_command(leave_out={"input_format"})
def vlm_ask(
    batch: BatchOptions,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGE... QUESTION",
            help="Images, folders, globs, then the question; - reads one of them from standard input",
        ),
    ] = None,
    question: Annotated[
        str | None, _option(ASKED, "The question, so that all arguments are images", metavar="TEXT|-")
    ] = None,
    tasks: Annotated[
        Path | None,
        _option(ASKED, "Many questions: JSON lines with image, question (or POPE's keys) and id", metavar="FILE.jsonl"),
    ] = None,
    image_root: Annotated[
        Path | None, _option(ASKED, "Folder of the images of --tasks; else that of its file", metavar="DIR")
    ] = None,
    each: Annotated[bool, _option(ASKED, "Ask about each image; else about all of them together", "--each")] = False,
    system: Annotated[str | None, _option(ASKED, "System prompt", metavar="TEXT")] = None,
    model: Annotated[
        str, _option(MODEL, "Name, folder or hub id of a vision-language model", "--model", "-m")
    ] = "tiny-llava",
    adapter: Annotated[
        Path | None, _option(MODEL, "Adapter trained on that model: its file, or its folder", metavar="FILE|DIR")
    ] = None,
    dtype: Annotated[Dtype, _option(MODEL, "Numbers to compute in; auto: float32 on a CPU, else the model's own")] = (
        "auto"
    ),
    verify: Annotated[
        bool, _option(MODEL, "Also prove that without a calibration the model's bits are transformers' own", "--verify")
    ] = False,
    calibrate: Annotated[
        str | None,
        _option(
            CALIBRATION,
            "none, var, carve, vhr, paint, act or placebo; a,b: an answer each; a+b: together",
            metavar="NAME[,NAME|+NAME]",
            show_default="none",
        ),
    ] = None,
    setting: Annotated[
        list[str] | None,
        _option(CALIBRATION, "A calibration's own setting; repeatable", "--set", metavar="NAME.KEY=VALUE"),
    ] = None,
    profile: Annotated[
        Path | None,
        _option(CALIBRATION, "The model's sink dimensions; else its folder's sinks.json", metavar="FILE.json"),
    ] = None,
    compare: Annotated[
        bool, _option(CALIBRATION, "Table of the answers without and with calibration (var)", "--compare")
    ] = False,
    max_tokens: Annotated[int, _option(ANSWER, "Longest answer", metavar="N", min=1)] = 128,
    temperature: Annotated[
        float, _option(ANSWER, "Above 0: drawn, item k with seed + k; 0: the likeliest", metavar="T", min=0)
    ] = 0.0,
    top_p: Annotated[
        float, _option(ANSWER, "Draw from the likeliest tokens of this total", metavar="P", min=0, max=1)
    ] = 1.0,
    beams: Annotated[int, _option(ANSWER, "Beam search of this width", metavar="N", min=1)] = 1,
    max_pixels: Annotated[
        int | None, _option(ANSWER, "Make larger images smaller before the model's own resizing", metavar="N", min=1)
    ] = None,
    batch_size: Annotated[
        int, _option(ANSWER, "Questions in one generation; 1 where answers are drawn or looked at", metavar="N", min=1)
    ] = 1,
    probs: Annotated[bool, _option(ANSWER, "Keep each token with its probability and alternatives", "--probs")] = False,
    overlay: Annotated[
        str | None, _option(SHOWN, "Image with the answer's attention, sinks framed", metavar="FILE.png|DIR/")
    ] = None,
    map: Annotated[
        str | None, _option(SHOWN, "Attention rows of the answer's tokens as arrays", metavar="FILE.npz|DIR/")
    ] = None,
    layers: Annotated[
        str | None, _option(SHOWN, "Layers of --overlay and --map", metavar="A:B[,C]", show_default="all")
    ] = None,
    heads: Annotated[
        str | None, _option(SHOWN, "Heads of --overlay and --map", metavar="A:B[,C]", show_default="all")
    ] = None,
) -> int:
    """Ask questions about images, with the model's attention put right.

    Examples:
      attnkit vlm-ask examples/vlm/scene1.png "How many objects are there in the image?"
      # with and without the calibration of visual sinks, side by side
      attnkit vlm-ask examples/vlm/scene1.png "Is there anything orange?" --compare
      # questions of a file, one model load; a second run does what is missing or has changed
      attnkit vlm-ask --tasks examples/vlm/tasks.jsonl --limit 16 --calibrate var --out scenes.jsonl --update
      # one answer an image, as a table
      attnkit vlm-ask examples/vlm/ "Is there a red square?" --batch-size 4 --out answers.csv
      # where the answer looked, and the rows behind it
      attnkit vlm-ask examples/vlm/scene2.png "What is the color of the heart?" --overlay look.png --map look.npz

    Models of the families llava, qwen2_vl, qwen2_5_vl, qwen3_vl, smolvlm, idefics3 and internvl, in folders as
    transformers writes them; Python code of a folder is never run. Without --out one answer is printed bare, several as
    NAME, a tab and ANSWER. Rows of --out hold id, image, question, label and answer as `attnkit eval vlm-ask` reads
    them, the prompt (a run of n image tokens as <image>[n]) and what each calibration did. Images are turned upright,
    transparent parts laid over white, of several frames the first is taken.
    """
    from attnkit.runtime.batch import run_files
    from attnkit.runtime.values import parse_settings
    from attnkit.tasks.vlm_ask.calibrations.settings import valid_settings
    from attnkit.tasks.vlm_ask.files import VlmAskFiles, adapter_file, arms_of
    from attnkit.tasks.vlm_ask.jobs import split_arguments

    images: list[str] = []
    if tasks is None:
        if image_root is not None:
            raise UsageError("--image-root: needs --tasks, whose images are there")
        images, question = split_arguments(inputs or (), question)
    elif inputs:
        raise UsageError(f"--tasks {tasks}: got the argument {inputs[0]!r} as well, expected one of them")
    elif not tasks.is_file():
        raise UsageError(f"--tasks {tasks}: {'is a folder, expected a file' if tasks.is_dir() else 'no such file'}")
    command = VlmAskFiles(
        question=question, tasks=tasks, image_root=image_root, each=each, model=model, dtype=dtype,
        adapter=None if adapter is None else adapter_file(adapter),
        arms=arms_of(calibrate, compare), own_settings=parse_settings(setting or (), valid_settings()),
        profile=profile, compare=compare, verify=verify, system=system, max_tokens=max_tokens, temperature=temperature,
        top_p=top_p, beams=beams, seed=batch.seed, max_pixels=max_pixels, batch_size=batch_size, probs=probs,
        overlay=overlay, map=map, layers=layers, heads=heads, jobs=batch.jobs, offline=batch.offline,
    )  # fmt: skip
    return run_files(command, images, batch)
