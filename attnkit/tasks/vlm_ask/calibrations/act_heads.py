"""The offline part of ACT: each head calibrated alone, on questions whose answers are known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from attnkit.models.vlm.attention import Call, Rule, Session
from attnkit.tasks.vlm_ask.metrics.vqa import normalise
from attnkit.tasks.vlm_ask.metrics.yes_no import pope

from .act import Act
from .base import Asked
from .settings import ActSettings

if TYPE_CHECKING:
    from attnkit.models.vlm.opening import VisionLanguageModel
    from attnkit.tasks.vlm_ask.task import Request

Choice = Literal["helps", "harmless"]
Heads = Mapping[int, Sequence[int]]


@dataclass(frozen=True)
class Labelled:
    """A question with its right answer, and the names of the pictures that it is about."""

    request: Request
    label: str
    about: tuple[str, ...]


@dataclass(frozen=True)
class HeadScore:
    """One head calibrated alone.

    changed         questions in whose prompt it has a sink; all others keep the plain model's answer
    right           questions answered rightly, of all
    gained, lost    questions answered rightly with it and wrongly without, and the other way round
    """

    layer: int
    head: int
    changed: int
    right: int
    gained: int
    lost: int

    def chosen(self, choice: Choice) -> bool:
        """Whether it is to be calibrated: a head without sinks never."""
        return self.changed > 0 and (self.gained > self.lost or (choice == "harmless" and self.gained == self.lost))


def is_right(answer: str, label: str) -> bool:
    """Whether an answer is the label: by POPE's rule for yes and no, else alike as VQA compares answers."""
    wanted = normalise(label)
    return pope(answer) == wanted if wanted in ("yes", "no") else normalise(answer) == wanted


def hold_out(questions: Sequence[Labelled], share: float) -> tuple[list[Labelled], list[Labelled]]:
    """Questions to choose by, and a share of them kept apart: those about every n-th picture, evenly over the file."""
    order = {about: place for place, about in enumerate(dict.fromkeys(one.about for one in questions))}
    kept: tuple[list[Labelled], list[Labelled]] = ([], [])
    for one in questions:
        place = order[one.about]
        kept[int((place + 1) * share) > int(place * share)].append(one)
    return kept


class HeadsOnly(Act):
    """ACT in the heads that are named, by layer."""

    def __init__(self, settings: ActSettings, vlm: VisionLanguageModel, heads: Heads) -> None:
        super().__init__(replace(settings, heads="all", layers="auto"), vlm, None)
        self._only = {layer: list(ones) for layer, ones in heads.items()}

    def _heads_of(self) -> dict[int, list[int]]:
        return self._only

    def layers_of(self, auto: Sequence[int]) -> frozenset[int]:
        return frozenset(self._only)


class SinkSearch(HeadsOnly):
    """Finds the sinks of each head in the plain model and changes nothing."""

    def weights(self, call: Call, weights: Tensor) -> None:
        if call.layer not in self.sinks:
            self._find(call, weights)
        # tokens of the answer are no sinks: their rows need not be seen
        self.active[call.layer] = False


@dataclass(frozen=True)
class _Batch:
    """Some questions that are asked together.

    places    in the sequence of all
    sinks     [B, H] bool by layer, heads in whose map of the prompt a sink was found
    """

    places: list[int]
    sinks: dict[int, Tensor]


class HeadTrial:
    """Asks questions of the plain model once, then with ACT in some heads.

    A head that finds no sink in a prompt leaves it as it is. Those were found in the pass of the plain model, so a
    head is tried only with the batches in which it does anything.

    right    of the plain model, for each question
    """

    def __init__(
        self,
        vlm: VisionLanguageModel,
        questions: Sequence[Labelled],
        settings: ActSettings,
        *,
        batch_size: int = 8,
        max_tokens: int = 16,
    ) -> None:
        self._vlm = vlm
        self._questions = questions
        self._settings = settings
        self._max_tokens = max_tokens
        count = len(vlm.layers)
        self.layers = sorted(Act(settings, vlm, None).layers_of(range(2, count)))
        self.right = [False] * len(questions)
        self._batches: list[_Batch] = []
        everywhere = {layer: range(vlm.heads) for layer in self.layers}
        # prompts of like length go together, so that little is padding
        order = sorted(range(len(questions)), key=lambda place: len(questions[place].request.question))
        for begin in range(0, len(order), batch_size):
            places = order[begin : begin + batch_size]
            searching = SinkSearch(settings, vlm, everywhere)
            self._note(places, self._ask(places, searching), self.right)
            sinks = {layer: found.any(2).cpu() for layer, found in searching.sinks.items()}
            self._batches.append(_Batch(places, sinks))

    def candidates(self) -> Iterator[tuple[int, int]]:
        """Layer and head of all that are to be tried, in order."""
        return ((layer, head) for layer in self.layers for head in range(self._vlm.heads))

    def score(self, layer: int, head: int) -> HeadScore:
        """One head calibrated alone."""
        right, changed = list(self.right), 0
        for batch in self._batches:
            acting = batch.sinks[layer][:, head].tolist()
            if not any(acting):
                continue
            changed += sum(acting)
            answers = self._ask(batch.places, HeadsOnly(self._settings, self._vlm, {layer: [head]}))
            touched = [place for place, acts in zip(batch.places, acting, strict=True) if acts]
            self._note(touched, [answer for answer, acts in zip(answers, acting, strict=True) if acts], right)
        gained = sum(now and not before for now, before in zip(right, self.right, strict=True))
        lost = sum(before and not now for now, before in zip(right, self.right, strict=True))
        return HeadScore(layer, head, changed, sum(right), gained, lost)

    def right_with(self, heads: Sequence[Sequence[int]]) -> int:
        """Questions answered rightly with some heads, as layer and head, calibrated together."""
        right, named = list(self.right), dict[int, list[int]]()
        for layer, head in heads:
            named.setdefault(layer, []).append(head)
        for batch in self._batches if named else ():
            rule = HeadsOnly(self._settings, self._vlm, named)
            self._note(batch.places, self._ask(batch.places, rule), right)
        return sum(right)

    def _note(self, places: Sequence[int], answers: Sequence[str], right: list[bool]) -> None:
        for place, answer in zip(places, answers, strict=True):
            right[place] = is_right(answer, self._questions[place].label)

    def _ask(self, places: Sequence[int], rule: HeadsOnly) -> list[str]:
        from attnkit.tasks.vlm_ask.task import Decoding, generate, memory_errors, prompt_of, stop_ids

        vlm, requests = self._vlm, tuple(self._questions[place].request for place in places)
        prompt = prompt_of(vlm, requests)
        rules: list[Rule] = [rule]
        with torch.inference_mode(), memory_errors():
            rule.prepare(Asked(vlm, requests, prompt))
            with Session(vlm.layers, prompt.length, rules):
                made: Any = generate(vlm, prompt, Decoding(max_tokens=self._max_tokens))
        ends = set(stop_ids(vlm))
        answers = made.sequences[:, prompt.length :].tolist()
        stops = [next((place for place, one in enumerate(ids) if one in ends), len(ids)) for ids in answers]
        return [vlm.processor.decode(ids[:stop]) for ids, stop in zip(answers, stops, strict=True)]
