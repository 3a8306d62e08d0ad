"""How much the vision tower of a model looks at each image token, for every family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attnkit.models.vlm.attention import Rule, Session
from attnkit.models.vlm.opening import VisionLanguageModel
from attnkit.models.vlm.prompt import Prompt, Tile
from attnkit.runtime.errors import ItemError


@dataclass(frozen=True)
class TokenScores:
    """Attention of the vision tower to the tokens of one picture or tile, [N] each.

    local       in the first layer: the class token's, summed over heads; what all patches get where there is none
    summary     the same in the last but one layer
    received    what all patches get in the first layer, as a multiple of an even share
    """

    local: Tensor
    summary: Tensor
    received: Tensor


class _Watch(Rule):
    def __init__(self, depth: int) -> None:
        self.first, self.late = 0, max(depth - 2, 0)
        self.vision_layers = frozenset({self.first, self.late})
        # first row of each call summed over heads, and what each column gets
        self.calls: dict[int, list[tuple[Tensor, Tensor]]] = {layer: [] for layer in self.vision_layers}

    def vision(self, layer: int, weights: Tensor) -> None:
        # windows differ in size: as multiples of an even share their columns can be compared
        self.calls[layer].append((weights[:, :, 0].sum(1), weights.mean((1, 2)) * weights.shape[-1]))


def token_scores(vlm: VisionLanguageModel, prompt: Prompt) -> list[TokenScores]:
    """Scores of each tile of each picture of a batch, in the order of the image tokens; one pass of the vision tower.

    A token that was made of several patches has their mean.
    """
    watch = _Watch(vlm.vision_depth)
    given = {name: tensor for name, tensor in prompt.pixels.items() if name != "mm_token_type_ids"}
    with Session(vlm.layers, prompt.length, [watch]), torch.inference_mode():
        vlm.model.model.get_image_features(**given)
    tiles = [tile for views in prompt.views for view in views for tile in view.tiles]
    split = _merged if vlm.family.model_type.startswith("qwen") else _squares
    first, late = (split(vlm, watch.calls[layer], tiles) for layer in (watch.first, watch.late))
    return [TokenScores(local, summary, received) for (local, received), (summary, _) in zip(first, late, strict=True)]


def _squares(
    vlm: VisionLanguageModel, calls: list[tuple[Tensor, Tensor]], tiles: list[Tile]
) -> list[tuple[Tensor, Tensor]]:
    """Towers that read every tile alike, maybe behind a class token; blocks of patches are one token."""
    rows, received = (torch.cat(part) for part in zip(*calls, strict=True))
    block = _block(vlm.model.config)
    patches = tiles[0].tokens * block**2
    classes = received.shape[1] - patches
    if len(received) != len(tiles) or classes not in (0, 1):
        raise ItemError(
            f"paint: the vision tower has maps of {len(received)} x {received.shape[1]} patches, expected "
            f"{len(tiles)} x {patches}, with or without a class token"
        )
    received = received[:, classes:]
    looked = rows[:, 1:] if classes else received
    return [
        (block_means(one, tile, block), block_means(other, tile, block))
        for one, other, tile in zip(looked, received, tiles, strict=True)
    ]


def _block(config: Any) -> int:
    """Patches along each side of a token."""
    if hasattr(config, "downsample_ratio"):
        return round(1 / config.downsample_ratio)
    return getattr(config, "scale_factor", 1)


def block_means(scores: Tensor, tile: Tile, block: int) -> Tensor:
    """Means of the block x block patches that became each token of a tile, from scores of its patches row by row."""
    return scores.view(tile.rows, block, tile.columns, block).mean((1, 3)).flatten()


def _merged(
    vlm: VisionLanguageModel, calls: list[tuple[Tensor, Tensor]], tiles: list[Tile]
) -> list[tuple[Tensor, Tensor]]:
    """Towers of Qwen: no class token, merge x merge patches in a row are one token, windows one after another."""
    config = vlm.model.config.vision_config
    received = torch.cat([part.flatten() for _, part in calls])
    tokens = received.view(-1, config.spatial_merge_size**2).mean(1)
    scores = list(tokens.split([tile.tokens for tile in tiles]))
    if hasattr(config, "window_size"):
        window = config.window_size // config.spatial_merge_size // config.patch_size
        scores = [unwindowed(score, tile, window) for score, tile in zip(scores, tiles, strict=True)]
    return [(score, score) for score in scores]


def unwindowed(scores: Tensor, tile: Tile, window: int) -> Tensor:
    """Scores in the order of the picture; they come window by window, row by row in each."""
    places = torch.arange(tile.tokens, device=scores.device).view(tile.rows, tile.columns)
    order = torch.cat(
        [
            places[row : row + window, column : column + window].flatten()
            for row in range(0, tile.rows, window)
            for column in range(0, tile.columns, window)
        ]
    )
    return torch.empty_like(scores).scatter(0, order, scores)
