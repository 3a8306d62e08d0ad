"""From a published checkpoint to a weight file, and from installed packages to a folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from attnkit.models import registry
from attnkit.models.weights import existing_file, hash_weights, write_weights
from attnkit.runtime.errors import ItemError, UsageError


def import_model(file: Path | None, architecture: str, out: str | None, *, overwrite: bool = False) -> dict[str, Any]:
    """Convert a checkpoint, or without a file assemble what comes from installed packages; see the two functions."""
    entry = registry.get(architecture)
    if entry.assembly is not None:
        given = "FILE" if file is not None else "--out" if out is not None else "--overwrite" if overwrite else None
        if given is not None:
            raise UsageError(
                f"{given}: {architecture} is put together from installed packages and kept in the cache; leave it out"
            )
        return import_packages(architecture)
    if file is None or out is None:
        raise UsageError(
            f"{'FILE' if file is None else '--out'}: not given; --as {architecture} converts FILE to --out FILE"
        )
    return import_checkpoint(file, architecture, out, overwrite=overwrite)


def import_packages(architecture: str) -> dict[str, Any]:
    """Put a folder together from installed packages where it is not there yet; returns path, sha256 and parameters."""
    from attnkit.models.describe import count_numbers

    entry = registry.get(architecture)
    assert entry.assembly is not None
    path = entry.assembly.assemble()
    return {
        "path": str(path),
        "sha256": hash_weights(path),
        "architecture": architecture,
        "parameters": count_numbers(path),
        "packages": entry.location,
    }


def import_checkpoint(file: Path, architecture: str, out: str, *, overwrite: bool = False) -> dict[str, Any]:
    """Convert a checkpoint and write it; returns path, sha256, number of parameters and where it came from.

    ``out`` is a .safetensors file, or a folder (there already, or with a slash at its end) for the file's own name. All
    that is wrong with the arguments is a UsageError before any work.
    """
    entry = registry.get(architecture)
    if entry.convert is None:
        able = ", ".join(one.name for one in registry.find() if one.convert is not None)
        raise UsageError(f"--as {architecture}: has no published checkpoints to import, expected one of {able}")
    existing_file(file)
    folder = out.endswith(("/", os.sep)) or Path(out).is_dir()
    target = Path(out, f"{file.stem}.safetensors") if folder else Path(out)
    if target.suffix != ".safetensors":
        raise UsageError(f"--out {target}: suffix {target.suffix!r}, expected .safetensors")
    if target.exists() and target.samefile(file):
        raise UsageError(f"--out {target}: is the input itself; name another file")
    if target.exists() and not overwrite:
        raise UsageError(f"--out {target}: exists; use --overwrite or name another file")
    weights = entry.convert(file)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ItemError(f"--out {target}: its folder cannot be made: {error.strerror}") from error
    digest = write_weights(
        target,
        weights.arrays,
        architecture=weights.architecture,
        config=weights.config,
        provenance=weights.provenance,
    )
    return {
        "path": str(target),
        "sha256": digest,
        "architecture": weights.architecture,
        "parameters": sum(value.size for value in weights.arrays.values()),
        "trained_on": weights.provenance.get("trained_on", "unknown"),
        "provenance": weights.provenance,
    }
