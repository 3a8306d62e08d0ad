"""What an image token should say: the name of what covers its patch, and where the patch lies, as words say it.

The language model has never seen a picture, but it knows words; a projector that begins with words begins with
something that it can read. The first layer begins as random ones of standardised features, and both layers are then
trained to tell names and places apart, by the cosine to their word embeddings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ..scenes.questions import PLACES
from .material import GRID, Material

NOTHING = "background"
TEMPERATURE = 0.05
# of the loss that draws tokens to the sum of both embeddings, which fixes their length
DISTANCE = 0.5
# patches on which nothing lies, for each on which something does
BACKGROUND = 0.5
PATCHES = 1024
SAMPLE = 256
REPORT_STEPS = 250


@dataclass(frozen=True)
class Grounding:
    """Words for patches, and which of them each patch of a material is.

    index   place of each name among the names
    names   [names, hidden] mean word embeddings without the mean of all words; the first is for nothing
    places  [9, hidden] so for the ninths of a picture
    centre  [hidden] the mean of all words
    labels  [pictures, patches] index of the name; -1 in pictures without names
    """

    index: dict[str, int]
    names: Tensor
    places: Tensor
    centre: Tensor
    labels: NDArray[np.int64]

    @classmethod
    def of(cls, material: Material, tokenizer: Any, words: Tensor) -> Grounding:
        """words are the language model's embeddings [vocabulary, hidden]."""
        names = sorted({name for row in material.names for name in row if name})
        index = {name: place + 1 for place, name in enumerate(names)}
        labels = np.array([[index.get(name, 0) for name in row] for row in material.names])
        labels[~labels.any(1)] = -1
        centre = words.mean(0)
        named = word_embeddings([NOTHING, *names], tokenizer, words) - centre
        placed = word_embeddings([place for row in PLACES for place in row], tokenizer, words) - centre
        return cls(index, named, placed, centre, labels)

    def loss(self, tokens: Tensor, labels: Tensor, places: Tensor) -> Tensor:
        """Of image tokens [M, hidden] with the index of their name and place, [M] each."""
        own = tokens - self.centre
        direction = functional.normalize(own, dim=-1)
        aim = self.names[labels] + self.places[places]
        # as sums, since a batch may hold nothing that is named
        total = DISTANCE * (own - aim).square().sum() / aim.square().sum(-1).mean() if len(aim) else own.sum()
        for known, wanted in ((self.names, labels), (self.places, places)):
            alike = direction @ functional.normalize(known, dim=-1).T
            total = total + functional.cross_entropy(alike / TEMPERATURE, wanted, reduction="sum")
        return total / max(len(tokens), 1)

    def right(self, trained: Any, material: Material) -> dict[str, float]:
        """Share of named patches whose token has the right name nearest, by source; of names that are known."""
        device, hits = self.centre.device, dict[str, list[bool]]()
        for index, (source, names) in enumerate(zip(material.sources, material.names, strict=True)):
            labels = torch.tensor([self.index.get(name, 0) for name in names], device=device)
            features = torch.from_numpy(material.features[index].astype(np.float32)).to(device)
            with torch.inference_mode():
                own = functional.normalize(trained(features) - self.centre, dim=-1)
                near = (own @ functional.normalize(self.names, dim=-1).T).argmax(-1)
            hits.setdefault(source, []).extend((near == labels)[labels > 0].tolist())
        return {source: round(float(np.mean(found)), 3) for source, found in sorted(hits.items()) if found}


def word_embeddings(names: list[str], tokenizer: Any, words: Tensor) -> Tensor:
    """Mean word embedding [names, hidden] of each name as it stands within a sentence."""
    return torch.stack([words[tokenizer(f" {name}", add_special_tokens=False).input_ids].mean(0) for name in names])


def patch_places() -> NDArray[np.int64]:
    """Which ninth of the picture each patch lies in, [GRID * GRID]."""
    third = ((np.arange(GRID) + 0.5) / GRID * 3).astype(np.int64)
    return (third[:, None] * 3 + third).reshape(-1)


def begin(first: nn.Linear, features: NDArray[np.float16]) -> None:
    """Make a layer's units random ones of unit variance, neither flat nor straight where gelu bends."""
    sample = features.astype(np.float32)
    mean, spread = (torch.from_numpy(value) for value in (sample.mean((0, 1)), sample.std((0, 1)) + 1e-3))
    with torch.no_grad():
        weight = torch.randn(first.weight.shape) * first.in_features**-0.5 / spread
        first.weight.copy_(weight)
        first.bias.copy_(0.5 * torch.randn(first.bias.shape) - weight @ mean)


def ground(
    trained: Any,
    material: Material,
    grounding: Grounding,
    steps: int,
    rate: float,
    seed: int,
    say: Callable[[str], None],
) -> None:
    """Train the projector alone, from a new first layer, to say what the patches of the material hold."""
    draw = np.random.default_rng((seed, 23))
    labels = grounding.labels
    pictures = np.flatnonzero(labels[:, 0] >= 0)
    begin(
        trained.linear_1, material.features[np.sort(draw.choice(pictures, min(len(pictures), SAMPLE), replace=False))]
    )
    there = np.argwhere(labels > 0)
    empty = np.argwhere(labels == 0)
    places = patch_places()
    device = grounding.centre.device
    optimiser = torch.optim.AdamW(trained.projector, lr=rate, betas=(0.9, 0.98), weight_decay=0.05)
    share = int(PATCHES / (1 + BACKGROUND))
    totals = []
    for step in range(steps):
        chosen = np.concatenate([
            there[draw.integers(len(there), size=share)], empty[draw.integers(len(empty), size=PATCHES - share)]
        ])  # fmt: skip
        picture, patch = chosen[np.argsort(chosen[:, 0])].T
        features = torch.from_numpy(material.features[picture, patch].astype(np.float32))
        wanted, place = (torch.from_numpy(value).to(device) for value in (labels[picture, patch], places[patch]))
        for group in optimiser.param_groups:
            group["lr"] = rate * (1 - step / steps)
        loss = grounding.loss(trained(features.to(device)), wanted, place)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        totals.append(loss.item())
        if (step + 1) % REPORT_STEPS == 0:
            say(f"grounding: step {step + 1} of {steps}  loss {np.mean(totals):.4f}")
            totals.clear()
