"""A second reading of a prompt without its pictures, beside the answer, and the guidance away from what it says."""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, LogitsProcessor

from attnkit.models.vlm.attention import rows_for, without_session
from attnkit.models.vlm.opening import VisionLanguageModel
from attnkit.models.vlm.prompt import Prompt


def guided(seeing: Tensor, blind: Tensor, weight: float, cut: float) -> Tensor:
    """Logits [B, V] away from what the words alone make likely.

    Parameters
    ----------
    seeing, blind : logits [B, V] with and without the picture
    weight : of the picture (gamma); 1 gives the log probabilities with it
    cut : tokens less likely, with the picture, than this share of the best become -inf; 0 leaves all

    Notes
    -----
    PAINT, gamma (log p - log q) + log q; not normalised again.
    """
    likely, worded = seeing.float().log_softmax(-1), blind.float().log_softmax(-1)
    mixed = weight * (likely - worded) + worded
    if cut <= 0:
        return mixed
    least = likely.amax(-1, keepdim=True) + math.log(cut)
    return mixed.masked_fill(likely < least, -math.inf)


class TextBranch:
    """Logits of the plain model for a text-only prompt, with the same generated tokens behind it, and its own cache.

    prompt    of the batch without pictures
    asked     length of the padded prompt with them, which the ids of the answer begin with
    """

    def __init__(self, vlm: VisionLanguageModel, prompt: Prompt, asked: int) -> None:
        self._vlm = vlm
        self._prompt = prompt
        self._asked = asked
        self._cache: Any = None
        self._read: Tensor | None = None
        named = inspect.signature(vlm.model.forward).parameters
        self._cache_name = "cache" if "cache" in named else "past_key_values"

    def logits(self, ids: Tensor) -> Tensor:
        """Logits [R, V] of what comes after ids [R, N + t]; R is a multiple of the prompts, beams in any order."""
        answer = ids[:, self._asked :]
        begin = rows_for(self._prompt.input_ids, len(ids))
        mask = rows_for(self._prompt.attention_mask, len(ids))
        mask = torch.nn.functional.pad(mask, (0, answer.shape[1]), value=1)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        new = answer[:, -1:]
        if not self._follows(answer):
            self._cache, new = DynamicCache(), torch.cat([begin, answer], 1)
        self._read = answer
        return self._forward(new, mask, positions[:, -new.shape[1] :])

    def _follows(self, answer: Tensor) -> bool:
        """Whether each row is one token longer than a row that was read; the cache is put into their order."""
        read = self._read
        if read is None or answer.shape[1] != read.shape[1] + 1 or len(answer) != len(read):
            return False
        if len(self._prompt.input_ids) == len(answer):
            return torch.equal(answer[:, :-1], read)
        prompt = torch.arange(len(answer), device=answer.device) // (len(answer) // len(self._prompt.input_ids))
        same = (answer[:, None, :-1] == read[None]).all(-1) & (prompt[:, None] == prompt[None])
        if not bool(same.any(1).all()):
            return False
        self._cache.reorder_cache(same.int().argmax(1))
        return True

    def _forward(self, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        model = self._vlm.model
        # the answer's own pass reads the positions of its pictures again
        kept = getattr(model.model, "rope_deltas", None)
        try:
            with without_session():
                return model(
                    input_ids=ids,
                    attention_mask=mask,
                    position_ids=positions,
                    use_cache=True,
                    logits_to_keep=1,
                    **{self._cache_name: self._cache},
                ).logits[:, -1]
        finally:
            if hasattr(model.model, "rope_deltas"):
                model.model.rope_deltas = kept


class Guidance(LogitsProcessor):
    """Guides rows whose prompt has a picture, [B] bool, away from the text-only branch."""

    def __init__(self, branch: TextBranch, pictured: Tensor, weight: float, cut: float) -> None:
        self._branch = branch
        self._pictured = pictured
        self._weight = weight
        self._cut = cut

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # type: ignore[override]
        changed = guided(scores, self._branch.logits(input_ids), self._weight, self._cut)
        return torch.where(rows_for(self._pictured, len(scores))[:, None], changed.to(scores.dtype), scores)
