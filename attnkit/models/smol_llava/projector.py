"""What training adds to the two towers: the projector, and a low-rank change of the language model.

One weight file holds both as float16. ``projector.linear_1.weight`` and so on are those of the LLaVA projector;
``lora.LAYER.in`` [rank, inputs] and ``lora.LAYER.out`` [outputs, rank] are the factors of what is added to the weight
of a linear layer (LoRA, arXiv 2106.09685, equation 3, with the scale multiplied in).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from attnkit.runtime.errors import ItemError

if TYPE_CHECKING:
    import torch

PROJECTOR = "projector."
LORA = "lora."


def merge(language: Mapping[str, torch.Tensor], trained: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """The language model's state with the low-rank change added; ItemError for a layer or shape it does not have."""
    import torch

    state = dict(language)
    layers = sorted({name[len(LORA) :].rpartition(".")[0] for name in trained if name.startswith(LORA)})
    for layer in layers:
        inner, outer = (torch.from_numpy(trained[f"{LORA}{layer}.{side}"].astype(np.float32)) for side in ("in", "out"))
        weight = state.get(f"{layer}.weight")
        if weight is None or weight.shape != (outer.shape[0], inner.shape[1]):
            found = "none" if weight is None else "x".join(map(str, weight.shape))
            raise ItemError(
                f"weights of smol-llava: a change for {layer} [{outer.shape[0]}x{inner.shape[1]}], got {found}"
            )
        state[f"{layer}.weight"] = weight + outer @ inner
    return state


def projector_state(trained: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """The projector's state, float32."""
    import torch

    return {
        name.removeprefix(PROJECTOR): torch.from_numpy(value.astype(np.float32))
        for name, value in trained.items()
        if name.startswith(PROJECTOR)
    }
