"""Rows of tokens in SmolLM2's form of a conversation: many questions about one picture, each by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor

from ..scenes.questions import Question
from .references import NO_TARGET, Target

IGNORED = -100


class ChatPacking:
    """Turns questions and answers into rows of `length` tokens that share the picture at their beginning."""

    def __init__(self, tokenizer: Any, image_tokens: int, length: int) -> None:
        self.tokenizer = tokenizer
        self.length = length
        head = self._encode("<|im_start|>user\n")
        self.opening = [*head, *[tokenizer.image_token_id] * image_tokens, *self._encode("\n")]
        self.image_places = slice(len(head), len(head) + image_tokens)

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def turn(self, question: Question) -> tuple[list[int], list[int]]:
        """Tokens of a question behind the opening, and of its answer with the end of the turn."""
        asked = self._encode(f"{question.text}<|im_end|>\n<|im_start|>assistant\n")
        return asked, [*self._encode(question.answer), self.tokenizer.eos_token_id]

    def fitted(self, rows: Sequence[Sequence[Question]]) -> ChatPacking:
        """The same with rows of just the length that holds all questions of the longest of some."""
        longest = max(sum(len(part) for question in row for part in self.turn(question)) for row in rows)
        made = copy(self)
        made.length = len(self.opening) + longest
        return made

    def pack(
        self,
        rows: Sequence[Sequence[Question]],
        named: Callable[[int, str], Sequence[tuple[int, Target]]] = lambda row, text: (),
    ) -> dict[str, Tensor]:
        """One row per picture; questions that find no room are left out.

        `named` gives, for a row and the text of a question, places in it and what is named there, see `References`.

        ids        [B, length]
        positions  [B, length], place of a token in the text that it sees
        mask       [B, 1, length, length], True where a query (row) sees a key (column)
        wanted     [B, length], the next token where it is part of an answer, else IGNORED
        weights    [B, length], of these
        named      [B, length, 3], what is named
        """
        shape = (len(rows), self.length)
        ids = torch.full(shape, self.tokenizer.pad_token_id)
        positions, part = torch.zeros(shape, dtype=torch.long), torch.full(shape, -1)
        wanted, weights = torch.full(shape, IGNORED), torch.zeros(shape)
        targets = torch.tensor(NO_TARGET).repeat(*shape, 1)
        opening = len(self.opening)
        for row, questions in enumerate(rows):
            ids[row, :opening] = torch.tensor(self.opening)
            positions[row, :opening] = torch.arange(opening)
            part[row, :opening] = 0
            end = opening
            for index, question in enumerate(questions):
                asked, answer = self.turn(question)
                begin, count = end, len(asked) + len(answer)
                if begin + count > self.length:
                    continue
                end = begin + count
                ids[row, begin:end] = torch.tensor(asked + answer)
                positions[row, begin:end] = torch.arange(opening, opening + count)
                part[row, begin:end] = index + 1
                # the token before an answer's first asks for it
                wanted[row, begin + len(asked) - 1 : end - 1] = torch.tensor(answer)
                for place, target in named(row, question.text):
                    targets[row, begin + place] = torch.tensor(target)
                # a long answer counts more than a short one, but less than its length
                weights[row, begin + len(asked) - 1 : end - 1] = len(answer) ** -0.5
        # a token sees the opening (part 0) and earlier tokens of its own question
        seen = (part[:, None, :] == part[:, :, None]) | (part[:, None, :] == 0)
        mask = seen & torch.ones(self.length, self.length, dtype=torch.bool).tril()
        return {
            "ids": ids, "positions": positions, "mask": mask[:, None], "wanted": wanted, "weights": weights,
            "named": targets,
        }  # fmt: skip
