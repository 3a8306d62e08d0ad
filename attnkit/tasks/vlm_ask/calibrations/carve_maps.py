"""The arithmetic of CARVE: two attention maps to a part of a picture, and the measures of its analysis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

    from attnkit.models.vlm.prompt import Tile

Numbers = NDArray[np.floating[Any]]
Steps = Literal["first", "last", "all"]
HUES = 180
# scores that differ by less than this share of the largest are alike: lambda and float32 move them so far
FLAT = 1e-4
# pixels on either side of a peak are alike but for rounding: this share of the range below the threshold counts too
TIE = 1e-9
# maps of larger pictures are made this large, and what is kept is enlarged: tokens are far larger than pixels
LARGEST_MAP = 2**22
# a long thin part, enlarged until both sides are as long as the picture's, would have any number of pixels
LARGEST_GROWTH = 4.0
# of Canny's edges
EDGE_LIMITS = (100, 200)


def contrast(question: Numbers, neutral: Numbers, smoothing: float) -> NDArray[np.float64]:
    """Attention under the question over attention under the neutral instruction, element by element.

    Notes
    -----
    CARVE ("Focusing by Contrastive Attention", arXiv 2509.06461): the a that minimises
    sum_i (a_i G_i - Q_i)^2 + lambda a_i^2 G_i is Q / (G + lambda).
    """
    return question.astype(np.float64) / (neutral.astype(np.float64) + smoothing)


def fuse(maps: Numbers, steps: Steps) -> NDArray[np.float64]:
    """Maps [T, L, ...] of T steps and L layers as one: the sum of layers, and later steps weigh more if all count."""
    layers = maps.astype(np.float64).sum(1)
    if steps == "first":
        return layers[0]
    if steps == "last":
        return layers[-1]
    return np.tensordot(np.arange(1, len(layers) + 1), layers, 1)


def on_picture(scores: Numbers, tiles: Sequence[Tile], width: int, height: int) -> NDArray[np.float64]:
    """Scores of the tokens of some tiles as a map of a picture, [height, width]; NaN where no tile has seen it.

    Each tile's rows x columns are resized to its box, bilinear.
    """
    import torch

    found = np.full((height, width), np.nan)
    taken = 0
    for tile in tiles:
        grid = scores[taken : taken + tile.tokens].reshape(1, 1, tile.rows, tile.columns).astype(np.float64)
        taken += tile.tokens
        left, top, right, bottom = (round(side) for side in tile.box)
        left, top = min(max(left, 0), width - 1), min(max(top, 0), height - 1)
        size = max(min(bottom, height) - top, 1), max(min(right, width) - left, 1)
        large = torch.nn.functional.interpolate(torch.from_numpy(grid), size, mode="bilinear", align_corners=False)
        found[top : top + size[0], left : left + size[1]] = large[0, 0].numpy()
    return found


@dataclass(frozen=True)
class Part:
    """What of a picture is kept.

    mask       [height, width] bool
    box        its bounds x0, y0, x1, y1 in pixels, the last ones left out
    regions    number of its regions
    """

    mask: NDArray[np.bool_]
    box: tuple[int, int, int, int]
    regions: int

    @property
    def share(self) -> float:
        """Share of the pixels that are kept."""
        return float(self.mask.mean())


def strongest_part(scores: Numbers, keep: float, regions: int) -> Part | None:
    """The strongest regions of a map [height, width], NaN where nothing is known; None where it is flat.

    keep       share of the known pixels above the threshold
    regions    most regions that are kept, of those that hang together side by side, by the sum of their scores
    """
    from scipy.ndimage import label
    from scipy.ndimage import sum as sums_of

    known = scores[np.isfinite(scores)]
    if known.size == 0 or known.max() - known.min() <= FLAT * abs(known.max()):
        return None
    least = np.percentile(known, 100 * (1 - keep)) - TIE * (known.max() - known.min())
    above = np.nan_to_num(scores, nan=-np.inf) >= least
    labels, count = label(above)
    weights = sums_of(np.nan_to_num(scores), labels, np.arange(1, count + 1))
    best = np.argsort(-np.asarray(weights), kind="stable")[:regions] + 1
    mask = np.isin(labels, best)
    return Part(mask, bounds(mask), len(best))


def part_of_picture(
    scores: Numbers,
    tiles: Sequence[Tile],
    width: int,
    height: int,
    *,
    keep: float,
    regions: int,
    largest: int = LARGEST_MAP,
) -> Part | None:
    """The strongest regions of a picture from the scores of its tokens; None where all attracts alike.

    largest    pixels of the map that is made; of larger pictures the edges of regions are coarser
    """
    shrink = max(1.0, (width * height / largest) ** 0.5)
    if shrink == 1:
        return strongest_part(on_picture(scores, tiles, width, height), keep, regions)
    small_width, small_height = max(1, round(width / shrink)), max(1, round(height / shrink))
    across, down = small_width / width, small_height / height
    small = [
        replace(tile, box=(tile.box[0] * across, tile.box[1] * down, tile.box[2] * across, tile.box[3] * down))
        for tile in tiles
    ]
    part = strongest_part(on_picture(scores, small, small_width, small_height), keep, regions)
    if part is None:
        return None
    rows = np.minimum(np.arange(height) * small_height // height, small_height - 1)
    columns = np.minimum(np.arange(width) * small_width // width, small_width - 1)
    mask = part.mask[rows[:, None], columns]
    return Part(mask, bounds(mask), part.regions)


def bounds(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """The smallest box around a mask as x0, y0, x1, y1, the last ones left out."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def blackened(picture: Image, part: Part) -> Image:
    """A picture with black pixels outside a part."""
    from PIL import Image

    return Image.fromarray(np.asarray(picture.convert("RGB")) * part.mask[..., None].astype(np.uint8))


def refined(picture: Image, part: Part) -> Image:
    """The box of a part, black around its regions, enlarged until it covers the picture's size, aspect kept."""
    from PIL.Image import Resampling

    crop = blackened(picture, part).crop(part.box)
    scale = max(picture.width / crop.width, picture.height / crop.height)
    most = (LARGEST_GROWTH * picture.width * picture.height / (crop.width * crop.height)) ** 0.5
    scale = min(scale, most)
    size = max(1, round(crop.width * scale)), max(1, round(crop.height * scale))
    return crop.resize(size, Resampling.LANCZOS)


def attention_entropy(attention: Numbers) -> float:
    """Entropy of attention to image tokens [..., N], natural logarithm, mean over the other axes.

    Each map is divided by its sum first: the paper's values of 5.1 to 6.8 are out of reach of maps that sum to the
    small share of attention that goes to a picture.
    """
    share = attention.astype(np.float64)
    total = share.sum(-1, keepdims=True)
    share = np.divide(share, total, out=np.zeros_like(share), where=total > 0)
    logs = np.log(share, out=np.zeros_like(share), where=share > 0)
    return float(-(share * logs).sum(-1).mean())


def texture_complexity(picture: Image) -> float:
    """Share of a picture's pixels that are edges of Canny's detector."""
    import cv2

    grey = np.asarray(picture.convert("L"))
    return float((cv2.Canny(grey, *EDGE_LIMITS) > 0).mean())


def colour_complexity(picture: Image) -> float:
    """Entropy of a picture's hues, of OpenCV's 180, over that of even ones: 0 for one hue, 1 for all alike."""
    import cv2

    hue = cv2.cvtColor(np.ascontiguousarray(np.asarray(picture.convert("RGB"))), cv2.COLOR_RGB2HSV)[..., 0]
    share = np.bincount(hue.ravel(), minlength=HUES) / hue.size
    share = share[share > 0]
    return float(abs((share * np.log(share)).sum()) / np.log(HUES))
