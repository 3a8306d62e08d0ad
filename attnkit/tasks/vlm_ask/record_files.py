"""JSON of any shape as records with their places: lines, a list, one document, or objects one after another."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attnkit.runtime.errors import ItemError

Row = dict[str, Any]
Source = Path | bytes


@dataclass
class Records:
    """What a file holds.

    rows        (place, record) in order; a place is "line 3" or "entry 3", counted from 1
    document    the one object of a file that holds nothing else
    broken      what is wrong with each line that is no record, its place first
    """

    rows: list[tuple[str, Row]] = field(default_factory=list)
    document: Row | None = None
    broken: list[str] = field(default_factory=list)


def text_of(source: Source, name: str) -> str:
    """The text of a file; ItemError where it cannot be read, is empty or is not UTF-8."""
    try:
        data = source if isinstance(source, bytes) else source.read_bytes()
    except OSError as error:
        raise ItemError(f"{name}: cannot read it ({error.strerror})") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ItemError(f"{name}: byte {error.start} is not UTF-8, expected a text file") from None
    if not text.strip():
        raise ItemError(f"{name}: is empty, expected JSON records; was the run that wrote it cut off?")
    return text


def read_records(source: Source, name: str) -> Records:
    """The records of a JSON or JSONL file. Raises ItemError where there is not one of them."""
    return records_of(text_of(source, name), name)


def records_of(text: str, name: str) -> Records:
    """The records of the text of a file."""
    if text.lstrip()[0] == "[":
        return _of_list(_whole(text, name), name)
    head, _, more = text.strip().partition("\n")
    # objects over several lines have lines inside that look like records
    found = _of_lines(text) if more and _is_json(head) else _of_objects(text, name, whole=True)
    found = found or _of_lines(text)
    if not found.rows:
        found = _of_objects(text, name)
        assert found is not None
    if len(found.rows) == 1 and not found.broken:
        found.document = found.rows[0][1]
    return found


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _whole(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ItemError(f"{name}: not JSON ({error}); was the run that wrote it cut off?") from None


def _of_list(entries: Any, name: str) -> Records:
    found = Records()
    for number, entry in enumerate(entries, 1):
        if isinstance(entry, dict):
            found.rows.append((f"entry {number}", entry))
        else:
            found.broken.append(f"entry {number}: got {_kind(entry)}, expected an object")
    if not found.rows:
        raise ItemError(f"{name}: a list without an object, expected one for each answer")
    return found


def _of_lines(text: str) -> Records:
    found = Records()
    # not splitlines: JSON strings may hold the other line ends that it knows
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        place = f"line {number}"
        try:
            values = list(_values(line))
            for value in values:
                if not isinstance(value, dict):
                    raise ValueError(f"got {_kind(value)}, expected an object")
            found.rows += [(place, value) for value in values]
        except ValueError as error:
            found.broken.append(f"{place}: {_reason(error)}")
    return found


def _of_objects(text: str, name: str, whole: bool = False) -> Records | None:
    """Objects one after another, over any number of lines; None where `whole` and they do not reach the end."""
    found = Records()
    try:
        for number, value in enumerate(_values(text), 1):
            if isinstance(value, dict):
                found.rows.append((f"entry {number}", value))
            else:
                found.broken.append(f"entry {number}: got {_kind(value)}, expected an object")
    except ValueError as error:
        if whole:
            return None
        if not found.rows:
            raise ItemError(f"{name}: not JSON ({error}), expected JSON or one JSON object a line") from None
        found.broken.append(f"entry {len(found.rows) + 1}: {_reason(error)}")
    if not found.rows:
        raise ItemError(f"{name}: holds no JSON object, expected one for each answer")
    return found


def _values(text: str) -> Iterator[Any]:
    """JSON values that follow each other without a comma."""
    decoder = json.JSONDecoder()
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        value, at = decoder.raw_decode(text, at)
        yield value


def _reason(error: ValueError) -> str:
    return f"not JSON ({error})" if isinstance(error, json.JSONDecodeError) else str(error)


def _kind(value: Any) -> str:
    names = {list: "a list", str: "a text", bool: "a truth value", int: "a number", float: "a number"}
    return names.get(type(value), "null")


def first(row: Row, *keys: str) -> Any:
    """The value of the first key that the record has and that is not null."""
    for key in keys:
        value = row.get(key)
        if value is not None:
            return value
    return None
