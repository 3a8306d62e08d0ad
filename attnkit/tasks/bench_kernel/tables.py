"""Rows of a benchmark as tables: few columns for people, all of them in files. Units stand in every header and key."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attnkit.runtime.records import json_line, plain

from .statistics import NO_DIFFERENCE, TOO_FEW

Row = Mapping[str, Any]
SUFFIXES = (".json", ".csv", ".md", ".jsonl")
# the columns of a CSV, always all and in this order; those of each baseline follow
COLUMNS = (
    "operator",
    "role",
    "of",
    "status",
    "reason",
    "impl",
    "impl_asked",
    "direction",
    "dtype",
    "device",
    "batch",
    "heads",
    "kv_heads",
    "dim",
    "tokens",
    "canvas",
    "settings",
    "query_tile",
    "key_tile",
    "error",
    "checked",
    "median_ms",
    "p20_ms",
    "p80_ms",
    "median_low_ms",
    "median_high_ms",
    "cv_percent",
    "runs",
    "tflops",
    "tile_tflops",
    "gb_per_s",
    "roofline_percent",
    "bound",
    "flops_per_byte",
    "peak_tflops",
    "peak_gb_per_s",
    "peak_memory_mb",
    "map_ms",
    "permute_ms",
    "compile_ms",
    "total_ms",
    "break_even_tokens",
    "break_even_method",
    "visited",
    "full",
    "partial",
    "total",
    "density",
    "rows",
    "query_block",
    "key_block",
    "flops",
    "tile_flops",
    "bytes",
)
VERSUS = ("speedup", "low", "high", "verdict", "baseline_ms")


def number(value: Any, digits: int = 3) -> str:
    """A number of so many digits, without an exponent where it is of a usual size; nothing for none."""
    if value is None:
        return ""
    if isinstance(value, int) or value == 0:
        return str(value)
    if abs(value) < 1e-3:
        return f"{value:.1e}"
    whole = len(str(int(abs(value)))) if abs(value) >= 1 else 0
    return f"{value:.{max(0, digits - whole)}f}"


def versus_text(found: Mapping[str, Any] | None) -> str:
    """A speed-up for people: 3.2x [3.1, 3.4]; in words where there is no difference, or why there is none."""
    if not found:
        return ""
    if found["speedup"] is None:
        return str(found["verdict"] or "")
    if found["verdict"] == NO_DIFFERENCE:
        return f"{NO_DIFFERENCE} [{found['low']:.2f}, {found['high']:.2f}]"
    if found["verdict"] == TOO_FEW:
        return f"{found['speedup']:.2f}x ({TOO_FEW})"
    return f"{found['speedup']:.2f}x [{found['low']:.2f}, {found['high']:.2f}]"


def _name(row: Row) -> str:
    return f"{row['operator']} ({row['of']})" if row.get("of") else str(row["operator"])


def _shape(row: Row) -> str:
    heads = str(row["heads"]) if row["heads"] == row["kv_heads"] else f"{row['heads']}/{row['kv_heads']}"
    return f"{row['batch']} x {'x'.join(map(str, row['canvas']))} x {heads} x {row['dim']}"


def _note(row: Row) -> str:
    return "" if row.get("reason") is None else f"{row['status']}: {row['reason']}"


def _density(row: Row) -> str:
    return "" if row.get("density") is None else number(100 * row["density"])


# header -> cell; columns without any content are left out
PEOPLE: dict[str, Callable[[Row], str]] = {
    "operator": _name,
    "impl": lambda row: row.get("impl") or "",
    "batch x canvas x heads x dim": _shape,
    "dtype": lambda row: row["dtype"],
    "pass": lambda row: row["direction"],
    "tiles (%)": _density,
    "error": lambda row: "" if row.get("error") is None else f"{row['error']:.1e}",
    "checked": lambda row: row.get("checked") or "",
    "median (ms)": lambda row: number(row.get("median_ms")),
    "p20 (ms)": lambda row: number(row.get("p20_ms")),
    "p80 (ms)": lambda row: number(row.get("p80_ms")),
    "CV (%)": lambda row: number(row.get("cv_percent"), 2),
    "runs": lambda row: number(row.get("runs")),
    "TFLOP/s": lambda row: number(row.get("tflops")),
    "GB/s": lambda row: number(row.get("gb_per_s")),
    "roof (%)": lambda row: number(row.get("roofline_percent"), 2),
    "peak (MB)": lambda row: number(row.get("peak_memory_mb")),
    "map (ms)": lambda row: number(row.get("map_ms")),
    "permute (ms)": lambda row: number(row.get("permute_ms") or None),
    "compile (ms)": lambda row: number(row.get("compile_ms")),
    "total (ms)": lambda row: number(row.get("total_ms")),
    "break-even (tokens)": lambda row: number(row.get("break_even_tokens")),
    "note": _note,
}
ROOFLINE: dict[str, Callable[[Row], str]] = {
    "operator": _name,
    "tokens": lambda row: str(row["tokens"]),
    "pass": lambda row: row["direction"],
    "dtype": lambda row: row["dtype"],
    "FLOP/byte": lambda row: number(row.get("flops_per_byte")),
    "ridge (FLOP/byte)": lambda row: number(1e3 * row["peak_tflops"] / row["peak_gb_per_s"]),
    "bound": lambda row: row["bound"],
    "roof (TFLOP/s)": lambda row: number(min(row["peak_tflops"], row["flops_per_byte"] * row["peak_gb_per_s"] / 1e3)),
    "pairs (TFLOP/s)": lambda row: number(row["tflops"]),
    "whole tiles (TFLOP/s)": lambda row: number(row.get("tile_tflops")),
    "roof (%)": lambda row: number(row["roofline_percent"], 2),
}
COMPARED: dict[str, Callable[[Row], str]] = {
    "operator": lambda row: row["operator"],
    "tokens": lambda row: str(row["tokens"]),
    "pass": lambda row: row["direction"],
    "dtype": lambda row: row["dtype"],
    "before (ms)": lambda row: number(row["old_ms"]),
    "now (ms)": lambda row: number(row["new_ms"]),
    "change (%)": lambda row: "" if row["change_percent"] is None else f"{row['change_percent']:+.1f}",
    "verdict": lambda row: row["verdict"],
}


def cells_of(
    rows: Sequence[Row], columns: Mapping[str, Callable[[Row], str]], baselines: Sequence[str] = ()
) -> tuple[list[str], list[list[str]]]:
    """Headers and cells; the speed-up over each baseline stands behind the runs."""
    shown: dict[str, Callable[[Row], str]] = {}
    for header, cell in columns.items():
        shown[header] = cell
        if header == "runs":
            for name in baselines:
                shown[f"over {name}"] = lambda row, name=name: versus_text((row.get("versus") or {}).get(name))  # type: ignore[misc]
    cells = {header: [cell(row) for row in rows] for header, cell in shown.items()}
    kept = [header for header, column in cells.items() if any(column)]
    return kept, [[cells[header][at] for header in kept] for at in range(len(rows))]


def flat(row: Row, baselines: Sequence[str]) -> dict[str, Any]:
    """One row of a CSV."""
    values = {key: row.get(key) for key in COLUMNS}
    for name in baselines:
        found = (row.get("versus") or {}).get(name) or {}
        values.update({f"{key}_over_{name}": found.get(key) for key in VERSUS})
    return {
        key: json.dumps(plain(value)) if isinstance(value, list | dict | tuple) else plain(value)
        for key, value in values.items()
    }


def markdown(headers: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A table of a text."""
    lines = [headers, ["---"] * len(headers), *([cell.replace("|", "\\|") for cell in line] for line in cells)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def table_text(path: Path, rows: Sequence[Row], baselines: Sequence[str], whole: str) -> str:
    """What a table file holds, by its suffix; `whole` is the document of --json, which is also that of a .json."""
    if path.suffix == ".json":
        return whole + "\n"
    if path.suffix == ".jsonl":
        return "".join(json_line(row) + "\n" for row in rows)
    if path.suffix == ".md":
        return markdown(*cells_of(rows, PEOPLE, baselines))
    stream = io.StringIO()
    lines = [flat(row, baselines) for row in rows]
    headers = list(flat({}, baselines))
    writer = csv.DictWriter(stream, headers, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return stream.getvalue()
