"""Questions about pictures as the batch runner's items: from arguments, or from a file of tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from glob import glob
from pathlib import Path
from typing import Any

from attnkit.runtime.errors import ItemError, UsageError
from attnkit.runtime.items import STANDARD_STREAM, Item, safe_stem

from .record_files import Row, first, read_records

# kept beside the answer, so that it can be scored without the file of tasks
CARRIED = ("label", "category", "kind", "form", "clutter", "split", "image_id")


@dataclass(frozen=True)
class Job:
    """One question.

    id         as its file has it, or the names of its pictures
    images     names of the pictures, as they were given
    sources    where they are: files, or the bytes of standard input
    carried    further keys of its task, the same ones for all tasks of a file
    """

    id: str | int
    images: tuple[str, ...]
    sources: tuple[Path | bytes, ...]
    question: str
    carried: Mapping[str, Any] = field(default_factory=dict)


def item_of_pictures(found: Sequence[Item], question: str) -> Item:
    """One item that asks about the pictures of some items together."""
    name = "+".join(item.name for item in found)
    sources = tuple(_source(item) for item in found)
    job = Job(name, tuple(item.name for item in found), sources, question)
    head, paths = found[0], [item.path for item in found if item.path is not None]
    data = next((item.data for item in found if item.data is not None), None)
    return replace(
        head,
        name=name,
        path=paths[0] if paths else None,
        companions=tuple(paths[1:]),
        data=data,
        payload=job,
        words=question,
    )


def _source(item: Item) -> Path | bytes:
    if item.path is not None:
        return item.path
    assert item.data is not None
    return item.data


def read_tasks(path: Path, image_root: Path | None, question: str | None) -> list[Item]:
    """The tasks of a JSONL file (or a JSON list): `id` or `question_id`, `image` or `images`, `question` or `text`.

    Pictures are looked for in `image_root`, else beside the file. A line that is no task and one whose picture is
    missing become items that fail, in their place. `question` is asked where a task has none. Raises UsageError where
    there is no task at all.
    """
    try:
        records = read_records(path, str(path))
    except ItemError as error:
        raise UsageError(f"--tasks {error}") from error
    root = path.parent if image_root is None else image_root
    broken = [(text.partition(":")[0], text) for text in records.broken]
    items = [(_number(place), _broken(place, f"{path}, {text}")) for place, text in broken]
    keys = [key for key in CARRIED if any(_carried(row, key) is not None for _, row in records.rows)]
    items += [
        (_number(place), _task(f"{path}, {place}", place, row, root, question, keys)) for place, row in records.rows
    ]
    return [item for _, item in sorted(items, key=lambda entry: entry[0])]


def _number(place: str) -> int:
    return int(place.rpartition(" ")[2])


def _broken(place: str, problem: str) -> Item:
    return Item(name=place, stem=safe_stem(place), kind="task", problem=problem)


def _carried(row: Row, key: str) -> Any:
    # files to train on call it the answer
    return first(row, "label", "answer") if key == "label" else row.get(key)


def _task(where: str, place: str, row: Row, root: Path, question: str | None, keys: Sequence[str]) -> Item:
    identifier = first(row, "id", "question_id")
    # a line number is an id too, if no other is given
    identifier = _number(place) if identifier is None else identifier
    name = str(identifier)
    asked = first(row, "question", "text")
    asked = question if asked is None else asked
    given = first(row, "image", "images")
    images = [given] if isinstance(given, str) else given
    problem = None
    if not isinstance(identifier, str | int):
        problem = f"{where}: id is {identifier!r}, expected a text or a number"
    elif not isinstance(asked, str) or not asked.strip():
        problem = f"{where}: question is {asked!r}, expected a text at 'question' or 'text'"
    elif not isinstance(images, list) or not images or not all(isinstance(image, str) for image in images):
        problem = f"{where}: image is {given!r}, expected a file name, or a list of them, at 'image'"
    if problem is not None:
        return Item(name=name, stem=safe_stem(name), kind="task", problem=problem)
    assert isinstance(images, list) and isinstance(asked, str)
    paths = tuple(root / image for image in images)
    lost = next((path for path in paths if not path.is_file()), None)
    if lost is not None:
        problem = f"{where}: {lost}: no such picture; --image-root names the folder of the pictures"
    carried = {key: _carried(row, key) for key in keys}
    return Item(
        name=name,
        stem=safe_stem(name),
        kind="task",
        path=None if problem else paths[0],
        companions=() if problem else paths[1:],
        payload=Job(identifier, tuple(images), paths, asked, carried),
        words=asked,
        problem=problem,
    )


def split_arguments(inputs: Sequence[str], question: str | None) -> tuple[list[str], str]:
    """Pictures and question of the arguments: the last one is the question unless --question gives it.

    `-` in the place of the question reads it from standard input. Raises UsageError.
    """
    images = list(inputs)
    if question is None:
        if not images:
            raise UsageError("got no arguments, expected IMAGE... and a question, or --tasks FILE")
        if len(images) == 1:
            raise UsageError(f"got {images[0]!r} alone, expected IMAGE... and a question, such as 'What is this?'")
        question = images.pop().strip()
        if question != STANDARD_STREAM and _is_path(question):
            raise UsageError(f"{question}: a file in the place of the question, which comes last (or with --question)")
    if not images:
        raise UsageError("got a question and no image, expected IMAGE... before it")
    for text in images:
        # else it would be a glob, and the one of several questions that is not asked
        if text.endswith("?") and not _is_path(text) and not glob(text):
            raise UsageError(f"{text!r}: no such image; one question is asked of all images, --tasks FILE takes many")
    if question == STANDARD_STREAM:
        if STANDARD_STREAM in images:
            raise UsageError("-: given as image and as question, expected one of them from standard input")
        question = _standard_input()
    if not question.strip():
        raise UsageError("question: is empty, expected a text")
    return images, question.strip()


def _is_path(text: str) -> bool:
    try:
        return bool(text) and Path(text).exists()
    except OSError:
        # longer than any file name
        return False


def _standard_input() -> str:
    import sys

    stream = sys.stdin
    if stream is None or stream.isatty():
        raise UsageError("-: standard input is a terminal; pipe the question into it")
    try:
        return stream.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"-: byte {error.start} of the question is not UTF-8, expected a text") from None
