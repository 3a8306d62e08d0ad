"""Small random models of every family, from a few sizes: what the registry builds where nobody brings a folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attnkit.models.vlm.network import PROMPT_IDS, VlmNetwork, llava_inputs

PATCH, MERGE = 14, 2
# ids of the small vocabulary: special ones first
PAD, BOS, EOS, IMAGE, VIDEO, VISION_START, VISION_END, FIRST = range(8)


def small_network(family: str, config: Mapping[str, Any]) -> VlmNetwork:
    """A random model of a family.

    config    hidden, layers, heads, key_value_heads, inner (of the language model); vision_hidden, vision_layers;
              side (pixels of the square that pictures are brought to); vocabulary
    """
    from transformers import AutoModelForImageTextToText

    made = _CONFIGS[family](family, config)
    network = AutoModelForImageTextToText.from_config(made, attn_implementation="sdpa")
    side = config["side"]
    prepare = llava_inputs if family == "llava" else lambda network, picture: _inputs(family, side, network, picture)
    return VlmNetwork(network, config, prepare)


def _text(config: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "hidden_size": config["hidden"],
        "intermediate_size": config["inner"],
        "num_hidden_layers": config["layers"],
        "num_attention_heads": config["heads"],
        "num_key_value_heads": config["key_value_heads"],
        "vocab_size": config["vocabulary"],
        "max_position_embeddings": 1024,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "pad_token_id": PAD,
        **more,
    }


def _tower(config: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "hidden_size": config["vision_hidden"],
        "intermediate_size": 2 * config["vision_hidden"],
        "num_hidden_layers": config["vision_layers"],
        "num_attention_heads": 4,
        **more,
    }


def _llava(family: str, config: Mapping[str, Any]) -> Any:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

    vision = CLIPVisionConfig(**_tower(config, image_size=config["side"], patch_size=PATCH))
    # the library's own name for it is another, and it takes this one as well
    kind: Any = LlavaConfig
    return kind(vision_config=vision, text_config=LlamaConfig(**_text(config)), image_token_id=IMAGE)


def _qwen(family: str, config: Mapping[str, Any]) -> Any:
    import transformers

    size = config["hidden"] // config["heads"] // 2
    # shares of a head's rotary pairs for time, height and width
    sections = [size - 2 * (size // 3), size // 3, size // 3]
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": sections}
    vision: dict[str, Any] = {"depth": config["vision_layers"], "num_heads": 4, "patch_size": PATCH}
    if family == "qwen2_vl":
        vision.update(embed_dim=config["vision_hidden"], hidden_size=config["hidden"], mlp_ratio=2)
        kind: Any = transformers.Qwen2VLConfig
    else:
        vision.update(
            hidden_size=config["vision_hidden"],
            intermediate_size=2 * config["vision_hidden"],
            out_hidden_size=config["hidden"],
            spatial_merge_size=MERGE,
            temporal_patch_size=2,
        )
        if family == "qwen2_5_vl":
            vision.update(window_size=4 * PATCH, fullatt_block_indexes=[config["vision_layers"] - 1])
            kind = transformers.Qwen2_5_VLConfig
        else:
            vision.update(num_position_embeddings=64, deepstack_visual_indexes=[0])
            rope["mrope_interleaved"] = True
            kind = transformers.Qwen3VLConfig
    more = {"head_dim": 2 * size} if family == "qwen3_vl" else {}
    return kind(
        text_config=_text(config, rope_parameters=rope, **more),
        vision_config=vision,
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=VISION_START,
        vision_end_token_id=VISION_END,
    )


def _idefics(family: str, config: Mapping[str, Any]) -> Any:
    from transformers import Idefics3Config, SmolVLMConfig

    kind: Any = SmolVLMConfig if family == "smolvlm" else Idefics3Config
    return kind(
        vision_config=_tower(config, image_size=config["side"], patch_size=PATCH),
        text_config={"model_type": "llama", **_text(config)},
        image_token_id=IMAGE,
        scale_factor=MERGE,
        pad_token_id=PAD,
    )


def _internvl(family: str, config: Mapping[str, Any]) -> Any:
    from transformers import InternVLConfig

    return InternVLConfig(
        vision_config=_tower(config, image_size=[config["side"]] * 2, patch_size=[PATCH] * 2),
        text_config={"model_type": "qwen2", **_text(config)},
        image_token_id=IMAGE,
        downsample_ratio=1 / MERGE,
    )


_CONFIGS = {
    "llava": _llava,
    "qwen2_vl": _qwen,
    "qwen2_5_vl": _qwen,
    "qwen3_vl": _qwen,
    "smolvlm": _idefics,
    "idefics3": _idefics,
    "internvl": _internvl,
}


def _inputs(family: str, side: int, network: Any, picture: np.ndarray) -> dict[str, Tensor]:
    """First token, picture, ids by formula; the picture is brought to a square."""
    planes = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].to(network.dtype) / 127.5 - 1
    square = torch.nn.functional.interpolate(planes, (side, side), mode="bilinear", antialias=True, align_corners=False)
    grid = side // PATCH
    count = (grid // MERGE) ** 2
    vocabulary = network.config.get_text_config().vocab_size
    text = [FIRST + (7 * index) % (vocabulary - FIRST) for index in range(PROMPT_IDS)]
    ids = torch.tensor([[BOS, VISION_START, *[IMAGE] * count, VISION_END, *text]])
    found = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if family.startswith("qwen"):
        # patches of merge x merge blocks in a row, each of two equal frames
        blocks = square.reshape(3, grid // MERGE, MERGE, PATCH, grid // MERGE, MERGE, PATCH)
        rows = blocks.permute(1, 4, 2, 5, 0, 3, 6).reshape(grid * grid, 3, 1, PATCH * PATCH)
        found["pixel_values"] = rows.expand(-1, -1, 2, -1).reshape(grid * grid, -1)
        found["image_grid_thw"] = torch.tensor([[1, grid, grid]])
        found["mm_token_type_ids"] = (ids == IMAGE).int()
    else:
        found["pixel_values"] = square if family == "internvl" else square[None]
    return {name: value.to(network.device) for name, value in found.items()}
