"""HSIE as published: its authors published no weights; a training of one's own or a converted checkpoint is given."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attnkit.models.hsie.cost import count_flops
from attnkit.models.registry import Resolved, register
from attnkit.models.weights import Weights


def _open(resolved: Resolved, device: str) -> Any:
    from attnkit.models.hsie.fast import FastHsie

    return FastHsie.load(resolved.path, device)


def _convert(path: Path) -> Weights:
    from attnkit.models.hsie.convert import convert

    return convert(path)


@register(
    "hsie-lptn",
    task="hsi-enhance",
    paper="HSIE: Low-Light Hyperspectral Image Enhancement (arXiv 2208.03042)",
    licence="Apache-2.0 (the authors' repository has no licence and no weights)",
    source="path",
    expects="a brightened cube (rows, columns, bands) float32, full exposure 1, not clipped",
    config={
        "neighbours": 24,
        "features": 20,
        "growth": 20,
        "blocks": 4,
        "convs": 4,
        "width": 64,
        "residual_blocks": 3,
        "last_conv": True,
    },
    tiny={"neighbours": 4, "features": 4, "growth": 4, "blocks": 2, "convs": 2, "width": 8, "residual_blocks": 1},
    parameters=671_309,
    open=_open,
    convert=_convert,
    flops=count_flops,
)
def hsie_lptn(config: Mapping[str, Any]) -> Any:
    """Published band-by-band enhancer: dense channel attention at half resolution, a mask network for the detail"""
    from attnkit.models.hsie.model import HsieLptn

    # as users run it; a training calls train() itself
    return HsieLptn(**config).eval()
