"""Contrastive attention refinement (CARVE)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import LogitsProcessor

from attnkit.models.vlm.attention import Call, Rule, Session
from attnkit.models.vlm.prompt import Prompt, View

from .base import Asked, Calibration
from .carve_maps import Part, attention_entropy, contrast, fuse, part_of_picture, refined
from .settings import CarveSettings

if TYPE_CHECKING:
    from PIL.Image import Image

    from attnkit.models.vlm.opening import VisionLanguageModel
    from attnkit.tasks.vlm_ask.task import Request

SHORT = " Answer the question using a single word or phrase."
NEUTRAL = "Write a general description of the image."
# the paper's layers 20 to 25, as shares of the 28 that Qwen2.5-VL-7B has
FIRST_SHARE, STOP_SHARE = 20 / 28, 26 / 28


class _Enough(Exception):
    """The last map that is needed is there: what the model would go on to compute is not."""


class LastRows(Rule):
    """Attention from the position that makes the next token to the prompt, mean over heads, kept for each step.

    layers    of the decoder
    steps     with the last layer's map of this step the pass ends, by an exception; None lets it go on
    maps      by layer, [B, N] on the CPU for each step
    """

    layers: frozenset[int]

    def __init__(self, layers: frozenset[int], steps: int | None = None) -> None:
        self.layers = layers
        self.steps = steps
        self.maps: dict[int, list[Tensor]] = {layer: [] for layer in sorted(layers)}

    def rows(self, layer: int, start: int, stop: int, prompt: int) -> tuple[int, int] | None:
        return None if stop < prompt else (stop - 1, stop)

    def weights(self, call: Call, weights: Tensor) -> None:
        self.maps[call.layer].append(weights[:, :, -1, : call.prompt].mean(1).float().cpu())
        if call.layer == max(self.layers) and len(self.maps[call.layer]) == self.steps:
            raise _Enough


class _Written(LogitsProcessor):
    """Notes which rows of a greedy answer have ended, for a pass that ends before it can tell.

    ends     ids that end an answer, [E]
    steps    by row, the step that ended it, or -1
    """

    def __init__(self, ends: Tensor, rows: int) -> None:
        self.ends = ends
        self.steps = torch.full((rows,), -1)
        self._step = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # type: ignore[override]
        ended = torch.isin(scores.argmax(-1), self.ends).cpu()
        self.steps[ended & (self.steps < 0)] = self._step
        self._step += 1
        return scores


def image_attention(rule: LastRows, prompt: Prompt, steps: Sequence[int]) -> list[NDArray[np.float32]]:
    """Attention to the image tokens of each prompt, [T, L, N_v], for as many steps as its answer has tokens."""
    whole = torch.stack([torch.stack(maps) for maps in rule.maps.values()], 2).transpose(0, 1)
    masks = prompt.image_mask.cpu()
    return [one[:count, :, mask].numpy() for one, count, mask in zip(whole, steps, masks, strict=True)]


def written_attention(
    vlm: VisionLanguageModel, prompt: Prompt, layers: frozenset[int], tokens: int, *, whole: bool = False
) -> list[NDArray[np.float32]]:
    """Attention to the image tokens while greedy answers of at most `tokens` are written, [T, L, N_v] for each prompt.

    The last step ends with the last of the layers, unless `whole`; steps before it are needed whole, since each makes
    the token that the next one reads. The step that ends an answer counts.
    """
    from attnkit.tasks.vlm_ask.task import Decoding, generate, stop_ids

    rule = LastRows(layers, None if whole else tokens)
    written = _Written(torch.tensor(stop_ids(vlm), device=prompt.input_ids.device), len(prompt.input_ids))
    with suppress(_Enough), Session(vlm.layers, prompt.length, [rule]):
        generate(vlm, prompt, Decoding(max_tokens=tokens), [written])
    # what fills the batch behind an answer's end does not count
    steps = torch.where(written.steps < 0, len(rule.maps[max(layers)]), written.steps + 1).tolist()
    return image_attention(rule, prompt, steps)


class Carve(Calibration):
    """Cuts out what the question attracts in each picture, and asks about that.

    Two passes before the answer write a short answer to the question and to a neutral instruction; what attention to
    the picture they share cancels. Steps of the two are paired up to the shorter answer. Where a picture was read in
    tiles, the map is that of its last tile, the whole picture made small.
    """

    name = "carve"
    rewrites = True
    settings: CarveSettings
    layers: frozenset[int] = frozenset()

    def prepare(self, asked: Asked) -> Asked:
        count = len(self.vlm.layers)
        first = min(round(FIRST_SHARE * count), count - 1)
        self.chosen = self.layers_of(range(first, max(round(STOP_SHARE * count), first + 1)))
        self.pictured = [bool(request.pictures) for request in asked.requests]
        self.found: list[list[dict[str, Any]]] = [[] for _ in asked.requests]
        self.maps: list[list[NDArray[np.float64]]] = [[] for _ in asked.requests]
        if not any(self.pictured):
            return asked
        requests = list(asked.requests)
        rows = [row for row, pictured in enumerate(self.pictured) if pictured]
        for row, (question, neutral, views) in zip(rows, self._passes([requests[row] for row in rows]), strict=True):
            requests[row] = self._refined(row, requests[row], question, neutral, views)
        changed = any(new is not old for new, old in zip(requests, asked.requests, strict=True))
        return asked.with_requests(requests) if changed else asked

    def _passes(
        self, requests: Sequence[Request]
    ) -> list[tuple[NDArray[np.float32], NDArray[np.float32], tuple[View, ...]]]:
        """Attention maps [T, L, N_v] under question and neutral instruction, and the views, for each request."""
        tokens = 1 if self.settings.steps == "first" else self.settings.tokens
        questions, prompt = self._attend([replace(one, question=one.question + SHORT) for one in requests], tokens)
        # several questions about the same pictures share the neutral pass
        keys = [(tuple(map(id, one.pictures)), one.system, one.max_pixels) for one in requests]
        firsts = {key: keys.index(key) for key in keys}
        longest = max(len(one) for one in questions)
        neutral, _ = self._attend(
            [replace(requests[row], question=NEUTRAL + SHORT) for row in firsts.values()], longest
        )
        by_key = dict(zip(firsts, neutral, strict=True))
        return [(one, by_key[key], views) for one, key, views in zip(questions, keys, prompt.views, strict=True)]

    def _attend(self, requests: Sequence[Request], tokens: int) -> tuple[list[NDArray[np.float32]], Prompt]:
        from attnkit.tasks.vlm_ask.task import prompt_of

        prompt = prompt_of(self.vlm, requests)
        return written_attention(self.vlm, prompt, self.chosen, tokens), prompt

    def _refined(
        self,
        row: int,
        request: Request,
        question: NDArray[np.float32],
        neutral: NDArray[np.float32],
        views: tuple[View, ...],
    ) -> Request:
        settings, pictures, begin, any_part = self.settings, list[Any](), 0, False
        for picture, view in zip(request.pictures, views, strict=True):
            tiles = view.overview()
            stop = begin + view.tokens
            own = slice(stop - sum(tile.tokens for tile in tiles), stop)
            begin = stop
            shared = min(len(question), len(neutral))
            maps = contrast(question[:shared, :, own], neutral[:shared, :, own], settings.smoothing)
            scores = fuse(maps, settings.steps)  # type: ignore[arg-type]
            part = part_of_picture(
                scores, tiles, picture.width, picture.height, keep=settings.keep, regions=settings.regions
            )
            self.maps[row].append(scores)
            entropy = attention_entropy(question[-1, :, own])
            pictures += self._shown(picture, part)
            any_part = any_part or part is not None
            self.found[row].append(_told(picture, part, entropy))
        return replace(request, pictures=tuple(pictures)) if any_part else request

    def _shown(self, picture: Image, part: Part | None) -> list[Image]:
        if part is None:
            return [picture]
        new = refined(picture, part)
        return [picture, new] if self.settings.pictures == "both" else [new]

    def report(self, row: int) -> dict[str, Any]:
        report: dict[str, Any] = {
            "layers": sorted(self.chosen),
            "steps": self.settings.steps,
            "pictures": self.found[row],
        }
        if not self.pictured[row]:
            report["warning"] = f"{self.name} changed nothing: the question is about no picture"
        elif all(one["box"] is None for one in self.found[row]):
            report["warning"] = f"{self.name} changed nothing: the question attracts all of the picture alike"
        return report


def _told(picture: Image, part: Part | None, entropy: float) -> dict[str, Any]:
    """What the record tells of one picture."""
    return {
        "size": [picture.width, picture.height],
        "box": None if part is None else list(part.box),
        "kept_share": 1.0 if part is None else round(part.share, 6),
        "regions": 0 if part is None else part.regions,
        "entropy": round(entropy, 6),
    }
