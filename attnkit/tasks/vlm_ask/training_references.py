"""What the names in a question mean in its picture: a help for the training of vlm-ask's own model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .scenes.phrases import plural
from .scenes.questions import half_of, lies
from .scenes.scene import COLOURS, SHAPES, Scene, Thing

UNKNOWN = -100
# things of one name are told apart up to this number
MOST_COUNTED = 3
PLACE_WEIGHT = 4.0
TARGETS = 5
Target = tuple[int, int, int, int, int]
NO_TARGET: Target = (UNKNOWN,) * 5
# across (0 left, 1 right) and down (0 above, 1 below)
Sides = tuple[int, int]
NO_SIDES: Sides = (UNKNOWN,) * 2


class References:
    """Finds the names of things among the tokens of a question.

    grid    rows and columns that places are told in
    """

    def __init__(self, tokenizer: Any, grid: int) -> None:
        self.grid = grid
        self.shapes = {
            one: shape for shape in SHAPES for name in (shape, plural(shape)) for one in _one(tokenizer, name)
        }
        self.colours = {one: colour for colour in COLOURS for one in _one(tokenizer, colour)}

    def of(self, tokens: Sequence[int], scene: Scene) -> list[Target]:
        """For each token: how many things its name means, and shape, colour, row and column where it is just one.

        A name is a shape with or without a colour before it, or a colour that no shape follows; its last token has the
        targets, all others have NO_TARGET.
        """
        targets = [NO_TARGET] * len(tokens)
        for index, meant in self._names(tokens, scene):
            targets[index] = self._target(meant)
        return targets

    def sides(self, tokens: Sequence[int], scene: Scene) -> list[Sides]:
        """For the last token, and that of a second name: on which sides the first thing lies, of the second if any.

        Of the picture where just one thing is named; unknown where it is too near to tell, or a name is not of one.
        """
        targets = [NO_SIDES] * len(tokens)
        names = self._names(tokens, scene)
        things = [meant[0] for _, meant in names if len(meant) == 1]
        if len(things) != len(names) or len(things) not in (1, 2):
            return targets
        if len(things) == 1:
            found = [half_of(things[0], side) for side in ("right", "bottom")]
        else:
            found = [lies(things[0], relation, things[1]) for relation in ("right of", "below")]
        across, down = (UNKNOWN if one is None else int(one) for one in found)
        for index in (names[-1][0], len(tokens) - 1)[2 - len(things) :]:
            targets[index] = (across, down)
        return targets

    def _names(self, tokens: Sequence[int], scene: Scene) -> list[tuple[int, list[Thing]]]:
        """Place of the last token of each name, and what it means."""
        names = []
        for index, token in enumerate(tokens):
            before = self.colours.get(tokens[index - 1]) if index else None
            after = tokens[index + 1] if index + 1 < len(tokens) else None
            shape, colour = self.shapes.get(token), self.colours.get(token)
            if shape is not None:
                colour = before
            elif colour is None or after in self.shapes:
                continue
            meant = [one for one in scene.things if shape in (None, one.shape) and colour in (None, one.colour)]
            names.append((index, meant))
        return names

    def _target(self, meant: Sequence[Thing]) -> Target:
        count = min(len(meant), MOST_COUNTED)
        if len(meant) != 1:
            return (count, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN)
        (thing,) = meant
        place = int(thing.row * self.grid), int(thing.column * self.grid)
        return (count, SHAPES.index(thing.shape), COLOURS.index(thing.colour), *place)


def _one(tokenizer: Any, name: str) -> list[int]:
    """The token of a word in a sentence, where it is a single one."""
    tokens = tokenizer(f" {name}", add_special_tokens=False).input_ids
    return tokens if len(tokens) == 1 else []


def known_cross_entropy(parts: Sequence[Tensor], targets: Tensor) -> Tensor:
    """Sum over parts [M, classes] of the mean cross-entropy where the target, [M, parts], is not UNKNOWN."""
    total = torch.zeros((), device=targets.device)
    for part, wanted in zip(parts, targets.unbind(-1), strict=True):
        known = wanted != UNKNOWN
        summed = functional.cross_entropy(part[known], wanted[known], reduction="sum")
        total = total + summed / known.sum().clamp(min=1)
    return total


class ReferenceHeads(nn.Module):
    """What a name means, read from the states of the language model half way up: a help, not written.

    An answer needs the name looked up first and the finding passed on; without the help neither is of use before the
    other, and both are found late.
    """

    def __init__(self, hidden: int, grid: int) -> None:
        super().__init__()
        self.sizes = (MOST_COUNTED + 1, len(SHAPES), len(COLOURS), grid, grid)
        self.grid = grid
        self.norm = nn.LayerNorm(hidden)
        self.read = nn.Linear(hidden, sum(self.sizes) + 2)

    def loss(self, states: Tensor, targets: Tensor) -> Tensor:
        """Sum of the mean cross-entropies; states [B, L, hidden], targets [B, L, 5] as `References.of` gives them.

        Row and column are read as numbers too: what lies left of what is told by a difference.
        """
        named = targets[..., 0] != UNKNOWN
        *parts, place = self.read(self.norm(states[named])).float().split((*self.sizes, 2), -1)
        total = known_cross_entropy(parts, targets[named])
        single = targets[named][:, 3:] != UNKNOWN
        true = (targets[named][:, 3:] + 0.5) * (2 / self.grid) - 1
        return total + PLACE_WEIGHT * ((place - true)[single] ** 2).sum() / single.sum().clamp(min=1)


class SideHeads(nn.Module):
    """On which sides a thing lies, read from states of the language model near its top: a help, not written.

    An answer with yes or no needs the sides and what was asked at once; neither alone changes the loss.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.read = nn.Linear(hidden, 2)

    def loss(self, states: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy; states [B, L, hidden], targets [B, L, 2] as `References.sides` gives them."""
        known = targets != UNKNOWN
        told = known.any(-1)
        read = self.read(self.norm(states[told])).float()[known[told]]
        wanted = targets[told][known[told]].float()
        return functional.binary_cross_entropy_with_logits(read, wanted, reduction="sum") / known.sum().clamp(min=1)
