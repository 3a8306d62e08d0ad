"""A small model of the LLaVA family as transformers builds it, and its processor, both without any download."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from attnkit.runtime.errors import ItemError, UsageError

SPECIAL = ("<pad>", "<s>", "</s>", "<image>")
PAD, BOS, EOS, IMAGE = range(4)

# LLaVA-1.5's form; a conversation is a list of messages whose content is a text or a list of parts
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if message['role'] == 'assistant' -%}
{{- ' ASSISTANT: ' -}}
{%- elif message['role'] == 'user' -%}
{{- 'USER: ' -}}
{%- endif -%}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] if part['type'] == 'image' -%}
{{- '<image>\\n' -}}
{%- endfor -%}
{%- for part in message['content'] if part['type'] == 'text' -%}
{{- part['text'] -}}
{%- endfor -%}
{%- endif -%}
{%- if message['role'] == 'assistant' -%}
{{- '</s>' -}}
{%- elif message['role'] == 'system' -%}
{{- ' ' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- ' ASSISTANT:' -}}
{%- endif -%}
"""


def make_model(config: Mapping[str, Any]) -> Any:
    """A `LlavaForConditionalGeneration` with random weights drawn from torch's global generator.

    config   image, patch (pixels along a side); vision_hidden, vision_layers, vision_heads, vision_inner; hidden,
             layers, heads, key_value_heads, inner; vocabulary, positions
    """
    from transformers import CLIPVisionConfig, GenerationConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    vision = CLIPVisionConfig(
        hidden_size=config["vision_hidden"],
        intermediate_size=config["vision_inner"],
        num_hidden_layers=config["vision_layers"],
        num_attention_heads=config["vision_heads"],
        image_size=config["image"],
        patch_size=config["patch"],
        projection_dim=config["vision_hidden"],
    )
    text = LlamaConfig(
        vocab_size=config["vocabulary"],
        hidden_size=config["hidden"],
        intermediate_size=config["inner"],
        num_hidden_layers=config["layers"],
        num_attention_heads=config["heads"],
        num_key_value_heads=config["key_value_heads"],
        max_position_embeddings=config["positions"],
        tie_word_embeddings=True,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
    )
    special: dict[str, Any] = {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS}
    model = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=vision,
            text_config=text,
            image_token_index=IMAGE,
            image_seq_length=(config["image"] // config["patch"]) ** 2,
            # the last layer: with so few none can be spared
            vision_feature_layer=-1,
            vision_feature_select_strategy="default",
            tie_word_embeddings=True,
            **special,
        )
    )
    model.generation_config = GenerationConfig(
        bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD, max_new_tokens=64, do_sample=False
    )
    return model


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Any:
    """A byte-level BPE tokenizer of `vocabulary` entries learned from texts; every text can be encoded."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", BOS)]
    )
    return _wrapped(tokenizer)


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder that `save_folder` wrote, as `train_tokenizer` returned it."""
    from tokenizers import Tokenizer

    return _wrapped(Tokenizer.from_file(str(folder / "tokenizer.json")))


def _wrapped(tokenizer: Any) -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        padding_side="left",
        extra_special_tokens={"image_token": "<image>"},
        clean_up_tokenization_spaces=False,
    )


def make_processor(tokenizer: Any, config: Mapping[str, Any]) -> Any:
    """The `LlavaProcessor` of a model: pictures are brought to its square size whole, not cut."""
    from transformers import CLIPImageProcessorPil, LlavaProcessor

    side = {"height": config["image"], "width": config["image"]}
    pictures = CLIPImageProcessorPil(
        size=side, do_center_crop=False, crop_size=side, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    return LlavaProcessor(
        image_processor=pictures,
        tokenizer=tokenizer,
        patch_size=config["patch"],
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def save_folder(model: Any, processor: Any, folder: Path) -> None:
    """Write model (as float16) and processor as transformers does; `from_pretrained` reads the folder."""
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    model.to(torch.float16).save_pretrained(folder)
    processor.save_pretrained(folder)
    # written for the owner alone
    (folder / "model.safetensors").chmod((folder / "config.json").stat().st_mode)


def check_folder(folder: Path) -> None:
    """UsageError for a folder that a training cannot begin with."""
    import torch

    from attnkit.models.vlm.opening import read_config, weight_bytes
    from attnkit.models.vlm.processing import check_files

    try:
        read_config(folder)
        weight_bytes(folder, torch.float32)
        check_files(folder)
    except ItemError as error:
        raise UsageError(f"--init: {error}") from error


def begin_with(model: Any, folder: Path) -> None:
    """Give a model of `make_model` the weights of a folder; UsageError where they are another model's."""
    import torch
    from transformers import LlavaForConditionalGeneration

    try:
        begun = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
        model.load_state_dict(begun.state_dict())
    except (RuntimeError, ValueError, TypeError) as error:
        raise UsageError(
            f"--init {folder}: its weights do not fit the embedded model; give a folder that this command wrote"
        ) from error
