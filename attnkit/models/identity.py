"""What a `--model` stands for, as outputs keep it in their settings, and the model itself, loaded once a process."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from attnkit.models import registry
from attnkit.models.weights import hash_weights

WHOLE_BYTES = 1_000_000_000
SAMPLES, BLOCK = 256, 1 << 16


def model_identity(model: str, task: str | None = None) -> str:
    """SHA-256 of a model's weights (of samples where they are large), or the id of one that only the hub has.

    Raises UsageError for a name that is nothing, and for a model of another task than `task`.
    """
    return _identity(model, _modified(Path(model)), task)


def kept_model(model: str, task: str, device: str, offline: bool, dtype: str = "auto") -> Any:
    """The model of a registry name, path or hub id, opened for its task; anew only where its weights have changed."""
    return _opened(model, task, device, offline, dtype, model_identity(model, task))


def _modified(path: Path) -> tuple[int, int] | None:
    # processes of a cluster live on while a file is trained anew
    try:
        found = [path.stat(), *(file.stat() for file in (path.iterdir() if path.is_dir() else ()))]
    except OSError:
        return None
    # a folder does not change with the bytes of its files
    return max(one.st_mtime_ns for one in found), sum(one.st_size for one in found)


@lru_cache(maxsize=8)
def _identity(model: str, modified: tuple[int, int] | None, task: str | None) -> str:
    if modified is None and registry.looks_like_hub_id(model):
        # a hub id: what it stands for is known once it has been fetched, and a plan fetches nothing
        return f"hub:{model}"
    found = registry.resolve(model, offline=True)
    if task is not None:
        registry.check_task(found.entry, task, model)
    return found.entry.expected_sha256 or _hash(found.path)


def _hash(path: Path) -> str:
    """SHA-256 of a weight set; of one that is large sizes, beginnings, ends and samples of its files, and it says so.

    Billions of parameters are read in seconds this way, where a command would wait for a minute before it begins.
    """
    files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    if sum(file.stat().st_size for file in files) <= WHOLE_BYTES:
        return hash_weights(path)
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(f"{size}  {file.name if path.is_dir() else ''}\n".encode())
        with file.open("rb") as stream:
            for at in range(SAMPLES + 1):
                stream.seek(max(0, size - BLOCK) * at // SAMPLES)
                digest.update(stream.read(BLOCK))
    return f"sampled:{digest.hexdigest()}"


@lru_cache(maxsize=2)
def _opened(model: str, task: str, device: str, offline: bool, dtype: str, identity: str) -> Any:
    return registry.open_model(model, task=task, device=device, offline=offline, dtype=dtype)
