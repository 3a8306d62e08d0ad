"""What every calibration is: a rule inside the model's attention, with passes before and changes after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from attnkit.models.vlm.attention import Rule
from attnkit.tasks.vlm_ask.calibrations.settings import CALIBRATIONS, parse_layers, settings_for

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import LogitsProcessor

    from attnkit.models.vlm.opening import VisionLanguageModel
    from attnkit.models.vlm.prompt import Prompt
    from attnkit.models.vlm.sinks import SinkProfile
    from attnkit.tasks.vlm_ask.task import Request


@dataclass(frozen=True)
class Asked:
    """A batch of questions on its way to the model.

    requests    as they are asked: a calibration's `prepare` may have changed pictures or words
    prompt      of all of them, on the model's device
    """

    vlm: VisionLanguageModel
    requests: tuple[Request, ...]
    prompt: Prompt

    def with_requests(self, requests: Sequence[Request]) -> Asked:
        """The same batch with other questions."""
        from attnkit.tasks.vlm_ask.task import prompt_of

        return replace(self, requests=tuple(requests), prompt=prompt_of(self.vlm, requests))

    def text_only(self) -> Prompt:
        """The same batch without its pictures: chat markers stay, the markers around pictures go."""
        from attnkit.tasks.vlm_ask.task import prompt_of

        return prompt_of(self.vlm, [replace(request, pictures=()) for request in self.requests])


class Tally:
    """Amounts booked for each prompt of a batch by the position of their rows.

    An answer that has ended is filled up while others of its batch go on: what is booked there is left out.

    prompts    number of them; length of the padded prompt
    """

    def __init__(self, prompts: int, length: int) -> None:
        self._prompts = prompts
        self._length = length
        self._amounts: dict[int, Tensor] = {}

    def add(self, start: int, amounts: Tensor) -> None:
        """Book amounts [B, R] of rows from position `start`; B is a multiple of the prompts (beams)."""
        summed = amounts.reshape(self._prompts, -1, amounts.shape[1]).sum(1)
        inside = min(max(self._length - start, 0), summed.shape[1])
        # all of the prompt stands at -1, tokens of the answer at their number
        parts = {-1: summed[:, :inside].sum(1)} if inside else {}
        for place in range(inside, summed.shape[1]):
            parts[start + place - self._length] = summed[:, place]
        for number, part in parts.items():
            known = self._amounts.get(number)
            self._amounts[number] = part if known is None else known + part

    def total(self, row: int, tokens: int | None) -> float:
        """Sum of one prompt and of the first `tokens` of its answer; None for all of them."""
        return float(sum(part[row] for number, part in self._amounts.items() if tokens is None or number < tokens))


class Calibration(Rule):
    """One calibration of one batch of questions; it holds their state, so a new one is made for each batch.

    Its hooks in the order in which they come: `prepare` (passes before), `observe` and `vision` (hidden states,
    attention of the vision tower), `scores` and `weights` (rows of the attention maps), `heads` (their outputs),
    `processors` (logits). `report` gives what the record tells of one prompt of the batch.

    fed         how many tokens of each answer the model was given again, once that is known
    rewrites    its `prepare` asks with other pictures or words, so it comes before those that look at the prompt
    """

    name: ClassVar[str] = ""
    rewrites: ClassVar[bool] = False

    def __init__(self, settings: Any, vlm: VisionLanguageModel, profile: SinkProfile | None, seed: int = 0) -> None:
        self.settings = settings
        self.vlm = vlm
        self.profile = profile
        self.seed = seed
        self.fed: list[int] | None = None

    def prepare(self, asked: Asked) -> Asked:
        """Passes before the answer, and the batch as it is to be asked."""
        return asked

    def processors(self) -> list[LogitsProcessor]:
        """What is done to the logits of each new token."""
        return []

    def report(self, row: int) -> dict[str, Any]:
        """What the record tells of one prompt."""
        return {}

    def total(self, tally: Tally, row: int) -> float:
        """What was booked for one prompt and its answer, without what fills its row in the batch."""
        return tally.total(row, None if self.fed is None else self.fed[row])

    def layers_of(self, auto: Sequence[int]) -> frozenset[int]:
        """The layers of its setting `layers`."""
        option = f"--set {self.name}.layers"
        return parse_layers(self.settings.layers, len(self.vlm.layers), auto, option)


def make_calibrations(
    arm: Sequence[str],
    given: dict[str, Any],
    vlm: VisionLanguageModel,
    profile: SinkProfile | None,
    seed: int = 0,
) -> list[Calibration]:
    """Fresh calibrations of one arm, in their order but for those that rewrite the question, which come first.

    `given` are settings by "calibration.key".
    """
    made = []
    for name in arm:
        module, _, kind = CALIBRATIONS[name].location.partition(":")
        maker = getattr(import_module(f"attnkit.tasks.vlm_ask.calibrations.{module}"), kind)
        made.append(maker(settings_for(name, given), vlm, profile, seed))
    return sorted(made, key=lambda one: not one.rewrites)
