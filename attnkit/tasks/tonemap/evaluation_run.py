"""One evaluation from files to a table: checks first, then every picture, then the summary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnkit.runtime.command import FileCommand
from attnkit.runtime.errors import EXIT_DONE, EXIT_INTERRUPTED, AttnkitError, ItemError, UsageError
from attnkit.scoring.files import check_files, write_tables
from attnkit.scoring.items import score_items, show_plan

from . import evaluate

if TYPE_CHECKING:
    from attnkit.runtime.items import Item
    from attnkit.runtime.options import BatchOptions

_FLOAT_KINDS = frozenset({"radiance", "exr", "pfm"})
_DISPLAY_KINDS = frozenset({"png", "jpeg", "tiff"})


@dataclass(frozen=True)
class Evaluation:
    """What to score: `methods` on scenes, or (None) finished pictures against the folder `reference`."""

    inputs: tuple[str, ...]
    methods: tuple[str, ...] | None
    reference: Path | None = None
    views: int = 8
    size: int = 640
    model: str | None = None
    settings: tuple[str, ...] = ()
    tables: tuple[Path, ...] = ()


class _Scores(FileCommand):
    """Tells the discovery which files are scenes, or finished pictures."""

    name = "eval tonemap"
    kinds = _FLOAT_KINDS | _DISPLAY_KINDS

    def __init__(self, predictions: bool) -> None:
        self.folder_kinds = _DISPLAY_KINDS if predictions else _FLOAT_KINDS  # type: ignore[misc]

    def kind_of(self, path: Path | None, head: bytes) -> str | None:
        from attnkit.pictures import sniff

        kind = sniff(head, path)
        return None if kind == "raw" else kind


def run_evaluation(evaluation: Evaluation, batch: BatchOptions) -> int:
    """Score everything, print the table, write the files of --out; returns the exit code."""
    from attnkit.runtime.progress import Talk

    talk = Talk("eval tonemap", quiet=batch.quiet, verbose=batch.verbose, log_file=batch.log_file)
    talk.check()
    _check(evaluation, batch)
    items = _Scores(evaluation.methods is None).items(evaluation.inputs, batch)
    if not items:
        raise AttnkitError(
            f"{' '.join(evaluation.inputs)}: no picture to score found; a folder gives "
            + ("PNG, JPEG and TIFF files" if evaluation.methods is None else "Radiance, EXR and PFM files")
            + ", --recursive looks into its folders"
        )
    if batch.dry_run:
        show_plan(items, evaluation.methods, batch)
        return EXIT_DONE
    renderers = _renderers(evaluation, batch)
    rows, failed, code = score_items(
        items, lambda item: _score(evaluation, batch, item, renderers), talk, fail_fast=batch.fail_fast
    )
    summary = evaluate.summarise(rows, batch.seed)
    if rows and code != EXIT_INTERRUPTED:
        _write(evaluation, batch, summary, rows)
    _print(batch, summary, rows, failed)
    return code


def _check(evaluation: Evaluation, batch: BatchOptions) -> None:
    if evaluation.methods is not None:
        evaluate.check_methods(evaluation.methods)
    elif evaluation.reference is None:
        raise UsageError("--methods or --ref: got neither; name methods to run, or the references of finished pictures")
    elif evaluation.model is not None or evaluation.settings:
        raise UsageError("--model and --set: got no --methods that they could belong to")
    if evaluation.reference is not None and not evaluation.reference.is_dir():
        raise UsageError(f"--ref {evaluation.reference}: no such folder")
    if evaluation.model is not None and "llf-lut" not in (evaluation.methods or ()):
        raise UsageError("--model: got no method llf-lut in --methods, which would use it")
    check_files(evaluation.tables, None, batch.overwrite)


def _settings(evaluation: Evaluation, batch: BatchOptions) -> dict[str, Any]:
    return {
        "methods": None if evaluation.methods is None else list(evaluation.methods),
        "views": evaluation.views,
        "size": evaluation.size,
        "seed": batch.seed,
        "model": evaluation.model,
        "set": list(evaluation.settings),
    }


def _renderers(evaluation: Evaluation, batch: BatchOptions) -> dict[str, evaluate.Render]:
    if evaluation.methods is None:
        return {}
    import numpy as np

    from attnkit.runtime.values import parse_settings

    from .methods import valid_settings
    from .task import TonemapRequest

    template = TonemapRequest(
        np.zeros((1, 1, 3), np.float32),
        model=evaluation.model,
        offline=batch.offline,
        settings=parse_settings(evaluation.settings, valid_settings()),
    )
    renderers = {name: evaluate.renderer(name, template) for name in evaluation.methods}
    # compiling, loading and opening happen here, so that the seconds of the table are those of the work
    ramp = np.tile(np.geomspace(0.01, 100, 64, dtype=np.float32)[None, :, None], (48, 1, 3))
    for name, render in renderers.items():
        if not name.startswith(evaluate.PFSTOOLS_PREFIX):
            render(ramp)
    return renderers


def _score(
    evaluation: Evaluation, batch: BatchOptions, item: Item, renderers: dict[str, evaluate.Render]
) -> list[evaluate.Row]:
    from attnkit.pictures import read_picture

    if item.kind is None:
        raise ItemError(f"{item.name}: not a picture that can be read, expected Radiance, EXR, PFM, TIFF, PNG or JPEG")
    source: Any = item.path if item.path is not None else item.data
    picture = read_picture(source, input_format=batch.input_format)
    if evaluation.methods is None:
        assert evaluation.reference is not None
        if item.path is None:
            raise ItemError(f"{item.name}: standard input has no name to find a reference by; give a file")
        found = [read_picture(path) for path in evaluate.references_of(item.path, evaluation.reference)]
        return [evaluate.score_prediction(item.name, evaluate.display_of(picture), found)]
    reference = None
    if evaluation.reference is not None and item.path is not None:
        found = [read_picture(path) for path in evaluate.references_of(item.path, evaluation.reference)]
        reference = next((evaluate.display_of(one) for one in found if not one.hdr), None)
    scenes = evaluate.scenes_of(
        picture.pixels, 0 if reference is not None else evaluation.views, evaluation.size, batch.seed
    )
    if reference is not None and reference.shape != picture.pixels.shape:
        got, expected = (f"{shape[1]}x{shape[0]}" for shape in (reference.shape, picture.pixels.shape))
        raise ItemError(f"{item.name}: its reference is {got}, expected {expected}")
    rows: list[evaluate.Row] = []
    for at, pixels in enumerate(scenes):
        label = item.name if len(scenes) == 1 else f"{item.name}#{at}"
        rows += evaluate.score_scene(label, item.name, pixels, renderers, batch.seed, reference)
    return rows


def _write(
    evaluation: Evaluation, batch: BatchOptions, summary: Sequence[evaluate.Row], rows: Sequence[evaluate.Row]
) -> None:
    keys = [key for key in evaluate.MEASURES if any(key in row for row in rows)]
    write_tables(
        evaluation.tables,
        settings=_settings(evaluation, batch),
        document={"summary": summary, "pictures": rows},
        rows=rows,
        columns=["item", "scene", "method", *keys],
        shown=[("", *evaluate.table_of(summary))],
    )


def _print(
    batch: BatchOptions,
    summary: Sequence[evaluate.Row],
    rows: Sequence[evaluate.Row],
    failed: Sequence[dict[str, str]],
) -> None:
    from attnkit.runtime.answers import print_document, print_table
    from attnkit.runtime.records import json_line

    if batch.jsonl:
        for row in [*rows, *failed]:
            print(json_line(row))
    elif batch.json:
        result = {"methods": list(summary), "pictures": list(rows), "failed": list(failed)}
        print_document(result, {"pictures": len(rows), "failed": len(failed)})
    elif rows and not batch.quiet:
        print_table(*evaluate.table_of(summary))
