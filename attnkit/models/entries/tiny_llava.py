"""The embedded default of vlm-ask: a small LLaVA that answers questions about generated scenes of shapes."""

from collections.abc import Mapping
from typing import Any

from attnkit.models.registry import register


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
)
def tiny_llava(config: Mapping[str, Any]) -> Any:
    """Default of vlm-ask: a 2.6M LLaVA that answers questions about generated scenes of coloured shapes"""
    from attnkit.models.vlm.network import VlmNetwork
    from attnkit.models.vlm.tiny_llava import make_model

    return VlmNetwork(make_model(config), config)
