"""Pictures and questions of easy-VQA: one coloured shape on a light ground (package easy-vqa, MIT)."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attnkit.runtime.errors import UsageError

from ..scenes.questions import Question

SHAPES = ("circle", "rectangle", "triangle")
# questions of one picture that a row takes
MOST = 6


@dataclass(frozen=True)
class Asked:
    """A picture and all that is asked about it."""

    path: Path
    questions: tuple[Question, ...]

    def pixels(self, side: int) -> NDArray[np.uint8]:
        """The picture [side, side, 3] uint8."""
        from PIL import Image

        with Image.open(self.path) as opened:
            picture = opened.convert("RGB")
        return np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC))

    @property
    def name(self) -> str:
        """Its colour and shape where its questions tell both, else ""."""
        said = {question.kind: question.answer for question in self.questions}
        return f"{said['colour']} {said['shape']}" if {"colour", "shape"} <= set(said) else ""

    def some(self, draw: np.random.Generator) -> list[Question]:
        """At most `MOST` of the questions, in any order."""
        return [self.questions[index] for index in draw.permutation(len(self.questions))[:MOST]]


def kind_of(answer: str) -> str:
    """existence for yes and no, shape or colour for the others."""
    if answer in ("yes", "no"):
        return "existence"
    return "shape" if answer in SHAPES else "colour"


def read_easy_vqa(data: Path, part: str) -> list[Asked]:
    """The pictures of a part, train or test, of the package's folder `data`, anywhere below the given one."""
    found = sorted(data.glob(f"**/{part}/questions.json"))
    found += sorted(data.glob(f"easy_vqa/{part}/questions.json"))
    if not found:
        raise UsageError(f"--data {data}: no easy-VQA, expected easy_vqa/{part}/questions.json")
    questions = defaultdict(list)
    for text, answer, picture in json.loads(found[0].read_text(encoding="utf-8")):
        # answers as the other sources give them
        said = answer.capitalize() if answer in ("yes", "no") else answer
        questions[picture].append(Question(kind_of(answer), "easy-vqa", f"{text[0].upper()}{text[1:]}", said))
    folder = found[0].parent / "images"
    return [Asked(folder / f"{picture}.png", tuple(questions[picture])) for picture in sorted(questions)]
