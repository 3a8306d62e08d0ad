"""What a model is asked: token ids with the places of the pictures in them, and which part of a picture a token saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Tile:
    """A rectangle of the picture that became rows x columns image tokens, row by row.

    box    x0, y0, x1, y1 in pixels of the original picture
    """

    rows: int
    columns: int
    box: tuple[float, float, float, float]

    @property
    def tokens(self) -> int:
        return self.rows * self.columns


@dataclass(frozen=True)
class View:
    """How one picture was read: its own size, the size that the model saw, and its tiles in the order of the tokens.

    Where a picture is cut into tiles, the last one is the whole picture made small.
    """

    width: int
    height: int
    model_width: int
    model_height: int
    tiles: tuple[Tile, ...]

    @property
    def tokens(self) -> int:
        return sum(tile.tokens for tile in self.tiles)

    def overview(self) -> tuple[Tile, ...]:
        """Tiles that show each part of the picture once: the last one if it is the whole picture, or else all."""
        last = self.tiles[-1]
        left, top, right, bottom = zip(*(tile.box for tile in self.tiles), strict=True)
        whole = min(left), min(top), max(right), max(bottom)
        return (last,) if last.box == whole else self.tiles

    def cells(self) -> NDArray[np.float64]:
        """Rectangle of each token, [tokens, 4] as x0, y0, x1, y1 in pixels of the original picture."""
        return np.concatenate([_cells(tile) for tile in self.tiles])


def _cells(tile: Tile) -> NDArray[np.float64]:
    x0, y0, x1, y1 = tile.box
    across = np.linspace(x0, x1, tile.columns + 1)
    down = np.linspace(y0, y1, tile.rows + 1)
    left, top = np.meshgrid(across[:-1], down[:-1])
    right, bottom = np.meshgrid(across[1:], down[1:])
    return np.stack([left, top, right, bottom], -1).reshape(-1, 4)


@dataclass
class Prompt:
    """A batch of prompts, padded on the left.

    texts       prompts as they were tokenised, placeholders of pictures repeated once a token
    input_ids   [B, N]; attention_mask [B, N] is 0 in the padding
    image_mask  [B, N] bool, the image tokens; from the prompt alone, since a model may emit the placeholder
    pixels      the other tensors of the model's call, by name
    views       of the pictures of each prompt
    """

    texts: list[str]
    input_ids: Tensor
    attention_mask: Tensor
    image_mask: Tensor
    pixels: dict[str, Tensor] = field(default_factory=dict)
    views: list[tuple[View, ...]] = field(default_factory=list)

    @property
    def length(self) -> int:
        return self.input_ids.shape[1]

    def inputs(self) -> dict[str, Any]:
        """Arguments of the model's forward and generate."""
        return {"input_ids": self.input_ids, "attention_mask": self.attention_mask, **self.pixels}

    def after_images(self) -> Tensor:
        """[B, N] bool: tokens behind the last image token of their prompt; all but padding where it has no picture."""
        behind = self.image_mask.flip(1).cumsum(1).flip(1) == 0
        return behind & self.attention_mask.bool()

    def tokens(self) -> list[int]:
        """Length of each prompt without padding."""
        return self.attention_mask.sum(1).tolist()


def join(prompts: Sequence[Prompt], pad: int, together: Mapping[str, str]) -> Prompt:
    """Prompts as one batch, padded on the left with the id `pad`.

    together    how each pixel tensor is joined: "concatenate" along its first axis, "pad" with zeros along its second
                (one row a prompt), or "left" like the ids
    """
    if len(prompts) == 1:
        return prompts[0]
    length = max(prompt.length for prompt in prompts)

    def widened(tensor: Tensor, value: int) -> Tensor:
        return torch.nn.functional.pad(tensor, (length - tensor.shape[1], 0), value=value)

    pixels: dict[str, Tensor] = {}
    for name in dict.fromkeys(name for prompt in prompts for name in prompt.pixels):
        parts = [prompt.pixels[name] for prompt in prompts if name in prompt.pixels]
        if together[name] == "left":
            # a prompt without pictures says nothing of them
            given = [prompt.pixels.get(name, torch.zeros_like(prompt.input_ids)) for prompt in prompts]
            pixels[name] = torch.cat([widened(part, 0) for part in given])
        elif together[name] == "pad":
            pixels[name] = _rows(prompts, name)
        else:
            pixels[name] = torch.cat(parts)
    return Prompt(
        [text for prompt in prompts for text in prompt.texts],
        torch.cat([widened(prompt.input_ids, pad) for prompt in prompts]),
        torch.cat([widened(prompt.attention_mask, 0) for prompt in prompts]),
        torch.cat([widened(prompt.image_mask.int(), 0).bool() for prompt in prompts]),
        pixels,
        [views for prompt in prompts for views in prompt.views],
    )


def _rows(prompts: Sequence[Prompt], name: str) -> Tensor:
    """Tensors [b, tiles, ...] of prompts as one, zeros for tiles that a prompt does not have."""
    shapes = [prompt.pixels[name].shape for prompt in prompts if name in prompt.pixels]
    sample = next(prompt.pixels[name] for prompt in prompts if name in prompt.pixels)
    sizes = [max(shape[axis] for shape in shapes) for axis in range(1, len(shapes[0]))]
    rows = []
    for prompt in prompts:
        part = prompt.pixels.get(name, sample.new_zeros((len(prompt.input_ids), 0, *sizes[1:])))
        padding = [value for axis in range(part.ndim - 1, 0, -1) for value in (0, sizes[axis - 1] - part.shape[axis])]
        rows.append(torch.nn.functional.pad(part, padding))
    return torch.cat(rows)
