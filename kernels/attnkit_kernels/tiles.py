"""What the Triton paths share: tuning choices and the device that a launch goes to."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import triton
from torch import Tensor

from .dispatch import interpreted


def choices(*blocks_and_warps: tuple[int, int]) -> list[triton.Config]:
    """Tuning choices (BLOCK, warps); interpreted there is nothing to measure, so only the first is left."""
    configs = [triton.Config({"BLOCK": block}, num_warps=warps) for block, warps in blocks_and_warps]
    return configs[:1] if interpreted() else configs


def on_device(tensor: Tensor) -> AbstractContextManager[object]:
    """Context in which a launch goes to the device of `tensor`."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def plane_strides(parameter: Tensor) -> Sequence[int]:
    """Strides (batch, channel, pixel) of a contiguous [b, c, rows, columns] whose sizes of 1 are repeated."""
    batch, channels, rows, columns = parameter.shape
    pixels = rows * columns
    return (
        channels * pixels if batch > 1 else 0,
        pixels if channels > 1 else 0,
        1 if pixels > 1 else 0,
    )
