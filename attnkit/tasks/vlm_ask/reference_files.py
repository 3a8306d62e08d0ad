"""Right answers: POPE's questions with labels, MME's pairs, and what ten people said to a question of VQA."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnkit.runtime.errors import ItemError, UsageError

from .answer_files import Answer, plain_question, split_of, subtask_files
from .record_files import Row, first, read_records, text_of


@dataclass(frozen=True)
class Question:
    """A question, what is right (yes or no, or the answers of people), and the part that it belongs to."""

    id: str | None
    truth: str | tuple[str, ...]
    part: str
    image: str
    text: str = ""

    @property
    def name(self) -> str:
        return self.id if self.id is not None else f"{self.image} {self.text}"


def read_yes_no(path: Path) -> list[Question]:
    """Questions with labels: JSON lines, or a folder of them, one file for each split. UsageError if it is neither."""
    files = _files(path, ("*.json", "*.jsonl")) if path.is_dir() else [path]
    found: list[Question] = []
    for file in files:
        part = split_of(file.name) or file.stem
        for place, row in _rows(file):
            found.append(_labelled(f"--ref {file}: {place}", row, first(row, "category", "split") or part))
    return found


def read_pairs(path: Path) -> list[Question]:
    """Questions of MME: a folder of its text files or of its subtasks, one text file, or JSON lines with categories."""
    found: list[Question] = []
    if path.is_dir():
        columns = subtask_files(path)
        if columns:
            for file in columns:
                found += _columns(file, file.stem)
            return found
        for file in sorted(path.rglob("*.txt")):
            found += _release(file, file.relative_to(path).parts[0])
        if found:
            return found
    elif path.suffix == ".txt":
        return _columns(path, path.stem)
    for file in _files(path, ("*.json", "*.jsonl")) if path.is_dir() else [path]:
        for place, row in _rows(file):
            part = first(row, "category", "subtask")
            if part is None:
                part = str(first(row, "question_id", "id") or "").rpartition("/")[0] or file.stem
            found.append(_labelled(f"--ref {file}: {place}", row, str(part)))
    return found


def read_people(path: Path) -> list[Question]:
    """Answers of people: annotations of VQA v2, TextVQA, VizWiz or A-OKVQA, a folder with them, or JSON lines.

    The label of a question, as in the files of --tasks, is the answer of one.
    """
    files = [path]
    if path.is_dir():
        files = _files(path, ("*annotations*.json", "*.json", "*.jsonl"))
        named = [file for file in files if "annotations" in file.name]
        files = named or [file for file in files if "questions" not in file.name]
    found: list[Question] = []
    for file in files:
        for place, row in _rows(file, "annotations", "data"):
            people = _people(first(row, "answers", "direct_answers", "label"))
            if not people:
                held = ", ".join(list(row)[:6])
                raise UsageError(
                    f"--ref {file}: {place}: got {held}, expected answers of people in a list, or a label; "
                    "give the annotations, not the questions"
                )
            number = first(row, "question_id", "id", "image")
            image = str(first({"own": number, **row}, "image_id", "image", "own"))
            part = str(first(row, "answer_type", "kind") or "")
            found.append(Question(None if number is None else str(number), people, part, image))
    return found


def questions_within(answers: Sequence[Answer], name: str, people: bool) -> list[Question]:
    """The questions that the answers themselves tell, with what is right: nothing else is needed to score them.

    Raises ItemError where they do not tell it.
    """
    found = []
    for answer in answers:
        if answer.truth is None:
            raise ItemError(f"{name}: {answer.place} does not say what is right; give --ref")
        truth: Any = answer.truth
        if people:
            truth = _people(truth)
            if not truth:
                raise ItemError(f"{name}: {answer.place} has no answers of people in a list; give --ref")
        else:
            truth = _yes_or_no(truth)
            if truth is None:
                raise ItemError(f"{name}: {answer.place}: got {answer.truth!r} as what is right, expected yes or no")
        image = answer.image or str(answer.id)
        found.append(Question(answer.id, truth, answer.part or "all", image, answer.question or ""))
    return found


def _people(said: Any) -> tuple[str, ...]:
    """The answers of people, from a list of texts or objects, or from a label; empty where it is none of them."""
    if isinstance(said, str):
        return (said,)
    if not isinstance(said, list):
        return ()
    texts = [one.get("answer") if isinstance(one, dict) else one for one in said]
    return () if None in texts else tuple(map(str, texts))


def by_part(questions: Iterable[Question]) -> dict[str, list[Question]]:
    found: dict[str, list[Question]] = {}
    for question in questions:
        found.setdefault(question.part, []).append(question)
    return found


def paired(questions: Iterable[Question]) -> dict[tuple[str, str], list[Question]]:
    """The questions of each image of each subtask."""
    found: dict[tuple[str, str], list[Question]] = {}
    for question in questions:
        found.setdefault((question.part, question.image), []).append(question)
    return found


def _files(folder: Path, patterns: Sequence[str]) -> list[Path]:
    found = {path: None for pattern in patterns for path in sorted(folder.glob(pattern)) if path.is_file()}
    if not found:
        raise UsageError(f"--ref {folder}: got a folder without {' or '.join(patterns)}; name the file itself")
    return list(found)


def _rows(file: Path, *lists: str) -> list[tuple[str, Row]]:
    """The records of a reference; one that is broken is an error of the whole, as scores would be of something else."""
    try:
        records = read_records(file, f"--ref {file}")
    except ItemError as error:
        raise UsageError(str(error)) from error
    if records.broken:
        raise UsageError(f"--ref {file}: {records.broken[0]}; mend or replace the file")
    listed = None if records.document is None else first(records.document, *lists)
    if isinstance(listed, list):
        return [(f"entry {number}", row) for number, row in enumerate(listed, 1) if isinstance(row, dict)]
    return records.rows


def _yes_or_no(label: Any) -> str | None:
    if isinstance(label, bool):
        return "yes" if label else "no"
    said = str(label).strip().rstrip(".").lower()
    return said if said in ("yes", "no") else None


def _labelled(where: str, row: Row, part: str) -> Question:
    label = first(row, "label", "answer", "ground_truth", "gt")
    truth = None if label is None else _yes_or_no(label)
    if truth is None:
        got = f"the keys {', '.join(list(row)[:6])}" if label is None else f"the label {str(label)[:40]!r}"
        raise UsageError(f"{where}: got {got}, expected a question with the label yes or no")
    number = first(row, "question_id", "id")
    text = str(first(row, "text", "question") or "")
    image = str(first({"own": number, **row}, "image", "image_source", "image_id", "own"))
    return Question(None if number is None else str(number), truth, part, image, text)


def _columns(file: Path, part: str) -> list[Question]:
    found = []
    for number, line in enumerate(_text(file).split("\n"), 1):
        cells = line.rstrip("\r").split("\t")
        if not line.strip():
            continue
        truth = _yes_or_no(cells[2]) if len(cells) > 2 else None
        if truth is None:
            got = f"{len(cells)} columns" if len(cells) < 3 else f"{cells[2]!r} in the third column"
            raise UsageError(f"--ref {file}: line {number}: got {got}, expected image, question, and yes or no")
        found.append(Question(None, truth, part, cells[0], cells[1]))
    return found


def _release(file: Path, part: str) -> list[Question]:
    """The two questions of an image as MME is given out: question and answer between tabs, named as the image."""
    found = []
    for line in filter(str.strip, _text(file).split("\n")):
        question, _, answer = line.rstrip().partition("\t")
        truth = _yes_or_no(answer)
        if truth is None:
            raise UsageError(f"--ref {file}: got {line.strip()[:60]!r}, expected a question, a tab, and yes or no")
        found.append(Question(None, truth, part, file.stem, question))
    return found


def _text(file: Path) -> str:
    try:
        return text_of(file, f"--ref {file}")
    except ItemError as error:
        raise UsageError(str(error)) from error


def match_key(question: Question) -> tuple[str, str]:
    """Image and words of a question, as they are compared; images without their suffix."""
    return image_stem(question.image), plain_question(question.text)


def image_stem(image: str) -> str:
    """The name of an image without folders and the suffix of a picture."""
    name = image.rpartition("/")[2]
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and suffix.lower() in ("jpg", "jpeg", "png") else name
