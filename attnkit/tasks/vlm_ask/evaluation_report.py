"""What an evaluation of answers says: tables on standard output, files of --out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnkit.scoring.files import write_tables

from .evaluate import SCHEMES, Metric, Row

if TYPE_CHECKING:
    from attnkit.runtime.options import BatchOptions
    from attnkit.scoring.files import Shown

_COUNTS = ("images", "questions", "captions", "missing", "unclear")


def tables_of(metric: Metric, rows: Sequence[Row], baseline: str | None) -> list[Shown]:
    """The scores, and the differences to the baseline where there is one."""
    scheme = SCHEMES[metric]
    several = len({row["item"] for row in rows}) > 1
    parts = len({row["part"] for row in rows}) > 1

    def head(row: Row) -> list[str]:
        return [row["item"]] * several + [row["part"]] * parts

    titles = ["prediction"] * several + [scheme.part] * parts
    # units and images are the same number where each image is one unit
    counts = [key for key in _COUNTS if any(key in row for row in rows) and (metric != "mme" or key != "questions")]
    keys = list(scheme.shown)
    headers = [*titles, *counts, *(f"{scheme.shown[key][0]}, 95 % interval" for key in keys)]
    cells = [
        [*head(row), *(str(row[key]) for key in counts), *(_interval(row, key, scheme.shown[key][1]) for key in keys)]
        for row in rows
    ]
    if metric == "chair":
        headers.append("SHA-256 of image ids")
        for line, row in zip(cells, rows, strict=True):
            line.append(row["ids_sha256"][:12])
    shown: list[Shown] = [("", headers, cells)]
    compared = [row for row in rows if "compared" in row]
    if compared:
        tested = "mcnemar_p" in compared[0]
        headers = [*titles, "compared", *(f"{scheme.shown[key][0]}, 95 % interval" for key in keys)]
        headers += ["only it right", "only baseline right", "McNemar p"] * tested
        cells = []
        for row in compared:
            line = [*head(row), str(row["compared"])]
            line += [_interval(row, f"{key}_difference", scheme.shown[key][1], "+") for key in keys]
            if tested:
                line += [str(row["only_prediction_right"]), str(row["only_baseline_right"]), f"{row['mcnemar_p']:.2g}"]
            cells.append(line)
        shown.append((f"minus {baseline}, paired", headers, cells))
    return shown


def _interval(row: Row, key: str, digits: int, sign: str = "") -> str:
    value = row.get(key)
    if value is None or not math.isfinite(value):
        return "-"
    low, high = row[f"{key}_low"], row[f"{key}_high"]
    return f"{value:{sign}.{digits}f} ({low:{sign}.{digits}f}..{high:{sign}.{digits}f})"


def report(
    metric: Metric,
    rows: Sequence[Row],
    failed: Sequence[Mapping[str, Any]],
    batch: BatchOptions,
    *,
    baseline: str | None,
    settings: Mapping[str, Any],
    tables: Sequence[Path],
) -> None:
    """Print the scores and write them to the files of --out."""
    from attnkit.runtime.answers import print_document, print_table
    from attnkit.runtime.records import json_line

    shown = tables_of(metric, rows, baseline) if rows else []
    if rows:
        write_tables(
            tables,
            settings=settings,
            document={"scores": rows, "failed": list(failed)},
            rows=rows,
            columns=list(dict.fromkeys(key for row in rows for key in row)),
            shown=shown,
        )
    if batch.jsonl:
        for row in [*rows, *failed]:
            print(json_line(row))
    elif batch.json:
        print_document({"scores": list(rows), "failed": list(failed)}, {"scored": len(rows), "failed": len(failed)})
    elif rows and not batch.quiet:
        for at, (title, headers, cells) in enumerate(shown):
            if at:
                print(f"\n{title}")
            print_table(headers, cells)
