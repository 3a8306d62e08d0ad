"""One evaluation from cube files to tables: checks first, then every cube, then the summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnkit.cubes import identify, open_cube
from attnkit.runtime.discovery import HEAD_BYTES
from attnkit.runtime.errors import EXIT_DONE, EXIT_INTERRUPTED, AttnkitError, ItemError, UsageError
from attnkit.scoring.files import check_files
from attnkit.scoring.items import score_items, show_plan

from .downstream import Classifier, SplitBy
from .evaluate import AS_IT_IS, Row, Scored, size_text
from .evaluation_report import Findings, report
from .files import HsiEnhanceFiles
from .methods import METHODS, has_model

if TYPE_CHECKING:
    from attnkit.runtime.items import Item
    from attnkit.runtime.options import BatchOptions



@dataclass(frozen=True)
class Evaluation:
    """What to score: `methods` on darkened references, or (None) finished cubes against `reference`.

    reference    a cube for all predictions, or a folder with cubes of their stems
    exposures    shares of full exposure that references are darkened to
    seeds        how many dark cubes of each
    scale        stored value that is 1 in cube and reference, or auto
    blocks       of pixels that intervals are drawn from
    labels       classes of the pixels of the one cube: adds the downstream test
    """

    inputs: tuple[str, ...]
    methods: tuple[str, ...] | None = None
    reference: Path | None = None
    exposures: tuple[float, ...] = (1 / 15,)
    seeds: int = 3
    blocks: int = 16
    scale: str = "auto"
    best_scale: bool = False
    rows: str | None = None
    cols: str | None = None
    bands: str | None = None
    key: str | None = None
    axis_order: str | None = None
    wavelengths: Path | None = None
    model: str | None = None
    settings: tuple[str, ...] = ()
    memory: int = 1_500_000_000
    per_band: bool = False
    plot: Path | None = None
    tables: tuple[Path, ...] = ()
    labels: Path | None = None
    labels_key: str | None = None
    classifier: Classifier = "svm"
    train_share: float = 0.1
    splits: int = 10
    split_by: SplitBy = "pixels"


def exposures_of(texts: Sequence[str]) -> tuple[float, ...]:
    """The shares of --exposure, as 1/15 or .0667, each once; UsageError unless all are above 0 and up to 1."""
    found: dict[float, None] = {}
    for text in [part.strip() for whole in texts for part in whole.split(",")]:
        try:
            value = float(Fraction(text))
        except (ValueError, ZeroDivisionError):
            value = 0.0
        if not 0 < value <= 1:
            raise UsageError(f"--exposure: got {text!r}, expected a share above 0 and up to 1, such as 1/15")
        found[value] = None
    return tuple(found)


class _Cubes(HsiEnhanceFiles):
    """Tells the discovery which files are cubes, results of hsi-enhance too."""

    def folder_takes(self, path: Path, kind: str) -> bool:
        return kind in self.folder_kinds


def run_evaluation(evaluation: Evaluation, batch: BatchOptions) -> int:
    """Score everything, print the tables, write the files of --out and --plot; returns the exit code."""
    from attnkit.runtime.progress import Talk

    talk = Talk("eval hsi-enhance", quiet=batch.quiet, verbose=batch.verbose, log_file=batch.log_file)
    talk.check()
    files = _check(evaluation, batch)
    items = _Cubes(input_format=batch.input_format).items(evaluation.inputs, batch)
    if not items:
        raise AttnkitError(f"{' '.join(evaluation.inputs)}: no cube found; --recursive looks into sub-folders")
    if evaluation.labels is not None and len(items) > 1:
        raise UsageError(f"--labels: got {len(items)} cubes, expected the one that the labels are of")
    if batch.dry_run:
        show_plan(items, evaluation.methods, batch)
        return EXIT_DONE
    findings = Findings()
    score = _score_prediction if evaluation.methods is None else _score_methods
    scored, failed, code = score_items(
        items, lambda item: score(evaluation, batch, item, files, findings), talk, fail_fast=batch.fail_fast
    )
    findings.scored = scored
    for name, count in _missing(scored).items():
        talk.info(f"{name}: {count} samples are no numbers; they were scored as 0")
    report(
        findings,
        batch,
        failed,
        settings=_settings(evaluation, batch),
        tables=evaluation.tables if code != EXIT_INTERRUPTED else (),
        plot=evaluation.plot if code != EXIT_INTERRUPTED else None,
        bands=evaluation.per_band,
    )
    return code


def _check(evaluation: Evaluation, batch: BatchOptions) -> dict[str, HsiEnhanceFiles]:
    """Refuse what does not go together; the options of each method by its name, or of cubes under the name ""."""
    from attnkit.runtime.values import parse_settings

    from .methods import valid_settings

    if evaluation.methods is None:
        if evaluation.reference is None:
            raise UsageError("--methods or --ref: got neither; name methods to run, or references of finished cubes")
        if not evaluation.reference.exists():
            raise UsageError(f"--ref {evaluation.reference}: no such file or folder")
        without = {"--model": evaluation.model, "--set": evaluation.settings, "--labels": evaluation.labels}
        for option, value in without.items():
            if value:
                raise UsageError(f"{option}: got no --methods that it could belong to")
    elif evaluation.reference is not None:
        raise UsageError("--ref: got --methods too, which darken the inputs themselves; give one of the two")
    check_files(evaluation.tables, evaluation.plot, batch.overwrite)
    own = parse_settings(evaluation.settings, valid_settings())
    files = {}
    for name in _names(evaluation):
        learned = bool(name) and has_model(name)
        files[name] = HsiEnhanceFiles(
            method=name or "gain",
            model=evaluation.model if learned else None,
            own_settings=own,
            memory=evaluation.memory,
            scale=evaluation.scale,
            key=evaluation.key,
            axis_order=evaluation.axis_order,
            wavelengths=evaluation.wavelengths,
            rows=evaluation.rows,
            cols=evaluation.cols,
            bands=evaluation.bands,
            input_format=batch.input_format,
            offline=batch.offline,
        )
        files[name].validate()
    if evaluation.model is not None and not any(map(has_model, files)):
        raise UsageError("--model: got no method in --methods that uses one, expected hsie among them")
    if batch.device not in ("auto", "cpu") and not any(map(has_model, filter(None, files))):
        raise UsageError(f"--device: got {batch.device}, expected cpu; no method of this run has another device")
    if evaluation.labels is not None:
        if not evaluation.labels.is_file():
            raise UsageError(f"--labels {evaluation.labels}: no such file")
        # said now and not after the methods have run
        import sklearn  # noqa: F401
    return files


def _names(evaluation: Evaluation) -> tuple[str, ...]:
    names = evaluation.methods
    if names is None:
        return ("",)
    unknown = [name for name in names if name not in METHODS]
    if unknown or not names:
        got = repr(unknown[0]) if unknown else "none"
        raise UsageError(f"--methods: got {got}, expected some of {', '.join(METHODS)}")
    return tuple(dict.fromkeys(names))


def _score_prediction(
    evaluation: Evaluation, batch: BatchOptions, item: Item, files: Mapping[str, HsiEnhanceFiles], findings: Findings
) -> list[Scored]:
    from .evaluate import score_pair
    from .task import EnhanceRequest, crop_of
    from .views import full_scale, view_of_file

    cubes = files[""]
    assert evaluation.reference is not None
    shared = evaluation.reference.is_file()
    path = evaluation.reference if shared else _reference_of(item, evaluation.reference)
    with cubes.open_item(item) as reader, cubes.open_reference(path) as other:
        part = crop_of(other.info, cubes.request())
        scale, scale_from = full_scale(other, part, cubes.request().scale)
        reference = view_of_file(other, part, scale)
        # a cube that was enhanced in part is compared with that part
        whole = (reader.info.bands, reader.info.rows, reader.info.columns)
        own = crop_of(reader.info, EnhanceRequest()) if whole == part.shape else part
        prediction = view_of_file(reader, own, scale)
        if whole not in (part.shape, (other.info.bands, other.info.rows, other.info.columns)):
            raise ItemError(
                f"{item.name}: is {size_text(whole)}, its reference {path} {size_text(part.shape)}; "
                "give cubes of one size"
            )
        name = str(path) if shared else item.name
        findings.wavelengths[name] = reference.wavelengths or prediction.wavelengths
        row: Row = {"item": name, "prediction": item.name, "method": item.stem if shared else "prediction"}
        row |= {"scale": scale, "scale_from": scale_from}
        return list(
            score_pair(row, prediction, reference, blocks=evaluation.blocks, scaled=evaluation.best_scale)
        )


def _score_methods(
    evaluation: Evaluation, batch: BatchOptions, item: Item, files: Mapping[str, HsiEnhanceFiles], findings: Findings
) -> list[Scored]:
    import numpy as np

    from .darkening import DarkModel
    from .evaluate import score_methods
    from .task import crop_of
    from .views import full_scale, view_of_file

    device = "cpu" if batch.device == "auto" else batch.device
    requests = {
        name: replace(one.request(), device=device if has_model(name) else "cpu") for name, one in files.items()
    }
    cubes = next(iter(files.values()))
    with cubes.open_item(item) as reader:
        part = crop_of(reader.info, cubes.request())
        scale, scale_from = full_scale(reader, part, cubes.request().scale)
        view = view_of_file(reader, part, scale)
        clean = np.asarray(view.read(slice(None)), np.float32)
        watch = None
        if evaluation.labels is not None:
            watch = _watch(evaluation, batch, item, reader.info, part, clean, findings)
    findings.wavelengths[item.name] = view.wavelengths
    found = list(
        score_methods(
            item.name,
            clean,
            requests,
            models=[DarkModel(exposure=exposure) for exposure in evaluation.exposures],
            seeds=[batch.seed + at for at in range(evaluation.seeds)],
            blocks=evaluation.blocks,
            wavelengths=None if view.wavelengths is None else tuple(view.wavelengths),
            watch=watch,
        )
    )
    for one in found:
        one.row.update(scale=scale, scale_from=scale_from)
    return found


def _watch(
    evaluation: Evaluation, batch: BatchOptions, item: Item, info: Any, part: Any, clean: Any, findings: Findings
) -> Any:
    """Classifies the clean cube, and then every cube that it is shown."""
    from .downstream import Task, check_labels

    assert evaluation.labels is not None
    where = f"--labels {evaluation.labels}"
    with open_cube(evaluation.labels, key=evaluation.labels_key) as reader:
        labels = check_labels(reader.read(), where)
    if labels.shape != (info.rows, info.columns):
        got, expected = f"{labels.shape[1]}x{labels.shape[0]}", f"{info.columns}x{info.rows}"
        raise UsageError(f"{where}: got {got} pixels, the cube {item.name} has {expected}")
    findings.task = task = Task(
        labels[slice(*part.rows), slice(*part.columns)],
        evaluation.classifier,
        evaluation.train_share,
        [batch.seed + at for at in range(evaluation.splits)],
        evaluation.split_by,
    )
    findings.accuracies += [{"item": item.name, "input": "clean", **row} for row in task.accuracies(clean)]

    def watch(exposure: float, seed: int, name: str, cube: Any) -> None:
        head = {"item": item.name, "input": name, "exposure": exposure, "seed": seed}
        findings.accuracies.extend({**head, **row} for row in task.accuracies(cube))

    return watch


def _reference_of(item: Item, folder: Path) -> Path:
    """The cube of a folder that has the same stem, with or without the ending of a result of hsi-enhance."""
    if item.path is None:
        raise ItemError(f"{item.name}: standard input has no name to find a reference by; give --ref a file")
    stems = {item.stem, item.stem.removesuffix("_hsi-enhance")}
    found: dict[Path, None] = {}
    for path in sorted(folder.iterdir()):
        if path.stem not in stems or not path.is_file() or path.resolve() == item.path.resolve():
            continue
        with path.open("rb") as stream:
            identity = identify(path, stream.read(HEAD_BYTES))
        if identity is not None and identity.path != item.path:
            found[identity.path or path] = None
    if len(found) > 1:
        names = " and ".join(path.name for path in list(found)[:2])
        raise ItemError(f"{item.name}: both {names} could be its reference; keep one")
    if not found:
        raise ItemError(f"{item.name}: no reference named {item.stem}.* in {folder}")
    return next(iter(found))


def _missing(scored: Sequence[Scored]) -> dict[str, int]:
    found: dict[str, int] = {}
    for one in scored:
        if one.row["missing_samples"] and one.row["scaling"] == AS_IT_IS:
            name = one.row.get("prediction", f"{one.row['item']}, {one.row['method']}")
            found[name] = found.get(name, 0) + one.row["missing_samples"]
    return found


def _settings(evaluation: Evaluation, batch: BatchOptions) -> dict[str, Any]:
    from .darkening import DarkModel

    shown = {key: value for key, value in asdict(evaluation).items() if key not in ("inputs", "tables", "plot")}
    shown = {key: str(value) if isinstance(value, Path) else value for key, value in shown.items()}
    shown["seed"] = batch.seed
    if evaluation.methods is not None:
        shown["darkening"] = [asdict(DarkModel(exposure=exposure)) for exposure in evaluation.exposures]
    return shown
