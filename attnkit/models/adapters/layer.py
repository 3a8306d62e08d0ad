"""What the adapters of one decoder layer have in common."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class LayerAdapter(nn.Module):
    """The trained part of one decoder layer. It is no part of the model: hooks on the layer's modules call it."""

    def hook(self, layer: nn.Module) -> list[Any]:
        """Put it into a layer; what is returned has a method `remove` that takes it out again."""
        raise NotImplementedError

    def constrain(self) -> None:
        """Bring parameters back within their bounds, after a training step."""


def in_own_dtype(module: nn.Module, inputs: Tensor) -> Tensor:
    """module(inputs), computed in the dtype of its parameters and given back in that of the inputs.

    Adapters stay in single precision beside a model of half precision: their first steps would be lost in it.
    """
    own = next(module.parameters()).dtype
    return module(inputs.to(own)).to(inputs.dtype)
