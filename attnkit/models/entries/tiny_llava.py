"""The embedded default of vlm-ask: a small LLaVA that answers questions about generated scenes of shapes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attnkit.models.registry import Resolved, register


def _open(resolved: Resolved, device: str) -> Any:
    from attnkit.models.vlm.opening import open_vlm

    return open_vlm(resolved.path, device=device, dtype=resolved.dtype)


def _load(folder: Path, config: Mapping[str, Any]) -> Any:
    from attnkit.models.vlm.network import VlmNetwork, llava_inputs

    return VlmNetwork.open(folder, config, llava_inputs)


@register(
    "tiny-llava",
    task="vlm-ask",
    paper="after Improved Baselines with Visual Instruction Tuning (LLaVA-1.5, arXiv 2310.03744)",
    licence="Apache-2.0",
    format="folder",
    source="embedded",
    location="tiny-llava",
    expects="a picture (rows, columns, 3) uint8 and a question; brought to 96 x 96 pixels, 64 image tokens",
    config={
        "image": 96,
        "patch": 12,
        "vision_hidden": 128,
        "vision_layers": 4,
        "vision_heads": 4,
        "vision_inner": 512,
        "hidden": 192,
        "layers": 4,
        "heads": 6,
        "key_value_heads": 2,
        "inner": 512,
        "vocabulary": 576,
        "positions": 1024,
    },
    tiny={
        "image": 24,
        "patch": 12,
        "vision_hidden": 16,
        "vision_layers": 1,
        "vision_heads": 2,
        "vision_inner": 16,
        "hidden": 16,
        "layers": 2,
        "heads": 4,
        "key_value_heads": 2,
        "inner": 16,
        "vocabulary": 320,
    },
    open=_open,
    load=_load,
)
def tiny_llava(config: Mapping[str, Any]) -> Any:
    """Default of vlm-ask: a 2.6M LLaVA that answers questions about generated scenes of coloured shapes"""
    from attnkit.models.vlm.network import VlmNetwork, llava_inputs
    from attnkit.models.vlm.tiny_llava import make_model

    return VlmNetwork(make_model(config), config, llava_inputs)
