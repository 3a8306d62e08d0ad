"""From the published checkpoints of LLF-LUT++ to attnkit's weight files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from attnkit.models.weights import Weights, read_pickle
from attnkit.runtime.errors import ItemError
from attnkit.runtime.items import sha256_of

SOURCE = "github.com/fengzhang427/LLF-LUT, MIT, revision 16d0d8c5d610592a0ad8262594f39525a32926ba"

# what the authors' files were trained on -> their SHA-256
PUBLISHED = {
    "HDR+ 480p": "6cb4e66a1a8b0a36989ae9919048faaf7d5da226d602965e9b8b4a9d02972e89",
    "HDR+ 4K": "f457c5e0dac383ec3bb2c418658de8150e66cdc775e5a55529bf51caae6ae719",
    "FiveK 480p": "08989583da38797781eaa5c6a85d207d0d84ff2736af72d703a14efe8f9fb9f4",
    "FiveK 4K": "98186137f316b05749478f8ecc5ea32df656c49316530d7833a0ee1a3d64b965",
}

# layers that the published code makes and never runs
UNUSED = re.compile(r"transformer\.(upconv1|upconv2|HRconv|downsample\.3\.conv\.0)\.(weight|bias)")
# follows from the window size alone
DERIVED = re.compile(r"transformer\..*\.relative_position_index")
TABLE = re.compile(r"LUT([0-2])\.LUT")

RENAMED = (
    (re.compile(r"transformer\.input_proj\.proj\.0\.(weight|bias)"), r"predictor.enter.\1"),
    (re.compile(r"transformer\.encoder_layers\.(\d+)\.blocks\.0\.(.+)"), r"predictor.encoder.\1.\2"),
    (re.compile(r"transformer\.decoder_layers\.(\d+)\.blocks\.0\.(.+)"), r"predictor.decoder.\1.\2"),
    (re.compile(r"transformer\.downsample\.(\d+)\.conv\.0\.(weight|bias)"), r"predictor.shrink.\1.\2"),
    (re.compile(r"transformer\.upsample\.(\d+)\.deconv\.0\.(weight|bias)"), r"predictor.grow.\1.\2"),
    (re.compile(r"transformer\.head\.(weight|bias)"), r"predictor.point.\1"),
    (re.compile(r"transformer\.recon_conv\.(weight|bias)"), r"predictor.widen.\1"),
    (re.compile(r"transformer\.conv_last\.(weight|bias)"), r"predictor.leave.\1"),
    (re.compile(r"laplacian_filter\.block\.model\.0\.(weight|bias)"), r"coarse.enter.\1"),
    (re.compile(r"laplacian_filter\.block\.model\.2\.beta"), r"coarse.block.scale"),
    (re.compile(r"laplacian_filter\.block\.model\.2\.norm1\.(weight|bias)"), r"coarse.block.norm.\1"),
    (re.compile(r"laplacian_filter\.block\.model\.2\.conv1\.(weight|bias)"), r"coarse.block.expand.\1"),
    (re.compile(r"laplacian_filter\.block\.model\.2\.conv2\.(weight|bias)"), r"coarse.block.spatial.\1"),
    (re.compile(r"laplacian_filter\.block\.model\.2\.sca\.1\.(weight|bias)"), r"coarse.block.attention.\1"),
    (re.compile(r"laplacian_filter\.block\.model\.2\.conv3\.(weight|bias)"), r"coarse.block.project.\1"),
    (re.compile(r"laplacian_filter\.block\.model\.3\.(weight|bias)"), r"coarse.leave.\1"),
    (re.compile(r"laplacian_filter\.block\.high_freq_blocks\.(\d+)\.0\.(weight|bias)"), r"fine.\1.enter.\2"),
    (re.compile(r"laplacian_filter\.block\.high_freq_blocks\.(\d+)\.2\.(weight|bias)"), r"fine.\1.spatial.\2"),
    (re.compile(r"laplacian_filter\.block\.high_freq_blocks\.(\d+)\.4\.(weight|bias)"), r"fine.\1.leave.\2"),
)


def convert_state(state: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, Any], dict[str, int]]:
    """Rename a published state dictionary.

    Returns the arrays under our names, the config that they fit, and how many numbers were left out and why. A name
    that is none of the published ones is an ItemError, so nothing is lost without a word.
    """
    arrays: dict[str, np.ndarray] = {}
    tables: dict[int, np.ndarray] = {}
    dropped = {"never_used": 0, "derived": 0}
    for name, value in state.items():
        if UNUSED.fullmatch(name):
            dropped["never_used"] += value.size
        elif DERIVED.fullmatch(name):
            dropped["derived"] += value.size
        elif found := TABLE.fullmatch(name):
            tables[int(found[1])] = value
        else:
            arrays[_renamed(name)] = value
    missing = sorted({0, 1, 2} - set(tables))
    if missing:
        raise ItemError(f"llf-lut-pp: the checkpoint lacks LUT{missing[0]}.LUT; is it a checkpoint of LLF-LUT++?")
    arrays["tables"] = np.stack([tables[index] for index in range(3)])
    try:
        config = {
            "depth": 1 + len({name.split(".")[1] for name in arrays if name.startswith("fine.")}),
            "table_size": arrays["tables"].shape[-1],
            "width": arrays["predictor.enter.weight"].shape[0],
            "stages": len({name.split(".")[2] for name in arrays if name.startswith("predictor.encoder.")}),
            "coarse_width": arrays["coarse.enter.weight"].shape[0],
            "fine_width": arrays["fine.0.enter.weight"].shape[0],
            "references": 10,
        }
    except KeyError as error:
        raise ItemError(f"llf-lut-pp: the checkpoint lacks {error.args[0]} (in our names)") from error
    return arrays, config, dropped


def _renamed(name: str) -> str:
    for pattern, replacement in RENAMED:
        if pattern.fullmatch(name):
            return pattern.sub(replacement, name)
    raise ItemError(f"llf-lut-pp: unexpected array {name!r} in the checkpoint; is it a checkpoint of LLF-LUT++?")


def convert(path: Path) -> Weights:
    """Read a published checkpoint, check that it fits the architecture whole, and say where it came from."""
    from attnkit.models.llf_lut.model import LlfLutPlus

    arrays, config, dropped = convert_state(read_pickle(path))
    model = LlfLutPlus(**config)
    model.load_arrays(arrays)
    digest = sha256_of(path)
    known = [training for training, published in PUBLISHED.items() if published == digest]
    provenance = {
        "file": path.name,
        "sha256": digest,
        "trained_on": known[0] if known else "unknown: not one of the four published files",
        "source": SOURCE if known else "unknown",
        "licence": "MIT" if known else "unknown",
        "dropped_numbers": dropped,
    }
    return Weights(model.arrays(), "llf-lut-pp", model.config, provenance)
