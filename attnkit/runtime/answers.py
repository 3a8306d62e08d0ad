"""What commands that answer with words print: a table for people, one JSON document for programs."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from attnkit.runtime.config import current

LONGEST_WORD = 16


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns on standard output: Rich on a terminal; piped plain, one row a line, never cut or wrapped."""
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        console = Console(highlight=False)
        table = Table(box=None, header_style="bold", pad_edge=False)
        columns = list(zip(headers, *rows, strict=True))
        # long texts make room for words that would be broken, where there is any
        longest = [max((len(word) for cell in column for word in cell.split()), default=0) for column in columns]
        least = [min(length, LONGEST_WORD) for length in longest]
        fits = sum(least) + 2 * (len(least) - 1) <= console.width
        for header, width in zip(headers, least, strict=True):
            table.add_column(header, overflow="fold", min_width=width if fits else None)
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        console.print(table)
        return
    widths = [max(len(cell) for cell in column) for column in zip(headers, *rows, strict=True)]
    for row in (headers, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_document(result: Any, summary: Mapping[str, Any] | None = None) -> None:
    """One document {schema, version, command, options, result, summary} on standard output; null for no number."""
    from attnkit.runtime.records import document

    running = current()
    command, options = (running.path, running.shown()) if running else ("", {})
    print(document(command, options, summary or {}, result=result))
