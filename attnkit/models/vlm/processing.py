"""From pictures and a conversation to a prompt, for every family, without torchvision.

The processors of transformers that hold a video processor cannot be built where torchvision is missing. What they do
for pictures is: an image processor, a chat template, and the placeholder repeated once a token. The first two come
from the model's folder; the third is done here, which also tells which part of the picture a token saw.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from attnkit.models.vlm.families import Family
from attnkit.models.vlm.prompt import Prompt, Tile, View, join
from attnkit.runtime.errors import ItemError

if TYPE_CHECKING:
    from PIL.Image import Image

Message = Mapping[str, Any]


def conversation(question: str, pictures: int, system: str | None = None) -> list[Message]:
    """Messages of one question about some pictures, which come before its text."""
    content: list[dict[str, str]] = [{"type": "image"}] * pictures + [{"type": "text", "text": question}]
    messages: list[Message] = [{"role": "user", "content": content}]
    if system:
        messages.insert(0, {"role": "system", "content": [{"type": "text", "text": system}]})
    return messages


def check_files(folder: Path) -> None:
    """ItemError for a model folder without the files of a tokenizer or of an image processor."""
    for names in (
        ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt"),
        ("processor_config.json", "preprocessor_config.json"),
    ):
        if not any((folder / name).is_file() for name in names):
            raise ItemError(f"{folder}: no {' or '.join(names[:2])} in it, which the model needs beside its weights")


class Processor:
    """Tokenizer and image processor of a model folder.

    max_pixels    larger pictures are made smaller, aspect kept, before the image processor sees them
    """

    def __init__(self, family: Family, tokenizer: Any, image_processor: Any, config: Any, template: str | None) -> None:
        self.family = family
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.config = config
        self.template = template or family.template
        self.image_token_id: int = config.image_token_id
        self.marker: str = tokenizer.convert_ids_to_tokens(self.image_token_id)
        pad = tokenizer.pad_token_id
        self.pad_token_id: int = pad if pad is not None else (tokenizer.eos_token_id or 0)
        self._reader = _READERS[family.model_type](self)

    @classmethod
    def open(cls, folder: Path, family: Family, config: Any) -> Processor:
        """The processor of a folder; ItemError where tokenizer or image processor is missing or damaged."""
        from transformers import AutoImageProcessor, AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            image_processor = AutoImageProcessor.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, backend="pil"
            )
        except Exception as error:
            reason = str(error).strip().partition("\n")[0]
            raise ItemError(f"{folder}: its tokenizer or image processor cannot be opened ({reason})") from error
        return cls(family, tokenizer, image_processor, config, _template(folder, tokenizer))

    def prompt(
        self, messages: Sequence[Message], pictures: Sequence[Image] = (), *, max_pixels: int | None = None
    ) -> Prompt:
        """One conversation as a prompt that asks for the next answer, batch 1.

        Without pictures it is the text-only prompt of the same conversation when `messages` name none: chat markers
        stay, the markers around pictures go.
        """
        text = self.tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            chat_template=self.template,
            tokenize=False,
            add_generation_prompt=True,
        )
        pixels: dict[str, torch.Tensor] = {}
        views: list[View] = []
        if pictures:
            small = [_limited(picture.convert("RGB"), max_pixels) for picture in pictures]
            pixels, expansions, seen = self._reader.read(small)
            views = [
                View(picture.width, picture.height, view.model_width, view.model_height, _scaled(view, picture))
                for picture, view in zip(pictures, seen, strict=True)
            ]
            self._check_words(messages)
            text = self._expanded(text, expansions)
        # templates write the beginning of the text themselves
        begins = self.tokenizer.bos_token is not None and text.startswith(self.tokenizer.bos_token)
        ids = self.tokenizer(text, return_tensors="pt", add_special_tokens=not begins)["input_ids"]
        mask = ids == self.image_token_id
        wanted = sum(view.tokens for view in views)
        if int(mask.sum()) != wanted:
            raise ItemError(
                f"prompt: {int(mask.sum())} image tokens for pictures that need {wanted}; is the placeholder "
                f"{self.marker} part of the question?"
            )
        if pictures and self._reader.types:
            pixels["mm_token_type_ids"] = mask.int()
        return Prompt([text], ids, torch.ones_like(ids), mask, pixels, [tuple(views)])

    def _check_words(self, messages: Sequence[Message]) -> None:
        words = [part["text"] for message in messages for part in message["content"] if part["type"] == "text"]
        if any(self.marker in text for text in words):
            raise ItemError(
                f"question: holds {self.marker}, which is where this model's prompt has a picture; leave it out, "
                "pictures come before the question"
            )

    def _expanded(self, text: str, expansions: Sequence[str]) -> str:
        parts = text.split(self.marker)
        if len(parts) != len(expansions) + 1:
            raise ItemError(
                f"prompt: the chat template has {len(parts) - 1} places for {len(expansions)} pictures; "
                "its model may take one picture a question (--each)"
            )
        joined = [part for pair in zip(parts, [*expansions, ""], strict=True) for part in pair]
        return "".join(joined)

    def batch(self, prompts: Sequence[Prompt]) -> Prompt:
        """Prompts as one batch, padded on the left."""
        return join(prompts, self.pad_token_id, self._reader.together)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated ids without special tokens."""
        return self.tokenizer.decode(ids, skip_special_tokens=True).strip()


def _template(folder: Path, tokenizer: Any) -> str | None:
    found = getattr(tokenizer, "chat_template", None)
    if isinstance(found, dict):
        found = found.get("default")
    older = folder / "chat_template.json"
    if found is None and older.is_file():
        found = json.loads(older.read_text(encoding="utf-8")).get("chat_template")
    return found


def _limited(picture: Image, max_pixels: int | None) -> Image:
    if max_pixels is None or picture.width * picture.height <= max_pixels:
        return picture
    from PIL.Image import Resampling

    share = (max_pixels / (picture.width * picture.height)) ** 0.5
    size = max(1, int(picture.width * share)), max(1, int(picture.height * share))
    return picture.resize(size, Resampling.LANCZOS)


def _scaled(view: View, picture: Image) -> tuple[Tile, ...]:
    """Tiles in pixels of the original picture."""
    across, down = picture.width / view.width, picture.height / view.height
    return tuple(
        Tile(tile.rows, tile.columns, (x0 * across, y0 * down, x1 * across, y1 * down))
        for tile in view.tiles
        for x0, y0, x1, y1 in (tile.box,)
    )


class _Reader:
    """One family's way from pictures to pixel tensors, placeholders and views."""

    together: Mapping[str, str] = {"pixel_values": "concatenate"}
    # the model takes mm_token_type_ids; without them positions are silently wrong
    types = False

    def __init__(self, processor: Processor) -> None:
        self.marker = processor.marker
        self.images = processor.image_processor
        self.config = processor.config
        self.tokenizer = processor.tokenizer

    def read(self, pictures: Sequence[Image]) -> tuple[dict[str, torch.Tensor], list[str], list[View]]:
        raise NotImplementedError


class _Llava(_Reader):
    """One square crop a picture; the class token, if the tower has one, is dropped by the strategy "default"."""

    def read(self, pictures: Sequence[Image]) -> tuple[dict[str, torch.Tensor], list[str], list[View]]:
        pixels = self.images(images=list(pictures), return_tensors="pt")["pixel_values"]
        height, width = pixels.shape[-2:]
        patch = self.config.vision_config.patch_size
        rows, columns = height // patch, width // patch
        views = [
            View(
                picture.width, picture.height, width, height, (Tile(rows, columns, self._box(picture, width, height)),)
            )
            for picture in pictures
        ]
        return {"pixel_values": pixels}, [self.marker * (rows * columns)] * len(views), views

    def _box(self, picture: Image, width: int, height: int) -> tuple[float, float, float, float]:
        """What of the picture is in the crop: all of it where it is stretched, its middle where it is cropped."""
        size = self.images.size
        if not getattr(self.images, "do_center_crop", False) or not size.get("shortest_edge"):
            return 0.0, 0.0, float(picture.width), float(picture.height)
        scale = size["shortest_edge"] / min(picture.width, picture.height)
        seen_width, seen_height = width / scale, height / scale
        left, top = (picture.width - seen_width) / 2, (picture.height - seen_height) / 2
        return left, top, left + seen_width, top + seen_height


class _Qwen(_Reader):
    """Any size in whole patches; merge x merge patches are one token."""

    together: Mapping[str, str] = {
        "pixel_values": "concatenate",
        "image_grid_thw": "concatenate",
        "mm_token_type_ids": "left",
    }
    types = True

    def read(self, pictures: Sequence[Image]) -> tuple[dict[str, torch.Tensor], list[str], list[View]]:
        try:
            read = self.images(images=list(pictures), return_tensors="pt")
        except ValueError as error:
            raise ItemError(f"picture: {error}; cut the picture into wider parts") from error
        merge, patch = self.images.merge_size, self.images.patch_size
        expansions, views = [], []
        for picture, (_, down, across) in zip(pictures, read["image_grid_thw"].tolist(), strict=True):
            tile = Tile(down // merge, across // merge, (0.0, 0.0, float(picture.width), float(picture.height)))
            views.append(View(picture.width, picture.height, across * patch, down * patch, (tile,)))
            expansions.append(self.marker * tile.tokens)
        return {"pixel_values": read["pixel_values"], "image_grid_thw": read["image_grid_thw"]}, expansions, views


class _Idefics(_Reader):
    """Rows and columns of tiles with a marker each, then the whole picture; tokens of a tile are shuffled patches."""

    together: Mapping[str, str] = {"pixel_values": "pad", "pixel_attention_mask": "pad"}

    def read(self, pictures: Sequence[Image]) -> tuple[dict[str, torch.Tensor], list[str], list[View]]:
        read = self.images(images=[list(pictures)], return_tensors="pt", return_row_col_info=True)
        side = self.config.vision_config.image_size // self.config.vision_config.patch_size // self.config.scale_factor
        edge = self.images.max_image_size["longest_edge"]
        tokens = self.marker * (side * side)
        expansions, views = [], []
        for picture, rows, columns in zip(pictures, read["rows"][0], read["cols"][0], strict=True):
            whole = Tile(side, side, (0.0, 0.0, float(picture.width), float(picture.height)))
            tiles = _tiles(picture, rows, columns, side)
            text = "".join(
                "".join(
                    f"<fake_token_around_image><row_{row + 1}_col_{column + 1}>{tokens}" for column in range(columns)
                )
                + "\n"
                for row in range(rows)
            )
            between = "\n" if tiles else ""
            expansions.append(f"{text}{between}<fake_token_around_image><global-img>{tokens}<fake_token_around_image>")
            views.append(
                View(picture.width, picture.height, edge * max(columns, 1), edge * max(rows, 1), (*tiles, whole))
            )
        pixels = {name: read[name] for name in ("pixel_values", "pixel_attention_mask") if name in read}
        return pixels, expansions, views


class _InternVL(_Reader):
    """Tiles of the best fitting arrangement, then a thumbnail, between <img> and </img>."""

    def read(self, pictures: Sequence[Image]) -> tuple[dict[str, torch.Tensor], list[str], list[View]]:
        from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

        read = self.images(images=list(pictures), return_tensors="pt")
        height, width = read["pixel_values"].shape[-2:]
        patch_height, patch_width = self.config.vision_config.patch_size
        ratio = self.config.downsample_ratio
        down, across = int(height // patch_height * ratio), int(width // patch_width * ratio)
        counts = read["num_patches"].tolist() if "num_patches" in read else [1] * len(pictures)
        expansions, views = [], []
        for picture, count in zip(pictures, counts, strict=True):
            columns, rows = 1, 1
            if count > 1:
                columns, rows = get_optimal_tiled_canvas(
                    (picture.height, picture.width), (height, width), self.images.min_patches, self.images.max_patches
                )
            tiles = _tiles(picture, rows, columns, down, across) if count > 1 else ()
            whole = Tile(down, across, (0.0, 0.0, float(picture.width), float(picture.height)))
            tiles = (*tiles, whole) if len(tiles) < count else tiles
            views.append(View(picture.width, picture.height, width * columns, height * rows, tiles))
            expansions.append(self._around(self.marker * sum(tile.tokens for tile in tiles)))
        return {"pixel_values": read["pixel_values"]}, expansions, views

    def _around(self, tokens: str) -> str:
        known = self.tokenizer.get_added_vocab()
        return f"<img>{tokens}</img>" if "<img>" in known and "</img>" in known else tokens


def _tiles(picture: Image, rows: int, columns: int, down: int, across: int | None = None) -> tuple[Tile, ...]:
    width, height = picture.width / max(columns, 1), picture.height / max(rows, 1)
    return tuple(
        Tile(down, across or down, (column * width, row * height, (column + 1) * width, (row + 1) * height))
        for row in range(rows)
        for column in range(columns)
    )


_READERS: dict[str, type[_Reader]] = {
    "llava": _Llava,
    "qwen2_vl": _Qwen,
    "qwen2_5_vl": _Qwen,
    "qwen3_vl": _Qwen,
    "smolvlm": _Idefics,
    "idefics3": _Idefics,
    "internvl": _InternVL,
}
