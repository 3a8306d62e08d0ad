"""The task of `vlm-ask`: questions about pictures to answers, with or without a calibration of the attention."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from attnkit.models.vlm.attention import Session
from attnkit.models.vlm.processing import conversation
from attnkit.runtime.errors import ItemError

from .calibrations.base import Asked, make_calibrations
from .calibrations.settings import arm_name

if TYPE_CHECKING:
    from PIL.Image import Image

    from attnkit.models.vlm.opening import VisionLanguageModel
    from attnkit.models.vlm.prompt import Prompt, View
    from attnkit.models.vlm.sinks import SinkProfile

    from .observers import Observer

ALTERNATIVES = 5


@dataclass(frozen=True)
class Request:
    """One question about some pictures, or about none.

    max_pixels    larger pictures are made smaller before the model's own resizing
    """

    pictures: tuple[Image, ...]
    question: str
    system: str | None = None
    max_pixels: int | None = None


@dataclass(frozen=True)
class Decoding:
    """How an answer is drawn. Temperature 0 takes the most likely token; a seed counts only above it."""

    max_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    beams: int = 1
    seed: int = 0


@dataclass(frozen=True)
class Token:
    """One generated token, its probability, and the likeliest ones at its place."""

    text: str
    probability: float
    alternatives: tuple[tuple[str, float], ...] = ()


@dataclass
class Answer:
    """What the model said, and how it was asked.

    prompt          as it was tokenised
    prompt_tokens   of them `image_tokens` stand for pictures
    finished        it ended by itself, not at max_tokens
    calibration     arm by name; `reports` says what each of its parts did
    """

    text: str
    tokens: list[Token]
    prompt: str
    prompt_tokens: int
    image_tokens: int
    finished: bool
    calibration: str
    views: tuple[View, ...]
    reports: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: float = 0.0


def prompt_of(vlm: VisionLanguageModel, requests: Sequence[Request]) -> Prompt:
    """The prompts of some questions as one batch on the model's device, pixels in its dtype."""
    processor = vlm.processor
    prompts = [
        processor.prompt(
            conversation(request.question, len(request.pictures), request.system),
            request.pictures,
            max_pixels=request.max_pixels,
        )
        for request in requests
    ]
    return on_device(vlm, processor.batch(prompts))


def on_device(vlm: VisionLanguageModel, prompt: Prompt) -> Prompt:
    """A prompt on the device of a model, its pictures in the model's dtype."""
    prompt.input_ids, prompt.attention_mask, prompt.image_mask = (
        tensor.to(vlm.device) for tensor in (prompt.input_ids, prompt.attention_mask, prompt.image_mask)
    )
    prompt.pixels = {
        name: tensor.to(vlm.device, vlm.model.dtype if tensor.is_floating_point() else tensor.dtype)
        for name, tensor in prompt.pixels.items()
    }
    return prompt


def ask(
    vlm: VisionLanguageModel,
    requests: Sequence[Request],
    *,
    arm: Sequence[str] = (),
    settings: dict[str, Any] | None = None,
    decoding: Decoding | None = None,
    profile: SinkProfile | None = None,
    observers: Sequence[Observer] = (),
) -> list[Answer]:
    """Answers to a batch of questions.

    arm         calibrations in force, in this order; () asks the plain model
    settings    values by "calibration.key"
    profile     sink dimensions of the model, for calibrations that need them
    observers   rules that look on: after the calibrations, so they see what these have made of a map

    Raises ItemError where a prompt does not fit its pictures or the memory.
    """
    decoding = decoding or Decoding()
    started = time.perf_counter()
    asked = Asked(vlm, tuple(requests), prompt_of(vlm, requests))
    calibrations = make_calibrations(arm, settings or {}, vlm, profile, decoding.seed)
    with torch.inference_mode(), memory_errors():
        for calibration in calibrations:
            asked = calibration.prepare(asked)
        for observer in observers:
            observer.begin(asked)
        with Session(vlm.layers, asked.prompt.length, [*calibrations, *observers]):
            processors = [one for calibration in calibrations for one in calibration.processors()]
            made = generate(vlm, asked.prompt, decoding, processors)
    answers = read_answers(vlm, asked.prompt, made, decoding)
    seconds = (time.perf_counter() - started) / len(requests)
    for calibration in calibrations:
        # the last token of an answer, or the one that ends it, is not read again
        calibration.fed = [len(answer.tokens) + answer.finished - 1 for answer in answers]
    for row, answer in enumerate(answers):
        answer.calibration, answer.seconds = arm_name(arm), seconds
        answer.reports = {calibration.name: calibration.report(row) for calibration in calibrations}
    return answers


def generate(vlm: VisionLanguageModel, prompt: Prompt, decoding: Decoding, processors: Sequence[Any] = ()) -> Any:
    """What transformers' `generate` returns, with scores; the settings of the model's folder do not count."""
    from transformers import GenerationConfig, LogitsProcessorList

    sampled = decoding.temperature > 0
    own = vlm.model.generation_config
    config = GenerationConfig(
        max_new_tokens=decoding.max_tokens,
        do_sample=sampled,
        temperature=decoding.temperature if sampled else None,
        top_p=decoding.top_p if sampled else None,
        top_k=0 if sampled else None,
        num_beams=decoding.beams,
        repetition_penalty=1.0,
        # beams are told apart by sums of log-probabilities, and guidance gives something else
        renormalize_logits=bool(processors) and decoding.beams > 1,
        bos_token_id=own.bos_token_id,
        eos_token_id=stop_ids(vlm),
        pad_token_id=vlm.processor.pad_token_id,
        output_scores=True,
        return_dict_in_generate=True,
    )
    # positions of a prompt with pictures are kept by some models between calls
    if hasattr(vlm.model.model, "rope_deltas"):
        vlm.model.model.rope_deltas = None
    with torch.random.fork_rng(devices=[vlm.device] if vlm.device.startswith("cuda") else []):
        torch.manual_seed(decoding.seed)
        return vlm.model.generate(
            **prompt.inputs(), generation_config=config, logits_processor=LogitsProcessorList(processors)
        )


def stop_ids(vlm: VisionLanguageModel) -> list[int]:
    """Ids that end an answer: those of the model's folder, its tokenizer's, and the end of a turn."""
    known = vlm.model.generation_config.eos_token_id
    found = list(known) if isinstance(known, list | tuple) else [known]
    found.append(vlm.processor.tokenizer.eos_token_id)
    added = vlm.processor.tokenizer.get_added_vocab()
    found += [added.get(token) for token in ("<end_of_utterance>", "<|im_end|>")]
    return sorted({one for one in found if one is not None})


def read_answers(vlm: VisionLanguageModel, prompt: Prompt, made: Any, decoding: Decoding) -> list[Answer]:
    """Answers out of what `generate` returned."""
    ends = set(stop_ids(vlm))
    length = prompt.length
    likelihood = vlm.model.compute_transition_scores(
        made.sequences,
        made.scores,
        getattr(made, "beam_indices", None),
        # beam search keeps sums of normalised ones
        normalize_logits=decoding.beams == 1,
    ).exp()
    answers = []
    for row, ids in enumerate(made.sequences[:, length:].tolist()):
        stop = next((place for place, one in enumerate(ids) if one in ends), len(ids))
        tokens = [
            Token(
                vlm.processor.tokenizer.decode([one]),
                float(likelihood[row, place]),
                _alternatives(vlm, made.scores[place][row]) if decoding.beams == 1 else (),
            )
            for place, one in enumerate(ids[:stop])
        ]
        answers.append(
            Answer(
                text=vlm.processor.decode(ids[:stop]),
                tokens=tokens,
                prompt=prompt.texts[row],
                prompt_tokens=prompt.tokens()[row],
                image_tokens=int(prompt.image_mask[row].sum()),
                finished=stop < len(ids),
                calibration="none",
                views=prompt.views[row],
            )
        )
    return answers


def _alternatives(vlm: VisionLanguageModel, scores: torch.Tensor) -> tuple[tuple[str, float], ...]:
    best = scores.float().softmax(-1).topk(min(ALTERNATIVES, len(scores)))
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return tuple((vlm.processor.tokenizer.decode([one]), share) for one, share in pairs)


@contextmanager
def memory_errors() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ItemError("out of memory on the device; use --batch-size 1, --max-pixels or --dtype bfloat16") from error
    except RuntimeError as error:
        if "not enough memory" not in str(error):
            raise
        raise ItemError("out of memory; use --batch-size 1, --max-pixels or a smaller model") from error


def logits_of(vlm: VisionLanguageModel, prompt: Prompt, implementation: str | None = None) -> torch.Tensor:
    """Logits of the last position of each prompt, [B, V]; with another attention of transformers where it is named."""
    before = vlm.model.config._attn_implementation
    if hasattr(vlm.model.model, "rope_deltas"):
        vlm.model.model.rope_deltas = None
    try:
        if implementation is not None:
            vlm.model.set_attn_implementation(implementation)
        with torch.inference_mode():
            return vlm.model(**prompt.inputs(), logits_to_keep=1).logits[:, -1]
    finally:
        if implementation is not None:
            vlm.model.set_attn_implementation(before)


def equals_plain(vlm: VisionLanguageModel, requests: Sequence[Request]) -> bool:
    """Whether the model without a calibration gives the very bits of transformers' own attention."""
    prompt = prompt_of(vlm, requests)
    return torch.equal(logits_of(vlm, prompt), logits_of(vlm, prompt, "sdpa"))
