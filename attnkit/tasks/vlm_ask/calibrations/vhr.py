"""Vision-aware head reinforcement (VHR)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from attnkit.models.vlm.attention import Rule, Session, rows_for
from attnkit.models.vlm.continued import continued
from attnkit.runtime.errors import ItemError

from .base import Asked, Calibration
from .settings import VhrSettings

# the paper's late layers: the last 14 of the 32 that LLaVA-1.5-7B has
LATE_SHARE = 14 / 32


def head_divergence(seeing: Tensor, blind: Tensor) -> Tensor:
    """How far each head's output moves when the picture is taken away, [B, H].

    seeing, blind : outputs of the heads [B, H, d] at the last position of the prompt, before the output projection,
    with and without the picture

    Notes
    -----
    VHD of "Cracking the Code of Hallucination in LVLMs with Vision-aware Head Divergence" (arXiv 2412.13949):
    the Euclidean distance.
    """
    return (seeing.float() - blind.float()).norm(dim=-1)


def without_outliers(divergence: Tensor, activation: Tensor) -> Tensor:
    """Divergence [B, H] with 0 for heads that surge when the picture is gone.

    Those exceed mean + standard deviation of their layer in both the divergence and the `activation` [B, H], which is
    the squared norm of the output without the picture. The deviation is that of the population.
    """

    def high(values: Tensor) -> Tensor:
        return values > values.mean(-1, keepdim=True) + values.std(-1, correction=0, keepdim=True)

    return divergence.masked_fill(high(divergence) & high(activation), 0)


def aware_heads(divergence: Tensor) -> Tensor:
    """Heads whose divergence [B, H] exceeds the median of their layer, [B, H] bool."""
    return divergence > divergence.quantile(0.5, dim=-1, keepdim=True)


def token_divergence(divergence: Tensor, heads: int) -> Tensor:
    """T-VHD of tokens, [...]: over the layers, the sum of the `heads` largest of a divergence [L, ..., H].

    Tokens of words that are in no picture have a low one, by the paper.
    """
    return divergence.topk(heads, -1).values.sum((0, -1))


def late_layers(count: int) -> list[int]:
    """The second layer and the last ones of a model with `count` layers: of 32, as in the paper, 1 and 18 to 31."""
    late = range(count - max(1, round(LATE_SHARE * count)), count)
    return sorted({min(1, count - 1), *late})


class _Comparison(Rule):
    """Chooses heads layer by layer in one pass of seeing and blind rows, and reinforces them in both."""

    def __init__(self, layers: frozenset[int], pictured: Tensor, last: int, settings: VhrSettings) -> None:
        self.layers = layers
        self.pictured = pictured
        self.last = last
        self.settings = settings
        self.divergence: dict[int, Tensor] = {}
        self.chosen: dict[int, Tensor] = {}

    def heads(self, layer: int, start: int, outputs: Tensor) -> Tensor | None:
        divergence = _compared(outputs[:, self.last - start : self.last - start + 1], self.pictured, self.settings)[
            :, 0
        ]
        self.divergence[layer] = divergence
        self.chosen[layer] = aware_heads(divergence)
        return reinforced(outputs, self.chosen[layer].repeat(2, 1), self.settings.factor)


class _Reading(Rule):
    """Divergence of each token in one pass over prompt and answer, seeing and blind rows, the chosen heads reinforced.

    tokens    number of the last positions that count
    """

    def __init__(self, vhr: Vhr, tokens: int) -> None:
        self.layers = vhr.layers
        self.vhr = vhr
        self.tokens = tokens
        self.divergence: dict[int, Tensor] = {}

    def heads(self, layer: int, start: int, outputs: Tensor) -> Tensor | None:
        self.divergence[layer] = _compared(outputs[:, -self.tokens :], self.vhr.pictured, self.vhr.settings)
        if layer not in self.vhr.active:
            return None
        return reinforced(outputs, self.vhr.chosen[layer].repeat(2, 1), self.vhr.settings.factor)


class _Following(LogitsProcessor):
    """Keeps the ids [R, N + t] that the model has read; the logits stay as they are."""

    ids: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # type: ignore[override]
        self.ids = input_ids
        return scores


def _compared(outputs: Tensor, pictured: Tensor, settings: VhrSettings) -> Tensor:
    """Divergence [B, T, H] of outputs [2 B, T, H, d], seeing rows before blind ones, 0 for outliers."""
    seeing, blind = outputs.chunk(2)
    # without a picture both rows are the same prompt: what differs is rounding
    divergence = head_divergence(seeing, blind) * pictured[:, None, None]
    if settings.outliers:
        divergence = without_outliers(divergence, blind.float().square().sum(-1))
    return divergence


def reinforced(outputs: Tensor, chosen: Tensor, factor: float) -> Tensor:
    """Outputs of the heads [B, Q, H, d] with those of the chosen ones, [B, H] bool, multiplied by a factor."""
    scale = torch.where(chosen, factor, 1.0).to(outputs.dtype)
    return outputs * scale[:, None, :, None]


class Vhr(Calibration):
    """Multiplies the outputs of the heads that see the picture by a factor, at every position.

    One pass before the answer reads each prompt twice in one batch: with the picture, and as the text-only prompt of
    the same conversation, whose chat markers stay and whose markers around pictures are gone. Heads are chosen layer
    by layer in it, both rows reinforced so far, and are the same for all tokens of the answer. Other calibrations are
    not in force in that pass.

    With `each_token` the answer is read once more in the same way when it is there, for the divergence of each of its
    tokens; a factor of 1 gives that of the plain model's answer.
    """

    name = "vhr"
    settings: VhrSettings

    def prepare(self, asked: Asked) -> Asked:
        from attnkit.tasks.vlm_ask.task import logits_of

        vlm, settings, count = self.vlm, self.settings, len(self.vlm.layers)
        self.layers = self.layers_of(late_layers(count))
        self.pictured = asked.prompt.image_mask.any(1)
        self.chosen: dict[int, Tensor] = {}
        self.divergence: dict[int, Tensor] = {}
        self.active: set[int] = set()
        self.asked = asked
        self.following: _Following | None = None
        self.tokens: Tensor | None = None
        if not bool(self.pictured.any()):
            return asked
        if settings.each_token:
            self.following = _Following()
        if settings.factor == 1:
            return asked
        both = vlm.processor.batch([asked.prompt, asked.text_only()])
        found = _Comparison(self.layers, self.pictured, both.length - 1, settings)
        with Session(vlm.layers, both.length, [found]):
            logits_of(vlm, both)
        self.chosen, self.divergence = found.chosen, found.divergence
        self.active = {layer for layer, chosen in found.chosen.items() if bool(chosen.any())}
        return asked

    def heads(self, layer: int, start: int, outputs: Tensor) -> Tensor | None:
        if layer not in self.active:
            return None
        return reinforced(outputs, rows_for(self.chosen[layer], len(outputs)), self.settings.factor)

    def processors(self) -> list[LogitsProcessor]:
        return [] if self.following is None else [self.following]

    def _read_answer(self, ids: Tensor) -> Tensor:
        """T-VHD [B, T] of the tokens that were made of ids [B, N + T - 1], and of the one made next."""
        from attnkit.tasks.vlm_ask.task import logits_of, memory_errors

        vlm, asked = self.vlm, self.asked
        if len(ids) != len(asked.prompt.input_ids):
            raise ItemError(f"--set {self.name}.each_token: rows of beams are mixed; use --beams 1")
        answer = ids[:, asked.prompt.length :]
        both = vlm.processor.batch([continued(asked.prompt, answer), continued(asked.text_only(), answer)])
        reading = _Reading(self, answer.shape[1] + 1)
        with memory_errors(), Session(vlm.layers, both.length, [reading]):
            logits_of(vlm, both)
        found = torch.stack([reading.divergence[layer] for layer in sorted(reading.divergence)])
        return token_divergence(found, min(self.settings.top or vlm.heads, vlm.heads))

    def report(self, row: int) -> dict[str, Any]:
        report: dict[str, Any] = {"factor": self.settings.factor, "heads": {}}
        if not bool(self.pictured[row]):
            report["warning"] = f"{self.name} changed nothing: the question is about no picture"
            return report
        if self.chosen:
            layers = sorted(self.chosen)
            report["heads"] = {layer: torch.nonzero(self.chosen[layer][row]).flatten().tolist() for layer in layers}
            values = torch.stack([self.divergence[layer][row] for layer in layers])
            counted = min(self.settings.top or values.shape[-1], values.shape[-1])
            report["divergence_of_first_token"] = round(float(token_divergence(values, counted)), 4)
        if self.following is not None and self.following.ids is not None:
            if self.tokens is None:
                self.tokens = self._read_answer(self.following.ids)
            made = self.tokens.shape[1] if self.fed is None else self.fed[row] + 1
            report["divergence_of_tokens"] = [round(one, 4) for one in self.tokens[row, :made].tolist()]
        return report
