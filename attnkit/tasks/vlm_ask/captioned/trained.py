"""What the training of smol-llava changes: the projector, and low-rank changes of the language model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from attnkit.models.adapters.lora import LowRank, LowRankSettings
from attnkit.models.smol_llava.projector import LORA, PROJECTOR
from attnkit.runtime.errors import ItemError

# linear layers of a decoder layer that are changed
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")


class Trained(nn.Module):
    """What is trained, in single precision: the projector and per decoder layer the change of `PROJECTIONS`.

    features [B, N, D] become image tokens [B, N, hidden].
    """

    def __init__(self, features: int, text: dict[str, Any], rank: int) -> None:
        super().__init__()
        hidden = text["hidden_size"]
        settings = LowRankSettings(rank=rank, alpha=2.0 * rank)
        self.linear_1 = nn.Linear(features, hidden)
        self.linear_2 = nn.Linear(hidden, hidden)
        values = hidden // text["num_attention_heads"] * text["num_key_value_heads"]
        outputs = {"q_proj": hidden, "k_proj": values, "v_proj": values, "o_proj": hidden}
        self.low_rank = nn.ModuleList(
            nn.ModuleDict({name: LowRank(hidden, outputs[name], settings) for name in PROJECTIONS})
            for _ in range(text["num_hidden_layers"])
        )

    @property
    def projector(self) -> list[nn.Parameter]:
        return [*self.linear_1.parameters(), *self.linear_2.parameters()]

    def forward(self, features: Tensor) -> Tensor:
        return self.linear_2(functional.gelu(self.linear_1(features)))

    def begin_with(self, weights: Mapping[str, NDArray[Any]], source: str) -> None:
        """Take the state over that `arrays` gives; ItemError, about `source`, where it is of another shape."""
        with torch.no_grad():
            for place, (value, factor) in self._places().items():
                found = weights.get(place)
                if found is None or found.shape != value.shape:
                    got = "none" if found is None else _shape(found)
                    raise ItemError(f"{source}: {place} of shape {got}, expected {_shape(value)}")
                value.copy_(torch.from_numpy(found.astype(np.float32)) / factor)

    def arrays(self) -> dict[str, NDArray[np.float16]]:
        """What the weight file holds."""
        return {
            place: (factor * value.detach()).to(torch.float16).cpu().numpy()
            for place, (value, factor) in self._places().items()
        }

    def _places(self) -> dict[str, tuple[Tensor, float]]:
        """Parameters, and what the weight file multiplies them with, by their name in it.

        See `attnkit.models.smol_llava.projector`.
        """
        places: dict[str, tuple[Tensor, float]] = {
            f"{PROJECTOR}{name}": (value, 1.0) for name, value in self.named_parameters() if "low_rank" not in name
        }
        for index, layer in enumerate(self.low_rank):
            for name, one in layer.items():  # type: ignore[operator]
                place = f"{LORA}layers.{index}.self_attn.{name}"
                places |= {f"{place}.in": (one.a, 1.0), f"{place}.out": (one.b, one.scale)}
        return places


def _shape(values: Any) -> str:
    return "x".join(map(str, values.shape))


def attach(trained: Trained, language: Any) -> None:
    """Add the low-rank changes to the projections of every layer."""

    def added(one: Any) -> Any:
        def hook(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
            inner = functional.linear(given[0], one.a.to(output.dtype))
            return output + functional.linear(inner, (one.scale * one.b).to(output.dtype))

        return hook

    for layer, low_rank in zip(language.layers, trained.low_rank, strict=True):
        for name in PROJECTIONS:
            layer.self_attn.get_submodule(name).register_forward_hook(added(low_rank[name]))  # type: ignore[index]
