"""The small default of hsi-enhance: the HSIE network on the eigen-images of a cube instead of its bands.

A cube whose bands are whitened by their noise lives in few dimensions. Its eigen-images take the place of the bands:
the window holds the strongest other eigen-images, where edges are clearest, and a first estimate of each (wavelet
shrinkage) is given. What is kept of HSIE ("Low-Light Hyperspectral Image Enhancement", arXiv 2208.03042): one level of
the Laplacian pyramid, dense blocks with channel attention at half resolution, a small network whose mask says how much
of the detail stays, and a correction of both. Here the network corrects the estimate, so that without training the
estimate is what comes out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isqrt
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from attnkit_kernels.image import laplacian
from torch import Tensor, nn
from torch.nn import functional as F

from attnkit.models.hsie.cost import count_subspace_flops
from attnkit.models.hsie.model import DenseAttentionBlock, ResidualPair, same_conv
from attnkit.models.hsie.tiled import Box
from attnkit.models.torch_model import TorchModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

# of an eigen-image, in units of its noise: weaker ones are not divided by less
LEAST_DEVIATION = 1.0
# bytes that a pixel takes while one eigen-image is corrected (measured: 570 to 640, and 330 for each further one); and
# pixels of a cube beyond which its eigen-images are corrected one after the other
PIXEL_BYTES = 650
GROUP_PIXELS = 1 << 16
LEAST_SIDE = 8
# rows and columns around a tile that its result depends on, a multiple of 4 so that both pyramids keep their phase:
# pyramids 16, dense blocks 2 (1 + blocks convs + 1), mask network 2 + 2 residual_blocks
PYRAMID_REACH = 16


class HsieSubspace(TorchModel):
    """Corrects first estimates of eigen-images, each with the strongest others as context.

    neighbours                eigen-images of context, K
    features                  channels at half resolution
    growth, convs, blocks     of the dense channel attention blocks
    width, residual_blocks    of the mask network
    handed                    channels that the half resolution hands to the mask network
    """

    dtypes = ("float32", "float64")

    def __init__(
        self,
        neighbours: int = 8,
        features: int = 24,
        growth: int = 8,
        blocks: int = 2,
        convs: int = 3,
        width: int = 16,
        residual_blocks: int = 2,
        handed: int = 8,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "neighbours": neighbours,
            "features": features,
            "growth": growth,
            "blocks": blocks,
            "convs": convs,
            "width": width,
            "residual_blocks": residual_blocks,
            "handed": handed,
        }
        self.neighbours = neighbours
        self.enter = same_conv(4 + 2 * neighbours, features, 3)
        self.blocks = nn.ModuleList(DenseAttentionBlock(features, growth, convs) for _ in range(blocks))
        self.fuse = same_conv(features * blocks, features, 1)
        self.relight = same_conv(features, 1, 3)
        self.hand = same_conv(features, handed, 1)
        self.mask_enter = same_conv(4 + neighbours + handed, width, 3)
        self.mask_blocks = nn.ModuleList(ResidualPair(width) for _ in range(residual_blocks))
        self.mask_leave = same_conv(width, 2, 3)
        for layer in (self.relight, self.mask_leave):
            nn.init.normal_(layer.weight, std=1e-3)
        for pair in self.mask_blocks:
            with torch.no_grad():
                pair.second.weight.mul_(0.1)  # type: ignore[union-attr, operator]

    @property
    def reach(self) -> int:
        """Rows and columns around a tile that its result depends on, a multiple of 4."""
        low = 2 + self.config["blocks"] * self.config["convs"]
        needed = PYRAMID_REACH + 2 * low + 2 + 2 * self.config["residual_blocks"]
        return -(-needed // 4) * 4

    def forward(self, noisy: Tensor, estimate: Tensor) -> Tensor:
        """Better estimates of a whole cube, of the same shape.

        noisy       eigen-images [rank, rows, columns] with noise of variance 1, strongest first
        estimate    a first estimate of them
        """
        view = View(noisy, estimate, deviations_of(estimate), self.neighbours)
        return self.corrected(view, range(len(noisy)), None)

    def corrected(self, view: View, chosen: Sequence[int], attention: Sequence[Tensor] | None) -> Tensor:
        """Better estimates [chosen, rows, columns]; `attention` as `pooled` tells, None for the view's own means."""
        low, detail = view.rest(chosen)
        correction, features = self.relit(view, chosen, attention)
        size = view.size
        shown = F.interpolate(torch.cat([self.hand(features), correction, low], 1), scale_factor=2.0, mode="nearest")
        mask = torch.cat([detail, view.details(chosen), shown[:, :, : size[0], : size[1]]], 1)
        mask = F.leaky_relu(self.mask_enter(mask.contiguous(memory_format=torch.channels_last)))
        for block in self.mask_blocks:
            mask = block(mask)
        share, more = self.mask_leave(mask).split(1, 1)
        return view.estimate[list(chosen)] + (laplacian.up(correction, size) + detail * share + more)[:, 0]

    def relit(
        self, view: View, chosen: Sequence[int], attention: Sequence[Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """The correction [chosen, 1, ...] and the features of the half resolution."""
        features = self._entered(view, chosen)
        outputs = []
        for number, block in enumerate(self.blocks):
            known = () if attention is None else (attention[number],)
            features = block.attended(features, *known)  # type: ignore[operator]
            outputs.append(features)
        fused = self.fuse(torch.cat(outputs, 1))
        return self.relight(fused), fused

    def pooled(self, view: View, chosen: Sequence[int], attention: Sequence[Tensor], kept: Box) -> Tensor:
        """Sums [chosen, features] over a box of the half resolution of what the next block's attention looks at.

        attention   of the blocks before it, each [chosen, features]
        """
        features = self._entered(view, chosen)
        for block, weights in zip(self.blocks, attention, strict=False):
            features = block.attended(features, weights)  # type: ignore[operator]
        update = self.blocks[len(attention)].update(features)  # type: ignore[operator]
        return update[(slice(None), slice(None), *kept.slices)].double().sum((2, 3))

    def _entered(self, view: View, chosen: Sequence[int]) -> Tensor:
        inputs = torch.cat([view.rest(chosen)[0], view.lows(chosen)], 1)
        return F.relu(self.enter(inputs.contiguous(memory_format=torch.channels_last)))

    def example(self, rows: int = 48, columns: int = 64) -> np.ndarray:
        """Three eigen-images of waves with a ripple as noise, and smooth estimates: (rows, columns, 6)."""
        y, x, number = np.mgrid[0:rows, 0:columns, 0:3]
        estimate = 20.0 / (1 + number) ** 2 * np.sin(0.3 * x + 0.2 * y * number)
        return np.concatenate([estimate + np.sin(2.1 * x * y + number), estimate], axis=2).astype(np.float32)

    def run(self, inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Noisy eigen-images and first estimates side by side (rows, columns, 2 x rank) -> better ones."""
        planes = torch.from_numpy(np.ascontiguousarray(inputs.transpose(2, 0, 1)))
        planes = planes.to(self.relight.weight.device, self.relight.weight.dtype)
        noisy, estimate = planes.chunk(2)
        with torch.inference_mode():
            result = self(noisy, estimate)
        return {"planes": result.permute(1, 2, 0).cpu().numpy()}

    def count_flops(self, rows: int, columns: int) -> int:
        return count_subspace_flops(self.config, rows, columns)


class View:
    """The pyramid of some eigen-images and their context in one tile, computed once.

    noisy, estimate    [rank, rows, columns]; of the noisy ones only those asked for are looked at
    deviations         [rank] of the estimates over the whole cube
    """

    def __init__(self, noisy: Tensor, estimate: Tensor, deviations: Tensor, neighbours: int) -> None:
        self.size = (estimate.shape[1], estimate.shape[2])
        self.estimate = estimate
        self._rest = (noisy - estimate)[:, None]
        self._deviations = deviations
        windows = context_windows(len(estimate), neighbours)
        self._shown = torch.tensor([[own, *window] for own, window in enumerate(windows)], device=estimate.device)
        plane = estimate[:, None]
        low = laplacian.down(plane)
        fine = low - laplacian.up(laplacian.down(low), (low.shape[2], low.shape[3]))
        self._levels = (low / deviations[:, None, None, None])[:, 0]
        self._fine = torch.asinh(fine)[:, 0]
        self._details = torch.asinh(plane - laplacian.up(low, self.size))[:, 0]

    def rest(self, chosen: Sequence[int]) -> tuple[Tensor, Tensor]:
        """What the estimate leaves of the noisy eigen-images: at half resolution, and its detail."""
        rest = self._rest[list(chosen)]
        low = laplacian.down(rest)
        return low, rest - laplacian.up(low, self.size)

    def lows(self, chosen: Sequence[int]) -> Tensor:
        """At half resolution: own and context at unit deviation, their detail, and how strong the own one is."""
        shown = self._shown[list(chosen)]
        levels, fine = self._levels[shown], self._fine[shown]
        strength = torch.log(self._deviations[list(chosen)])[:, None, None, None]
        return torch.cat([levels, fine, strength.expand(-1, 1, *levels.shape[2:])], 1)

    def details(self, chosen: Sequence[int]) -> Tensor:
        """Own and context detail of the estimates."""
        return self._details[self._shown[list(chosen)]]


def context_windows(rank: int, neighbours: int) -> list[list[int]]:
    """For each eigen-image the strongest others; too few come again, and one that is alone is its own context."""
    windows = []
    for number in range(rank):
        others = [other for other in range(rank) if other != number][:neighbours] or [number]
        windows.append([others[at % len(others)] for at in range(neighbours)])
    return windows


def deviations_of(estimate: Tensor) -> Tensor:
    """Standard deviations [..., rank] of eigen-images [..., rank, rows, columns], at least LEAST_DEVIATION."""
    return estimate.double().std((-2, -1), correction=0).clamp(min=LEAST_DEVIATION).to(estimate.dtype)


def correct(
    network: HsieSubspace, noisy: NDArray[np.float32], estimate: NDArray[np.float32], memory: int
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """(first, better estimates [some, rows, columns]) of the eigen-images of a whole cube, a few at a time.

    noisy, estimate    [rank, rows, columns], in memory or mapped; they must not change before the end, but for the
                       noisy ones that have been handed back
    memory             bytes of activations; the result does not depend on it beyond float rounding
    """
    rank, rows, columns = noisy.shape
    tiles = list(tiles_of(rows, columns, network.reach, memory))
    group = max(1, min(rank, GROUP_PIXELS // (rows * columns), memory // (PIXEL_BYTES * rows * columns)))
    deviations = np.maximum(
        [float(np.std(plane, dtype=np.float64)) for plane in estimate], LEAST_DEVIATION
    )
    runner = _Tiles(network, noisy, estimate, deviations)
    with torch.inference_mode():
        for first in range(0, rank, group):
            chosen = range(first, min(first + group, rank))
            attention = runner.attention(chosen, tiles) if len(tiles) > 1 else None
            result = np.empty((len(chosen), rows, columns), np.float32)
            for tile in tiles:
                result[(slice(None), *tile.slices)] = runner.tile(chosen, tile, attention)
            yield first, result


def tiles_of(rows: int, columns: int, reach: int, memory: int) -> Iterator[Box]:
    """All at once, or tiles that `memory` holds with what lies around them: whole rows or squares, as loses less.

    They begin at multiples of 4.
    """
    pixels = memory // PIXEL_BYTES
    height = (pixels // columns - 2 * reach) // 4 * 4
    side = max(LEAST_SIDE, (isqrt(pixels) - 2 * reach) // 4 * 4)
    down, across = (side, side) if height * columns < side * side else (height, columns)
    if rows * columns <= pixels:
        down, across = rows, columns
    for top in range(0, rows, down):
        for left in range(0, columns, across):
            yield Box(top, min(top + down, rows), left, min(left + across, columns))


class _Tiles:
    """Parts of the eigen-images with what lies around them, as the network wants them."""

    def __init__(
        self, network: HsieSubspace, noisy: NDArray[Any], estimate: NDArray[Any], deviations: NDArray[Any]
    ) -> None:
        self.network = network
        weight = network.relight.weight
        self._device, self._dtype = weight.device, weight.dtype
        self._noisy, self._estimate = noisy, estimate
        self._deviations = torch.tensor(deviations, device=self._device, dtype=self._dtype)
        self._size = noisy.shape[1:]

    def _view(self, chosen: range, tile: Box) -> tuple[View, list[int], Box]:
        """A tile and what lies around it, the numbers of the chosen eigen-images in the view, the place of the view."""
        outer = tile.grown(self.network.reach, *self._size)
        # the chosen ones and all that can be their context
        numbers = sorted({*range(min(self.network.neighbours + 1, len(self._noisy))), *chosen})
        noisy = np.zeros((len(numbers), outer.bottom - outer.top, outer.right - outer.left), np.float32)
        for at, number in enumerate(numbers):
            if number in chosen:
                noisy[at] = self._noisy[(number, *outer.slices)]
        view = View(
            self._tensor(noisy),
            self._tensor(np.stack([self._estimate[(number, *outer.slices)] for number in numbers])),
            self._deviations[numbers],
            self.network.neighbours,
        )
        return view, [numbers.index(number) for number in chosen], outer

    def _tensor(self, planes: NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(planes).to(self._device, self._dtype)

    def attention(self, chosen: range, tiles: Sequence[Box]) -> list[Tensor]:
        """The attention of every block, from means that are added up tile by tile, once over the cube a block."""
        attention: list[Tensor] = []
        half_rows, half_columns = ((length + 1) // 2 for length in self._size)
        for block in self.network.blocks:
            total = None
            for tile in tiles:
                view, places, outer = self._view(chosen, tile)
                box = Box(*((length + 1) // 2 for part in tile.within(outer) for length in (part.start, part.stop)))
                found = self.network.pooled(view, places, attention, box)
                total = found if total is None else total + found
            assert total is not None
            means = (total / (half_rows * half_columns)).to(self._dtype)
            attention.append(block.attention.of_means(means))  # type: ignore[union-attr, operator]
        return attention

    def tile(self, chosen: range, tile: Box, attention: Sequence[Tensor] | None) -> NDArray[np.float32]:
        view, places, outer = self._view(chosen, tile)
        result = self.network.corrected(view, places, attention)
        return result[(slice(None), *tile.within(outer))].float().cpu().numpy()
