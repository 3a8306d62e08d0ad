"""The verbs of the registry for models that are torch modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from attnkit.models.verbs import check_arrays
from attnkit.runtime.errors import UsageError


def torch_device(device: str) -> str:
    """The device that "auto" means; UsageError for a CUDA device where torch finds none."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"--device {device}: torch finds no such device; use --device cpu")
    return device


class TorchModel(nn.Module):
    """Base of torch models in the registry: arrays in and out, dtype, number of parameters.

    A subclass sets ``config`` and adds example, run and count_flops; its builder returns it in evaluation mode.
    """

    dtypes: tuple[str, ...] = ("float32", "float64")
    config: dict[str, Any]

    def arrays(self) -> dict[str, np.ndarray]:
        """State dictionary as numpy arrays, in the dtype that the model computes in."""
        return {name: value.detach().cpu().numpy() for name, value in self.state_dict().items()}

    def load_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Copy the arrays into the model; names and shapes must be its own, else UsageError."""
        own = self.state_dict()
        check_arrays({name: tuple(value.shape) for name, value in own.items()}, arrays, model=type(self).__name__)
        with torch.no_grad():
            for name, value in own.items():
                # a copy: the arrays of a mapped file are read-only
                value.copy_(torch.from_numpy(np.array(arrays[name])))

    def as_dtype(self, dtype: str) -> Self:
        """The model itself, cast to another of its dtypes."""
        if dtype not in self.dtypes:
            raise UsageError(f"{type(self).__name__}: dtype {dtype!r}, expected one of {', '.join(self.dtypes)}")
        return self.to(getattr(torch, dtype))

    def count_parameters(self) -> int:
        """Numbers that training may change."""
        return sum(parameter.numel() for parameter in self.parameters())
