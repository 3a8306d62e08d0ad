"""The tables of a simulation by the suffix of --out, written whole."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attnkit.runtime.records import plain
from attnkit.runtime.tables import replace_file
from attnkit.scoring.files import files_of, markdown

from .report import fields_of, rows_of, tables_of
from .task import SimulationResult

TABLE_SUFFIXES = (".csv", ".json", ".md")


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
        return "\n".join(markdown(*table) for table in tables_of(result))
    rows = rows_of(result)
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(plain(row) for row in rows)
    return stream.getvalue()
