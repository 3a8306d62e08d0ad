"""The files of an evaluation: tables of --out and the picture of --plot, checked first and written whole."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attnkit.runtime.errors import UsageError
from attnkit.runtime.records import json_line, plain
from attnkit.runtime.tables import replace_file

TABLE_SUFFIXES = (".csv", ".json", ".jsonl", ".md")
# title, headers and cells
Shown = tuple[str, Sequence[str], Sequence[Sequence[str]]]


def check_files(
    tables: Sequence[Path], plot: Path | None, overwrite: bool, suffixes: Sequence[str] = TABLE_SUFFIXES
) -> None:
    """Raise UsageError for a suffix that is not offered, a missing folder, or a file that exists."""
    wanted: list[tuple[str, Path, Sequence[str]]] = [("--out", path, suffixes) for path in tables]
    wanted += [("--plot", plot, (".png",))] if plot is not None else []
    named: set[Path] = set()
    for option, path, offered in wanted:
        if path.suffix not in offered:
            raise UsageError(f"{option} {path}: got suffix {path.suffix or 'none'}, expected {' or '.join(offered)}")
        if not path.parent.is_dir():
            raise UsageError(f"{option} {path}: no folder {path.parent}")
        for file in files_of(path):
            if file in named:
                raise UsageError(f"{option} {path}: {file} is written twice; name another file")
            named.add(file)
            if file.is_dir() or (file.exists() and not overwrite):
                raise UsageError(f"{option} {file}: exists; add --overwrite or name another file")


def files_of(path: Path) -> list[Path]:
    """A table of bare rows has no place for the settings: they lie beside it."""
    return [path, path.with_name(path.name + ".json")] if path.suffix in (".csv", ".md") else [path]


def write_tables(
    tables: Sequence[Path],
    *,
    settings: Mapping[str, Any],
    document: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    shown: Sequence[Shown],
) -> None:
    """Write every table by its suffix.

    document   what a .json holds beside the settings
    rows       the lines of a .jsonl and, in the order of `columns`, of a .csv
    shown      the tables that people see: those of a .md
    """
    for path in tables:
        text = table_text(path.suffix, {"settings": settings, **document}, rows, columns, shown)
        replace_file(path, text.encode())
        for beside in files_of(path)[1:]:
            replace_file(beside, json.dumps(plain(settings), ensure_ascii=False, indent=1).encode() + b"\n")


def table_text(
    suffix: str,
    document: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    shown: Sequence[Shown],
) -> str:
    """The content of a table file."""
    if suffix == ".json":
        return json.dumps(plain(document), ensure_ascii=False, allow_nan=False, indent=1) + "\n"
    if suffix == ".jsonl":
        return "".join(json_line(row) + "\n" for row in rows)
    if suffix == ".md":
        return "\n".join(markdown(*table) for table in shown)
    stream = io.StringIO()
    kept = [key for key in columns if any(row.get(key) is not None for row in rows)]
    writer = csv.DictWriter(stream, kept, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: plain(row.get(key)) for key in kept} for row in rows)
    return stream.getvalue()


def markdown(title: str, headers: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A table of a text, under its title if it has one."""
    # a bar would end the cell
    lines = [headers, ["---"] * len(headers), *cells]
    table = "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)
    return f"{title}\n\n{table}" if title else table
