"""`attnkit eval vlm-ask`: scores of answers about images, offline and without a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from attnkit.runtime.options import BatchOptions, batch_command

# one table, made in one process: nothing to skip, resume or hand to a cluster, and no model
_NOT_HERE = (
    "out", "skip_existing", "update", "resume", "jobs", "engine", "scheduler", "wait", "record", "device", "offline",
    "input_format",
)  # fmt: skip
WHAT, ANSWER = "What is scored", "Outputs"


def _option(panel: str, text: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=panel, **more)


@batch_command(leave_out=_NOT_HERE)
def eval_vlm_ask(
    batch: BatchOptions,
    metric: Annotated[Literal["pope", "chair", "mme", "vqa"], typer.Argument(help="pope, chair, mme or vqa")],
    inputs: Annotated[
        list[str], typer.Argument(metavar="PRED...", help="Files of answers, folders, globs, or - for standard input")
    ],
    ref: Annotated[
        Path | None, _option(WHAT, "What is right; not needed where the answers tell it", "--ref", metavar="FILE|DIR")
    ] = None,
    baseline: Annotated[
        Path | None, _option(WHAT, "Answers of another run, compared question by question", metavar="PRED")
    ] = None,
    parser: Annotated[
        Literal["pope", "pai", "exact"] | None, _option(WHAT, "What is yes and no in pope; else pope's own rule")
    ] = None,
    synonyms: Annotated[
        Path | None, _option(WHAT, "Words of each class of chair, one class a line", metavar="FILE")
    ] = None,
    complete: Annotated[bool, _option(WHAT, "A prediction that lacks answers fails", "--complete")] = False,
    tables: Annotated[
        list[Path] | None,
        _option(ANSWER, "Also write .csv, .json, .jsonl or .md; repeatable", "--out", "-o", metavar="FILE"),
    ] = None,
    details: Annotated[
        Path | None, _option(ANSWER, "Also write every answer and what it counted as", metavar="FILE.jsonl")
    ] = None,
    objects_out: Annotated[
        Path | None, _option(ANSWER, "Also write the objects of chair's images, for --ref", metavar="FILE.json")
    ] = None,
) -> int:
    """Score answers about images: POPE, CHAIR, MME and VQA accuracy, without a model and without the images.

    PRED holds the answers of one run: JSON lines of attnkit, POPE, LLaVA or lmms-eval (samples), VQA's and CHAIR's
    JSON, or the text files of MME. Several calibrations in a file of attnkit are scored apart; of such a --baseline the
    plain answers count. --ref holds what is right: POPE's questions with labels (a file, or a folder with one for each
    split), COCO's annotation folder or a table of objects, MME's folder, or VQA's annotations; for vqa also a file of
    --tasks, whose labels are the answer of one.

    Intervals are 95 % bootstrap intervals over images. With --baseline the differences are paired, question by
    question; for pope and chair McNemar's exact test says how likely they are by chance. Lines that cannot be used are
    named and left out (exit 3); questions without an answer are counted and left out.

    pope takes yes and no as its authors do: an answer is no if its first sentence has No, not or no, else it is yes;
    pai also sees n't and NO, exact takes yes or no alone. chair counts the words of --synonyms, a list of one class a
    line such as "dog, puppy" (or a CHAIR script that holds one, which is only read); without it the names of the
    classes. Its scores depend on the choice of images, so their number and a hash of their ids are in the table.

    Examples:
      attnkit eval vlm-ask pope answers.jsonl --ref pope/coco_pope_random.json
      attnkit eval vlm-ask pope var_random.jsonl var_popular.jsonl --ref pope/ --baseline plain/ --out pope.csv
      # keep the objects: reading COCO's annotations takes a while
      attnkit eval vlm-ask chair captions.jsonl --ref annotations/ --synonyms synonyms.txt --objects-out objects.json
      attnkit eval vlm-ask mme results/ --ref mme/
      attnkit eval vlm-ask vqa vqa.json --ref v2_mscoco_val2014_annotations.json --json
    """
    from attnkit.tasks.vlm_ask.evaluation_run import Evaluation, run_evaluation

    evaluation = Evaluation(
        metric=metric, inputs=tuple(inputs), reference=ref, baseline=baseline, parser=parser, synonyms=synonyms,
        complete=complete, tables=tuple(tables or ()), details=details, objects_out=objects_out,
    )  # fmt: skip
    return run_evaluation(evaluation, batch)
