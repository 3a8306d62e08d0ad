"""Boost of local and summary image tokens (PAINT)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attnkit.models.vlm.attention import Call, rows_for

from .base import Asked, Calibration, Tally
from .head_files import read_heads
from .settings import PaintSettings
from .text_branch import Guidance, TextBranch
from .vision_attention import token_scores

if TYPE_CHECKING:
    from transformers import LogitsProcessor

# how far above the third quartile, in ranges between the quartiles, an outlier lies
OUTLIER_RANGES = 1.5


def boosted(scores: Tensor, gain: Tensor, heads: Tensor | None = None) -> Tensor:
    """Scores raised by a share of their own size: positive ones grow, negative ones move towards zero.

    Parameters
    ----------
    scores : [B, H, R, K], scaled and masked; masked ones stay as they are
    gain : [B, K], by how much of its size each column is raised, 0 for none
    heads : [H], further factor of each head

    Notes
    -----
    PAINT ("Fixing Imbalanced Attention to Mitigate In-Context Hallucination of LVLMs", arXiv 2501.12206),
    w_j + alpha |w_j|. A score of 0 stays 0: this is no bias.
    """
    rise = scores.abs() * gain[:, None, None].to(scores.dtype)
    if heads is not None:
        rise = rise * heads[:, None, None].to(scores.dtype)
    return scores + rise.masked_fill(scores <= torch.finfo(scores.dtype).min / 2, 0)


def choose_tokens(
    local: Tensor, summary: Tensor, share: float, received: Tensor | None = None, spatial: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Which tokens of a picture are local and which are summary tokens, [N] bool each; none is both.

    Parameters
    ----------
    local : [N], how much the first layer of the vision tower looks at each token; the largest `share` are local
    summary : [N], the same of its last but one layer; outliers above the third quartile are summary tokens
    received, spatial : a further score [N] and share of tokens that are local
    """
    first, third = summary.quantile(0.25), summary.quantile(0.75)
    outliers = summary > third + OUTLIER_RANGES * (third - first)
    chosen = _largest(local, share)
    if received is not None:
        chosen |= _largest(received, spatial)
    return chosen & ~outliers, outliers


def _largest(scores: Tensor, share: float) -> Tensor:
    found = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    found[scores.topk(int(len(scores) * share)).indices] = True
    return found


class Paint(Calibration):
    """Raises the scores of some image tokens in the row that makes the next token, and guides by a text-only branch.

    The tokens are chosen once, for each picture or tile by itself, from the attention of the vision tower; that is a
    pass of the tower before the answer. Rows are the last one of the prompt and those of all generated tokens.
    """

    name = "paint"
    settings: PaintSettings
    layers: frozenset[int]

    def prepare(self, asked: Asked) -> Asked:
        settings, vlm = self.settings, self.vlm
        self.layers = self.layers_of(range(2, len(vlm.layers)))
        self.gains = self._gains()
        prompt = asked.prompt
        self.image = prompt.image_mask
        self.pictured = self.image.any(1)
        self.local, self.summary = torch.zeros_like(self.image), torch.zeros_like(self.image)
        self.raised = Tally(len(self.image), prompt.length)
        anything = bool(self.pictured.any())
        self.boosts = anything and bool(settings.local or settings.summary)
        if self.boosts:
            scores = token_scores(vlm, prompt)
            chosen = [
                choose_tokens(one.local, one.summary, settings.share, one.received, settings.spatial) for one in scores
            ]
            self.local[self.image] = torch.cat([local for local, _ in chosen])
            self.summary[self.image] = torch.cat([summary for _, summary in chosen])
        self.gain = settings.local * self.local.float() + settings.summary * self.summary.float()
        self.guides = anything and settings.guidance != 1
        if self.guides:
            self.branch = TextBranch(vlm, asked.text_only(), prompt.length)
        return asked

    def _gains(self) -> dict[int, Tensor]:
        """Factors of the heads' boosts, by layer."""
        found: dict[int, Tensor] = {}
        if self.settings.gains == "none":
            return found
        count, heads = len(self.vlm.layers), self.vlm.heads
        named = read_heads(self.settings.gains, count, heads, f"--set {self.name}.gains", value="gain")
        for (layer, head), gain in named.items():
            found.setdefault(layer, torch.ones(heads, device=self.vlm.device))[head] = gain
        return found

    def rows(self, layer: int, start: int, stop: int, prompt: int) -> tuple[int, int] | None:
        if not self.boosts or stop < prompt:
            return None
        return max(start, prompt - 1), stop

    def scores(self, call: Call, scores: Tensor) -> Tensor | None:
        # another rule may have asked for earlier rows
        earlier = max(0, call.prompt - 1 - call.start)
        if not self.boosts or earlier >= call.rows:
            return None
        gain = rows_for(self.gain, len(scores))
        gain = torch.nn.functional.pad(gain, (0, max(0, call.keys - gain.shape[1])))[:, : call.keys]
        before = scores[:, :, earlier:]
        after = boosted(before, gain, self.gains.get(call.layer))
        chosen = (gain > 0)[:, None, None]
        rise = (after.softmax(-1, dtype=torch.float32) - before.softmax(-1, dtype=torch.float32)) * chosen
        self.raised.add(call.start + earlier, rise.sum((1, 3)))
        return torch.cat([scores[:, :, :earlier], after], 2) if earlier else after

    def processors(self) -> list[LogitsProcessor]:
        if not self.guides:
            return []
        return [Guidance(self.branch, self.pictured, self.settings.guidance, self.settings.cut)]

    def report(self, row: int) -> dict[str, Any]:
        # image tokens are counted from the first one of the prompt
        image = self.image[row]
        report: dict[str, Any] = {
            "local_tokens": torch.nonzero(self.local[row, image]).flatten().tolist(),
            "summary_tokens": torch.nonzero(self.summary[row, image]).flatten().tolist(),
            "guidance": self.settings.guidance if self.guides and bool(self.pictured[row]) else 1.0,
            "attention_moved": round(self.total(self.raised, row), 6),
        }
        if not bool(self.pictured[row]):
            report["warning"] = f"{self.name} changed nothing: the question is about no picture"
        return report
