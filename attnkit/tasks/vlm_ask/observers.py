"""Observers of an answer: what the attention rows that made its tokens looked at."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING

import torch
from torch import Tensor

from attnkit.models.vlm.attention import Call, Rule
from attnkit.models.vlm.sinks import SinkProfile, sink_scores

if TYPE_CHECKING:
    from .calibrations.base import Asked


class Observer(Rule):
    """A rule that looks on and changes nothing; it comes after the calibrations."""

    def begin(self, asked: Asked) -> None:
        """The batch as it is asked, just before the model reads it."""


class AnswerRows(Observer):
    """Hands over the row of each map that made a new token: the prompt's last position, then each token but the last.

    For one question without beams: rows of others would have to be told apart.
    """

    layers: frozenset[int]

    def __init__(self, layers: frozenset[int]) -> None:
        self.layers = layers

    def rows(self, layer: int, start: int, stop: int, prompt: int) -> tuple[int, int] | None:
        return (max(start, prompt - 1), stop) if stop >= prompt else None

    def weights(self, call: Call, weights: Tensor) -> Tensor | None:
        step = call.start + call.rows - call.prompt
        if step >= 0:
            self.take(call.layer, step, weights[0, :, -1, : call.prompt])
        return None

    @abstractmethod
    def take(self, layer: int, step: int, row: Tensor) -> None:
        """Row of all heads over the prompt, [H, N], that made token number `step`."""


class Heat(AnswerRows):
    """Attention of each new token to the image tokens, mean over layers and heads, and which image tokens are sinks.

    pictures, views   as the model was asked, which a calibration may have changed
    """

    def __init__(self, layers: frozenset[int], heads: Sequence[int], profile: SinkProfile | None) -> None:
        super().__init__(layers)
        self._heads = list(heads)
        self._profile = profile

    def begin(self, asked: Asked) -> None:
        self.pictures = asked.requests[0].pictures
        self.views = asked.prompt.views[0]
        self._image = asked.prompt.image_mask[0]
        self._steps: list[Tensor] = []
        self._sinks = torch.zeros(self._image.shape[0], dtype=torch.bool)

    def observe(self, layer: int, start: int, hidden: Tensor) -> None:
        if self._profile is None or layer not in self.layers:
            return
        scores = sink_scores(hidden[:1], self._profile.dims)[0, : max(0, len(self._sinks) - start)].cpu()
        self._sinks[start : start + len(scores)] |= scores > self._profile.tau

    def take(self, layer: int, step: int, row: Tensor) -> None:
        share = row[self._heads].mean(0)[self._image].double().cpu() / len(self.layers)
        if step == len(self._steps):
            self._steps.append(share)
        else:
            self._steps[step] += share

    def mean(self, tokens: int) -> Tensor:
        """Mean over the first tokens of the answer, [image tokens]; over the first one where it is empty."""
        return torch.stack(self._steps[: max(tokens, 1)]).mean(0)

    def sinks(self) -> list[int]:
        """Image tokens that are a sink where they enter one of the layers."""
        return torch.nonzero(self._sinks[self._image.cpu()]).flatten().tolist()


class RowStream(AnswerRows):
    """Writes rows to a file as they come: per new token, layer and head float16 over the prompt."""

    def __init__(self, layers: frozenset[int], heads: Sequence[int], stream: IO[bytes]) -> None:
        super().__init__(layers)
        self.chosen = list(heads)
        self.stream = stream

    def begin(self, asked: Asked) -> None:
        self.prompt = asked.prompt

    def take(self, layer: int, step: int, row: Tensor) -> None:
        self.stream.write(row[self.chosen].to(torch.float16).cpu().numpy().tobytes())
