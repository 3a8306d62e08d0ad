"""What a `--model` stands for, as outputs keep it in their settings."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from attnkit.models import registry
from attnkit.models.weights import hash_weights


@lru_cache(maxsize=8)
def model_identity(model: str) -> str:
    """SHA-256 of a model's weights, or the id of one that only the hub has; UsageError for a name that is nothing."""
    if "/" in model and not Path(model).exists():
        # a hub id: what it stands for is known once it has been fetched, and a plan fetches nothing
        return f"hub:{model}"
    found = registry.resolve(model, offline=True)
    return found.entry.expected_sha256 or hash_weights(found.path)
