"""Tokenizer and processor: SmolLM2's tokens from the GGUF file, a token for the picture, a template for questions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attnkit.models.smol_llava.language import metadata
from attnkit.models.smol_llava.vision import PATCH, PICTURE
from attnkit.runtime.errors import ItemError

if TYPE_CHECKING:
    from transformers import LlavaProcessor, PreTrainedTokenizerFast

IMAGE_TOKEN = "<image>"
# kind of token in GGUF metadata: 1 is text, 3 controls the model
CONTROL = 3
# ImageNet's, which DINOv2 was trained with
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)
# SmolLM2's turns without its system turn, which costs as many tokens as a question; pictures come first in a turn
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '" + IMAGE_TOKEN + "\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def read_tokenizer(reader: Any) -> PreTrainedTokenizerFast:
    """The byte-pair tokenizer of the file with the picture's token behind the last of its own."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    kind = (metadata(reader, "tokenizer.ggml.model"), metadata(reader, "tokenizer.ggml.pre"))
    if kind != ("gpt2", "smollm"):
        raise ItemError(f"GGUF tokenizer {'/'.join(kind)}: expected gpt2/smollm")
    tokens = metadata(reader, "tokenizer.ggml.tokens")
    merges = [tuple(pair.split(" ")) for pair in metadata(reader, "tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = metadata(reader, "tokenizer.ggml.token_type")
    special = [token for token, its in zip(tokens, kinds, strict=True) if its == CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in [*special, IMAGE_TOKEN]])

    def named(key: str) -> str:
        return tokens[metadata(reader, f"tokenizer.ggml.{key}_token_id")]

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=named("bos"),
        eos_token=named("eos"),
        pad_token=named("padding"),
        unk_token=named("unknown"),
        extra_special_tokens={"image_token": IMAGE_TOKEN},
        model_max_length=metadata(reader, "llama.context_length"),
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def make_processor(tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    """Pictures to `PICTURE` x `PICTURE` pixels, whole and squeezed rather than cropped, and questions to tokens."""
    from transformers import CLIPImageProcessorPil, LlavaProcessor

    images = CLIPImageProcessorPil(
        do_resize=True,
        size={"height": PICTURE, "width": PICTURE},
        resample=3,
        do_center_crop=False,
        do_rescale=True,
        rescale_factor=1 / 255,
        do_normalize=True,
        image_mean=list(MEAN),
        image_std=list(DEVIATION),
        do_convert_rgb=True,
    )
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        # the class token, which is dropped again
        num_additional_image_tokens=1,
        image_token=IMAGE_TOKEN,
        chat_template=CHAT_TEMPLATE,
    )
