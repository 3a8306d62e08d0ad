"""The heads of LLF-LUT++: strength and width of the remapping curve for every pixel of a band.

Each runs on strips of rows when no gradient is recorded, so that a 4K frame needs little more memory than its bands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

# samples of a strip, over all rows and columns: the hidden features of a strip then stay near the caches
STRIP_SAMPLES = 1 << 15

Source = Callable[[int, int], Tensor]


def enlarge(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Nearest enlargement to the next finer level: [..., rows, columns] -> [..., *size], sizes doubled or one less."""
    return image.repeat_interleave(2, -2)[..., : size[0], :].repeat_interleave(2, -1)[..., : size[1]]


def enlarged_rows(image: Tensor, first: int, last: int, columns: int) -> Tensor:
    """Rows first to last (exclusive) of `enlarge`."""
    coarse = image[..., first // 2 : (last + 1) // 2, :]
    offset = first - first // 2 * 2
    return enlarge(coarse, (coarse.shape[-2] * 2, columns))[..., offset : offset + last - first, :]


def strips(rows: int, columns: int) -> Iterator[tuple[int, int]]:
    """First and last row (exclusive) of strips that cover a picture; one strip while gradients are recorded."""
    height = rows if torch.is_grad_enabled() else max(1, STRIP_SAMPLES // columns)
    for first in range(0, rows, height):
        yield first, min(first + height, rows)


def with_halo(source: Source, layer: Callable[[Tensor], Tensor], first: int, last: int, rows: int) -> Tensor:
    """`layer` on the rows first - 1 to last + 1 of a source, with rows of zeros where the picture ends.

    What a 3 x 3 convolution with zero padding sees of the layer's output: the zeros are behind the layer, not before
    it.
    """
    above, below = max(first - 1, 0), min(last + 1, rows)
    hidden = layer(source(above, below))
    return functional.pad(hidden, (0, 0, above - (first - 1), last + 1 - below))


class GatedBlock(nn.Module):
    """A simplified NAF block: norm over channels, 1x1, 3x3, gate by product, channel attention, 1x1, scaled residual.

    Source: Chen et al. 2022, Simple Baselines for Image Restoration, without its second half.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.expand = nn.Conv2d(width, width, 1)
        self.spatial = nn.Conv2d(width, width, 3, padding=(0, 1))
        self.attention = nn.Conv2d(width // 2, width // 2, 1)
        self.project = nn.Conv2d(width // 2, width, 1)
        self.scale = nn.Parameter(torch.zeros(1, width, 1, 1))

    def expanded(self, feature: Tensor) -> Tensor:
        """Up to the first 1x1: [batch, width, rows, columns] -> the same."""
        normed = self.norm(feature.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.expand(normed)

    def gated(self, padded: Tensor) -> Tensor:
        """3x3 and gate: [batch, width, rows + 2, columns] -> [batch, width / 2, rows, columns]."""
        one, other = self.spatial(padded).chunk(2, dim=1)
        return one * other


class CoarseHead(nn.Module):
    """Curve parameters of the coarsest band from the picture, the edges, the tone-mapped and the plain thumbnail."""

    def __init__(self, inputs: int = 10, width: int = 64) -> None:
        super().__init__()
        self.enter = nn.Conv2d(inputs, width, 1)
        self.block = GatedBlock(width)
        self.leave = nn.Conv2d(width, 2, 1)

    def entered(self, inputs: Tensor) -> Tensor:
        return functional.leaky_relu(self.enter(inputs), 0.2)

    def forward(self, context: Tensor, gaussian: Tensor) -> Tensor:
        """Strength and width [1, 2, rows, columns] for a band whose Gaussian level is [1, 3, rows, columns].

        ``context`` [1, 7, ...] is edges, tone-mapped and plain thumbnail at the next coarser level. Runs twice over the
        strips: channel attention needs the mean over the whole picture first.
        """
        rows, columns = gaussian.shape[-2:]

        def source(first: int, last: int) -> Tensor:
            return torch.cat([gaussian[..., first:last, :], enlarged_rows(context, first, last, columns)], dim=1)

        block = self.block
        gates = []
        total: Tensor | float = 0.0
        for first, last in strips(rows, columns):
            padded = with_halo(source, lambda inputs: block.expanded(self.entered(inputs)), first, last, rows)
            gates.append(block.gated(padded))
            total = total + gates[-1].sum((2, 3), keepdim=True)
        attention = block.attention(torch.as_tensor(total) / (rows * columns))
        parts = []
        for (first, last), gate in zip(strips(rows, columns), gates, strict=True):
            feature = self.entered(source(first, last))
            parts.append(self.leave(feature + block.scale * block.project(gate * attention)))
        return torch.cat(parts, dim=2)


class FineHead(nn.Module):
    """Curve parameters of a finer band from the result so far, the band and the remapped coarser band."""

    def __init__(self, inputs: int = 9, width: int = 16) -> None:
        super().__init__()
        self.enter = nn.Conv2d(inputs, width, 1)
        self.spatial = nn.Conv2d(width, width, 3, padding=(0, 1), groups=width)
        self.leave = nn.Conv2d(width, 2, 1)

    def forward(self, context: Tensor, band: Tensor) -> Tensor:
        """Strength and width [1, 2, rows, columns] for a band [1, 3, rows, columns].

        ``context`` [1, 6, ...] is the result so far and the remapped band, both of the next coarser level. On a CPU and
        without gradients one compiled pass does it, see `fused`; else the layers run as they are.
        """
        if band.device.type == "cpu" and not torch.is_grad_enabled():
            from attnkit.models.llf_lut.fused import fine_head

            weights = {name: value.detach().numpy() for name, value in self.named_parameters()}
            return torch.from_numpy(fine_head(context[0].numpy(), band[0].numpy(), weights))[None]
        return self.layers(context, band)

    def layers(self, context: Tensor, band: Tensor) -> Tensor:
        """`forward` in torch, on any device and with gradients."""
        rows, columns = band.shape[-2:]

        def source(first: int, last: int) -> Tensor:
            result, remapped = enlarged_rows(context, first, last, columns).chunk(2, dim=1)
            return torch.cat([result, band[..., first:last, :], remapped], dim=1)

        parts = []
        for first, last in strips(rows, columns):
            padded = with_halo(source, lambda inputs: functional.leaky_relu(self.enter(inputs), 0.2), first, last, rows)
            parts.append(self.leave(functional.leaky_relu(self.spatial(padded), 0.2)))
        return torch.cat(parts, dim=2)
