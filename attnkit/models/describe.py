"""All that is known of a model, as plain values; reads headers and imports neither torch nor numpy."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from attnkit.models import registry
from attnkit.models.registry import Entry
from attnkit.models.weights import hash_weights, read_header

# picture sizes that operations are stated for: rows, columns
SIZES = ((480, 640), (2160, 3840))


def describe(model: str, *, offline: bool = False) -> dict[str, Any]:
    """A model by registry name, file, folder or hub id. An architecture without weights of its own is described too."""
    entry = next((one for one in registry.find() if one.name == model), None)
    if entry is not None and not has_weights(entry):
        return {**describe_entry(entry), "config": entry.config, "provenance": {}, "card": card_of(entry)}
    found = registry.resolve(model, offline=offline)
    own = entry is not None
    shown = describe_entry(found.entry)
    shown.update(
        source=found.source,
        path=os.fspath(found.path),
        sha256=hash_weights(found.path),
        expected_sha256=found.entry.expected_sha256 if own else None,
        bytes=size_of(found.path),
        parameters=count_numbers(found.path) or found.entry.parameters,
        config=found.config,
        provenance=found.provenance,
        card=card_of(found.entry) if own else None,
    )
    if found.format == "safetensors":
        shown["flops"] = flops_of(found.entry, found.config)
    return shown


def describe_entry(entry: Entry) -> dict[str, Any]:
    """What the registry says of a model, without touching its weights beyond a header."""
    path = entry.weights_path if has_weights(entry) else None
    return {
        "model": entry.name,
        "task": entry.task,
        "summary": entry.summary,
        "paper": entry.paper,
        "licence": entry.licence,
        "format": entry.format,
        "source": entry.source,
        "location": entry.location,
        "path": None if path is None else os.fspath(path),
        "parameters": (count_numbers(path) if path is not None else 0) or entry.parameters,
        "bytes": None if path is None else size_of(path),
        "expects": entry.expects,
        "flops": flops_of(entry, entry.config),
    }


def has_weights(entry: Entry) -> bool:
    """Whether the entry's own weights are on this machine."""
    path = entry.weights_path
    return path is not None and path.exists()


def count_numbers(path: Path) -> int:
    """Numbers in a weight file, or in all weight files of a folder, from their headers."""
    files = [path] if path.is_file() else sorted(path.rglob("*.safetensors"))
    headers = (read_header(file) for file in files)
    return sum(math.prod(one["shape"]) for header in headers for name, one in header.items() if name != "__metadata__")


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def flops_of(entry: Entry, config: Any) -> dict[str, int] | None:
    """Operations of one pass by picture size ROWSxCOLUMNS, where the entry can count them."""
    if entry.flops is None:
        return None
    return {f"{rows}x{columns}": entry.flops({**entry.config, **config}, rows, columns) for rows, columns in SIZES}


def card_of(entry: Entry) -> str | None:
    """Text of the model card."""
    return entry.card_path.read_text(encoding="utf-8") if entry.card_path is not None else None
