"""Prompts of the tiny models, and adapters on them that change what they say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from tiny_vlms import picture, tiny_vlm
from torch import Tensor

from attnkit.models.adapters.attach import Attachment, attach, settings_of
from attnkit.models.adapters.p_laplacian import PAdapterSettings
from attnkit.models.vlm.processing import conversation
from attnkit.models.vlm.prompt import Prompt

STRONG = {
    "p-adapter": PAdapterSettings(image_tokens=5, zero_start=False),
    "adapter": settings_of("adapter", {"zero_start": False}),
    "lora": settings_of("lora"),
}
BOTH = ("llava", "qwen2_5_vl")


def prompt_of(name: str, question: str = "how many red circle ?", seed: int = 0, pictures: int = 1) -> Prompt:
    shown = [picture(seed=seed + number) for number in range(pictures)]
    return tiny_vlm(name).processor.prompt(conversation(question, pictures), shown)


def logits(name: str, prompt: Prompt, **more: Any) -> Tensor:
    model = tiny_vlm(name).model
    if hasattr(model.model, "rope_deltas"):
        model.model.rope_deltas = None
    with torch.inference_mode():
        return model(**prompt.inputs(), **more).logits


@contextmanager
def attached(name: str, kind: str, settings: Any = None) -> Iterator[Attachment]:
    """An adapter that changes what the model says; taken off in the end."""
    attachment = attach(tiny_vlm(name).model, kind, STRONG[kind] if settings is None else settings)
    with torch.no_grad():
        # a low-rank update begins at zero whatever its settings
        for parameter in attachment.parameters():
            if parameter.ndim > 1 and not parameter.any():
                parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(3))
    try:
        yield attachment
    finally:
        attachment.detach()
