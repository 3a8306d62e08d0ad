"""A small random model whose answers are words: what the tests of vlm-ask ask."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from tiny_vlms import SPECIAL_TOKENS, network, save_tiny


def save_talking(folder: Path) -> Path:
    """The random LLaVA without a wish for special tokens, the end of the answer among them."""
    save_tiny("llava", folder)
    model = copy.deepcopy(network("llava"))
    with torch.no_grad():
        model.lm_head.weight[: len(SPECIAL_TOKENS)] = 0
    model.save_pretrained(folder)
    return folder
