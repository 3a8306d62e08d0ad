"""Prompts with generated tokens behind them, to be read in one pass."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from attnkit.models.vlm.prompt import Prompt


def continued(prompt: Prompt, ids: Tensor) -> Prompt:
    """A batch of prompts with the tokens ids [B, T] of their answers behind them; these stand for no picture."""
    count = ids.shape[1]

    def longer(tensor: Tensor, value: int) -> Tensor:
        return torch.nn.functional.pad(tensor, (0, count), value=value)

    pixels = {
        # the only one with a number for each token
        name: longer(tensor, 0) if name == "mm_token_type_ids" else tensor
        for name, tensor in prompt.pixels.items()
    }
    return replace(
        prompt,
        input_ids=torch.cat([prompt.input_ids, ids], 1),
        attention_mask=longer(prompt.attention_mask, 1),
        image_mask=longer(prompt.image_mask.int(), 0).bool(),
        pixels=pixels,
    )
