"""Low-rank updates of the query and value projections.

Source: Hu, E. J. et al.: LoRA: Low-Rank Adaptation of Large Language Models (ICLR 2022), section 4.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attnkit.models.adapters.layer import LayerAdapter, in_own_dtype
from attnkit.runtime.errors import UsageError

PROJECTIONS = ("q_proj", "v_proj")


@dataclass(frozen=True)
class LowRankSettings:
    """rank of the update, and alpha: the update is scaled by alpha / rank."""

    rank: int = 8
    alpha: float = 16.0

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise UsageError(f"lora: rank is {self.rank}, expected at least 1")


class LowRank(nn.Module):
    """(alpha / rank) B A x of [..., inputs]; B begins at zero, so that the update does."""

    def __init__(self, inputs: int, outputs: int, settings: LowRankSettings) -> None:
        super().__init__()
        self.scale = settings.alpha / settings.rank
        self.a = nn.Parameter(torch.empty(settings.rank, inputs))
        self.b = nn.Parameter(torch.zeros(outputs, settings.rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.scale * ((inputs @ self.a.T) @ self.b.T)

    def update(self) -> Tensor:
        """What it adds to the weight of its projection, [outputs, inputs]."""
        return self.scale * (self.b @ self.a)


class LowRankLayer(LayerAdapter):
    """Low-rank updates of the query and value projections of one decoder layer."""

    def __init__(self, layer: nn.Module, settings: LowRankSettings) -> None:
        super().__init__()
        for name in PROJECTIONS:
            projection = layer.self_attn.get_submodule(name)  # type: ignore[union-attr]
            setattr(self, name, LowRank(projection.in_features, projection.out_features, settings))  # type: ignore[arg-type]

    def hook(self, layer: nn.Module) -> list[Any]:
        def added(low_rank: nn.Module) -> Any:
            return lambda module, given, output: output + in_own_dtype(low_rank, given[0])

        return [
            layer.self_attn.get_submodule(name).register_forward_hook(added(self.get_submodule(name)))  # type: ignore[union-attr]
            for name in PROJECTIONS
        ]

    def merge(self, layer: nn.Module) -> None:
        """Add the updates to the layer's own weights, which changes the model for good."""
        with torch.no_grad():
            for name in PROJECTIONS:
                weight = layer.self_attn.get_submodule(name).weight  # type: ignore[union-attr]
                weight += self.get_submodule(name).update().to(weight.dtype)  # type: ignore[operator]
