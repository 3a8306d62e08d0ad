"""The one output file of commands that answer in rows: JSONL or CSV, appended line by line, resumable."""

from __future__ import annotations

import csv
import io
import json
import os
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from attnkit.runtime.errors import AttnkitError
from attnkit.runtime.outputs import TEMPORARY_PREFIX, write_error
from attnkit.runtime.records import json_line, plain

ITEM_KEY = "item"
BESIDE_SECONDS = 2.0
Row = dict[str, Any]


class Sink(Protocol):
    """Where rows go that are not kept in a file."""

    def write(self, text: str) -> object: ...


class AnswerTable:
    """Rows of many items in one file. Every row says which item it answers, so that a second run knows what is done.

    JSONL rows hold their settings; beside a CSV lies NAME.csv.json with the settings of each item. A row is written
    whole and flushed when its item is done. `finish` puts the rows into the order of the items, each item once: two
    runs, or one run that was interrupted and taken up again, end with the same bytes.
    """

    def __init__(
        self,
        path: Path | None,
        format: str,
        stream: Sink | None = None,
        say: Callable[[str, Row], str | None] | None = None,
    ) -> None:
        """`say` gives the line of a row, from the name of its item, where the format is text; None for no line."""
        self._say = say
        self.path = path
        self.format = format
        self._stream = stream
        self._header: list[str] | None = None
        self._rows: dict[str, list[Row]] = {}
        self._settings: dict[str, Any] = {}
        self._written = 0.0

    def read(self) -> dict[str, Any]:
        """Item name -> settings of the items that the file already answers; a torn last line does not count."""
        if self.path is None or not self.path.exists():
            return {}
        text = self.path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        rows = self._parse(whole)
        self._settings = self._read_settings(rows)
        for row in rows:
            name = str(row.get(ITEM_KEY))
            # an item whose settings never reached the file beside a CSV was cut off: its rows are done again
            if name in self._settings:
                self._rows.setdefault(name, []).append(row)
        return dict(self._settings)

    def _parse(self, text: str) -> list[Row]:
        if self.format == "csv":
            reader = csv.DictReader(io.StringIO(text))
            rows = [dict(row) for row in reader]
            self._header = list(reader.fieldnames or []) or None
            return rows
        rows = []
        for number, line in enumerate(text.splitlines(), 1):
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict) or ITEM_KEY not in row:
                raise AttnkitError(
                    f"{self.path}: line {number} is no answer of this command; name another --out or use --overwrite"
                )
            rows.append(row)
        return rows

    def _read_settings(self, rows: Sequence[Row]) -> dict[str, Any]:
        if self.format != "csv":
            return {str(row[ITEM_KEY]): row.get("settings") for row in rows}
        try:
            stored = json.loads(self._beside().read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        items = stored.get("items", {})
        return items if isinstance(items, dict) else {}

    def _beside(self) -> Path:
        assert self.path is not None
        return self.path.with_name(self.path.name + ".json")

    def forget(self, names: Iterable[str]) -> None:
        """Items that are to be answered anew; their old rows stay in the file until `finish`."""
        for name in names:
            self._rows.pop(name, None)
            self._settings.pop(name, None)

    def start(self, fresh: bool) -> None:
        """Make the file ready for appending; `fresh` empties it."""
        if self.path is None:
            return
        if fresh:
            self._rows, self._settings, self._header = {}, {}, None
            self._write_all(b"")
        elif self.path.exists():
            # drops a torn last line and, in a CSV, rows without settings
            self._rewrite()

    def add(self, name: str, rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> None:
        """Append the answers of one item."""
        shown = [self._row(name, row, settings) for row in rows]
        self._rows[name] = shown
        self._settings[name] = plain(dict(settings))
        text = self._text(shown)
        if self.path is None:
            assert self._stream is not None
            self._stream.write(text)
            return
        try:
            with self.path.open("a", encoding="utf-8", newline="") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise write_error(error, self.path) from error
        if self.format == "csv" and time.monotonic() - self._written > BESIDE_SECONDS:
            self._write_beside()

    def close(self) -> None:
        """Bring the settings beside a CSV up to date; a kill before costs the rows since the last time."""
        if self.format == "csv" and self.path is not None and self.path.exists():
            self._write_beside()

    def _row(self, name: str, row: Mapping[str, Any], settings: Mapping[str, Any]) -> Row:
        shown = {ITEM_KEY: name, **plain(dict(row))}
        if self.format != "csv":
            shown["settings"] = plain(dict(settings))
        return shown

    def _text(self, rows: Sequence[Row]) -> str:
        if self._say is not None:
            said = [self._say(str(row[ITEM_KEY]), row) for row in rows]
            return "".join(f"{line}\n" for line in said if line is not None)
        if self.format != "csv":
            return "".join(json_line(row) + "\n" for row in rows)
        target = io.StringIO()
        first = self._header is None
        if first and rows:
            self._header = list(rows[0])
        writer = csv.DictWriter(target, self._header or [], lineterminator="\n", extrasaction="raise")
        if first and rows:
            writer.writeheader()
        try:
            writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
        except ValueError as error:
            raise AttnkitError(f"{self.path}: {error}; its columns are {', '.join(self._header or [])}") from error
        return target.getvalue()

    def finish(self, names: Sequence[str]) -> None:
        """Put the rows into the order of `names`; rows of items that are not in this run come first."""
        if self.path is None or not self.path.exists():
            return
        others = [name for name in self._rows if name not in set(names)]
        ordered = [*others, *(name for name in names if name in self._rows)]
        self._rows = {name: self._rows[name] for name in ordered}
        self._rewrite()

    def _rewrite(self) -> None:
        assert self.path is not None
        rows = [row for part in self._rows.values() for row in part]
        self._header = None if self.format != "csv" or not rows else self._header
        data = self._all_text(rows).encode()
        if data != self.path.read_bytes():
            self._write_all(data)
        if self.format == "csv":
            self._write_beside()

    def _all_text(self, rows: Sequence[Row]) -> str:
        kept, self._header = self._header, None
        text = self._text(rows)
        self._header = self._header or kept
        return text

    def _write_beside(self) -> None:
        self._written = time.monotonic()
        items = {name: self._settings[name] for name in sorted(self._settings)}
        replace_file(self._beside(), json.dumps({"items": items}, ensure_ascii=False, indent=1).encode() + b"\n")

    def _write_all(self, data: bytes) -> None:
        assert self.path is not None
        replace_file(self.path, data)
        if self.format == "csv" and not data:
            self._beside().unlink(missing_ok=True)


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


def replace_file(path: Path, data: bytes) -> None:
    """Write `path` whole, by rename. Raises ItemError when the disk does not take it."""
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(4)}-file{path.suffix}")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        raise write_error(error, path) from error
    finally:
        temporary.unlink(missing_ok=True)
