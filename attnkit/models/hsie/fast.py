"""The published network with its layers rearranged for speed; the same function of the same weights to rounding.

Features are channels-last [batch, rows, columns, channels] throughout, so 1x1 convolutions are matrix products and
slices of channels need no copies. What is rearranged:

- the band's own 3, 5 and 7 wide convolutions are one 7 wide convolution;
- a dense block never concatenates: the convolutions of its input run as one, and what each new feature adds to the
  convolutions after it is summed in the block's buffer, which at the end holds the new features themselves;
- no activation stands between the fusion of the blocks and the last convolution of the illumination branch, so both
  are one convolution, summed up block by block and done as a matrix product and nine shifted sums;
- on a CPU in float32, 3x3 convolutions of many channels are done by `winograd`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
from attnkit_kernels.image import laplacian
from torch import Tensor, nn
from torch.nn import functional as F

from attnkit.models.hsie.model import DenseAttentionBlock, HsieLptn
from attnkit.models.hsie.winograd import convolve, suits, transformed
from attnkit.models.torch_model import torch_device
from attnkit.models.weights import read_weights


@dataclass(frozen=True)
class Convolution:
    """A same-size convolution: weight channels-last, and transformed where that pays."""

    weight: Tensor
    bias: Tensor
    kernel: Tensor | None

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor | None) -> Convolution:
        weight = weight.detach()
        bias = weight.new_zeros(weight.shape[0]) if bias is None else bias.detach()
        packed = weight.contiguous(memory_format=torch.channels_last)
        return cls(packed, bias, transformed(weight) if suits(weight) else None)

    def __call__(self, features: Tensor, slope: float = 1.0, into: Tensor | None = None) -> Tensor:
        """Of channels-last features, zeros outside; `slope` and `into` as in `winograd.convolve`."""
        if self.kernel is not None:
            images = features.contiguous()
            result = into
            if result is None:
                result = features.new_empty(*features.shape[:3], self.weight.shape[0])
            for at in range(len(images)):
                convolve(images[at], self.kernel, self.bias, slope, result[at], add=into is not None)
            return result
        planar = F.conv2d(features.permute(0, 3, 1, 2), self.weight, self.bias, padding=self.weight.shape[3] // 2)
        result = planar.permute(0, 2, 3, 1).contiguous()
        if into is not None:
            return into.add_(result)
        return result if slope == 1 else F.leaky_relu_(result, slope)


class FastHsie:
    """The network prepared for inference; in its parts, so that a band can be run in tiles.

    low_reach     half-resolution samples around a tile that the illumination branch sees, attention apart
    block_reach   those that one block sees; enter_reach, those of what comes before the blocks
    finish_reach  those that the second half sees
    low_bytes     what the illumination branch takes for a half-resolution sample while it runs; high_bytes, what the
                  second half takes for a full-resolution one
    """

    def __init__(self, model: HsieLptn, device: str = "cpu") -> None:
        device = torch_device(device)
        model = model.to(device).eval()
        self.config: dict[str, Any] = model.config
        self.device = device
        self.dtype = model.relight.weight.dtype
        self.neighbours = model.neighbours
        self.blocks = len(model.blocks)
        self.channels = model.enter.weight.shape[0]
        blocks: list[DenseAttentionBlock] = list(model.blocks)  # type: ignore[arg-type]
        self.enter_reach, self.block_reach = 4, len(blocks[0].dense)
        self.low_reach = self.enter_reach + self.blocks * self.block_reach + 1
        # mask convolutions and the last one at full resolution, and the pyramid's one sample
        self.finish_reach = 1 + (3 + 2 * len(model.mask_blocks) + (model.last is not None)) // 2
        growth = model.config["growth"] * self.block_reach
        self.low_bytes = 4 * max(6 * self.channels + 2 * self.neighbours, 4 * self.channels + 3 * growth)
        self.high_bytes = 4 * (4 * model.config["width"] + 16)
        with torch.no_grad():
            self._spatial = _widest([(conv.weight, conv.bias) for conv in model.spatial])
            self._spectral = [_of(conv) for conv in model.spectral]
            self._enter = _of(model.enter)
            self._dense = [_Dense(block) for block in blocks]
            self._mix = [block.attention for block in blocks]
            taps = model.relight.weight[0].flatten(1)
            fused = model.fuse.weight[:, :, 0, 0].T @ taps
            self._taps = list(fused.split(self.channels))
            self._tap_bias = _bias(model.fuse) @ taps
            self._relight_bias = _bias(model.relight)
            self._mask_enter = _of(model.mask_enter)
            self._mask_blocks = [(_of(pair.first), _of(pair.second)) for pair in model.mask_blocks]
            self._mask_taps = model.mask_leave.weight[0].flatten(1).contiguous()
            self._mask_bias = _bias(model.mask_leave)
            self._curve = (
                model.curve_enter.weight.flatten(),
                _bias(model.curve_enter),
                model.curve_leave.weight.flatten(),
                _bias(model.curve_leave),
            )
            self._last = None if model.last is None else (model.last.weight.detach(), _bias(model.last))

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: str = "cpu") -> FastHsie:
        """Open a weight file of architecture hsie-lptn."""
        weights = read_weights(path)
        model = HsieLptn(**weights.config)
        model.load_arrays(weights.arrays)
        return cls(model, device)

    def enter(self, low: Tensor, context: Tensor) -> Tensor:
        """Features [batch, rows, columns, channels] of half-resolution bands [batch, rows, columns, 1] and [..., K]."""
        parts = [self._spatial(low), *(conv(context) for conv in self._spectral)]
        return self._enter(torch.cat(parts, 3).relu_(), slope=0.0)

    def update(self, block: int, features: Tensor) -> Tensor:
        """What a block adds to its input before the channel attention weighs it; shaped as the input."""
        return self._dense[block](features)

    def attention(self, block: int, means: Tensor) -> Tensor:
        """Weights of the channels [batch, channels] from the update's means over the whole band."""
        return self._mix[block].of_means(means)

    def attend(self, features: Tensor, update: Tensor, attention: Tensor) -> Tensor:
        """A block's output, in the place of its input."""
        return features.addcmul_(update, attention[:, None, None])

    def taps(self, block: int, features: Tensor, total: Tensor | None = None) -> Tensor:
        """Add a block's output to the nine products [..., 9] whose shifted sum is the illumination branch's result."""
        flat = features.reshape(-1, self.channels)
        if total is None:
            return torch.addmm(self._tap_bias, flat, self._taps[block]).view(*features.shape[:3], 9)
        total.view(-1, 9).addmm_(flat, self._taps[block])
        return total

    def relit(self, taps: Tensor) -> Tensor:
        """What is added to the half-resolution band, [batch, rows, columns, 1]."""
        return _shifted_sum(taps).add_(self._relight_bias)

    def brighten(self, low: Tensor, context: Tensor) -> Tensor:
        """The whole illumination branch: half-resolution bands [batch, rows, columns, 1] and [..., K] -> bright."""
        features = self.enter(low, context)
        taps = None
        for block in range(self.blocks):
            update = self.update(block, features)
            features = self.attend(features, update, self.attention(block, update.mean((1, 2))))
            taps = self.taps(block, features, taps)
        assert taps is not None
        return low + self.relit(taps)

    def finish(self, detail: Tensor, low: Tensor, bright: Tensor) -> Tensor:
        """The second half: full-resolution mean detail and half-resolution bands, all [batch, rows, columns, 1]."""
        size = (detail.shape[1], detail.shape[2])
        shown = torch.cat([low, bright], 3).repeat_interleave(2, 1).repeat_interleave(2, 2)
        mask = self._mask_enter(torch.cat([detail, shown], 3), slope=0.01)
        for first, second in self._mask_blocks:
            mask = second(first(mask, slope=0.01), into=mask)
        weight = _shifted_sum((mask.view(-1, mask.shape[3]) @ self._mask_taps).view(*mask.shape[:3], 9))
        masked = weight.add_(self._mask_bias + 1).mul_(detail)
        enter, enter_bias, leave, leave_bias = self._curve
        curved = F.leaky_relu_(masked * enter + enter_bias) @ leave + leave_bias
        result = laplacian.up(bright.movedim(3, 1).contiguous(), size) + curved[:, None]
        if self._last is not None:
            result = result + F.conv2d(result, *self._last, padding=1)
        return result.movedim(1, 3)


class _Dense:
    """A dense block and its 1x1 convolution, as sums."""

    def __init__(self, block: DenseAttentionBlock) -> None:
        channels = block.reduce.weight.shape[0]
        convs: list[nn.Conv2d] = list(block.dense)  # type: ignore[arg-type]
        weights = [conv.weight for conv in convs]
        self.growth = weights[0].shape[0]
        # what the block's input, and then each new feature, adds to all the convolutions that see it
        together = torch.cat([weight[:, :channels] for weight in weights])
        self.enter = Convolution.of(together, torch.cat([_bias(conv) for conv in convs]))
        self.later = []
        for new in range(len(weights) - 1):
            start = channels + new * self.growth
            seen = [weight[:, start : start + self.growth] for weight in weights[new + 1 :]]
            self.later.append(Convolution.of(torch.cat(seen), None))
        reduce = block.reduce.weight[:, :, 0, 0].T
        self.own, self.new = reduce[:channels].contiguous(), reduce[channels:].contiguous()
        self.reduce_bias = _bias(block.reduce)

    def __call__(self, features: Tensor) -> Tensor:
        growth = self.growth
        stacked = self.enter(features)
        for new, conv in enumerate(self.later):
            ready = stacked[..., new * growth : (new + 1) * growth].relu_()
            stacked[..., (new + 1) * growth :] += conv(ready.contiguous())
        stacked[..., -growth:].relu_()
        flat = torch.addmm(self.reduce_bias, features.reshape(-1, features.shape[3]), self.own)
        return flat.addmm_(stacked.view(-1, stacked.shape[3]), self.new).view(features.shape)


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None
    return conv.bias.detach()


def _of(conv: Any) -> Convolution:
    return Convolution.of(conv.weight, conv.bias)


def _widest(layers: list[Any]) -> Convolution:
    """Convolutions of one input as one, the narrower kernels with zeros around."""
    widest = max(weight.shape[3] for weight, _ in layers)
    padded = [F.pad(weight, [(widest - weight.shape[3]) // 2] * 4) for weight, _ in layers]
    return Convolution.of(torch.cat(padded), torch.cat([bias for _, bias in layers]))


def _shifted_sum(taps: Tensor) -> Tensor:
    """A 3x3 convolution to one channel from the products [batch, rows, columns, 9] of its taps, zeros outside."""
    batch, rows, columns = taps.shape[:3]
    total = taps.new_zeros(batch, rows + 2, columns + 2)
    for tap in range(9):
        down, right = divmod(tap, 3)
        total[:, 2 - down : 2 - down + rows, 2 - right : 2 - right + columns] += taps[..., tap]
    return total[:, 1:-1, 1:-1, None].contiguous()
