"""The window transformer of LLF-LUT++: from the thumbnail to weights of the three tables, per picture and per pixel.

U-shaped: four encoder stages with spatial and spectral window attention, four decoder stages that attend to the
encoder's feature of their size. Below a block, parameter names are those of the published checkpoints.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

HEADS = (2, 4, 8, 16)


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Zeros at the lower and right border up to a multiple: [batch, channels, rows, columns]."""
    rows, columns = image.shape[-2:]
    return functional.pad(image, (0, -columns % multiple, 0, -rows % multiple))


def to_windows(tokens: Tensor, window: int) -> Tensor:
    """[batch, rows, columns, channels] -> [batch x windows, window x window, channels], zeros up to whole windows."""
    tokens = functional.pad(tokens, (0, 0, 0, -tokens.shape[2] % window, 0, -tokens.shape[1] % window))
    batch, rows, columns, channels = tokens.shape
    split = tokens.view(batch, rows // window, window, columns // window, window, channels)
    return split.permute(0, 1, 3, 2, 4, 5).reshape(-1, window * window, channels)


def from_windows(windows: Tensor, window: int, rows: int, columns: int) -> Tensor:
    """Undo `to_windows`, for the size before the zeros were added."""
    channels = windows.shape[-1]
    high, wide = -(-rows // window), -(-columns // window)
    split = windows.view(-1, high, wide, window, window, channels).permute(0, 1, 3, 2, 4, 5)
    return split.reshape(-1, high * window, wide * window, channels)[:, :rows, :columns]


def relative_index(window: int) -> Tensor:
    """Row of the bias table for each pair of tokens in a window: [window^2, window^2], as Swin counts them."""
    place = torch.arange(window)
    rows, columns = torch.meshgrid(place, place, indexing="ij")
    rows, columns = rows.flatten(), columns.flatten()
    down = rows[:, None] - rows[None, :] + window - 1
    across = columns[:, None] - columns[None, :] + window - 1
    return down * (2 * window - 1) + across


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
    """Softmax attention inside windows: [windows, heads, tokens, dim] -> [windows, tokens, heads x dim]."""
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    if bias is not None:
        scores = scores + bias
    mixed = scores.softmax(-1) @ value
    return mixed.transpose(1, 2).flatten(2)


class WindowBias(nn.Module):
    """Base of the attentions: a learned bias per head for each offset between two tokens of a window."""

    relative_position_index: Tensor

    def __init__(self, heads: int, window: int) -> None:
        super().__init__()
        self.points = heads
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("relative_position_index", relative_index(window), persistent=False)

    def bias(self) -> Tensor:
        """[heads, tokens, tokens]"""
        return self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)

    def split(self, projected: Tensor, parts: int) -> tuple[Tensor, ...]:
        """[windows, tokens, parts x channels] -> parts of [windows, heads, tokens, dim]."""
        windows, tokens, _ = projected.shape
        return projected.view(windows, tokens, parts, self.points, -1).permute(2, 0, 3, 1, 4).unbind(0)


class SpatialSpectralAttention(WindowBias):
    """Self attention on a window's tokens plus self attention on their spectrum, with one shared projection."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__(heads, window)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """[windows, tokens, channels] -> the same."""
        query, key, value = self.split(self.qkv(tokens), 3)
        spatial = attend(query, key, value, self.bias())
        spectrum = torch.fft.rfft(tokens, dim=1, norm="ortho")
        bins = spectrum.shape[1]
        stacked = torch.cat([spectrum.real, spectrum.imag], dim=1)
        query, key, value = self.split(self.qkv(stacked), 3)
        mixed = attend(query, key, value)
        spectral = torch.fft.irfft(
            torch.complex(mixed[:, :bins], mixed[:, bins:]), n=tokens.shape[1], dim=1, norm="ortho"
        )
        return self.proj(spatial + spectral)


class CrossAttention(WindowBias):
    """Window attention of one feature on another of the same size, or on itself."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__(heads, window)
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor, source: Tensor) -> Tensor:
        """[windows, tokens, channels] twice -> the same."""
        (query,) = self.split(self.q(tokens), 1)
        key, value = self.split(self.kv(source), 2)
        return self.proj(attend(query, key, value, self.bias()))


class Mlp(nn.Module):
    """Two linear layers with GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(tokens)))


class StochasticDepth(nn.Module):
    """Leaves a residual branch out with a probability that grows with depth; in training only."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return branch
        keep = torch.rand(branch.shape[0], *[1] * (branch.ndim - 1), dtype=branch.dtype, device=branch.device)
        return branch * (keep >= self.rate) / (1 - self.rate)


class EncoderBlock(nn.Module):
    """Pre-norm window self attention, spatial and spectral, then an MLP; on [batch, rows, columns, channels]."""

    def __init__(self, width: int, heads: int, window: int, drop: float) -> None:
        super().__init__()
        self.window = window
        self.norm1 = nn.LayerNorm(width)
        self.attn = SpatialSpectralAttention(width, heads, window)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, 2 * width)
        self.drop = StochasticDepth(drop)

    def forward(self, feature: Tensor) -> Tensor:
        rows, columns = feature.shape[1:3]
        windows = to_windows(self.norm1(feature), self.window)
        feature = feature + self.drop(from_windows(self.attn(windows), self.window, rows, columns))
        return feature + self.drop(self.mlp(self.norm2(feature)))


class DecoderBlock(nn.Module):
    """Window self attention, window attention to the encoder's feature of the same size, then an MLP."""

    def __init__(self, width: int, heads: int, window: int, drop: float) -> None:
        super().__init__()
        self.window = window
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = CrossAttention(width, heads, window)
        self.norm2 = nn.LayerNorm(width)
        self.norm_kv = nn.LayerNorm(width)
        self.attn2 = CrossAttention(width, heads, window)
        self.norm3 = nn.LayerNorm(width)
        self.mlp = Mlp(width, 2 * width)
        self.drop = StochasticDepth(drop)

    def forward(self, feature: Tensor, encoded: Tensor) -> Tensor:
        rows, columns = feature.shape[1:3]
        own = to_windows(self.norm1(feature), self.window)
        feature = feature + self.drop(from_windows(self.attn1(own, own), self.window, rows, columns))
        own = to_windows(self.norm2(feature), self.window)
        other = to_windows(self.norm_kv(encoded), self.window)
        feature = feature + self.drop(from_windows(self.attn2(own, other), self.window, rows, columns))
        return feature + self.drop(self.mlp(self.norm3(feature)))


def _channels_last(block: nn.Module, *features: Tensor) -> Tensor:
    """Run a block of [batch, rows, columns, channels] on planar features."""
    return block(*(feature.permute(0, 2, 3, 1) for feature in features)).permute(0, 3, 1, 2)


class Predictor(nn.Module):
    """Weights of the tables for a thumbnail.

    Works on one picture at a time, as published: the point head flattens over the batch.
    """

    def __init__(self, width: int = 32, stages: int = 4, window: int = 4, tables: int = 3, drop: float = 0.1) -> None:
        super().__init__()
        heads = HEADS[:stages]
        rates = [drop * stage / max(stages - 1, 1) for stage in range(stages)]
        # features are cropped or padded to this many rows and columns for the point head
        self.point_side = 8
        self.enter = nn.Conv2d(3, width, 3, padding=1)
        self.encoder = nn.ModuleList(
            EncoderBlock(width, count, window, rate) for count, rate in zip(heads, rates, strict=True)
        )
        self.shrink = nn.ModuleList(nn.Conv2d(width, width, 4, stride=2, padding=1) for _ in range(stages - 1))
        self.decoder = nn.ModuleList(
            DecoderBlock(width, count, window, rate)
            for count, rate in zip(reversed(heads), reversed(rates), strict=True)
        )
        self.grow = nn.ModuleList(nn.ConvTranspose2d(width, width, 2, stride=2) for _ in range(stages - 1))
        self.point = nn.Linear(width * self.point_side**2, tables)
        self.widen = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.leave = nn.Conv2d(2 * width, 3 * tables, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, thumbnail: Tensor) -> tuple[Tensor, Tensor]:
        """Thumbnail [1, 3, rows, columns] -> weight map [1, 3 x tables, rows, columns] and point weights [tables]."""
        rows, columns = thumbnail.shape[-2:]
        entered = functional.leaky_relu(self.enter(thumbnail), 0.01)
        feature = pad_to_multiple(entered, 2 ** len(self.shrink))
        encoded: list[Tensor] = []
        for stage, block in enumerate(self.encoder):
            feature = _channels_last(block, feature)
            encoded.append(feature)
            if stage < len(self.shrink):
                feature = self.shrink[stage](feature)
        for stage, block in enumerate(self.decoder):
            feature = _channels_last(block, feature, encoded[-1 - stage])
            if stage < len(self.grow):
                feature = self.grow[stage](feature)
        weights = self.leave(self.widen(feature[..., :rows, :columns]))
        side = self.point_side
        deepest = encoded[-1]
        # a negative pad crops: wide thumbnails lose their right and lower part here, as published
        fitted = functional.pad(deepest, (0, side - deepest.shape[-1], 0, side - deepest.shape[-2]))
        return weights, self.point(fitted.flatten())
