"""What the tonemap task works with: LLF-LUT++ on pictures of any brightness."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from attnkit.models.weights import read_weights

if TYPE_CHECKING:
    from torch import Tensor

    from attnkit.models.llf_lut.model import LlfLutPlus

# the published weights take linear light in 0..1, as raw photographs have it
ANCHOR_PERCENTILE = 99.5
ANCHOR_SAMPLES = 1 << 20


def exposure_gain(pixels: np.ndarray) -> float:
    """What linear light (rows, columns, 3) is multiplied with, to end in the 0..1 that the weights were trained on.

    1 where no value is above 1: the picture is in that domain already. Else the ``ANCHOR_PERCENTILE`` of the largest
    channel of the pixels becomes 1, and what is brighter is clipped. Large pictures are sampled on a regular grid.
    """
    stride = max(1, int((pixels.shape[0] * pixels.shape[1] / ANCHOR_SAMPLES) ** 0.5))
    if float(pixels.max(initial=0.0)) <= 1.0:
        return 1.0
    peaks = pixels[::stride, ::stride].max(-1)
    anchor = float(np.percentile(peaks, ANCHOR_PERCENTILE))
    # a few lights in the dark: the percentile says nothing, the brightest value does
    return 1.0 / anchor if anchor > 0 else 1.0 / float(pixels.max())


class PublishedToneMapper:
    """The published tone mapper behind the verbs parameters, render and cube; float32 pictures in and out."""

    def __init__(self, model: LlfLutPlus, device: str = "cpu") -> None:
        from attnkit.models.torch_model import torch_device

        self.device = torch_device(device)
        self.model = model.to(self.device).eval()
        self.config = {**model.config, "domain": "linear 0..1", "anchor_percentile": ANCHOR_PERCENTILE}

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: str = "cpu") -> PublishedToneMapper:
        """Open a weight file that ``attnkit models import --as llf-lut-pp`` made."""
        from attnkit.models.llf_lut.model import LlfLutPlus

        weights = read_weights(path)
        model = LlfLutPlus(**weights.config)
        model.load_arrays(weights.arrays)
        return cls(model, device)

    def parameters(self, pixels: np.ndarray) -> dict[str, Any]:
        """What holds for the whole picture: linear light (rows, columns, 3) -> numbers and small arrays.

        ``gain`` is the exposure anchor; ``point`` [3] weighs the tables before the pyramid; ``tone`` [tables, channels]
        is the mix of the tables that comes nearest to the tone-mapped thumbnail, for `cube`.
        """
        import torch

        gain = exposure_gain(pixels)
        with torch.inference_mode():
            thumbnail = self.model.look(self._planar(pixels, gain))
            tone = self._tone(thumbnail.low, thumbnail.toned)
        return {"gain": gain, "point": thumbnail.point.cpu().numpy(), "tone": tone}

    def render(
        self,
        pixels: np.ndarray,
        parameters: Mapping[str, Any] | None = None,
        strength: float = 1.0,
        interpolation: str = "trilinear",
    ) -> np.ndarray:
        """Linear light (rows, columns, 3) -> sRGB-encoded 0..1, float32, the same size.

        ``parameters`` are those of `parameters`, perhaps of other pixels or smoothed; ``strength`` scales the remapping
        of the bands; ``interpolation`` is trilinear (as published) or tetrahedral.
        """
        import torch

        gain = exposure_gain(pixels) if parameters is None else float(parameters["gain"])
        with torch.inference_mode():
            image = self._planar(pixels, gain)
            point = None
            if parameters is not None:
                point = torch.as_tensor(np.asarray(parameters["point"]), dtype=image.dtype, device=image.device)
            output = self.model(image, point=point, strength=strength, interpolation=interpolation)
            # values leave 0..1 inside the network on purpose; they are clipped here and nowhere else
            return output[0].permute(1, 2, 0).clamp_(0, 1).cpu().numpy()

    def cube(self, parameters: Mapping[str, Any]) -> np.ndarray:
        """The picture's global rendering as one table [3, N, N, N], index [channel, blue, green, red].

        Input: linear light times ``parameters["gain"]``, 0..1. Output: sRGB-encoded, not clipped.
        """
        tables = self.model.tables.detach().cpu().numpy()
        return np.einsum("kc,kcbgr->cbgr", np.asarray(parameters["tone"], dtype=tables.dtype), tables)

    def _planar(self, pixels: np.ndarray, gain: float) -> Tensor:
        import torch

        image = torch.from_numpy(np.asarray(pixels, dtype=np.float32)).permute(2, 0, 1)[None]
        return (image.to(self.device) * gain).clamp_(0, 1).contiguous()

    def _tone(self, low: Tensor, toned: Tensor) -> np.ndarray:
        """Least squares per channel: which weights of the tables give the tone-mapped thumbnail."""
        from attnkit_kernels.image import lut3d

        looked_up = [lut3d.lookup(low, table)[0].flatten(1).double().cpu().numpy() for table in self.model.tables]
        wanted = toned[0].flatten(1).double().cpu().numpy()
        columns = [
            np.linalg.lstsq(np.stack([values[channel] for values in looked_up], axis=1), wanted[channel], rcond=1e-6)[0]
            for channel in range(3)
        ]
        return np.stack(columns, axis=1).astype(np.float32)
