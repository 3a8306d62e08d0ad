"""Where the things that a question names lie in its picture: a help for the training, not written.

As in the training of the embedded model: an answer needs the name looked up in the picture first and the finding
passed on; without help neither is of use before the other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ..scenes.scene import COLOURS, SHAPES
from ..training_references import UNKNOWN, known_cross_entropy
from .cutouts import GROUPS, plural
from .material import GRID

# things of one name are told apart up to this number
MOST_COUNTED = 5
# what questions about several or unnamed things call them
ANYTHING = ("objects", "things", "shapes")
# a verb that is the plural of a name as well, and words that mean a group
NO_NAMES = ("does", *GROUPS.values())
# at the last token of a name: how many there are; row and column of its middle where it is in one place
Target = tuple[int, int, int]
NO_TARGET: Target = (UNKNOWN,) * 3
# largest distance of patches of one thing from their middle, of the picture's side
ONE_PLACE = 0.3


class References:
    """Finds names in questions; names are those of all patches of a material."""

    def __init__(self, names: Sequence[str], tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        # a colour stands for all that has it, the empty name for everything
        self.single = dict.fromkeys(ANYTHING, "")
        for colour in COLOURS:
            forms = (*ANYTHING, *(plain.removesuffix("s") for plain in ANYTHING))
            self.single |= {f"{colour} {form}": colour for form in forms} | {f"anything {colour}": colour}
        self.single |= {form: name for name in sorted({*names, *SHAPES}) for form in (plural(name), name)}
        for word in NO_NAMES:
            self.single.pop(word, None)
        longest = sorted(self.single, key=lambda form: (-len(form), form))
        self.pattern = re.compile(rf"\b({'|'.join(map(re.escape, longest))})\b")
        self.found: dict[str, list[tuple[int, str]]] = {}

    def in_text(self, text: str) -> list[tuple[int, str]]:
        """Place of the last token and the name, for each name in a question."""
        if text not in self.found:
            lower = text[0].lower() + text[1:]
            self.found[text] = [
                (
                    len(self.tokenizer(text[: match.end()], add_special_tokens=False).input_ids) - 1,
                    self.single[match[1]],
                )
                for match in self.pattern.finditer(lower)
            ]
        return self.found[text]

    def of(self, text: str, patches: Sequence[str], counts: Mapping[str, int]) -> list[tuple[int, Target]]:
        """Place and target of each name in a question about a picture, see `Drawn`."""
        targets: list[tuple[int, Target]] = []
        for place, name in self.in_text(text) if counts else ():
            words = set(name.split())
            own = [divmod(index, GRID) for index, held in enumerate(patches) if held and words <= set(held.split())]
            row, column = UNKNOWN, UNKNOWN
            if own:
                middle = [sum(values) / len(own) for values in zip(*own, strict=True)]
                off = max(abs(value - centre) for one in own for value, centre in zip(one, middle, strict=True))
                if off <= ONE_PLACE * GRID:
                    row, column = (round(value) for value in middle)
            count = sum(number for held, number in counts.items() if words <= set(held.split()))
            targets.append((place, (min(count, MOST_COUNTED), row, column)))
        return targets


class ReferenceHeads(nn.Module):
    """Reads number, row and column from states [M, hidden] of the language model."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.sizes = (MOST_COUNTED + 1, GRID, GRID)
        self.norm = nn.LayerNorm(hidden)
        self.read = nn.Linear(hidden, sum(self.sizes))

    def loss(self, states: Tensor, targets: Tensor) -> Tensor:
        """Sum of the mean cross-entropies; targets [M, 3]."""
        return known_cross_entropy(self.read(self.norm(states.float())).split(self.sizes, -1), targets)
