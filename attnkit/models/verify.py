"""Is a weight set what it should be: its hash, its shapes, and what the model makes of a known input."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attnkit.models import registry
from attnkit.models.weights import hash_weights, write_whole
from attnkit.runtime.errors import AttnkitError, ItemError, UsageError

if TYPE_CHECKING:
    import numpy as np

    from attnkit.models.registry import Entry, Resolved
    from attnkit.models.verbs import Model

SCHEMA = 1
GOLDEN_ROWS, GOLDEN_COLUMNS = 48, 64
GOLDEN_SAMPLES = 16
# a quarter of one step of an 8-bit picture: above what other processors and thread counts change, below what can be
# seen
GOLDEN_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: state is ok, failed or skipped."""

    model: str
    check: str
    state: str
    detail: str


def verify(model: str, *, offline: bool = False) -> list[Check]:
    """Check one weight set, by registry name, file, folder or hub id.

    A damaged set gives failed checks; a model that cannot be found raises as `registry.resolve` does.
    """
    entry = registry.get(model) if any(one.name == model for one in registry.find()) else None
    path = entry.weights_path if entry is not None else None
    lacking = entry.assembly.lacking() if entry is not None and entry.assembly is not None and path is None else None
    if lacking is not None:
        return [Check(model, "file", "skipped", lacking)]
    checks = [_hash_check(entry)] if entry is not None and path is not None and path.exists() else []
    if checks and checks[0].state == "failed":
        return checks
    try:
        found = registry.resolve(model, offline=offline)
    except ItemError as error:
        return [*checks, Check(model, "file", "failed", str(error))]
    if found.format == "folder" and found.entry.load is None:
        return [*checks, Check(model, "shapes", "skipped", f"a folder, opened by {found.entry.task}")]
    return [*checks, *_run_checks(model, found, _record_of(entry))]


def verify_all() -> list[Check]:
    """Check every weight set that comes with the installation."""
    checks: list[Check] = []
    for entry in registry.find():
        path = entry.weights_path
        if entry.source in ("path", "hub"):
            checks.append(Check(entry.name, "file", "skipped", "no weights of its own"))
        elif entry.assembly is not None and path is None:
            detail = entry.assembly.lacking() or f"not made yet; run: attnkit models import --as {entry.name}"
            checks.append(Check(entry.name, "file", "skipped", detail))
        elif path is None or not path.exists():
            state = "failed" if entry.source == "embedded" else "skipped"
            checks.append(Check(entry.name, "file", state, f"{entry.location} is not installed"))
        else:
            checks.extend(verify(entry.name))
    return checks


def write_golden(name: str) -> Check:
    """Record the hash of an embedded weight set and what the model makes of its example, in NAME.json beside it.

    Of a folder that is put together here only the latter: other versions of transformers write it in other words.
    """
    entry = registry.get(name)
    if entry.source != "embedded" and entry.assembly is None:
        raise UsageError(f"--write-golden: model {name!r} has source {entry.source!r}, expected an embedded one")
    found = registry.resolve(name)
    record = {
        "schema": SCHEMA,
        "sha256": hash_weights(found.path) if entry.assembly is None else None,
        "golden": {
            "command": f"attnkit models verify {name} --write-golden",
            "rows": GOLDEN_ROWS,
            "columns": GOLDEN_COLUMNS,
            "tolerance": GOLDEN_TOLERANCE,
            "outputs": {key: _digest(value) for key, value in sorted(_outputs(_load(found)).items())},
        },
    }
    write_whole(entry.record_path, (json.dumps(record, indent=1, sort_keys=True) + "\n").encode())
    return Check(name, "golden", "ok", f"recorded in {entry.record_path}")


def _record_of(entry: Entry | None) -> dict[str, Any] | None:
    if entry is None or not entry.record_path.is_file():
        return None
    return json.loads(entry.record_path.read_text(encoding="utf-8"))


def _hash_check(entry: Entry) -> Check:
    assert entry.weights_path is not None
    expected, got = entry.expected_sha256, hash_weights(entry.weights_path)
    if expected is None:
        return Check(entry.name, "hash", "skipped", f"{got}; none recorded")
    if got != expected:
        detail = f"{entry.weights_path}: sha256 {got}, expected {expected}; reinstall attnkit"
        return Check(entry.name, "hash", "failed", detail)
    return Check(entry.name, "hash", "ok", got)


def _run_checks(model: str, found: Resolved, record: Mapping[str, Any] | None) -> list[Check]:
    try:
        loaded = _load(found)
        outputs = _outputs(loaded)
    except AttnkitError as error:
        return [Check(model, "shapes", "failed", str(error))]
    checks = [Check(model, "shapes", "ok", f"{len(loaded.arrays())} arrays fit {found.entry.name}")]
    if record is None:
        checks.append(Check(model, "golden", "skipped", "none recorded"))
    else:
        checks.append(_golden_check(model, outputs, record["golden"]))
    return checks


def _load(found: Resolved) -> Model:
    if found.format == "folder" and found.entry.load is not None:
        return found.entry.load(found.path, found.entry.config)
    return registry.load(os.fspath(found.path))


def _outputs(loaded: Model) -> dict[str, np.ndarray]:
    return loaded.run(loaded.example(GOLDEN_ROWS, GOLDEN_COLUMNS))


def _digest(value: np.ndarray) -> dict[str, Any]:
    """Shape, mean, and values at evenly spaced places of an array."""
    import numpy as np

    flat = np.asarray(value, dtype=np.float64).ravel()
    places = np.linspace(0, flat.size - 1, min(GOLDEN_SAMPLES, flat.size)).astype(int)
    return {
        "shape": list(np.shape(value)),
        "mean": float(f"{flat.mean():.7g}"),
        "values": [float(f"{number:.7g}") for number in flat[places]],
    }


def _golden_check(model: str, outputs: Mapping[str, np.ndarray], golden: Mapping[str, Any]) -> Check:
    if sorted(outputs) != sorted(golden["outputs"]):
        detail = f"outputs {', '.join(sorted(outputs))}, expected {', '.join(sorted(golden['outputs']))}"
        return Check(model, "golden", "failed", detail)
    worst = 0.0
    for name, expected in golden["outputs"].items():
        got = _digest(outputs[name])
        if got["shape"] != expected["shape"]:
            detail = f"output {name!r} has shape {got['shape']}, expected {expected['shape']}"
            return Check(model, "golden", "failed", detail)
        pairs = zip([got["mean"], *got["values"]], [expected["mean"], *expected["values"]], strict=True)
        # relative to what is large, absolute to what is small; NaN is never within
        errors = [abs(one - other) / max(1.0, abs(other)) for one, other in pairs]
        if not all(error <= golden["tolerance"] for error in errors):
            detail = f"output {name!r} is off by {max(errors):.3g}, expected at most {golden['tolerance']:g}"
            return Check(model, "golden", "failed", f"{detail}; made by: {golden['command']}")
        worst = max(worst, *errors)
    return Check(model, "golden", "ok", f"within {worst:.1e} of the record")
