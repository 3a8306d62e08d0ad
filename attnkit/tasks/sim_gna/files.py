"""The files of a simulation: tables of --out and the drawing of --plot, checked first and written whole."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attnkit.runtime.errors import UsageError
from attnkit.runtime.records import plain
from attnkit.runtime.tables import replace_file

from .report import fields_of, rows_of, tables_of
from .task import SimulationResult

TABLE_SUFFIXES = (".csv", ".json", ".md")


def check_files(tables: Sequence[Path], plot: Path | None, overwrite: bool) -> None:
    """Raise UsageError for a suffix that is not offered, a missing folder, or a file that exists."""
    wanted: list[tuple[str, Path, tuple[str, ...]]] = [("--out", path, TABLE_SUFFIXES) for path in tables]
    wanted += [("--plot", plot, (".png",))] if plot is not None else []
    named: set[Path] = set()
    for option, path, suffixes in wanted:
        if path.suffix not in suffixes:
            raise UsageError(f"{option} {path}: got suffix {path.suffix or 'none'}, expected {' or '.join(suffixes)}")
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


def write_tables(result: SimulationResult, tables: Sequence[Path], settings: dict[str, Any]) -> None:
    """Write every table by its suffix: .csv flat rows, .md what is printed, .json the result itself."""
    for path in tables:
        replace_file(path, table_text(result, path.suffix, settings).encode())
        for beside in files_of(path)[1:]:
            replace_file(beside, json.dumps(plain(settings), ensure_ascii=False, indent=1).encode() + b"\n")


def table_text(result: SimulationResult, suffix: str, settings: dict[str, Any]) -> str:
    """The content of a table file."""
    if suffix == ".json":
        content = {"settings": settings, "result": fields_of(result)}
        return json.dumps(plain(content), ensure_ascii=False, allow_nan=False, indent=1) + "\n"
    if suffix == ".md":
        return "\n".join(_markdown(*table) for table in tables_of(result))
    rows = rows_of(result)
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(plain(row) for row in rows)
    return stream.getvalue()


def _markdown(title: str, headers: list[str], rows: list[list[str]]) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    # a bar would end the cell
    table = "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)
    return f"{title}\n\n{table}" if title else table
