"""LLF-LUT++ as published: its authors' checkpoints are converted by `attnkit models import`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attnkit.models.llf_lut.cost import count_flops
from attnkit.models.registry import Resolved, register
from attnkit.models.weights import Weights


def _open(resolved: Resolved, device: str) -> Any:
    from attnkit.models.llf_lut.mapper import PublishedToneMapper

    return PublishedToneMapper.load(resolved.path, device)


def _convert(path: Path) -> Weights:
    from attnkit.models.llf_lut.convert import convert

    return convert(path)


@register(
    "llf-lut-pp",
    task="tonemap",
    paper="LLF-LUT++ (TPAMI 2025, arXiv 2510.11613)",
    licence="Apache-2.0 (the authors' checkpoints: MIT)",
    source="path",
    expects="linear Rec.709 light in 0..1, (rows, columns, 3) float32; brighter light is scaled (99.5th percentile)",
    config={
        "depth": 3,
        "table_size": 33,
        "width": 32,
        "stages": 4,
        "coarse_width": 64,
        "fine_width": 16,
        "references": 10,
    },
    tiny={"depth": 2, "table_size": 5, "width": 16, "stages": 2, "coarse_width": 8, "fine_width": 4},
    parameters=551_957,
    open=_open,
    convert=_convert,
    flops=count_flops,
)
def llf_lut_pp(config: Mapping[str, Any]) -> Any:
    """Published tone mapper: window transformer on a thumbnail, three 3-D tables, per-pixel remapping of each band"""
    from attnkit.models.llf_lut.model import LlfLutPlus

    # as users run it; a training calls train() itself
    return LlfLutPlus(**config).eval()
