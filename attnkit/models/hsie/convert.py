"""From state dictionaries of the published class to attnkit's weight files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from attnkit.models.weights import Weights, read_pickle
from attnkit.runtime.errors import ItemError
from attnkit.runtime.items import sha256_of

SIZES = {"3": "0", "5": "1", "7": "2"}
LAYER = r"(weight|bias)"
RENAMED = (
    (re.compile(rf"(spatial|spectral)_feature_([357])\.{LAYER}"), lambda m: f"{m[1]}.{SIZES[m[2]]}.{m[3]}"),
    (re.compile(rf"conv1\.0\.{LAYER}"), lambda m: f"enter.{m[1]}"),
    (re.compile(rf"rdn\.GFF1\.{LAYER}"), lambda m: f"fuse.{m[1]}"),
    (re.compile(rf"rdn\.GFF2\.{LAYER}"), lambda m: f"unused.{m[1]}"),
    (
        re.compile(rf"rdn\.rdbModuleList\.(\d+)\.layer\.(\d+)\.conv\.{LAYER}"),
        lambda m: f"blocks.{m[1]}.dense.{m[2]}.{m[3]}",
    ),
    (re.compile(rf"rdn\.rdbModuleList\.(\d+)\.conv1x1\.{LAYER}"), lambda m: f"blocks.{m[1]}.reduce.{m[2]}"),
    (
        re.compile(r"rdn\.rdbModuleList\.(\d+)\.ecalayer\.conv\.weight"),
        lambda m: f"blocks.{m[1]}.attention.mix.weight",
    ),
    (re.compile(rf"conv10\.{LAYER}"), lambda m: f"relight.{m[1]}"),
    (re.compile(rf"trans_high\.model\.0\.{LAYER}"), lambda m: f"mask_enter.{m[1]}"),
    (
        re.compile(rf"trans_high\.model\.(\d+)\.block\.([02])\.{LAYER}"),
        lambda m: f"mask_blocks.{int(m[1]) - 2}.{'second' if m[2] == '2' else 'first'}.{m[3]}",
    ),
    (re.compile(rf"trans_high\.model\.[1-9]\d*\.{LAYER}"), lambda m: f"mask_leave.{m[1]}"),
    (re.compile(rf"trans_high\.trans_mask_block\.0\.{LAYER}"), lambda m: f"curve_enter.{m[1]}"),
    (re.compile(rf"trans_high\.trans_mask_block\.2\.{LAYER}"), lambda m: f"curve_leave.{m[1]}"),
    (re.compile(rf"conv_last\.{LAYER}"), lambda m: f"last.{m[1]}"),
)


def convert_state(state: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Rename a published state dictionary; returns the arrays under our names and the config that they fit.

    A name that is none of the published ones is an ItemError, so nothing is lost without a word.
    """
    arrays = {_renamed(name.removeprefix("module.")): value for name, value in state.items()}
    try:
        config = {
            "neighbours": arrays["spectral.0.weight"].shape[1],
            "features": arrays["spectral.0.weight"].shape[0],
            "growth": arrays["blocks.0.dense.0.weight"].shape[0],
            "blocks": len({name.split(".")[1] for name in arrays if name.startswith("blocks.")}),
            "convs": len({name.split(".")[3] for name in arrays if name.startswith("blocks.0.dense.")}),
            "width": arrays["mask_enter.weight"].shape[0],
            "residual_blocks": len({name.split(".")[1] for name in arrays if name.startswith("mask_blocks.")}),
            "last_conv": "last.weight" in arrays,
        }
    except KeyError as error:
        raise ItemError(f"hsie-lptn: the checkpoint lacks {error.args[0]} (in our names)") from error
    return arrays, config


def _renamed(name: str) -> str:
    for pattern, replacement in RENAMED:
        found = pattern.fullmatch(name)
        if found:
            return replacement(found)
    raise ItemError(f"hsie-lptn: unexpected array {name!r} in the checkpoint; is it a checkpoint of HSIE?")


def convert(path: Path) -> Weights:
    """Read a checkpoint of the published class and check that it fits the architecture whole."""
    from attnkit.models.hsie.model import HsieLptn

    arrays, config = convert_state(read_pickle(path))
    model = HsieLptn(**config)
    model.load_arrays(arrays)
    provenance = {
        "file": path.name,
        "sha256": sha256_of(path),
        "trained_on": "unknown: the authors published no weights",
        "source": "unknown",
        "licence": "unknown",
    }
    return Weights(model.arrays(), "hsie-lptn", model.config, provenance)
