"""Differentiable TMQI and the guards, as losses for training a tone mapper."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from attnkit.tasks.tonemap.metrics.guards import EDGE_SCALES
from attnkit.tasks.tonemap.metrics.tmqi import ALPHA, BETA, FREQUENCIES, OVERALL, SIGMA, WEIGHTS, WINDOW


def window_mean(image: Tensor) -> Tensor:
    """Gaussian 11 x 11 mean over the valid area, [batch, 1, rows, columns]."""
    offsets = torch.arange(WINDOW, dtype=image.dtype, device=image.device) - WINDOW // 2
    kernel = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    kernel = kernel / kernel.sum()
    return functional.conv2d(functional.conv2d(image, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))


def visibility(deviation: Tensor, frequency: float) -> Tensor:
    """Probability that a contrast is seen (TMQI's Phi)."""
    sensitivity = 260.0 * (0.0192 + 0.114 * frequency) * math.exp(-((0.114 * frequency) ** 1.1))
    threshold = 128.0 / (1.4 * sensitivity)
    return torch.special.ndtr((deviation - threshold) / (threshold / 3))


class Scene:
    """The linear side of TMQI's structural fidelity, computed once a batch: luminance [batch, 1, rows, columns]."""

    def __init__(self, luminance: Tensor):
        light = luminance.double()
        low, high = light.amin((1, 2, 3), keepdim=True), light.amax((1, 2, 3), keepdim=True)
        light = (light - low) * ((2.0**32 - 1) / (high - low).clamp(min=1e-12))
        self.scales: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        for frequency in FREQUENCIES:
            mean = window_mean(light)
            deviation = (window_mean(light * light) - mean**2).clamp(min=0).sqrt()
            self.scales.append((light, mean, deviation, visibility(deviation, frequency).float()))
            light = functional.avg_pool2d(light, 2)

    def structure(self, codes: Tensor) -> Tensor:
        """Structural fidelity S [batch] of luma codes 0..255 [batch, 1, rows, columns]."""
        product = codes.new_ones(codes.shape[0])
        for (light, mean, scene_deviation, seen), frequency, weight in zip(
            self.scales, FREQUENCIES, WEIGHTS, strict=True
        ):
            shown_mean = window_mean(codes)
            deviation = ((window_mean(codes * codes) - shown_mean**2).clamp(min=1e-3)).sqrt()
            covariance = window_mean(light * codes.double()) - mean * shown_mean.double()
            structure = ((covariance + 10) / (scene_deviation * deviation.double() + 10)).float()
            shown = visibility(deviation, frequency)
            contrast = (2 * seen * shown + 0.01) / (seen**2 + shown**2 + 0.01)
            product = product * (contrast * structure).mean((1, 2, 3)).clamp(min=1e-3) ** weight
            codes = functional.avg_pool2d(codes, 2)
        return product


def naturalness(codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Statistical naturalness N, mean code and mean deviation of the 11 x 11 tiles, each [batch]."""
    tiles = functional.unfold(codes, WINDOW, stride=WINDOW)
    spread = tiles.var(1).add(1e-3).sqrt().mean(1)
    mean = codes.mean((1, 2, 3))
    p, q = 4.4, 10.1
    mode = (p - 1) / (p + q - 2)
    share = (spread / 64.29).clamp(1e-3, 0.999)
    contrast = (share / mode) ** (p - 1) * ((1 - share) / (1 - mode)) ** (q - 1)
    return contrast * torch.exp(-0.5 * ((mean - 115.94) / 27.99) ** 2), mean, spread


def tmqi_of(structure: Tensor, natural: Tensor) -> Tensor:
    """Overall quality from its two parts."""
    return OVERALL * structure.clamp(min=1e-3) ** ALPHA + (1 - OVERALL) * natural.clamp(min=1e-4) ** BETA


def blur(image: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of [batch, 1, rows, columns] with reflected borders."""
    radius = int(3 * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1, dtype=image.dtype, device=image.device)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    padded = functional.pad(image, (radius,) * 4, mode="reflect")
    return functional.conv2d(functional.conv2d(padded, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))


def reversal(stops: Tensor, codes: Tensor) -> Tensor:
    """Soft share of edge pixels whose slope the picture turns round, as `metrics.guards.reversed_edges` counts them."""
    backward, edges = codes.new_zeros(()), codes.new_zeros(())
    for sigma, least_slope, rounding in EDGE_SCALES:
        with torch.no_grad():
            down, across = torch.gradient(blur(stops, sigma), dim=(2, 3))
            slope = (down**2 + across**2).sqrt()
            edge = (slope >= least_slope).to(codes.dtype)
        shown_down, shown_across = torch.gradient(blur(codes, sigma), dim=(2, 3))
        wrong = (-(down * shown_down + across * shown_across) / slope.clamp(min=1e-6)).clamp(min=0) * edge
        backward = backward + (wrong / (wrong + 2 * rounding)).sum()
        edges = edges + edge.sum()
    return backward / edges.clamp(min=1)


def hue_shift(light: Tensor, display: Tensor) -> Tensor:
    """Chroma-weighted mean of 1 - cos of the OKLab hue angle between light [batch, 3, ...] and display (0..1)."""
    decoded = torch.where(display <= 0.04045, display / 12.92, ((display.clamp(min=0.04) + 0.055) / 1.055) ** 2.4)
    scene, shown = opponent(light), opponent(decoded)
    dot = (scene * shown).sum(1)
    first = (scene.square().sum(1) + 1e-10).sqrt()
    second = (shown.square().sum(1) + 1e-10).sqrt()
    weight = (second * (first > 1e-3)).detach()
    return (weight * (1 - dot / (first * second))).sum() / weight.sum().clamp(min=1e-6)


def opponent(light: Tensor) -> Tensor:
    """OKLab a and b of linear Rec.709 light, [batch, 3, ...] -> [batch, 2, ...]."""
    to_cones = light.new_tensor(
        [[0.4122215, 0.5363325, 0.0514460], [0.2119035, 0.6806995, 0.1073970], [0.0883025, 0.2817188, 0.6299787]]
    )
    to_lab = light.new_tensor([[1.9779985, -2.4285922, 0.4505937], [0.0259040, 0.7827718, -0.8086758]])
    cones = torch.einsum("ij,bj...->bi...", to_cones, light).clamp(min=1e-9) ** (1 / 3)
    return torch.einsum("ij,bj...->bi...", to_lab, cones)
