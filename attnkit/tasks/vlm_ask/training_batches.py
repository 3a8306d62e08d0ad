"""Batches of generated scenes for a training: many questions about one picture packed into one row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .scenes.questions import KINDS, Question, ask, ask_where
from .scenes.render import patch_targets, render
from .scenes.scene import HELD_OUT, Scene, make_scene
from .training_references import NO_SIDES, NO_TARGET, TARGETS, UNKNOWN, References

# how often a kind is asked of each picture
TURNS = {"existence": 5.5, "colour": 1.5, "shape": 1.5, "count": 3, "position": 5.5, "description": 0.5}
# and these kinds and forms besides, which are learned late
MORE_TURNS = {"side": 2, "relation": 3, "side choice": 1, "relation choice": 2, "count": 1, "description": 1}
# rows that are a conversation; in the others every question stands by itself
CONVERSATIONS = 0.25
# a drawn picture is used in this many steps, so far apart
USES, BETWEEN = 4, 30
IGNORED = -100


@dataclass(frozen=True)
class Example:
    """A scene, its picture [side, side, 3] uint8, and what lies in its patches [patches, 3]."""

    scene: Scene
    pixels: NDArray[np.uint8]
    patches: NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Rows of packed questions.

    pixels     [batch, 3, side, side], normalised as the processor does
    patches    [batch, patches, 3], see `patch_targets`
    ids        [batch, length]; the image's placeholders are at `image_places` of every row
    positions  [batch, length], place of a token in the text that it sees
    mask       [batch, 1, length, length], True where a query (row) sees a key (column)
    wanted     [batch, length], the next token where it is part of an answer, else IGNORED
    weights    [batch, length], of these
    named      [batch, length, 5], what names in the questions mean, see `References.of`
    sides      [batch, length, 2], where what is named lies, see `References.sides`
    """

    pixels: Tensor
    patches: Tensor
    ids: Tensor
    positions: Tensor
    mask: Tensor
    wanted: Tensor
    weights: Tensor
    named: Tensor
    sides: Tensor
    image_places: slice

    def to(self, device: str) -> Batch:
        """The same on another device."""
        tensors: dict[str, Any] = {
            name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **tensors)


def make_example(index: int, side: int, grid: int, clutter: int | None = None) -> Example:
    """The scene of a seed, drawn with edges of a softness of its own."""
    scene = make_scene(index, clutter)
    picture = render(scene, side, float(np.random.default_rng((index, 3)).uniform(0.8, 1.8)))
    return Example(scene, picture.pixels, patch_targets(scene, picture.owners, grid))


def draw_questions(scene: Scene, draw: np.random.Generator) -> list[Question]:
    """Questions of all kinds about a scene, none twice, in any order."""
    found: dict[str, Question] = {}
    for kind, often in TURNS.items():
        for _ in range(int(often) + (draw.random() < often % 1)):
            question = ask(scene, kind, draw)
            if question is not None:
                found.setdefault(question.text, question)
    questions = list(found.values())
    return [questions[index] for index in draw.permutation(len(questions))]


def draw_more_questions(scene: Scene, draw: np.random.Generator) -> list[Question]:
    """Those of `draw_questions` and more of what is hard; sides and relations with yes and no, and as a choice."""
    found = {question.text: question for question in draw_questions(scene, draw)}
    for form, often in MORE_TURNS.items():
        for _ in range(often):
            question = ask(scene, form, draw) if form in KINDS else ask_where(scene, form, draw)
            if question is not None:
                found.setdefault(question.text, question)
    questions = list(found.values())
    return [questions[index] for index in draw.permutation(len(questions))]


class Packing:
    """Turns questions and answers into rows of `length` tokens, for a model of grid x grid image tokens."""

    def __init__(self, tokenizer: Any, grid: int, length: int) -> None:
        self.tokenizer = tokenizer
        self.length = length
        self.references = References(tokenizer, grid)
        head, tail = self._encode("USER: "), self._encode("\n")
        image_tokens = grid**2
        image = [tokenizer.image_token_id] * image_tokens
        self.opening = [tokenizer.bos_token_id, *head, *image, *tail]
        self.image_places = slice(1 + len(head), 1 + len(head) + image_tokens)

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def turn(self, question: Question, first: bool) -> tuple[list[int], list[int]]:
        """Tokens of a question (without the opening where it comes first) and of its answer."""
        asked = f"{'' if first else 'USER: '}{question.text} ASSISTANT:"
        return self._encode(asked), [*self._encode(f" {question.answer}"), self.tokenizer.eos_token_id]

    def pack(self, scenes: list[Scene], rows: list[list[Question]], conversations: list[bool]) -> dict[str, Any]:
        """Rows of tokens with their masks, see `Batch`; questions that find no room in a row are left out."""
        packed = [self._pack_row(*row) for row in zip(scenes, rows, conversations, strict=True)]
        length = self.length
        batch: dict[str, NDArray[Any]] = {
            name: np.full((len(rows), length), fill, kind)
            for name, fill, kind in (
                ("ids", self.tokenizer.pad_token_id, np.int64),
                ("positions", 0, np.int64),
                ("wanted", IGNORED, np.int64),
                ("weights", 0, np.float32),
                ("part", -1, np.int64),
            )
        }
        batch["named"] = np.full((len(rows), length, TARGETS), UNKNOWN)
        batch["sides"] = np.full((len(rows), length, len(NO_SIDES)), UNKNOWN)
        for index, one in enumerate(packed):
            for name, values in one.items():
                batch[name][index, : len(values)] = values
        part = torch.from_numpy(batch.pop("part"))
        # a token sees the opening (part 0) and earlier tokens of its own part
        seen = (part[:, None, :] == part[:, :, None]) | (part[:, None, :] == 0)
        mask = seen & torch.ones(length, length, dtype=torch.bool).tril()
        return {**{name: torch.from_numpy(values) for name, values in batch.items()}, "mask": mask[:, None]}

    def _pack_row(self, scene: Scene, questions: list[Question], conversation: bool) -> dict[str, NDArray[Any]]:
        opening = len(self.opening)
        ids, positions, part = list(self.opening), list(range(opening)), [0] * opening
        wanted, weights, named = [IGNORED] * opening, [0.0] * opening, [NO_TARGET] * opening
        sides = [NO_SIDES] * opening
        for index, question in enumerate(questions):
            asked, answer = self.turn(question, first=index == 0 or not conversation)
            start = len(ids) if conversation else opening
            count = len(asked) + len(answer)
            if len(ids) + count > self.length:
                continue
            ids += asked + answer
            positions += range(start, start + count)
            part += [0 if conversation else index + 1] * count
            named += [*self.references.of(asked, scene), *[NO_TARGET] * len(answer)]
            where = question.kind in ("position", "choice")
            sides += self.references.sides(asked, scene) if where else [NO_SIDES] * len(asked)
            sides += [NO_SIDES] * len(answer)
            # the token before an answer's first asks for it
            wanted += [IGNORED] * (len(asked) - 1) + answer + [IGNORED]
            # a long answer counts more than a short one, but less than its length
            weights += [0.0] * (len(asked) - 1) + [len(answer) ** -0.5] * len(answer) + [0.0]
        return {
            "ids": np.array(ids), "positions": np.array(positions), "part": np.array(part),
            "wanted": np.array(wanted), "weights": np.array(weights, np.float32),
            "named": np.array(named), "sides": np.array(sides),
        }  # fmt: skip


class SceneBatches:
    """The batch of every step, the same for the same seed.

    pictures  of a batch without questions, and of one with questions
    """

    def __init__(self, packing: Packing, *, seed: int, pictures: tuple[int, int], side: int, easy_steps: int) -> None:
        self.packing, self.seed, self.pictures = packing, seed, pictures
        self.side, self.easy_steps = side, easy_steps
        self.grid = packing.references.grid
        self.examples: Callable[[int, bool, int], list[Example]] = lru_cache(BETWEEN * USES + 2)(self._examples)

    def _examples(self, step: int, easy: bool, count: int) -> list[Example]:
        draw = np.random.default_rng((self.seed, 4, step))
        clutters = draw.integers(2 if easy else 4, size=count)
        indices = draw.integers(HELD_OUT, size=count)
        return [
            make_example(int(index), self.side, self.grid, int(clutter))
            for index, clutter in zip(indices, clutters, strict=True)
        ]

    def _is_easy(self, step: int, asking: int | None) -> bool:
        """At first the pictures are plain: what is not there cannot hide what is to be learned."""
        begun = 0 if asking is None or step < asking else asking
        return step - begun < self.easy_steps

    def make(self, step: int, asking: int | None) -> Batch:
        """The batch of a step; `asking` is the step since when there are questions.

        Without them pictures are mirrored now and then, and rows are empty.
        """
        draw = np.random.default_rng((self.seed, 5, step))
        count = self.pictures[asking is not None] // USES
        steps = [max(0, step - BETWEEN * use) for use in range(USES)]
        examples = [one for drawn in steps for one in self.examples(drawn, self._is_easy(drawn, asking), count)]
        pixels, patches = pixels_and_patches(examples)
        contrast, brightness = (
            torch.from_numpy(part).float() for part in draw.uniform(-1, 1, (2, len(pixels), 1, 1, 1))
        )
        pixels = (pixels * (1 + 0.15 * contrast) + 0.1 * brightness).clamp(-1, 1)
        if asking is not None:
            scenes = [one.scene for one in examples]
            rows = [draw_more_questions(scene, draw) for scene in scenes]
            packed = self.packing.pack(scenes, rows, (draw.random(len(rows)) < CONVERSATIONS).tolist())
        else:
            packed = self.packing.pack([], [], [])
            if draw.random() < 0.5:
                pixels = pixels.flip(3)
                patches = patches.unflatten(1, (self.grid, self.grid)).flip(2).flatten(1, 2)
        return Batch(pixels=pixels, patches=patches, image_places=self.packing.image_places, **packed)


def pixels_and_patches(examples: list[Example]) -> tuple[Tensor, Tensor]:
    """Pictures [batch, 3, side, side], normalised as the processor does, and their patches [batch, patches, 3]."""
    pixels = torch.from_numpy(np.stack([one.pixels for one in examples])).permute(0, 3, 1, 2).float() / 127.5 - 1
    return pixels, torch.from_numpy(np.stack([one.patches for one in examples]))


def corpus(seed: int, scenes: int) -> list[str]:
    """Texts as the model will see them, for a tokenizer to learn from."""
    texts = []
    for index in range(scenes):
        scene = make_scene(index)
        draw = np.random.default_rng((seed, 6, index))
        for kind in KINDS:
            question = ask(scene, kind, draw)
            if question is not None:
                texts.append(f"USER: \n{question.text} ASSISTANT: {question.answer}")
    return texts
