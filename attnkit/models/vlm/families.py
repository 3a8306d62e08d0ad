"""The families of vision-language models that attnkit knows, and where their parts are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attnkit.runtime.errors import ItemError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Family:
    """One model type of transformers. Paths are dotted names from the model down.

    layers         decoder layers of the language model
    vision         vision tower
    marker         what a prompt holds for one picture, before it is expanded
    template       chat template where the folder has none
    """

    model_type: str
    layers: str
    vision: str
    marker: str
    template: str
    projection: str = "self_attn.o_proj"

    def decoder_layers(self, model: nn.Module) -> list[nn.Module]:
        """The decoder layers of a model of this family, first to last."""
        return list(model.get_submodule(self.layers))  # type: ignore[call-overload]

    def output_projection(self, layer: nn.Module) -> nn.Module:
        """The projection W^O of a decoder layer; its input is [B, Q, heads * head_dim]."""
        return layer.get_submodule(self.projection)


# vicuna's form, which LLaVA-1.5 was trained with
_VICUNA = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'][0]['text'] }} "
    "{% elif message['role'] == 'user' %}USER: "
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}{% endfor %} "
    "{% else %}ASSISTANT: {{ message['content'][0]['text'] }}</s>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def _chatml(picture: str) -> str:
    return (
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
        "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
        + picture
        + "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )


_IDEFICS = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}:"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %} {{ part['text'] }}{% endif %}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
_QWEN_PICTURE = "<|vision_start|><|image_pad|><|vision_end|>"


def _qwen(model_type: str) -> Family:
    return Family(
        model_type,
        "model.language_model.layers",
        "model.visual",
        "<|image_pad|>",
        _chatml(_QWEN_PICTURE),
    )


def _idefics(model_type: str) -> Family:
    return Family(
        model_type,
        "model.text_model.layers",
        "model.vision_model",
        "<image>",
        _IDEFICS,
    )


FAMILIES: Mapping[str, Family] = {
    family.model_type: family
    for family in (
        Family("llava", "model.language_model.layers", "model.vision_tower", "<image>", _VICUNA),
        _qwen("qwen2_vl"),
        _qwen("qwen2_5_vl"),
        _qwen("qwen3_vl"),
        _idefics("smolvlm"),
        _idefics("idefics3"),
        Family(
            "internvl",
            "model.language_model.layers",
            "model.vision_tower",
            "<IMG_CONTEXT>",
            _chatml("<IMG_CONTEXT>\n"),
        ),
    )
}


def family_of(config: Any, where: str) -> Family:
    """The family of a transformers config, or of the dictionary in its config.json; ItemError names those known."""
    model_type = str(config.get("model_type") if isinstance(config, Mapping) else config.model_type)
    if model_type not in FAMILIES:
        raise ItemError(f"{where}: model type {model_type!r}, expected one of {', '.join(FAMILIES)}")
    return FAMILIES[model_type]
