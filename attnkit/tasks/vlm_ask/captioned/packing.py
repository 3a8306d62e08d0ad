"""Rows of tokens in SmolLM2's form of a conversation."""

from __future__ import annotations

from typing import Any

from ..scenes.questions import Question
from ..training_batches import Packing


class ChatPacking(Packing):
    """As `Packing`, with the turns of the chat template of smol-llava."""

    def __init__(self, tokenizer: Any, image_tokens: int, length: int) -> None:
        self.tokenizer = tokenizer
        self.length = length
        head = self._encode("<|im_start|>user\n")
        self.opening = [*head, *[tokenizer.image_token_id] * image_tokens, *self._encode("\n")]
        self.image_places = slice(len(head), len(head) + image_tokens)

    def turn(self, question: Question, first: bool) -> tuple[list[int], list[int]]:
        again = "" if first else "\n<|im_start|>user\n"
        asked = self._encode(f"{again}{question.text}<|im_end|>\n<|im_start|>assistant\n")
        return asked, [*self._encode(question.answer), self.tokenizer.eos_token_id]
