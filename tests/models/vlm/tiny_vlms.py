"""Tiny random vision-language models of all seven families with processors of their own, built without any download."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForImageTextToText,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    GotOcr2ImageProcessorPil,
    Idefics3Config,
    Idefics3ImageProcessorPil,
    InternVLConfig,
    LlamaConfig,
    LlavaConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2VLConfig,
    Qwen2VLImageProcessorPil,
    Qwen3VLConfig,
    SmolVLMConfig,
    SmolVLMImageProcessorPil,
)

from attnkit.models.vlm.families import FAMILIES
from attnkit.models.vlm.opening import VisionLanguageModel, wrap
from attnkit.models.vlm.processing import Processor

NAMES = tuple(FAMILIES)
WORDS = """
    user assistant system : what is there in the picture a an red green blue circle square star how many yes no one two
    three describe image colour left right of it USER: ASSISTANT: User: Assistant: model answers write general
    description . ? , answer question using single word or phrase
"""
SPECIAL = """
    <pad> <s> </s> <unk> <image> <|image_pad|> <|vision_start|> <|vision_end|> <|video_pad|> <IMG_CONTEXT> <img> </img>
    <|im_start|> <|im_end|> <fake_token_around_image> <global-img> <end_of_utterance>
"""
TILES = [f"<row_{row}_col_{column}>" for row in range(1, 4) for column in range(1, 4)]
SPECIAL_TOKENS = [*SPECIAL.split(), *TILES]
VOCABULARY = {word: number for number, word in enumerate(dict.fromkeys([*SPECIAL_TOKENS, *WORDS.split()]))}
TEXT = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": VOCABULARY["<s>"],
    "eos_token_id": VOCABULARY["</s>"],
    "pad_token_id": VOCABULARY["<pad>"],
}
VIT = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 3, "num_attention_heads": 4}
QWEN_IDS = {
    "image_token_id": VOCABULARY["<|image_pad|>"],
    "vision_start_token_id": VOCABULARY["<|vision_start|>"],
    "vision_end_token_id": VOCABULARY["<|vision_end|>"],
    "video_token_id": VOCABULARY["<|video_pad|>"],
}
CLIP_MEAN = {"image_mean": [0.5] * 3, "image_std": [0.3] * 3}


def tokenizer() -> Any:
    """Words between spaces; special tokens are found inside text as well."""
    raw = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=[word for word in SPECIAL_TOKENS if word not in ("<s>", "</s>", "<pad>", "<unk>")],
    )


def _mrope(sections: list[int], **more: Any) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": 1e4, "mrope_section": sections, **more}


def _config(name: str) -> Any:
    if name == "llava":
        vision = CLIPVisionConfig(**VIT, image_size=8, patch_size=2)
        return LlavaConfig(vision_config=vision, text_config=LlamaConfig(**TEXT), image_token_id=VOCABULARY["<image>"])
    if name == "qwen2_vl":
        vision = {"depth": 3, "embed_dim": 32, "hidden_size": 64, "num_heads": 4, "mlp_ratio": 2, "patch_size": 14}
        return Qwen2VLConfig(
            text_config={**TEXT, "rope_parameters": _mrope([2, 3, 3])}, vision_config=vision, **QWEN_IDS
        )
    if name == "qwen2_5_vl":
        vision = {
            "depth": 3, "hidden_size": 32, "intermediate_size": 48, "num_heads": 4, "patch_size": 14,
            "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 64, "window_size": 56,
            "fullatt_block_indexes": [1],
        }  # fmt: skip
        return Qwen2_5_VLConfig(
            text_config={**TEXT, "rope_parameters": _mrope([2, 3, 3])}, vision_config=vision, **QWEN_IDS
        )
    if name == "qwen3_vl":
        vision = {
            "depth": 3, "hidden_size": 32, "intermediate_size": 48, "num_heads": 4, "patch_size": 14,
            "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 64, "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1],
        }  # fmt: skip
        text = {**TEXT, "head_dim": 16, "rope_parameters": _mrope([4, 2, 2], mrope_interleaved=True)}
        return Qwen3VLConfig(text_config=text, vision_config=vision, **QWEN_IDS)
    if name in ("smolvlm", "idefics3"):
        kind = SmolVLMConfig if name == "smolvlm" else Idefics3Config
        return kind(
            vision_config={**VIT, "image_size": 8, "patch_size": 2},
            text_config={"model_type": "llama", **TEXT},
            image_token_id=VOCABULARY["<image>"],
            scale_factor=2,
            pad_token_id=VOCABULARY["<pad>"],
        )
    vision = {**VIT, "image_size": [28, 28], "patch_size": [7, 7]}
    return InternVLConfig(
        vision_config=vision,
        text_config={"model_type": "qwen2", **TEXT},
        image_token_id=VOCABULARY["<IMG_CONTEXT>"],
        downsample_ratio=0.5,
    )


def _image_processor(name: str) -> Any:
    if name == "llava":
        return CLIPImageProcessorPil(
            size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8}, do_center_crop=True, **CLIP_MEAN
        )
    if name.startswith("qwen"):
        return Qwen2VLImageProcessorPil(
            size={"shortest_edge": 56 * 56, "longest_edge": 112 * 112}, patch_size=14, merge_size=2, **CLIP_MEAN
        )
    if name in ("smolvlm", "idefics3"):
        kind = SmolVLMImageProcessorPil if name == "smolvlm" else Idefics3ImageProcessorPil
        return kind(size={"longest_edge": 16}, max_image_size={"longest_edge": 8}, **CLIP_MEAN)
    return GotOcr2ImageProcessorPil(
        size={"height": 28, "width": 28}, crop_to_patches=True, min_patches=1, max_patches=4, **CLIP_MEAN
    )


@cache
def network(name: str) -> Any:
    """A random network of a family, weights enlarged: as initialised, attention is flat and no rule would show."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForImageTextToText.from_config(_config(name), attn_implementation="sdpa").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(5)
    return model


@cache
def tiny_vlm(name: str) -> VisionLanguageModel:
    """The network of a family, opened as attnkit uses it; shared by all tests, which leave it as it was."""
    model = network(name)
    return wrap(model, Processor(FAMILIES[name], tokenizer(), _image_processor(name), model.config, None))


def save_tiny(name: str, folder: Path) -> Path:
    """The network of a family with its processor as a folder that transformers and attnkit open."""
    for part in (network(name), tokenizer(), _image_processor(name)):
        part.save_pretrained(folder)
    return folder


def picture(width: int = 40, height: int = 28, seed: int = 0) -> Image.Image:
    """A picture of coloured noise in large blocks."""
    draw = np.random.default_rng(seed)
    blocks = draw.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST)
