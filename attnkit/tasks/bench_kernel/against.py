"""An old record against a new run: which kernels have become slower."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attnkit.runtime.errors import UsageError

Row = Mapping[str, Any]
# what makes two rows the same measurement
IDENTITY = (
    "operator",
    "role",
    "of",
    "impl_asked",
    "direction",
    "dtype",
    "batch",
    "heads",
    "kv_heads",
    "dim",
    "canvas",
    "settings",
    "query_tile",
    "key_tile",
)
# what two runs must share: field of the environment -> word for people
SAME = {"device_name": "device", "torch": "torch version", "threads": "number of threads"}


def key_of(row: Row) -> str:
    """One text for what a row measures."""
    return json.dumps([row.get(name) for name in IDENTITY], sort_keys=True)


def read_record(path: Path) -> dict[str, Any]:
    """{"environment", "rows"} of a file that --out FILE.json or --json has written. UsageError for any other file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--against {path}: {error.strerror}; expected a record of bench-kernel") from None
    except ValueError:
        raise UsageError(
            f"--against {path}: not JSON, expected a record that --out FILE.json or --json has written"
        ) from None
    record = content.get("result") if isinstance(content, dict) else None
    good = isinstance(record, dict) and isinstance(record.get("rows"), list)
    if not good or not isinstance(record["environment"], dict) or content.get("command") != "bench-kernel":  # type: ignore[index]
        raise UsageError(f"--against {path}: no record of bench-kernel; expected what --out FILE.json or --json wrote")
    return dict(record)  # type: ignore[arg-type]


def check_same(path: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """UsageError with both values where times cannot be compared: another device, torch or number of threads."""
    for field, word in SAME.items():
        then, now = (
            record["versions"].get("torch") if field == "torch" else record.get(field) for record in (old, new)
        )
        if then != now:
            raise UsageError(f"--against {path}: measured with {word} {then}, here it is {now}; measure it again here")


def compare(old: Sequence[Row], new: Sequence[Row], threshold: float) -> list[dict[str, Any]]:
    """One entry for each row that both have, in the new order.

    threshold : percent. A kernel is a regression if its median is slower by more than that and the new interval of the
    median lies above the old one (without intervals, after few runs, the medians alone decide); or if it had a time and
    now has none.
    """
    before = {key_of(row): row for row in old}
    found = []
    for row in new:
        then = before.get(key_of(row))
        if then is None:
            continue
        entry = {name: row.get(name) for name in ("operator", "impl", "direction", "dtype", "tokens", "canvas")}
        was, now = then.get("median_ms"), row.get("median_ms")
        change = 100 * (now / was - 1) if was and now else None
        found.append(
            {
                **entry,
                "old_ms": was,
                "new_ms": now,
                "change_percent": change,
                "verdict": _verdict(then, row, change, threshold),
            }
        )
    return found


def _verdict(old: Row, new: Row, change: float | None, threshold: float) -> str:
    if old.get("median_ms") is None:
        return "not measured before"
    if change is None:
        return f"regression: {new['status']}"
    if abs(change) <= threshold:
        return "same"
    upper, lower = (old, new) if change > 0 else (new, old)
    top, bottom = upper.get("median_high_ms"), lower.get("median_low_ms")
    if top is not None and bottom is not None and bottom <= top:
        return "within the interval"
    return "regression" if change > 0 else "faster"


def regressions(compared: Sequence[Row]) -> list[Row]:
    """The entries that make the command end with 1."""
    return [entry for entry in compared if entry["verdict"].startswith("regression")]
