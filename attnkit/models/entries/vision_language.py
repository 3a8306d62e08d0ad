"""The families of vision-language models that vlm-ask opens: the user brings the folder."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from attnkit.models.registry import Resolved, register

# family: paper, licence of the usual weights, what is built
FAMILIES = {
    "llava": (
        "Improved Baselines with Visual Instruction Tuning (LLaVA-1.5, arXiv 2310.03744)",
        "Llama 2 Community License",
    ),
    "qwen2_vl": ("Qwen2-VL (arXiv 2409.12191)", "Apache-2.0 (2B, 7B)"),
    "qwen2_5_vl": ("Qwen2.5-VL Technical Report (arXiv 2502.13923)", "Apache-2.0 (7B)"),
    "qwen3_vl": ("Qwen3-VL Technical Report (arXiv 2511.21631)", "Apache-2.0"),
    "smolvlm": ("SmolVLM (arXiv 2504.05299)", "Apache-2.0"),
    "idefics3": ("Building and better understanding vision-language models (Idefics3, arXiv 2408.12637)", "Apache-2.0"),
    "internvl": ("InternVL3 (arXiv 2504.10479)", "MIT, with that of the language model"),
}
SMALL = {
    "hidden": 64,
    "layers": 4,
    "heads": 4,
    "key_value_heads": 2,
    "inner": 128,
    "vision_hidden": 32,
    "vision_layers": 3,
    "side": 112,
    "vocabulary": 128,
}
TINY = {"hidden": 48, "layers": 2, "inner": 48, "vision_layers": 2, "side": 56, "vocabulary": 64}


def _open(resolved: Resolved, device: str) -> Any:
    from attnkit.models.vlm.opening import open_vlm

    return open_vlm(resolved.path, device=device, dtype=resolved.dtype)


def _build(family: str, config: Mapping[str, Any]) -> Any:
    from attnkit.models.vlm.small import small_network

    return small_network(family, config)


def _builder(family: str) -> Callable[[Mapping[str, Any]], Any]:
    build: Any = partial(_build, family)
    build.__doc__ = f"Any folder of the family {family} in transformers layout; built here: a small random one"
    build.__module__ = __name__
    return build


for family, (paper, licence) in FAMILIES.items():
    register(
        family.replace("_", "-"),
        task="vlm-ask",
        paper=paper,
        licence=licence,
        format="folder",
        source="path",
        expects="pictures (rows, columns, 3) uint8 and a question; sizes are those of the folder",
        config=SMALL,
        tiny=TINY,
        layouts=(family,),
        open=_open,
    )(_builder(family))
