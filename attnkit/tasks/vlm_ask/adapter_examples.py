"""Questions with their answers as an adapter is trained on them: read from files, and put into batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from attnkit.models.vlm.processing import conversation
from attnkit.models.vlm.prompt import Prompt
from attnkit.runtime.errors import ItemError, PictureError, UsageError
from attnkit.runtime.items import sha256_of

from .pictures import read_rgb
from .record_files import Row, first, read_records
from .task import on_device, stop_ids

if TYPE_CHECKING:
    from attnkit.models.vlm.opening import VisionLanguageModel

IGNORED = -100
# prompts with their pixels are kept for the next epoch up to this size
KEPT_BYTES = 500_000_000


@dataclass(frozen=True)
class Example:
    """A question about one picture, and its answer."""

    picture: Path
    question: str
    answer: str


@dataclass
class Examples:
    """What a folder holds to train on.

    training, held_out   share no picture; those of the last pictures are held out
    problems             one line for each line of the files that is no example
    files                names and SHA-256 of the files of questions
    """

    training: list[Example]
    held_out: list[Example]
    problems: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)


def read_examples(data: Path, held_out: float) -> Examples:
    """The examples of a JSONL file, or of all JSONL files of a folder.

    A line has `image` (beside the file, or in `images` beside it), `question` or `text`, and `answer` or `label`.
    `held_out` is the share of the pictures that validates: the last ones, in the order of the files. Every picture is
    opened once, so that a training does not end at a damaged one. Raises UsageError where a side has no example.
    """
    paths = [data] if data.is_file() else sorted(data.glob("*.jsonl")) if data.is_dir() else []
    if not paths:
        raise UsageError(f"--data: no JSONL file at {data}, expected one with image, question and answer a line")
    found: list[Example] = []
    problems: list[str] = []
    damaged: dict[Path, str | None] = {}
    for path in paths:
        try:
            records = read_records(path, str(path))
        except ItemError as error:
            raise UsageError(f"--data: {error}") from error
        problems += [f"{path}, {text}" for text in records.broken]
        for place, row in records.rows:
            example = _example(path.parent, row)
            if isinstance(example, Example):
                if example.picture not in damaged:
                    damaged[example.picture] = _damage(example.picture)
                example = damaged[example.picture] or example
            if isinstance(example, str):
                problems.append(f"{path}, {place}: {example}")
            else:
                found.append(example)
    pictures = list(dict.fromkeys(example.picture for example in found))
    first_kept = len(pictures) - max(1, round(held_out * len(pictures)))
    kept = set(pictures[first_kept:])
    if first_kept < 1:
        more = f"; {problems[0]}" if problems else ""
        raise UsageError(f"--data: {len(pictures)} pictures with a question in {data}, expected 2 or more{more}")
    return Examples(
        [example for example in found if example.picture not in kept],
        [example for example in found if example.picture in kept],
        problems,
        {path.name: sha256_of(path) for path in paths},
    )


def _example(folder: Path, row: Row) -> Example | str:
    """The example of a record, or what is wrong with it."""
    image, question, answer = first(row, "image"), first(row, "question", "text"), first(row, "answer", "label")
    if not isinstance(image, str) or not image:
        return f"image is {image!r}, expected a file name"
    if not isinstance(question, str) or not question.strip():
        return f"question is {question!r}, expected a text at 'question' or 'text'"
    answer = str(answer) if isinstance(answer, int | float) and not isinstance(answer, bool) else answer
    if not isinstance(answer, str) or not answer.strip():
        return f"answer is {answer!r}, expected a text at 'answer' or 'label'"
    picture = next((path for path in (folder / image, folder / "images" / image) if path.is_file()), None)
    if picture is None:
        return f"{folder / image}: no such picture"
    return Example(picture, question.strip(), answer.strip())


def _damage(picture: Path) -> str | None:
    """What is wrong with a picture; None where it can be read."""
    try:
        read_rgb(picture, str(picture))
    except PictureError as error:
        return str(error)
    return None


@dataclass(frozen=True)
class Batch:
    """Prompts that go on with their answers, padded on the left.

    labels    [B, N], the token itself where it belongs to an answer, else IGNORED
    tail      length of the longest answer
    """

    prompt: Prompt
    labels: Tensor
    tail: int


class Batches:
    """Makes batches of examples for a model; what it has made it keeps, up to 500 MB."""

    def __init__(self, vlm: VisionLanguageModel, examples: Sequence[Example], max_pixels: int | None) -> None:
        self._vlm = vlm
        self._examples = examples
        self._max_pixels = max_pixels
        self._ends = set(stop_ids(vlm))
        self._kept: dict[int, tuple[Prompt, int]] = {}
        self._room = KEPT_BYTES

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, indices: Sequence[int]) -> Batch:
        made = [self._prompt(index) for index in indices]
        # a copy: a batch of one is the kept prompt itself
        prompt = on_device(self._vlm, replace(self._vlm.processor.batch([one for one, _ in made])))
        tails = torch.tensor([tail for _, tail in made], device=prompt.input_ids.device)
        answered = torch.arange(prompt.length, device=tails.device) >= prompt.length - tails[:, None]
        return Batch(prompt, prompt.input_ids.masked_fill(~answered, IGNORED), max(tail for _, tail in made))

    def _prompt(self, index: int) -> tuple[Prompt, int]:
        """Example `index` as a prompt of batch 1 that ends with its answer, and the answer's length in tokens."""
        if index in self._kept:
            return self._kept[index]
        example = self._examples[index]
        try:
            picture, _ = read_rgb(example.picture, str(example.picture))
            made = self._answered(example, picture)
        except PictureError:
            raise
        except ItemError as error:
            raise ItemError(f"{example.picture}: {error}") from error
        size = sum(tensor.nbytes for tensor in made[0].pixels.values())
        if size <= self._room:
            self._room -= size
            self._kept[index] = made
        return made

    def _answered(self, example: Example, picture: object) -> tuple[Prompt, int]:
        processor = self._vlm.processor
        messages = conversation(example.question, 1)
        prompt = processor.prompt(messages, [picture], max_pixels=self._max_pixels)  # type: ignore[list-item]
        answer = self._answer(example)
        ids = processor.tokenizer(answer, return_tensors="pt", add_special_tokens=False)["input_ids"]
        if int(ids[0, -1]) not in self._ends:
            ids = torch.cat([ids, torch.full((1, 1), processor.tokenizer.eos_token_id)], 1)
        tail = ids.shape[1]
        pixels = {
            name: functional.pad(tensor, (0, tail)) if name == "mm_token_type_ids" else tensor
            for name, tensor in prompt.pixels.items()
        }
        mask = torch.ones(1, prompt.length + tail, dtype=prompt.attention_mask.dtype)
        return Prompt(
            [prompt.texts[0] + answer],
            torch.cat([prompt.input_ids, ids], 1),
            mask,
            functional.pad(prompt.image_mask, (0, tail)),
            pixels,
            prompt.views,
        ), tail

    def _answer(self, example: Example) -> str:
        """What follows a prompt, as the model's own template writes it, to the mark that ends a turn."""
        processor = self._vlm.processor
        messages = conversation(example.question, 1)
        spoken = {"role": "assistant", "content": [{"type": "text", "text": example.answer}]}
        asked, whole = (
            processor.tokenizer.apply_chat_template(
                said, chat_template=processor.template, tokenize=False, add_generation_prompt=prompting
            )
            for said, prompting in (([*map(dict, messages)], True), ([*map(dict, messages), spoken], False))
        )
        if whole.startswith(asked):
            return whole[len(asked) :].rstrip("\n")
        # a template that writes finished turns in another way than the one it asks for
        return f" {example.answer}"
