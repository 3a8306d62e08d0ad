"""Answers of models, as files of attnkit, POPE, LLaVA, MME, VQA, CHAIR and lmms-eval hold them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from attnkit.runtime.errors import ItemError

from .record_files import Row, Source, first, records_of, text_of

ANSWER_KEYS = ("answer", "prediction", "response", "caption", "filtered_resps", "resps", "text")
# the calibration that is none
PLAIN = "none"
SPLITS = ("random", "popular", "adversarial")


@dataclass(frozen=True)
class Answer:
    """What one answer says, and what its file says of the question.

    place     where it stands in the file
    id        of the question, or of the image of a caption
    part      split, subtask or category
    truth     the right answer, or the answers of people
    arm       the calibration that answered, where the file tells
    """

    place: str
    text: str
    id: str | None = None
    part: str | None = None
    image: str | None = None
    question: str | None = None
    truth: Any = None
    arm: str | None = None


@dataclass
class AnswerFile:
    """The answers of one prediction, and a line on each that could not be read."""

    name: str
    answers: list[Answer] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)


def read_answers(source: Source, name: str) -> AnswerFile:
    """The answers of a file, or of the text files of a folder, one for each subtask of MME.

    Raises ItemError where there is no answer at all.
    """
    found = AnswerFile(name)
    if isinstance(source, Path) and source.is_dir():
        for path in subtask_files(source):
            _read_columns(text_of(path, str(path)), path.stem, found, f"{path.name} ")
    else:
        text = text_of(source, name)
        if text.lstrip()[0] in "{[":
            _read_json(text, found)
        else:
            _read_columns(text, PurePath(name).stem, found)
    if not found.answers:
        more = f" ({len(found.broken) - 1} more like it)" if len(found.broken) > 1 else ""
        raise ItemError(f"{name}: no answer can be read: {found.broken[0]}{more}" if found.broken else f"{name}: empty")
    return found


def by_calibration(file: AnswerFile) -> dict[str, AnswerFile]:
    """The answers of each calibration of a file that holds several, else the file itself as the only one."""
    arms = list(dict.fromkeys(answer.arm or PLAIN for answer in file.answers))
    if len(arms) == 1:
        return {arms[0]: file}
    parts = {arm: AnswerFile(f"{file.name} ({arm})") for arm in arms}
    for answer in file.answers:
        parts[answer.arm or PLAIN].answers.append(answer)
    # lines that cannot be read are told once
    parts[arms[0]].broken = file.broken
    return parts


def subtask_files(folder: Path) -> list[Path]:
    """The text files of a folder of MME results: columns between tabs."""
    return [path for path in sorted(folder.glob("*.txt")) if _has_columns(path)]


def _has_columns(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(4096).partition(b"\n")[0].count(b"\t") >= 2


def _read_json(text: str, found: AnswerFile) -> None:
    records = records_of(text, found.name)
    found.broken += records.broken
    rows = records.rows
    listed = None if records.document is None else first(records.document, "imgToEval", "sentences", "result")
    if isinstance(listed, dict):
        rows = [(f"image {key}", {"image_id": key, **row}) for key, row in listed.items()]
    elif isinstance(listed, list):
        rows = [(f"entry {number}", row) for number, row in enumerate(listed, 1)]
    for place, row in rows:
        try:
            found.answers.append(_answer(place, row))
        except ValueError as error:
            found.broken.append(f"{place}: {error}")


def _answer(place: str, row: Row) -> Answer:
    """The answer of a record; ValueError where it has none."""
    key = next((key for key in ANSWER_KEYS if row.get(key) is not None), None)
    if key is None:
        held = ", ".join(list(row)[:6]) or "nothing"
        raise ValueError(f"has no answer; got {held}, expected one of {', '.join(ANSWER_KEYS)}")
    said = row[key]
    # lmms-eval keeps a list for each request
    while isinstance(said, list) and said:
        said = said[0]
    if isinstance(said, bool | int | float):
        said = str(said)
    if not isinstance(said, str):
        raise ValueError(f"{key}: got {type(said).__name__}, expected text")
    sample = row.get("doc")
    doc = sample if isinstance(sample, dict) else _scored(row)
    truth = first(doc, "answers", "answer", "label", "ground_truth") if doc else first(row, "label", "gt", "answers")
    known = {**doc, **row} if doc else row
    asked = first(known, "prompt", "question")
    if asked is None and key != "text":
        asked = row.get("text")
    image = first(known, "image_id", "image", "image_source")
    part = first(known, "category", "split", "subtask")
    number = first(known, "question_id", "id")
    return Answer(
        place,
        said,
        id=None if number is None else str(number),
        part=None if part is None else str(part),
        image=str(image) if isinstance(image, str | int) else None,
        question=asked if isinstance(asked, str) else None,
        truth=row.get("target") if truth is None and ("doc_id" in row or sample) else truth,
        arm=row["calibration"] if isinstance(row.get("calibration"), str) else None,
    )


def _scored(row: Row) -> Row:
    """What lmms-eval kept with a score, where it did not keep the document."""
    return next((value for value in row.values() if isinstance(value, dict) and "question_id" in value), {})


def _read_columns(text: str, part: str, found: AnswerFile, where: str = "") -> None:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        cells = line.rstrip("\r").split("\t")
        place = f"{where}line {number}"
        if len(cells) < 4:
            found.broken.append(f"{place}: got {len(cells)} columns, expected image, question, truth and answer")
            continue
        image, question, truth = cells[:3]
        found.answers.append(Answer(place, "\t".join(cells[3:]), None, part, image, question, truth))


def split_of(name: str) -> str | None:
    """The split of POPE that a file name tells."""
    told = [split for split in SPLITS if split in PurePath(name).stem.lower()]
    return told[0] if len(told) == 1 else None


def image_number(name: str | None) -> str | None:
    """The number of a COCO image, from 310196, "000000310196" or COCO_val2014_000000310196.jpg; None if it has none."""
    digits = re.findall(r"\d+", PurePath(name).stem) if name else []
    return str(int(digits[-1])) if digits else None


def plain_question(text: str | None) -> str:
    """A question as questions are compared: without the prompts that ask for a short answer."""
    said = " ".join((text or "").split())
    for prompt in ("Please answer yes or no.", "Answer the question using a single word or phrase."):
        said = said.removesuffix(prompt).rstrip()
    return said.casefold()


def unique_by(answers: Sequence[Answer], keys: Sequence[Any]) -> tuple[dict[Any, Answer], list[str]]:
    """The first answer of each key, and a line on each further one."""
    kept: dict[Any, Answer] = {}
    again = []
    for answer, key in zip(answers, keys, strict=True):
        if key in kept:
            again.append(f"{answer.place}: answered before, at {kept[key].place}; the first answer counts")
        else:
            kept[key] = answer
    return kept, again
