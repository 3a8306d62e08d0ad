"""The architecture: a LLaVA of transformers with a DINOv2 tower and a Llama language model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attnkit.models.smol_llava.vision import CONFIG, PATCH


def make_config(vision: Mapping[str, Any], text: Mapping[str, Any], layer: int | list[int], image_token: int) -> Any:
    """The `LlavaConfig` of two towers: arguments of `Dinov2Config` and of `LlamaConfig`.

    ``layer`` are the states of the vision tower that the projector sees, side by side where there are several.
    """
    from transformers import Dinov2Config, LlamaConfig, LlavaConfig

    arguments: dict[str, Any] = {
        "image_token_id": image_token,
        "image_seq_length": (vision["image_size"] // vision["patch_size"]) ** 2,
        "vision_feature_layer": layer,
        # the class token is dropped
        "vision_feature_select_strategy": "default",
        "projector_hidden_act": "gelu",
        "tie_word_embeddings": True,
        **{name: text[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")},
    }
    return LlavaConfig(vision_config=Dinov2Config(**vision), text_config=LlamaConfig(**text), **arguments)


def make_model(config: Mapping[str, Any]) -> Any:
    """A `LlavaForConditionalGeneration` with random weights, of the sizes in the registry's config."""
    from transformers import LlavaForConditionalGeneration

    vision = {
        **CONFIG,
        "hidden_size": config["vision_hidden"],
        "num_hidden_layers": config["vision_layers"],
        "num_attention_heads": config["vision_heads"],
        "image_size": config["image"],
        "patch_size": PATCH,
    }
    text = {
        "vocab_size": config["vocabulary"],
        "hidden_size": config["hidden"],
        "intermediate_size": config["inner"],
        "num_hidden_layers": config["layers"],
        "num_attention_heads": config["heads"],
        "num_key_value_heads": config["key_value_heads"],
        "max_position_embeddings": config["positions"],
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
    }
    layer = config["vision_feature_layer"]
    return LlavaForConditionalGeneration(make_config(vision, text, layer, config["vocabulary"] - 1))
