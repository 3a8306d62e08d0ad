"""What an evaluation says: tables on standard output, files of --out, the chart of --plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnkit.scoring.files import write_tables

from .downstream import ACCURACIES, accuracy_table, summarise_accuracies
from .evaluate import AS_IT_IS, MEASURES, Row, Scored
from .score_tables import band_rows, line_names, summarise, tables_of

if TYPE_CHECKING:
    from attnkit.runtime.options import BatchOptions

    from .downstream import Task

_COLUMNS = (
    "item", "prediction", "method", "exposure", "seed", "scaling", "factor", *MEASURES, "seconds_per_megasample",
    "bands", "pixels", "left_out_pixels", "missing_samples", "blocks", "scale", "scale_from",
    "band", "wavelength_nm", "psnr_db", "ssim",
    "input", "split", *ACCURACIES, "train_pixels", "test_pixels",
)  # fmt: skip


@dataclass
class Findings:
    """What the cubes of a run have given so far."""

    scored: list[Scored] = field(default_factory=list)
    accuracies: list[Row] = field(default_factory=list)
    wavelengths: dict[str, Sequence[float] | None] = field(default_factory=dict)
    task: Task | None = None


def report(
    findings: Findings,
    batch: BatchOptions,
    failed: Sequence[Mapping[str, Any]],
    *,
    settings: Mapping[str, Any],
    tables: Sequence[Path],
    plot: Path | None,
    bands: bool,
) -> None:
    """Print the tables, with one of all bands if `bands` says so, and write them and the chart to their files."""
    from attnkit.runtime.answers import print_document, print_table
    from attnkit.runtime.records import json_line

    rows = [one.row for one in findings.scored]
    summary = summarise(findings.scored, batch.seed)
    first = summary[0]["method"] if summary else ""
    each_band = band_rows(findings.scored, findings.wavelengths) if bands or plot else []
    listed = each_band if bands else []
    shown = tables_of(summary, listed, first) if summary else []
    accuracies = summarise_accuracies(findings.accuracies, first, batch.seed)
    if accuracies and findings.task is not None:
        shown.append(accuracy_table(accuracies, first, findings.task))
    document: dict[str, Any] = {"methods": summary, "cubes": rows}
    if listed:
        document["bands"] = listed
    if accuracies:
        document |= {"accuracy": accuracies, "splits": findings.accuracies}
    every = [*rows, *listed, *findings.accuracies]
    if rows:
        write_tables(tables, settings=settings, document=document, rows=every, columns=_COLUMNS, shown=shown)
        if plot is not None:
            _write_plot(plot, each_band, settings)
    if batch.jsonl:
        for row in [*every, *failed]:
            print(json_line(row))
    elif batch.json:
        print_document({**document, "failed": list(failed)}, {"scored": len(rows), "failed": len(failed)})
    elif rows and not batch.quiet:
        for at, (title, headers, cells) in enumerate(shown):
            if at:
                print(f"\n{title}")
            print_table(headers, cells)


def _write_plot(path: Path, bands: Sequence[Row], settings: Mapping[str, Any]) -> None:
    """PSNR of each band, one line per cube, exposure and method, as they are."""
    import numpy as np

    from attnkit.runtime.tables import replace_file

    from .chart import draw_lines

    names = line_names(bands)
    lines: dict[str, list[Row]] = {}
    for name, row in zip(names, bands, strict=True):
        if row["scaling"] == AS_IT_IS:
            lines.setdefault(name, []).append(row)
    longest = max(lines.values(), key=len)
    nm = [row["wavelength_nm"] for row in longest] if "wavelength_nm" in longest[0] else None
    values = [
        (name, np.array([row["psnr_db"] for row in own] + [np.nan] * (len(longest) - len(own))))
        for name, own in lines.items()
    ]
    picture = draw_lines(
        values, nm, title="PSNR of each band (dB)", settings=dict(settings), from_zero=False, digits=1
    )
    replace_file(path, picture)
