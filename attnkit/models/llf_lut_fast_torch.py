"""The embedded tone mapper as a torch module, for training; `llf_lut_fast` runs the same weights without torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from attnkit_kernels.image import laplacian
from torch import Tensor, nn
from torch.nn import functional

from attnkit.models.llf_lut_fast import LUMA, FastConfig, depth_for


def luma(image: Tensor) -> Tensor:
    """Weighted sum of the three channels, [batch, 3, rows, columns] -> [batch, 1, rows, columns]."""
    weights = torch.tensor(LUMA, dtype=image.dtype, device=image.device)
    return (image * weights.view(1, 3, 1, 1)).sum(1, keepdim=True)


def lookup(image: Tensor, table: Tensor) -> Tensor:
    """Trilinear look-up with one table a sample: image [batch, 3, rows, columns] in 0..1, table [batch, 3, N, N, N]."""
    grid = (2 * image - 1).permute(0, 2, 3, 1).unsqueeze(1)
    sampled = functional.grid_sample(table, grid, mode="bilinear", padding_mode="border", align_corners=True)
    return sampled.squeeze(2)


def stretch(maps: Tensor, rows: int, columns: int) -> Tensor:
    """Bilinear enlargement that keeps the corners."""
    return functional.interpolate(maps, size=(rows, columns), mode="bilinear", align_corners=True)


def conv(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """3 x 3 convolution that repeats the border: zeros there would teach the maps to see the frame."""
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, padding_mode="replicate")


class Predictor(nn.Module):
    """Small U-shaped convolutional network from the encoded thumbnail to point weights and parameter maps."""

    def __init__(self, config: FastConfig):
        super().__init__()
        a, b, c, d = config.widths
        self.config = config
        self.stem = conv(3, a)
        self.down1 = conv(a, b, stride=2)
        self.down2 = conv(b, c, stride=2)
        self.down3 = conv(c, d, stride=2)
        self.context = nn.Linear(2 * d + config.histogram_bins, d)
        self.point = nn.Linear(d, 3)
        self.up2 = conv(d + c, c)
        self.up1 = conv(c + b, b)
        self.up0 = conv(b + a, a)
        self.maps = conv(a, config.map_channels)

    def encode(self, thumbnail: Tensor) -> tuple[list[Tensor], Tensor]:
        """Features of the four scales and the context vector [batch, d] of the whole picture."""
        x0 = functional.leaky_relu(self.stem(thumbnail), 0.1)
        x1 = functional.leaky_relu(self.down1(x0), 0.1)
        x2 = functional.leaky_relu(self.down2(x1), 0.1)
        x3 = functional.leaky_relu(self.down3(x2), 0.1)
        bins = self.config.histogram_bins
        centres = torch.linspace(0, 1, bins, dtype=thumbnail.dtype, device=thumbnail.device).view(1, bins, 1, 1)
        histogram = (1 - (luma(thumbnail) - centres).abs() * (bins - 1)).clamp(min=0).mean((2, 3))
        spread = (x3.var((2, 3), unbiased=False) + 1e-6).sqrt()
        pooled = torch.cat([x3.mean((2, 3)), spread, histogram], 1)
        return [x0, x1, x2, x3], functional.leaky_relu(self.context(pooled), 0.1)

    def decode(self, features: list[Tensor], context: Tensor) -> Tensor:
        """Raw parameter maps [batch, map_channels, h, w] at the thumbnail's size."""
        x0, x1, x2, x3 = features
        y = x3 + context[:, :, None, None]
        for layer, skip in ((self.up2, x2), (self.up1, x1), (self.up0, x0)):
            y = functional.leaky_relu(layer(torch.cat([stretch(y, *skip.shape[2:]), skip], 1)), 0.1)
        return self.maps(y)


@dataclass
class Rendering:
    """Everything a loss may want: display picture, its global part, parameters."""

    display: Tensor
    global_part: Tensor
    point: Tensor
    map_change: Tensor
    strengths: list[Tensor]


class FastLlfLut(nn.Module):
    """Learned 3-D LUTs fused by point and by map, with an in-band local Laplacian remap of the luma pyramid.

    Source: the structure of LLF-LUT++ (TPAMI 2025), sections on LUT fusion and the local Laplacian pyramid; the
    predictor is convolutional, the pyramid is that of the luma, and the remap is the canonical curve evaluated in band.
    """

    def __init__(self, config: FastConfig):
        super().__init__()
        self.config = config
        self.tables = nn.Parameter(torch.from_numpy(config.initial_tables()))
        self.predictor = Predictor(config)
        with torch.no_grad():
            self.predictor.point.weight.mul_(0.1)
            self.predictor.point.bias.copy_(torch.full((3,), 1 / 3))
            self.predictor.maps.weight.mul_(0.1)
            assert self.predictor.maps.bias is not None
            self.predictor.maps.bias.zero_()

    def thumbnail(self, encoded: Tensor, depth: int) -> Tensor:
        """Mean of the encoded picture over blocks centred on the samples of pyramid level `depth`."""
        step = 1 << depth
        stride = max(1, step // 8)
        rows, columns = (-(-size // step) for size in encoded.shape[2:])
        samples = encoded[:, :, ::stride, ::stride]
        block = step // stride
        half = block // 2
        bottom = rows * block - half - samples.shape[2]
        right = columns * block - half - samples.shape[3]
        weight = torch.ones_like(samples[:, :1])
        pad = (half, max(right, 0), half, max(bottom, 0))
        total = functional.avg_pool2d(functional.pad(samples, pad), block)[:, :, :rows, :columns]
        share = functional.avg_pool2d(functional.pad(weight, pad), block)[:, :, :rows, :columns]
        return total / share

    def forward(self, encoded: Tensor, *, use_map: bool = True, use_remap: bool = True) -> Rendering:
        """Render [batch, 3, rows, columns] encoded pictures (0..1, see `FastConfig.encode`) to display values."""
        config = self.config
        batch, _, rows, columns = encoded.shape
        depth = depth_for(rows, columns)
        low = self.thumbnail(encoded, depth)
        features, context = self.predictor.encode(low)
        point = self.predictor.point(context)
        raw = self.predictor.decode(features, context)
        table = torch.einsum("bk,kcxyz->bcxyz", point, self.tables)
        full = lookup(encoded, table)
        luma_full = luma(full)
        bands = laplacian.decompose(luma_full, depth, impl="reference")
        gaussians = [luma_full]
        for _ in range(depth - 1):
            gaussians.append(laplacian.down(gaussians[-1], impl="reference"))
        change = raw[:, :3]
        bottom = bands[-1]
        if use_map:
            lows = [luma(lookup(low, self.tables[k].expand(batch, -1, -1, -1, -1))) for k in range(3)]
            bottom = bottom + (change * torch.cat(lows, 1)).sum(1, keepdim=True)
        strengths = []
        if use_remap:
            for level in range(depth):
                group, share = config.band(depth, level)
                start = 3 + group * (config.references + 1)
                size = bands[level].shape[2:]
                strength, sigma = self.curve(raw[:, start : start + config.references + 1])
                local = self.slice(stretch(strength, *size), gaussians[level])
                spread = stretch(sigma, *size)
                strengths.append(strength)
                bands[level] = bands[level] * (1 + share * local * torch.exp(-0.5 * (bands[level] / spread) ** 2))
        result = laplacian.reconstruct([*bands[:-1], bottom], impl="reference")
        display = self.recombine(full, luma_full, result)
        return Rendering(display, full, point, change, strengths)

    def curve(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Bounded strengths (one map a reference, below the limit of monotony 2.24) and width of the detail curve."""
        low, high = self.config.strength_range
        thin, wide = self.config.sigma_range
        count = self.config.references
        offset = math.log((self.config.initial_strength - low) / (high - self.config.initial_strength))
        strength = low + (high - low) * torch.sigmoid(raw[:, :count] + offset)
        return strength, thin + (wide - thin) * torch.sigmoid(raw[:, count:])

    def slice(self, strength: Tensor, guide: Tensor) -> Tensor:
        """Strength at each pixel: hat-weighted mean of the references' maps at the pixel's own luma."""
        count = self.config.references
        centres = torch.arange(count, dtype=guide.dtype, device=guide.device).view(1, count, 1, 1)
        weights = (1 - (guide.clamp(0, 1) * (count - 1) - centres).abs()).clamp(min=0)
        return (weights * strength).sum(1, keepdim=True)

    def recombine(self, full: Tensor, luma_full: Tensor, result: Tensor) -> Tensor:
        """Give the new luma to the picture: channels keep their ratio, and move towards grey where one would pass 1."""
        target = result.clamp(0, 1)
        scaled = full * (target / luma_full.clamp(min=1e-3))
        excess = scaled.amax(1, keepdim=True)
        keep = ((1 - target) / (excess - target).clamp(min=1e-6)).clamp(max=1)
        return (target + (scaled - target) * keep).clamp(0, 1)
