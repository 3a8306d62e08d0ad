"""How a run answers: the dry-run plan, the table of scores, the documents of --json and --jsonl."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attnkit.runtime.errors import AttnkitError
from attnkit.runtime.items import Column
from attnkit.runtime.plan import Plan, estimates, free_bytes
from attnkit.runtime.records import document, json_line
from attnkit.runtime.streams import STREAMS

if TYPE_CHECKING:
    from attnkit.runtime.command import FileCommand
    from attnkit.runtime.options import BatchOptions


class PipeClosed(Exception):
    """Whoever read standard output has gone."""


def put(text: str) -> None:
    """A line of data on standard output, flushed. Raises PipeClosed when nobody reads it."""
    try:
        with STREAMS:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
    except (OSError, ValueError, AttributeError) as error:
        raise _refused(error) from error


def put_bytes(data: bytes) -> None:
    """An output as it is on standard output. Raises PipeClosed when nobody reads it."""
    try:
        with STREAMS:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
    except (OSError, ValueError, AttributeError) as error:
        raise _refused(error) from error


def _refused(error: Exception) -> Exception:
    # a stream that was closed before the start is None, and one closed since then a ValueError
    if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
        return AttnkitError(f"standard output: {error.strerror or error}; make room, or write to a file with --out")
    return PipeClosed()


def abandon_standard_output() -> None:
    """Keep Python from complaining at exit about a pipe that was closed on it."""
    import os

    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    except (OSError, ValueError, AttributeError):
        # not a real file: nothing will be flushed to it either
        pass


def size(count: int | None) -> str:
    """Bytes for people, in powers of ten."""
    if count is None:
        return "unknown"
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def show_dry_run(command: FileCommand, plan: Plan, batch: BatchOptions, options: Mapping[str, Any]) -> None:
    """The plan on standard output: a document with --json, a line per item with --jsonl, else a table."""
    items = []
    for step, estimate in zip(plan.steps, estimates(command, plan), strict=True):
        entry: dict[str, Any] = {
            "item": step.item.name,
            "kind": step.item.kind,
            "outputs": {name: "-" if path is None else str(path) for name, path in step.paths.items()},
            "action": step.action,
        }
        if plan.layout.table is not None:
            entry["outputs"]["main"] = str(plan.layout.table)
        if isinstance(estimate, AttnkitError):
            entry["problem"] = " ".join(str(estimate).split())
        else:
            entry.update(
                size=estimate.size,
                output_bytes=estimate.output_bytes,
                memory_bytes=estimate.memory_bytes,
                seconds=estimate.seconds,
            )
            if estimate.tiles is not None:
                entry["tiles"] = estimate.tiles
        items.append(entry)
    todo = [entry for step, entry in zip(plan.steps, items, strict=True) if step.todo]
    jobs = min(batch.jobs, len(todo) or 1)
    seconds = [entry["seconds"] for entry in todo if entry.get("seconds") is not None]
    summary = {
        "dry_run": True,
        "items": len(items),
        "to_do": len(todo),
        "skipped": len(items) - len(todo),
        "output_bytes": sum(entry.get("output_bytes") or 0 for entry in todo),
        "free_bytes": free_bytes(plan.folders()),
        "method": command.method,
        "device": plan.device,
        "jobs": jobs,
        "seconds": round(sum(seconds) / jobs, 2) if seconds else None,
        "memory_bytes": jobs * max((entry.get("memory_bytes") or 0 for entry in todo), default=0) or None,
    }
    refused = bool(plan.refused)
    if batch.json or batch.jsonl:
        # a plan that is refused ends with exit 2, and documents belong to the exits 0, 1 and 3
        if not refused:
            lines = (
                [json_line(entry) for entry in items]
                if batch.jsonl
                else [document(command.name, options, summary, items=items)]
            )
            for line in lines:
                put(line)
        return
    if batch.quiet:
        return
    _show_plan(items, summary)


def _show_plan(items: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> None:
    from attnkit.runtime.answers import print_table

    rows = [
        [
            entry["item"],
            ", ".join(entry["outputs"].values()) or "-",
            entry["action"],
            str(entry.get("size") or entry["kind"] or "unknown"),
            size(entry.get("output_bytes")),
            entry.get("problem") or ("" if entry.get("seconds") is None else f"{entry['seconds']:.2f}"),
        ]
        for entry in items
    ]
    try:
        print_table(["item", "output", "action", "size", "about", "seconds"], rows)
    except BrokenPipeError as error:
        raise PipeClosed from error
    time = "unknown" if summary["seconds"] is None else f"{summary['seconds']:.1f} s"
    memory = "" if summary["memory_bytes"] is None else f", up to {size(summary['memory_bytes'])} of memory"
    put(
        f"{summary['to_do']} to do, {summary['skipped']} left out; about {size(summary['output_bytes'])} to write, "
        f"{size(summary['free_bytes'])} free; method {summary['method'] or 'default'}, device {summary['device']}, "
        f"{summary['jobs']} process{'es' if summary['jobs'] > 1 else ''}, about {time}{memory}"
    )


def show_table(columns: Sequence[Column], records: Sequence[Mapping[str, Any]]) -> None:
    """The answers of a command that scores, one line an item."""
    from attnkit.runtime.answers import print_table

    rows = []
    for record in records:
        cells = []
        for column in columns:
            value = record.get(column.key)
            if isinstance(value, float):
                cells.append(f"{value:.{column.digits}f}")
            else:
                cells.append("-" if value is None else str(value))
        rows.append([str(record["item"]), *cells])
    try:
        print_table(["item", *(column.title for column in columns)], rows)
        sys.stdout.flush()
    except BrokenPipeError as error:
        raise PipeClosed from error
