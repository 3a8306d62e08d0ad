"""One evaluation from answer files to tables: checks first, then every file, then the summary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from attnkit.runtime.command import FileCommand
from attnkit.runtime.errors import (
    EXIT_DONE,
    EXIT_INTERRUPTED,
    EXIT_SOME_FAILED,
    AttnkitError,
    ItemError,
    UsageError,
)
from attnkit.runtime.items import Item
from attnkit.scoring.files import check_files
from attnkit.scoring.items import score_items, show_plan

from .answer_files import PLAIN, AnswerFile, by_calibration, read_answers, split_of, subtask_files
from .evaluate import SCHEMES, Metric, summarise
from .evaluation_report import report
from .matching import Matched, match_chair, match_mme, match_pope, match_vqa
from .metrics.yes_no import PARSERS
from .object_table import ObjectTable, read_objects
from .reference_files import Question, read_pairs, read_people, read_yes_no

if TYPE_CHECKING:
    from collections.abc import Mapping

    from attnkit.runtime.options import BatchOptions
    from attnkit.runtime.progress import Talk

# lines that cannot be used: the first ones are named one by one
_NAMED_LINES = 5
Parser = Literal["pope", "pai", "exact"]
# what becomes of an answer without the word yes or no
_UNCLEAR = {
    "pope": "they count as no if their first sentence has No, not or no, else as yes",
    "pai": "they count as no if they have No, NO, not, no or a word in n't, else as yes",
    "exact": "only yes and no alone are answers: all others are wrong, and left out of recall",
}


@dataclass(frozen=True)
class Evaluation:
    """What to score: the answers of `inputs` by `metric`.

    reference     what is right, a file or folder; None where the answers themselves tell it
    baseline      answers to compare with, read as the inputs are; a folder has one file for each split or stem; of
                  a file with several calibrations the plain answers count
    parser        what is yes and what is no, for POPE
    synonyms      words of each class, for CHAIR
    complete      a prediction that lacks answers fails
    details       JSONL of every answer and what it counted as
    objects_out   the objects of all images as a table that --ref takes
    """

    metric: Metric
    inputs: tuple[str, ...]
    reference: Path | None = None
    baseline: Path | None = None
    parser: Parser | None = None
    synonyms: Path | None = None
    complete: bool = False
    tables: tuple[Path, ...] = ()
    details: Path | None = None
    objects_out: Path | None = None


@dataclass(frozen=True)
class _Reference:
    """What is right, as the metric needs it; both None where the answers tell it themselves."""

    questions: Sequence[Question] | None = None
    table: ObjectTable | None = None


class _Answers(FileCommand):
    """Tells the discovery which files are answers; a folder of MME's text files is one prediction."""

    name = "eval vlm-ask"
    folder_kinds = frozenset({"json", "columns"})

    def __init__(self, metric: Metric) -> None:
        self.metric = metric

    def kind_of(self, path: Path | None, head: bytes) -> str | None:
        start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
        if start[:1] in (b"{", b"["):
            return "json"
        return "columns" if self.metric == "mme" and head.partition(b"\n")[0].count(b"\t") >= 2 else None

    def items(self, inputs: Sequence[str], batch: BatchOptions) -> list[Item]:
        found: dict[str, Item] = {}
        for text in inputs:
            folder = Path(text)
            if self.metric == "mme" and folder.is_dir() and subtask_files(folder):
                here = [Item(name=str(folder), stem=folder.name, kind="folder of columns", path=folder)]
            else:
                here = super().items([text], replace(batch, limit=None))
            for item in here:
                found.setdefault(str(item.path and item.path.absolute()), item)
        return list(found.values())[: batch.limit]


def run_evaluation(evaluation: Evaluation, batch: BatchOptions) -> int:
    """Score everything, print the tables, write the files; returns the exit code."""
    from attnkit.runtime.progress import Talk

    talk = Talk("eval vlm-ask", quiet=batch.quiet, verbose=batch.verbose, log_file=batch.log_file)
    talk.check()
    _check(evaluation, batch)
    items = _Answers(evaluation.metric).items(evaluation.inputs, batch)
    if not items:
        raise AttnkitError(
            f"{' '.join(evaluation.inputs)}: no answers found; a folder gives its JSON and JSONL files"
            + (" and text files of MME" if evaluation.metric == "mme" else "")
            + ", --recursive looks into its folders"
        )
    if batch.dry_run:
        show_plan(items, [evaluation.metric], batch)
        return EXIT_DONE
    reference = _reference(evaluation, talk)
    baseline = _baseline(evaluation, reference, items)
    lost: list[dict[str, Any]] = []

    def score(item: Item) -> list[Matched]:
        source = item.path if item.path is not None else item.data
        assert source is not None
        files = by_calibration(read_answers(source, item.name)).values()
        matched = [_match(evaluation, file, reference) for file in files]
        for found in matched:
            missing = sum(part.missing for part in found.parts if part.name != "all" or len(found.parts) == 1)
            if evaluation.complete and missing:
                unit = SCHEMES[evaluation.metric].unit
                raise ItemError(f"{found.item}: {missing} {unit} of the reference lack an answer")
            _tell(evaluation, found, missing, talk)
            lost.extend({"item": found.item, "error": line} for line in found.lost)
        return matched

    scored, failed, code = score_items(items, score, talk, fail_fast=batch.fail_fast)
    rows = summarise(evaluation.metric, scored, baseline, batch.seed)
    if len({row["ids_sha256"] for row in rows if "ids_sha256" in row}) > 1:
        talk.info("the predictions are of different images: their scores cannot be compared with each other")
    written = code != EXIT_INTERRUPTED and bool(rows)
    if written:
        _write_more(evaluation, scored, reference)
    report(
        evaluation.metric,
        rows,
        [*failed, *lost],
        batch,
        baseline=None if evaluation.baseline is None else str(evaluation.baseline),
        settings=_settings(evaluation, batch),
        tables=evaluation.tables if written else (),
    )
    return EXIT_SOME_FAILED if lost and code == EXIT_DONE else code


def _check(evaluation: Evaluation, batch: BatchOptions) -> None:
    """Refuse what does not go together, before anything is read."""
    metric = evaluation.metric
    if metric == "chair" and evaluation.reference is None:
        raise UsageError("--ref: not given, expected a folder of COCO's annotations or a table of objects")
    for option, path in (
        ("--ref", evaluation.reference),
        ("--baseline", evaluation.baseline),
        ("--synonyms", evaluation.synonyms),
    ):
        if path is not None and not path.exists():
            raise UsageError(f"{option} {path}: no such file or folder")
    for option, value, owner in (
        ("--parser", evaluation.parser, "pope"),
        ("--synonyms", evaluation.synonyms, "chair"),
        ("--objects-out", evaluation.objects_out, "chair"),
    ):
        if value is not None and metric != owner:
            raise UsageError(f"{option}: got {value} with {metric}, expected {owner}, which alone has a use for it")
    if evaluation.complete and metric == "chair":
        raise UsageError("--complete: got it with chair, whose reference has more images than are captioned")
    check_files(evaluation.tables, None, batch.overwrite)
    for option, path, suffix in (
        ("--details", evaluation.details, ".jsonl"),
        ("--objects-out", evaluation.objects_out, ".json"),
    ):
        if path is None:
            continue
        if path.suffix != suffix:
            raise UsageError(f"{option} {path}: got suffix {path.suffix or 'none'}, expected {suffix}")
        if not path.parent.is_dir():
            raise UsageError(f"{option} {path}: no folder {path.parent}")
        if path.is_dir() or (path.exists() and not batch.overwrite):
            raise UsageError(f"{option} {path}: exists; add --overwrite or name another file")
        if path in evaluation.tables:
            raise UsageError(f"{option} {path}: is written by --out too; name another file")


def _reference(evaluation: Evaluation, talk: Talk) -> _Reference:
    path = evaluation.reference
    if path is None:
        return _Reference()
    if evaluation.metric == "chair":
        table = read_objects(path, evaluation.synonyms)
        if not table.synonyms:
            talk.info("no --synonyms: only the names of classes count, unlike in published scores")
        if not table.captions:
            talk.info(f"--ref {path}: no captions_*.json in it: objects that only people's captions name are lacking")
        return _Reference(table=table)
    read = {"pope": read_yes_no, "mme": read_pairs, "vqa": read_people}[evaluation.metric]
    return _Reference(questions=read(path))


def _match(evaluation: Evaluation, file: AnswerFile, reference: _Reference) -> Matched:
    if evaluation.metric == "chair":
        assert reference.table is not None
        return match_chair(file, reference.table)
    if evaluation.metric == "mme":
        return match_mme(file, reference.questions)
    if evaluation.metric == "vqa":
        return match_vqa(file, reference.questions)
    return match_pope(file, reference.questions, PARSERS[evaluation.parser or "pope"])


def _baseline(evaluation: Evaluation, reference: _Reference, items: Sequence[Item]) -> Matched | None:
    """The answers of --baseline; of a folder of files, all splits together."""
    path = evaluation.baseline
    if path is None:
        return None
    paths = [path]
    if path.is_dir() and not (evaluation.metric == "mme" and subtask_files(path)):
        stems = {item.stem for item in items}
        splits = {split_of(item.name) for item in items} - {None}
        paths = [one for one in sorted(path.iterdir()) if one.stem in stems or split_of(one.name) in splits]
        if not paths:
            raise UsageError(f"--baseline {path}: no file in it named as an input or its split; name the file itself")
    found = Matched(str(path))
    for one in paths:
        try:
            files = by_calibration(read_answers(one, f"--baseline {one}"))
            if len(files) > 1 and PLAIN not in files:
                raise UsageError(f"--baseline {one}: has answers of {', '.join(files)}; expected one, or {PLAIN} too")
            file = files[PLAIN] if len(files) > 1 else next(iter(files.values()))
            found.parts += _match(evaluation, file, reference).parts
        except ItemError as error:
            raise UsageError(str(error)) from error
    names = [part.name for part in found.parts]
    if len(set(names)) < len(names):
        raise UsageError(f"--baseline {path}: several files answer {names[0]}; name one file")
    return found


def _tell(evaluation: Evaluation, found: Matched, missing: int, talk: Talk) -> None:
    """What a reader of the scores must know: lines that failed, questions left out, answers that are neither."""
    for line in found.lost[:_NAMED_LINES]:
        talk.error(f"{found.item}: {line}")
    if len(found.lost) > _NAMED_LINES:
        talk.error(f"{found.item}: {len(found.lost) - _NAMED_LINES} more lines cannot be used; --json lists them")
    if missing:
        unit = SCHEMES[evaluation.metric].unit
        talk.info(f"{found.item}: {missing} {unit} of the reference lack an answer; they are left out of the scores")
    unclear = sum(part.unclear for part in found.parts)
    if unclear:
        rule = _UNCLEAR[evaluation.parser or "pope"] if evaluation.metric == "pope" else "they count as wrong"
        talk.info(f"{found.item}: {unclear} answers say neither yes nor no; {rule}")


def _write_more(evaluation: Evaluation, scored: Sequence[Matched], reference: _Reference) -> None:
    from attnkit.runtime.records import json_line
    from attnkit.runtime.tables import replace_file

    if evaluation.details is not None:
        rows = [{"item": one.item, **row} for one in scored for row in one.details]
        replace_file(evaluation.details, "".join(json_line(row) + "\n" for row in rows).encode())
    if evaluation.objects_out is not None and reference.table is not None:
        replace_file(evaluation.objects_out, reference.table.text().encode())


def _settings(evaluation: Evaluation, batch: BatchOptions) -> Mapping[str, Any]:
    paths = {"ref": evaluation.reference, "baseline": evaluation.baseline, "synonyms": evaluation.synonyms}
    shown: dict[str, Any] = {key: None if path is None else str(path) for key, path in paths.items()}
    if evaluation.metric == "pope":
        shown["parser"] = evaluation.parser or "pope"
    return {"command": "eval vlm-ask", "metric": evaluation.metric, **shown, "seed": batch.seed}
