"""HSIE with the Laplacian pyramid translation head, as published: one band and its neighbours in, the band bright out.

Source: "Low-Light Hyperspectral Image Enhancement" (arXiv 2208.03042), the released class HSIRDNECA_LPTN_FUSE_CONV
without the debug scaling of its mask. Parameters stand in the order of the published class.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from attnkit_kernels.image import laplacian
from torch import Tensor, nn
from torch.nn import functional as F

from attnkit.models.hsie.cost import MASK_WIDTH, SCALES, count_flops
from attnkit.models.hsie.window import band_window
from attnkit.models.torch_model import TorchModel
from attnkit.runtime.errors import UsageError


def same_conv(inputs: int, outputs: int, size: int) -> nn.Conv2d:
    """Convolution that keeps the size, zeros outside; started as published (Kaiming normal, fan out, zero bias)."""
    layer = nn.Conv2d(inputs, outputs, size, padding=size // 2)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out")
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


class ChannelAttention(nn.Module):
    """Weights of the channels from their means over the whole band (ECA): sigmoid of a convolution of three channels.

    [batch, channels, rows, columns] -> [batch, channels]
    """

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        return self.of_means(features.mean((2, 3)))

    def of_means(self, means: Tensor) -> Tensor:
        """Attention [batch, channels] of the means [batch, channels]."""
        return torch.sigmoid(self.mix(means[:, None])[:, 0])


class DenseAttentionBlock(nn.Module):
    """Channel attention block with dense convolutions (CAB): u = 1x1 of all dense features, result a u + input."""

    def __init__(self, channels: int, growth: int, convs: int) -> None:
        super().__init__()
        self.dense = nn.ModuleList(same_conv(channels + growth * i, growth, 3) for i in range(convs))
        self.reduce = same_conv(channels + growth * convs, channels, 1)
        self.attention = ChannelAttention()

    def forward(self, features: Tensor) -> Tensor:
        return self.attended(features)

    def update(self, features: Tensor) -> Tensor:
        """What is added to the features once attention has weighed its channels."""
        stacked = features
        for conv in self.dense:
            stacked = torch.cat([stacked, F.relu(conv(stacked))], 1)
        return self.reduce(stacked)

    def attended(self, features: Tensor, attention: Tensor | None = None) -> Tensor:
        """The result, with attention [batch, channels] that is known already or is that of these features."""
        update = self.update(features)
        known = self.attention(update) if attention is None else attention
        return known[..., None, None] * update + features


class ResidualPair(nn.Module):
    """x + conv(LeakyReLU(conv(x)))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = same_conv(channels, channels, 3)
        self.second = same_conv(channels, channels, 3)

    def forward(self, features: Tensor) -> Tensor:
        return features + self.second(F.leaky_relu(self.first(features)))


class HsieLptn(TorchModel):
    """The published network: brightens bands of any size, each with ``neighbours`` bands as context.

    neighbours       bands of context, K
    features         channels of each of the 3, 5 and 7 wide convolutions, of the band and of its context
    growth, convs    new channels of a dense convolution, and dense convolutions in a block
    blocks           channel attention blocks
    width, residual_blocks    of the network that makes the mask of the detail
    last_conv        whether a convolution of the result is added to it; the published training script has none
    """

    def __init__(
        self,
        neighbours: int = 24,
        features: int = 20,
        growth: int = 20,
        blocks: int = 4,
        convs: int = 4,
        width: int = 64,
        residual_blocks: int = 3,
        last_conv: bool = True,
    ) -> None:
        super().__init__()
        if neighbours < 2 or neighbours % 2:
            raise UsageError(f"hsie-lptn: neighbours {neighbours}, expected an even number from 2")
        self.config: dict[str, Any] = {
            "neighbours": neighbours,
            "features": features,
            "growth": growth,
            "blocks": blocks,
            "convs": convs,
            "width": width,
            "residual_blocks": residual_blocks,
            "last_conv": last_conv,
        }
        self.neighbours = neighbours
        channels = 3 * features
        self.spatial = nn.ModuleList(same_conv(1, features, size) for size in SCALES)
        self.spectral = nn.ModuleList(same_conv(neighbours, features, size) for size in SCALES)
        self.enter = same_conv(2 * channels, channels, 3)
        self.fuse = same_conv(channels * blocks, channels, 1)
        # the published class makes this layer and does not call it
        self.unused = same_conv(channels, channels, 3)
        self.blocks = nn.ModuleList(DenseAttentionBlock(channels, growth, convs) for _ in range(blocks))
        self.relight = same_conv(channels, 1, 3)
        self.mask_enter = same_conv(3, width, 3)
        self.mask_blocks = nn.ModuleList(ResidualPair(width) for _ in range(residual_blocks))
        self.mask_leave = same_conv(width, 1, 3)
        self.curve_enter = same_conv(1, MASK_WIDTH, 1)
        self.curve_leave = same_conv(MASK_WIDTH, 1, 1)
        self.last = same_conv(1, 1, 3) if last_conv else None

    def forward(self, band: Tensor, neighbours: Tensor) -> Tensor:
        """Bright band [batch, 1, rows, columns] from a band and its neighbours [batch, K, rows, columns].

        Values are bright units (full exposure is 1) and are not clipped. Odd sizes are made even by reflection.
        """
        expected = (band.shape[0], self.neighbours, *band.shape[2:])
        if band.ndim != 4 or band.shape[1] != 1 or neighbours.shape != expected:
            raise UsageError(
                f"hsie-lptn: a band of shape {tuple(band.shape)} and neighbours of shape {tuple(neighbours.shape)}, "
                f"expected [batch, 1, rows, columns] and [batch, {self.neighbours}, rows, columns]"
            )
        rows, columns = band.shape[2:]
        band, neighbours = even(band), even(neighbours)
        size = (band.shape[2], band.shape[3])
        low, context = laplacian.down(band), laplacian.down(neighbours)
        detail = (neighbours - laplacian.up(context, size)).mean(1, keepdim=True)
        bright = low + self.relit(low, context)
        shown = [F.interpolate(part, size=size, mode="nearest") for part in (low, bright)]
        result = laplacian.up(bright, size) + self.sharpened(detail, *shown)
        if self.last is not None:
            result = result + self.last(result)
        return result[:, :, :rows, :columns]

    def relit(self, low: Tensor, context: Tensor) -> Tensor:
        """What the illumination branch adds to the half-resolution band."""
        maps = [conv(low) for conv in self.spatial] + [conv(context) for conv in self.spectral]
        features = F.relu(self.enter(F.relu(torch.cat(maps, 1))))
        outputs = []
        for block in self.blocks:
            features = block(features)
            outputs.append(features)
        return self.relight(self.fuse(torch.cat(outputs, 1)))

    def sharpened(self, detail: Tensor, low: Tensor, bright: Tensor) -> Tensor:
        """The detail that the result gets: the mean detail of the neighbours, masked and sent through a curve."""
        mask = F.leaky_relu(self.mask_enter(torch.cat([detail, low, bright], 1)))
        for block in self.mask_blocks:
            mask = block(mask)
        return self.curve_leave(F.leaky_relu(self.curve_enter(detail * self.mask_leave(mask) + detail)))

    def example(self, rows: int = 48, columns: int = 64) -> np.ndarray:
        """A cube (rows, columns, bands) of waves whose phase moves from band to band."""
        y, x, band = np.mgrid[0:rows, 0:columns, 0 : self.neighbours + 3]
        return (0.1 + 0.05 * np.sin(0.3 * x + 0.2 * y + 0.1 * band)).astype(np.float32)

    def run(self, inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Bright cube (rows, columns, bands) -> enhanced cube of the same shape, band by band."""
        bands = torch.from_numpy(np.ascontiguousarray(inputs.transpose(2, 0, 1)))[None]
        bands = bands.to(self.relight.weight.device, self.relight.weight.dtype)
        windows, _ = band_window(bands.shape[1], self.neighbours)
        with torch.inference_mode():
            results = [self(bands[:, i : i + 1], bands[:, list(window)]) for i, window in enumerate(windows)]
        return {"cube": torch.cat(results, 1)[0].permute(1, 2, 0).cpu().numpy()}

    def count_flops(self, rows: int, columns: int) -> int:
        return count_flops(self.config, rows, columns)


def even(image: Tensor) -> Tensor:
    """The image with one more row and column by reflection where their number is odd."""
    for axis in (2, 3):
        size = image.shape[axis]
        if size % 2:
            image = torch.cat([image, image.narrow(axis, max(size - 2, 0), 1)], axis)
    return image
