"""Canny's edges as a tensor operation: what the coarsest head of LLF-LUT++ sees of the tone-mapped thumbnail."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

# from the angle of the gradient in eighths of a turn to the neighbour it points at: (rows, columns), rows downwards
NEIGHBOURS = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))
MAGNITUDE_FLOOR = 1e-6


def canny(image: Tensor, low: float = 0.1, high: float = 0.2) -> Tensor:
    """Edges of a grey picture: 1 on an edge, 0 elsewhere, [batch, 1, rows, columns].

    Gaussian of 5 x 5 and sigma 1 (reflected border), Sobel gradients (repeated border, not normalised), thinning along
    the gradient rounded to eighths of a turn, then pixels above ``low`` that hang together with one above ``high``.
    Values and thresholds are in the picture's own units, meant for 0..1. These are the defaults of kornia's Canny,
    which the published weights were trained with. Not differentiable.

    Source: Canny 1986, A Computational Approach to Edge Detection.
    """
    blurred = _blur(image.detach())
    across, down = _sobel(blurred)
    magnitude = (across.square() + down.square() + MAGNITUDE_FLOOR).sqrt()
    thin = magnitude * _is_ridge(magnitude, torch.atan2(down, across))
    return _linked(thin > low, thin > high).to(image.dtype)


def grey(image: Tensor) -> Tensor:
    """Luma of BT.601, the grey of the published code: [batch, 3, rows, columns] -> [batch, 1, rows, columns]."""
    red, green, blue = image.unbind(1)
    return (0.299 * red + 0.587 * green + 0.114 * blue).unsqueeze(1)


def _blur(image: Tensor) -> Tensor:
    place = torch.arange(-2, 3, dtype=image.dtype, device=image.device)
    taps = torch.exp(-place.square() / 2)
    taps = taps / taps.sum()
    # reflection needs more than two samples a side; shorter sides repeat their border sample
    rows, columns = image.shape[-2:]
    padded = functional.pad(image, (2, 2, 0, 0), mode="reflect" if columns > 2 else "replicate")
    padded = functional.pad(padded, (0, 0, 2, 2), mode="reflect" if rows > 2 else "replicate")
    return functional.conv2d(functional.conv2d(padded, taps.view(1, 1, 1, 5)), taps.view(1, 1, 5, 1))


def _sobel(image: Tensor) -> tuple[Tensor, Tensor]:
    kernel = torch.tensor(
        [[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]], dtype=image.dtype, device=image.device
    )
    kernels = torch.stack([kernel, kernel.T]).unsqueeze(1)
    across, down = functional.conv2d(functional.pad(image, (1, 1, 1, 1), mode="replicate"), kernels).unbind(1)
    return across.unsqueeze(1), down.unsqueeze(1)


def _shifted(padded: Tensor, rows: int, columns: int) -> Tensor:
    """The neighbour at an offset of every pixel, from a picture padded by one."""
    height, width = padded.shape[-2] - 2, padded.shape[-1] - 2
    return padded[..., 1 + rows : 1 + rows + height, 1 + columns : 1 + columns + width]


def _is_ridge(magnitude: Tensor, angle: Tensor) -> Tensor:
    """Whether a gradient is steeper than those of the neighbours before and behind it; outside counts as flat."""
    eighth = (angle * (4 / math.pi)).round().long() % 8
    padded = functional.pad(magnitude, (1, 1, 1, 1))
    around = torch.stack([_shifted(padded, *offset) for offset in NEIGHBOURS])
    ahead = around.gather(0, eighth.unsqueeze(0))[0]
    behind = around.gather(0, ((eighth + 4) % 8).unsqueeze(0))[0]
    return (magnitude > ahead) & (magnitude > behind)


def _linked(weak: Tensor, strong: Tensor) -> Tensor:
    """Weak pixels that reach a strong one over weak pixels, eight neighbours each."""
    found = strong & weak
    while True:
        padded = functional.pad(found, (1, 1, 1, 1))
        grown = found.clone()
        for offset in NEIGHBOURS:
            grown |= _shifted(padded, *offset)
        grown &= weak
        if torch.equal(grown, found):
            return found
        found = grown
