"""What every calibration is tested with: questions in a batch and alone, answers with and without a cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny_vlms import picture, tiny_vlm
from torch import Tensor
from transformers import GenerationConfig

from attnkit.models.vlm.attention import Rule, Session
from attnkit.models.vlm.prompt import Prompt
from attnkit.tasks.vlm_ask.calibrations.base import Asked, Calibration, make_calibrations
from attnkit.tasks.vlm_ask.task import Answer, Decoding, Request, ask, logits_of, prompt_of

QUESTION = "what is there in the picture ?"
# one and two pictures, and none; prompts of unequal length
REQUESTS = (
    Request((picture(seed=1),), QUESTION),
    Request((picture(52, 30, seed=2), picture(seed=3)), "is it a red circle left of the blue star ?"),
    Request((), "how many ?"),
)
Settings = dict[str, Any]


def probabilities(answer: Answer) -> list[float]:
    return [token.probability for token in answer.tokens]


def answers(
    name: str, arm: Sequence[str], settings: Settings, requests: Sequence[Request] = REQUESTS[:1], tokens: int = 3
) -> list[Answer]:
    return ask(tiny_vlm(name), requests, arm=arm, settings=settings, decoding=Decoding(max_tokens=tokens))


def alike(one: Any, other: Any) -> bool:
    """Whether two reports are the same but for the rounding of their numbers."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(alike, one, other))
    return bool(one == pytest.approx(other, rel=1e-4, abs=1e-4)) if isinstance(one, float) else bool(one == other)


def together_as_alone(name: str, arm: str, settings: Settings) -> list[Answer]:
    """Answers of a batch, which must be those of each question alone."""
    together = answers(name, (arm,), settings, REQUESTS)
    for request, one in zip(REQUESTS, together, strict=True):
        (other,) = answers(name, (arm,), settings, [request])
        assert one.text == other.text
        assert probabilities(one) == pytest.approx(probabilities(other), abs=1e-4)
        mine, alone = one.reports[arm], other.reports[arm]
        assert alike(mine, alone), (mine, alone)
    return together


def asked_of(name: str, requests: Sequence[Request]) -> Asked:
    vlm = tiny_vlm(name)
    return Asked(vlm, tuple(requests), prompt_of(vlm, requests))


def prepared(asked: Asked, arm: str, settings: Settings) -> tuple[Calibration, Asked]:
    (calibration,) = make_calibrations((arm,), settings, asked.vlm, None)
    with torch.inference_mode():
        return calibration, calibration.prepare(asked)


def drawn(asked: Asked, rules: Sequence[Rule], processors: Sequence[Any] = (), **options: Any) -> Any:
    """Three tokens, no end allowed, with their logits."""
    vlm = asked.vlm
    if hasattr(vlm.model.model, "rope_deltas"):
        vlm.model.model.rope_deltas = None
    config = GenerationConfig(
        max_new_tokens=3, min_new_tokens=3, do_sample=False, pad_token_id=0, eos_token_id=2, output_logits=True,
        return_dict_in_generate=True, **options,
    )  # fmt: skip
    with torch.inference_mode(), Session(vlm.layers, asked.prompt.length, rules):
        return vlm.model.generate(**asked.prompt.inputs(), generation_config=config, logits_processor=list(processors))


def longer(prompt: Prompt, ids: Tensor) -> Prompt:
    """A prompt with generated ids [B, T] behind it."""
    pixels = dict(prompt.pixels)
    if "mm_token_type_ids" in pixels:
        pixels["mm_token_type_ids"] = torch.nn.functional.pad(pixels["mm_token_type_ids"], (0, ids.shape[1]))
    return replace(
        prompt,
        input_ids=torch.cat([prompt.input_ids, ids], 1),
        attention_mask=torch.nn.functional.pad(prompt.attention_mask, (0, ids.shape[1]), value=1),
        pixels=pixels,
    )


def cache_changes_nothing(name: str, arm: str, settings: Settings) -> None:
    """Each step's logits with a cache are those of the whole text so far read at once, with fresh calibrations."""
    requests = REQUESTS[:2]
    calibration, asked = prepared(asked_of(name, requests), arm, settings)
    made = drawn(asked, [calibration])
    plain = drawn(asked, [])
    assert not torch.equal(made.logits[0], plain.logits[0])
    for step, logits in enumerate(made.logits):
        fresh, again = prepared(asked_of(name, requests), arm, settings)
        length = again.prompt.length
        text = longer(again.prompt, made.sequences[:, length : length + step])
        with Session(again.vlm.layers, length, [fresh]):
            whole = logits_of(again.vlm, text)
        torch.testing.assert_close(logits, whole, rtol=1e-4, atol=2e-4)


def next_logits(asked: Asked, rules: Sequence[Rule] = ()) -> Tensor:
    with Session(asked.vlm.layers, asked.prompt.length, rules):
        return logits_of(asked.vlm, asked.prompt)


def static_cache_changes_nothing(name: str, arm: str, settings: Settings) -> None:
    found = []
    for kind in (None, "static"):
        calibration, asked = prepared(asked_of(name, REQUESTS[:2]), arm, settings)
        found.append(drawn(asked, [calibration], calibration.processors(), cache_implementation=kind).logits)
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=2e-4)
