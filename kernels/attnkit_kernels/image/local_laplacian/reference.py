"""Eager torch: the definition, differentiable; float64 stays float64, half precision is computed in float32."""

from __future__ import annotations

import torch
from torch import Tensor

from ..laplacian import reference as laplacian
from .curves import Curve, GaussianCurve

# exp(-80) = 1.8e-35: nothing to see, and no infinity for autograd to multiply by 0
LARGEST_EXPONENT = 80.0
# below this twice the squared sigma counts as 0
SMALLEST_SPREAD = 1e-20


def _decay(exponent: Tensor) -> Tensor:
    return torch.exp(-exponent.clamp(max=LARGEST_EXPONENT))


def remap(guide: Tensor, band: Tensor, sigma: Tensor, strength: Tensor, references: int, form: str) -> Tensor:
    """See `api.remap`."""
    double = torch.float64 in (guide.dtype, band.dtype, sigma.dtype, strength.dtype)
    dtype = torch.float64 if double else torch.float32
    result, sigma, strength = band.to(dtype), sigma.to(dtype), strength.to(dtype)
    if form == "in_band":
        spread = (2 * sigma.square()).clamp(min=SMALLEST_SPREAD)
        return (result * (1 + strength * _decay(result.square() / spread))).to(band.dtype)
    guide = guide.to(dtype)
    narrowness = 2 * sigma.square()
    for j in range(references):
        value = j / (references - 1)
        weight = (1 - (guide - value).abs() * (references - 1)).clamp(min=0)
        detail = result - value
        result = result + weight * strength * detail * _decay(detail.square() * narrowness)
    return result.to(band.dtype)


def apply_curve(image: Tensor, value: float | Tensor, curve: Curve) -> Tensor:
    """r(image) for the reference `value`, see `curves`."""
    detail = image - value
    if isinstance(curve, GaussianCurve):
        return image + curve.strength * detail * _decay(detail.square() / (2 * curve.sigma**2))
    size = detail.abs()
    # the floor keeps the slope of the power finite at 0 for autograd
    inside = curve.sigma * (size / curve.sigma).clamp(min=1e-12) ** curve.alpha
    beyond = curve.beta * (size - curve.sigma) + curve.sigma
    return value + detail.sign() * torch.where(size <= curve.sigma, inside, beyond)


def filter(image: Tensor, levels: int, curve: Curve, references: int, low: float, high: float) -> Tensor:
    """See `api.filter`."""
    working = image if image.dtype == torch.float64 else image.float()
    guides = laplacian.gaussian(working, levels)
    bands = [torch.zeros_like(guide) for guide in guides[:-1]]
    distance = (high - low) / (references - 1)
    for j in range(references):
        value = low + j * distance
        remapped = laplacian.decompose(apply_curve(working, value, curve), levels)
        for level in range(levels):
            weight = (1 - (guides[level].clamp(low, high) - value).abs() / distance).clamp(min=0)
            bands[level] = bands[level] + weight * remapped[level]
    return laplacian.reconstruct(*bands, guides[-1]).to(image.dtype)


def brute_force(image: Tensor, levels: int, curve: Curve) -> Tensor:
    """Local Laplacian filter by definition (Paris et al. 2011, algorithm 1): one pyramid for each coefficient.

    image : [1, 1, rows, columns]; the cost is the square of the pixels, so this is for tiny images and tests.
    """
    guides = laplacian.gaussian(image, levels)
    bands = []
    for level, guide in enumerate(guides[:-1]):
        values = guide.reshape(-1, 1, 1, 1)
        every = laplacian.decompose(apply_curve(image, values, curve), level + 1)[level].flatten(1)
        bands.append(every.diagonal().reshape(guide.shape))
    return laplacian.reconstruct(*bands, guides[-1])
