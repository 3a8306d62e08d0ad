"""LLF-LUT++ put together: tables, predictor, pyramid and the remapping of every band."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from attnkit_kernels.image import laplacian, local_laplacian, lut3d
from torch import Tensor, nn

from attnkit.models.llf_lut.cost import count_flops
from attnkit.models.llf_lut.edges import canny, grey
from attnkit.models.llf_lut.heads import CoarseHead, FineHead, enlarge
from attnkit.models.llf_lut.predictor import Predictor
from attnkit.models.torch_model import TorchModel
from attnkit.models.verbs import wave_picture
from attnkit.runtime.errors import UsageError

TABLES = 3


@dataclass(frozen=True)
class Thumbnail:
    """What the predictor says: the low-pass of the picture, its weights, and its tone-mapped version.

    low, toned [1, 3, rows, columns]; weights [1, 9, rows, columns]; point [3].
    """

    low: Tensor
    weights: Tensor
    point: Tensor
    toned: Tensor


class LlfLutPlus(TorchModel):
    """The published tone mapper, for one picture in linear light 0..1.

    Source: LLF-LUT++ (TPAMI 2025, arXiv 2510.11613). ``depth`` is the number of bands: 3 for the 480p checkpoints and 6
    for the 4K ones; the thumbnail is smaller by 2^depth.
    """

    def __init__(
        self,
        depth: int = 3,
        table_size: int = 33,
        width: int = 32,
        stages: int = 4,
        coarse_width: int = 64,
        fine_width: int = 16,
        references: int = 10,
    ) -> None:
        super().__init__()
        if depth < 1:
            raise UsageError(f"llf-lut-pp: depth {depth}, expected 1 or more bands")
        self.config: dict[str, Any] = {
            "depth": depth,
            "table_size": table_size,
            "width": width,
            "stages": stages,
            "coarse_width": coarse_width,
            "fine_width": fine_width,
            "references": references,
        }
        self.depth = depth
        self.references = references
        self.predictor = Predictor(width, stages, tables=TABLES)
        self.coarse = CoarseHead(width=coarse_width)
        self.fine = nn.ModuleList(FineHead(width=fine_width) for _ in range(depth - 1))
        start = torch.zeros(TABLES, 3, table_size, table_size, table_size)
        start[0] = torch.from_numpy(lut3d.identity(table_size))
        self.tables = nn.Parameter(start)

    def forward(
        self, image: Tensor, *, point: Tensor | None = None, strength: float = 1.0, interpolation: str = "trilinear"
    ) -> Tensor:
        """Tone-map a picture: [1, 3, rows, columns] linear 0..1 -> the same, display-encoded and not clipped.

        ``point`` replaces the predicted weights of the tables; ``strength`` scales the remapping (0 leaves the bands).
        """
        thumbnail = self.look(image, interpolation)
        return self.finish(image, thumbnail, point=point, strength=strength, interpolation=interpolation)

    def look(self, image: Tensor, interpolation: str = "trilinear") -> Thumbnail:
        """The global decisions for a picture, made on its low-pass."""
        if image.ndim != 4 or image.shape[0] != 1 or image.shape[1] != 3:
            raise UsageError(f"llf-lut-pp: input of shape {tuple(image.shape)}, expected [1, 3, rows, columns]")
        low = image
        for _ in range(self.depth):
            low = laplacian.down(low)
        weights, point = self.predictor(low)
        looked_up = torch.cat([lut3d.lookup(low, table, interpolation) for table in self.tables], dim=1)
        toned = (weights * looked_up).unflatten(1, (TABLES, 3)).sum(1)
        return Thumbnail(low, weights, point, toned)

    def finish(
        self,
        image: Tensor,
        thumbnail: Thumbnail,
        *,
        point: Tensor | None = None,
        strength: float = 1.0,
        interpolation: str = "trilinear",
    ) -> Tensor:
        """Look the picture up in the fused table, remap its bands from coarse to fine, collapse on the thumbnail."""
        # three lookups mixed by one weight each are one lookup in the mixed table
        table = lut3d.fuse(self.tables, thumbnail.point if point is None else point)
        gaussians = laplacian.gaussian(lut3d.lookup(image, table, interpolation), self.depth)
        result = thumbnail.toned
        base = gaussians[-1]
        context = torch.cat([canny(grey(thumbnail.toned)), thumbnail.toned, base], dim=1)
        summed = thumbnail.toned
        for level in reversed(range(self.depth)):
            gaussian = gaussians.pop(level)
            size = (gaussian.shape[-2], gaussian.shape[-1])
            band = gaussian - laplacian.up(base, size)
            if level == self.depth - 1:
                curve = self.coarse(context, gaussian)
            else:
                curve = self.fine[self.depth - 2 - level](context, band)
            factor, sigma = curve.chunk(2, dim=1)
            remapped = local_laplacian.remap(
                gaussian, band, sigma, factor * strength, references=self.references, form="released"
            )
            result = laplacian.up(result, size) + remapped
            if level:
                summed = enlarge(summed, size) + remapped
                context = torch.cat([summed, remapped], dim=1)
            base = gaussian
        return result

    def regulariser(self, weights: Tensor) -> Tensor:
        """The published penalty: 1e-4 (mean squared map weight + roughness of the tables) + 10 x their decreases."""
        roughness = sum(lut3d.total_variation(table) for table in self.tables)
        decreases = sum(lut3d.monotonicity(table) for table in self.tables)
        return 1e-4 * (weights.square().mean() + roughness) + 10 * decreases

    def example(self, rows: int = 48, columns: int = 64) -> np.ndarray:
        return wave_picture(rows, columns).astype(np.float32)

    def run(self, inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Picture (rows, columns, 3) -> picture (rows, columns, 3) and point weights [3]."""
        planar = torch.from_numpy(np.ascontiguousarray(inputs.transpose(2, 0, 1)))[None]
        image = planar.to(self.tables.device, self.tables.dtype)
        with torch.inference_mode():
            thumbnail = self.look(image)
            picture = self.finish(image, thumbnail)
        return {
            "picture": picture[0].permute(1, 2, 0).cpu().numpy(),
            "point": thumbnail.point.cpu().numpy(),
        }

    def count_flops(self, rows: int, columns: int) -> int:
        return count_flops(self.config, rows, columns)
