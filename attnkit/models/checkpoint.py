"""The state of a training on disk, so that a stopped one can go on."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from attnkit.runtime.errors import ItemError, UsageError

# a training may be given more of these when it goes on
EXTENDABLE = ("minutes", "steps")


def checkpoint_of(out: Path, *, resume: bool, overwrite: bool) -> Path:
    """Where the checkpoint of a weight file is; UsageError where `out` cannot be written or there is none to resume."""
    checkpoint = out.with_name(out.name + ".checkpoint")
    if out.exists() and not overwrite:
        raise UsageError(f"--out: {out} exists; give --overwrite or another name")
    if resume and not checkpoint.is_file():
        raise UsageError(f"--resume: no checkpoint {checkpoint}; leave --resume out to begin")
    if not out.parent.is_dir():
        raise UsageError(f"--out: no folder {out.parent}; make it first")
    return checkpoint


def save_checkpoint(path: Path, state: Mapping[str, Any], recipe: Mapping[str, Any]) -> None:
    """Keep the state of a training, whole or not at all; ItemError where it cannot be written."""
    partial = path.with_name(path.name + ".partial")
    try:
        # torch's own opening of a file says RuntimeError of all that can be wrong
        with partial.open("wb") as stream:
            torch.save({**state, "recipe": dict(recipe)}, stream)
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise ItemError(f"{path}: the checkpoint cannot be written: {error.strerror or error}") from error


def load_checkpoint(path: Path, recipe: Mapping[str, Any], device: str) -> dict[str, Any]:
    """State to go on from; UsageError where it is damaged or of another recipe (its time and steps may differ)."""
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        made = state.pop("recipe")
    except (OSError, RuntimeError, EOFError, LookupError, AttributeError, pickle.UnpicklingError) as error:
        raise UsageError(f"--resume: {path} is damaged or no checkpoint; leave --resume out to begin again") from error
    for name, wanted in recipe.items():
        if name not in EXTENDABLE and made.get(name) != wanted:
            raise UsageError(
                f"--resume: {path} was made with {name} {made.get(name)}, got {wanted}; give the same options"
            )
    return state
