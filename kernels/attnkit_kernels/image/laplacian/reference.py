"""Eager torch: the definition, differentiable; float64 stays float64, half precision is computed in float32."""

from __future__ import annotations

import torch
from torch import Tensor


def _working(image: Tensor) -> Tensor:
    return image if image.dtype == torch.float64 else image.float()


def _reflected(index: int, size: int) -> int:
    if size == 1:
        return 0
    index = abs(index) % (2 * size - 2)
    return min(index, 2 * size - 2 - index)


def _padded(image: Tensor, axis: int) -> Tensor:
    # two samples on each side by slices: torch's reflect padding refuses sizes below three
    size = image.shape[axis]
    before = [image.narrow(axis, _reflected(index, size), 1) for index in (-2, -1)]
    after = [image.narrow(axis, _reflected(index, size), 1) for index in (size, size + 1)]
    return torch.cat([*before, image, *after], axis)


def _down_along(image: Tensor, axis: int) -> Tensor:
    size = image.shape[axis]
    padded = _padded(image, axis).movedim(axis, -1)
    a, b, c, d, e = (padded[..., tap : tap + size : 2] for tap in range(5))
    return ((a + e + 4 * (b + d) + 6 * c) / 16).movedim(-1, axis)


def _up_along(image: Tensor, axis: int, target: int) -> Tensor:
    # the stuffed image reflects its last zero, so on that side the last sample stands in for its neighbour
    size = image.shape[axis]
    before = image.narrow(axis, min(1, size - 1), 1)
    padded = torch.cat([before, image, image.narrow(axis, size - 1, 1)], axis).movedim(axis, -1)
    left, middle, right = padded[..., :-2], padded[..., 1:-1], padded[..., 2:]
    even = (left + 6 * middle + right) / 8
    odd = (middle + right) / 2
    return torch.stack([even, odd], -1).flatten(-2)[..., :target].movedim(-1, axis)


def _down(image: Tensor) -> Tensor:
    return _down_along(_down_along(image, 2), 3)


def _up(image: Tensor, size: tuple[int, int]) -> Tensor:
    return _up_along(_up_along(image, 2, size[0]), 3, size[1])


def down(image: Tensor) -> Tensor:
    """See `api.down`."""
    return _down(_working(image)).to(image.dtype)


def up(image: Tensor, size: tuple[int, int]) -> Tensor:
    """See `api.up`."""
    return _up(_working(image), size).to(image.dtype)


def gaussian(image: Tensor, levels: int) -> list[Tensor]:
    """See `api.gaussian`."""
    pyramid = [_working(image)]
    for _ in range(levels):
        pyramid.append(_down(pyramid[-1]))
    return [level.to(image.dtype) for level in pyramid]


def decompose(image: Tensor, levels: int) -> list[Tensor]:
    """See `api.decompose`."""
    bands = []
    fine = _working(image)
    for _ in range(levels):
        coarse = _down(fine)
        bands.append(fine - _up(coarse, (fine.shape[2], fine.shape[3])))
        fine = coarse
    return [band.to(image.dtype) for band in [*bands, fine]]


def reconstruct(*bands: Tensor) -> Tensor:
    """See `api.reconstruct`."""
    image = _working(bands[-1])
    for band in reversed(bands[:-1]):
        image = _up(image, (band.shape[2], band.shape[3])) + band
    return image.to(bands[0].dtype)
