"""`attnkit eval tonemap`: scores of methods over scenes, or of finished pictures against references."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attnkit.runtime.options import BatchOptions, Inputs, batch_command

# one table, made in one process: nothing to skip, resume or hand to a cluster
_NOT_HERE = ("out", "skip_existing", "update", "resume", "jobs", "engine", "scheduler", "wait", "record", "device")


@batch_command(leave_out=_NOT_HERE)
def eval_tonemap(
    batch: BatchOptions,
    inputs: Inputs,
    methods: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Run these methods on the scenes; pfs:OPERATOR runs an installed pfstools"),
    ] = None,
    ref: Annotated[
        Path | None,
        typer.Option(
            "--ref", metavar="DIR", help="References of the same stem: display pictures, linear scenes or both"
        ),
    ] = None,
    views: Annotated[
        int, typer.Option(metavar="N", min=0, help="Perspective views cut from each panorama; 0 takes it whole")
    ] = 8,
    size: Annotated[int, typer.Option(metavar="PIXELS", min=16, help="Long side of a view")] = 640,
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="NAME|PATH|ID", help="Model of method llf-lut")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME.KEY=VALUE", help="A setting of a method; repeatable")
    ] = None,
    tables: Annotated[
        list[Path] | None,
        typer.Option("--out", "-o", metavar="FILE", help="Also write .csv, .json, .jsonl or .md; repeatable"),
    ] = None,
) -> None:
    """Score tone-mapping methods, or finished pictures, with TMQI and its guards.

    With --methods every scene is rendered by each method and scored against itself: TMQI with its parts S (structural
    fidelity) and N (naturalness), the share of edges turned round (halos), the hue error and the noise gain in the
    dark. Panoramas are cut into perspective views. Intervals are 95 % bootstrap intervals over scenes, differences to
    the first method are paired. Without --methods the inputs are finished pictures, compared with those of --ref.

    Examples:
      attnkit eval tonemap examples/hdr --methods llf,reinhard,drago
      attnkit eval tonemap examples/hdr --methods llf-lut,pfs:reinhard02 --out scores.csv --out scores.md
      attnkit eval tonemap out/*.png --ref examples/hdr
    """
    from attnkit.tasks.tonemap.evaluation_run import Evaluation, run_evaluation

    evaluation = Evaluation(
        inputs=tuple(inputs),
        methods=None if methods is None else tuple(name.strip() for name in methods.split(",") if name.strip()),
        reference=ref,
        views=views,
        size=size,
        model=model,
        settings=tuple(settings or ()),
        tables=tuple(tables or ()),
    )
    code = run_evaluation(evaluation, batch)
    if code:
        raise typer.Exit(code)
