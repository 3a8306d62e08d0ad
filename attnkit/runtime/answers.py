"""What commands that answer with words print: a table for people, one JSON document for programs."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attnkit import __version__
from attnkit.runtime.config import current

SCHEMA = 1


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns on standard output: Rich on a terminal; piped plain, one row a line, never cut or wrapped."""
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, header_style="bold", pad_edge=False)
        for header in headers:
            table.add_column(header, overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        Console(highlight=False).print(table)
        return
    widths = [max(len(cell) for cell in column) for column in zip(headers, *rows, strict=True)]
    for row in (headers, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_document(result: Any) -> None:
    """One document {schema, version, command, options, result} on standard output; no NaN, no Infinity."""
    running = current()
    document = {
        "schema": SCHEMA,
        "version": __version__,
        "command": running.path if running else None,
        "options": running.shown() if running else {},
        "result": finite(result),
    }
    print(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))


def finite(value: Any) -> Any:
    """The value as strict JSON holds it: null for what is no number, text for paths."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    return str(value) if isinstance(value, Path) else value
