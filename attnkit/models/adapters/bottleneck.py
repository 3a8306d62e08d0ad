"""The plain adapter: a small network with one hidden ReLU layer, added to what a block puts out.

Source: Houlsby, N. et al.: Parameter-Efficient Transfer Learning for NLP (ICML 2019), which places one behind the
attention and one behind the feed-forward network of each layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attnkit.models.adapters.layer import LayerAdapter, in_own_dtype
from attnkit.runtime.errors import UsageError


@dataclass(frozen=True)
class BottleneckSettings:
    """reduction: hidden size over the size of the bottleneck. zero_start: begin as the identity."""

    reduction: int = 8
    zero_start: bool = True

    def __post_init__(self) -> None:
        if self.reduction < 1:
            raise UsageError(f"adapter: reduction is {self.reduction}, expected at least 1")


class Bottleneck(nn.Module):
    """W_up ReLU(W_down x) of [..., width], without the residual."""

    def __init__(self, width: int, reduction: int, *, zero_start: bool = True) -> None:
        super().__init__()
        inner = max(1, width // reduction)
        self.down = nn.Linear(width, inner)
        self.up = nn.Linear(inner, width)
        if zero_start:
            nn.init.zeros_(self.up.weight)
            nn.init.zeros_(self.up.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.up(torch.relu(self.down(inputs)))


class BottleneckLayer(LayerAdapter):
    """Two bottlenecks of one decoder layer: x + W_up ReLU(W_down x) of the output of attention and of the network."""

    def __init__(self, layer: nn.Module, settings: BottleneckSettings) -> None:
        super().__init__()
        block: Any = layer.self_attn
        width = block.o_proj.out_features
        self.behind_attention = Bottleneck(width, settings.reduction, zero_start=settings.zero_start)
        self.behind_network = Bottleneck(width, settings.reduction, zero_start=settings.zero_start)

    def hook(self, layer: nn.Module) -> list[Any]:
        def added(bottleneck: Bottleneck) -> Any:
            return lambda module, given, output: output + in_own_dtype(bottleneck, output)

        return [
            layer.self_attn.o_proj.register_forward_hook(added(self.behind_attention)),  # type: ignore[union-attr]
            layer.mlp.register_forward_hook(added(self.behind_network)),  # type: ignore[union-attr]
        ]
