"""`attnkit eval hsi-enhance`: scores of finished cubes against references, or of methods on darkened references."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from attnkit.runtime.options import BatchOptions, Inputs, batch_command
from attnkit.runtime.values import parse_bytes

# one table, made in one process: nothing to skip, resume or hand to a cluster
_NOT_HERE = ("out", "skip_existing", "update", "resume", "jobs", "engine", "scheduler", "wait", "record")
WHAT, DARK, PART, CLASSES, ANSWER = "What is scored", "Darkening", "Its files", "Downstream test", "Outputs"


def _option(panel: str, text: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=panel, **more)


@batch_command(leave_out=_NOT_HERE)
def eval_hsi_enhance(
    batch: BatchOptions,
    inputs: Inputs,
    ref: Annotated[
        Path | None, _option(WHAT, "Reference of all cubes, or folder with one of each stem", "--ref", metavar="PATH")
    ] = None,
    methods: Annotated[
        str | None, _option(WHAT, "Darken the inputs and run these methods on them", metavar="A,B")
    ] = None,
    scale: Annotated[
        str, _option(WHAT, "Stored value that is 1; auto: as hsi-enhance takes the reference", metavar="auto|VALUE")
    ] = "auto",
    best_scale: Annotated[
        bool, _option(WHAT, "Score once more after the one factor that fits best; always with --methods")
    ] = False,
    per_band: Annotated[bool, _option(WHAT, "Also list PSNR and SSIM of each band")] = False,
    blocks: Annotated[int, _option(WHAT, "Blocks of pixels that intervals are drawn from", metavar="N", min=1)] = 16,
    exposure: Annotated[
        list[str] | None,
        _option(DARK, "Share of full exposure, or a comma list; 1/15 if not given; repeatable", metavar="SHARE"),
    ] = None,
    seeds: Annotated[int, _option(DARK, "Dark cubes of each exposure, from --seed on", metavar="N", min=1)] = 3,
    model: Annotated[str | None, _option(DARK, "Name, file or hub id of a model for hsie", "--model", "-m")] = None,
    setting: Annotated[
        list[str] | None, _option(DARK, "A method's own setting; repeatable", "--set", metavar="METHOD.KEY=VALUE")
    ] = None,
    memory: Annotated[int, _option(DARK, "Memory of a method", metavar="SIZE", parser=parse_bytes)] = 1_500_000_000,
    key: Annotated[str | None, _option(PART, "Variable of a .mat, dataset of an HDF5, array of an .npz")] = None,
    axis_order: Annotated[
        str | None, _option(PART, "Axes of .mat, HDF5 and .npy arrays, such as bands,rows,columns", metavar="A,B,C")
    ] = None,
    wavelengths: Annotated[
        Path | None,
        _option(PART, "Wavelengths, one a line or a column of a table, in place of the cube's", metavar="FILE"),
    ] = None,
    rows: Annotated[str | None, _option(PART, "Only these rows, the end left out", metavar="A:B")] = None,
    cols: Annotated[str | None, _option(PART, "Only these columns", "--cols", metavar="A:B")] = None,
    bands: Annotated[str | None, _option(PART, "Only these bands", metavar="A:B")] = None,
    labels: Annotated[
        Path | None, _option(CLASSES, "Class of each pixel, 0 for none; needs --methods", metavar="FILE")
    ] = None,
    labels_key: Annotated[str | None, _option(CLASSES, "Its variable, dataset or array", metavar="KEY")] = None,
    classifier: Annotated[Literal["svm", "lda"], _option(CLASSES, "What tells the classes apart")] = "svm",
    train_share: Annotated[
        float, _option(CLASSES, "Part of each class that is trained on", metavar="SHARE", min=0.001, max=0.9)
    ] = 0.1,
    splits: Annotated[int, _option(CLASSES, "Draws of the training pixels", metavar="N", min=1)] = 10,
    split_by: Annotated[
        Literal["pixels", "squares"], _option(CLASSES, "What is drawn: pixels, or squares of 12x12 of them")
    ] = "pixels",
    tables: Annotated[
        list[Path] | None,
        _option(ANSWER, "Also write .csv, .json, .jsonl or .md; repeatable", "--out", "-o", metavar="FILE"),
    ] = None,
    plot: Annotated[Path | None, _option(ANSWER, "Also draw PSNR over bands", metavar="FILE.png")] = None,
) -> int:
    """Score enhanced hyperspectral cubes, or the methods that make them.

    Finished cubes are compared with those of --ref: MPSNR (peak 1), MSSIM (11x11 window), SAM and ERGAS, in all bands.
    With --methods the inputs are bright cubes: each is darkened by a model of a push-broom camera, every method gets
    the same dark cube and the same stated gain, and is scored as it is and after its best single factor.

    Pixels that are zero in every band of the reference are left out. Samples that are no numbers count as 0 and are
    counted. Intervals are 95 % bootstrap intervals over blocks of pixels and seeds of the noise; differences to the
    first method are paired. MSSIM needs 11 rows and 11 columns.

    With --labels each pixel's class is told from its spectrum, clean, dark and enhanced, by a classifier that is
    trained on the same random pixels each time; the other labelled pixels are the test, and intervals are over splits.
    Neighbours are alike, and more so after smoothing: --split-by squares keeps training and test apart.

    Examples:
      attnkit eval hsi-enhance bright/outcrop.hdr --ref clean/outcrop.hdr --per-band
      attnkit eval hsi-enhance bright/ --ref clean/ --best-scale --out scores.csv --out scores.md
      # methods on a bright cube that is darkened to two exposures
      attnkit eval hsi-enhance clean/outcrop.hdr --methods gain,mnf,lowrank --exposure 1/15,1/5 --plot bands.png
      # how well pixels can be told apart afterwards
      attnkit eval hsi-enhance fields.npz --key cube --methods gain,mnf --labels fields.npz --labels-key labels
    """
    from attnkit.tasks.hsi_enhance.evaluation_run import Evaluation, exposures_of, run_evaluation

    evaluation = Evaluation(
        inputs=tuple(inputs), reference=ref,
        methods=None if methods is None else tuple(name.strip() for name in methods.split(",") if name.strip()),
        exposures=exposures_of(exposure or ["1/15"]), seeds=seeds, blocks=blocks, scale=scale, best_scale=best_scale,
        rows=rows, cols=cols, bands=bands, key=key, axis_order=axis_order, wavelengths=wavelengths, model=model,
        settings=tuple(setting or ()), memory=memory, per_band=per_band, plot=plot, tables=tuple(tables or ()),
        labels=labels, labels_key=labels_key, classifier=classifier, train_share=train_share, splits=splits,
        split_by=split_by,
    )  # fmt: skip
    return run_evaluation(evaluation, batch)
