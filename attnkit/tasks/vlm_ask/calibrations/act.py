"""Attention calibration of later sinks (ACT)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attnkit.models.vlm.attention import Call, rows_for
from attnkit.runtime.errors import ItemError

from .base import Asked, Calibration, Tally
from .head_files import read_heads, read_own_heads
from .settings import ActSettings

# the paper's threshold is this over the length of the prompt; the published code has a number of its own
PAPER_THRESHOLD = 5.0
CODE_THRESHOLD = 0.1


def attention_received(weights: Tensor, real: Tensor) -> Tensor:
    """Mean attention that each token gets from the queries that may see it, [B, H, N].

    Parameters
    ----------
    weights : [B, H, N, N] after the softmax, causal
    real : [B, N] bool, tokens that are no padding; padding neither gives nor gets

    Notes
    -----
    ACT ("Unveiling and Harnessing Hidden Attention Sinks", arXiv 2406.15765), a[j] = sum_{i>=j} A[i,j] / (N - j).
    """
    asking = real.to(weights.dtype)
    received = (asking[:, None, None] @ weights).squeeze(2) / queries_seeing(real).clamp(min=1)[:, None]
    return received.masked_fill(~real[:, None], 0)


def queries_seeing(real: Tensor) -> Tensor:
    """How many queries may see each token of prompts [B, N] bool without padding, [B, N]."""
    return real.flip(1).cumsum(1).flip(1)


def find_sinks(
    received: Tensor, real: Tensor, threshold: Tensor, *, least_queries: int = 1, compat: bool = False
) -> Tensor:
    """Tokens that get more attention than a threshold, but for the first one, [B, H, N] bool.

    Parameters
    ----------
    received : [B, H, N] as `attention_received` gives it
    real : [B, N] bool, tokens that are no padding
    threshold : [B]
    least_queries : tokens that fewer queries may see are none
    compat : leave out the first one found instead of the first token
    """
    found = (received > threshold[:, None, None]) & (real & (queries_seeing(real) >= least_queries))[:, None]
    first = found.int().argmax(-1) if compat else real.int().argmax(1)[:, None].expand(found.shape[:2])
    return found.scatter(-1, first[..., None], False)


def spread(weights: Tensor, sinks: Tensor, keep: float, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Take a share of the sinks' attention and spread it over the other tokens, in proportion to what they have.

    Parameters
    ----------
    weights : [B, H, R, K]
    sinks : [B, H, K] bool; a head without any keeps its bits
    keep : share that sinks keep (the paper's beta)
    rows : [B, R] bool, rows to change; None for all

    Returns
    -------
    The new weights [B, H, R, K], whose rows keep their sum, and the attention that was moved, [B, H, R].
    """
    kinds = torch.stack([sinks, ~sinks], -1).to(weights.dtype)
    on_sinks, on_others = (weights @ kinds).unbind(-1)
    # with nothing to hand it to, attention stays where it is
    chosen = (on_sinks > 0) & (on_others > 0)
    if rows is not None:
        chosen &= rows[:, None]
    moved = torch.where(chosen, (1 - keep) * on_sinks, 0.0)
    change = torch.stack([torch.where(chosen, keep - 1.0, 0.0), torch.where(chosen, moved / on_others, 0.0)], -1)
    return weights * (1 + change @ kinds.mT), moved


class Act(Calibration):
    """Takes attention from sinks behind the first token and spreads it over the row, in chosen heads.

    Sinks are found in the whole map of a layer when the prompt is read, one layer at a time, and stay what they are:
    a generated token's row is the last row of a prompt with the sinks of the asked one, and no new token is a sink.
    """

    name = "act"
    settings: ActSettings
    layers: frozenset[int]

    def prepare(self, asked: Asked) -> Asked:
        settings, count = self.settings, len(self.vlm.layers)
        self.layers = self.layers_of(range(2, count))
        self.heads_of = self._heads_of()
        if settings.heads != "all" and settings.layers == "auto":
            self.layers = frozenset(self.heads_of)
        self.real = asked.prompt.attention_mask.bool()
        lengths = self.real.sum(1).float()
        given = CODE_THRESHOLD if settings.compat and not settings.threshold else settings.threshold
        self.threshold = torch.full_like(lengths, given) if given else PAPER_THRESHOLD / lengths
        self.sinks: dict[int, Tensor] = {}
        self.active: dict[int, bool] = {}
        self.changed, self.moved = (Tally(len(lengths), asked.prompt.length) for _ in range(2))
        return asked

    def _heads_of(self) -> dict[int, list[int]]:
        """Heads to calibrate, by layer."""
        count, heads = len(self.vlm.layers), self.vlm.heads
        if self.settings.heads == "all":
            return {layer: list(range(heads)) for layer in range(count)}
        option = f"--set {self.name}.heads"
        if self.settings.heads == "auto":
            named = read_own_heads(self.vlm.path, count, heads, option)
        else:
            named = read_heads(self.settings.heads, count, heads, option)
        found: dict[int, list[int]] = {}
        for layer, head in named:
            found.setdefault(layer, []).append(head)
        return found

    def rows(self, layer: int, start: int, stop: int, prompt: int) -> tuple[int, int] | None:
        if self.settings.keep == 1 or not self.heads_of.get(layer) or self.active.get(layer) is False:
            return None
        return start, stop

    def weights(self, call: Call, weights: Tensor) -> Tensor | None:
        # rows may be wanted by another rule alone
        if self.settings.keep == 1 or not self.heads_of.get(call.layer):
            return None
        if call.layer not in self.sinks:
            self._find(call, weights)
        if not self.active[call.layer]:
            return None
        batch = len(weights)
        sinks = rows_for(self.sinks[call.layer], batch)
        sinks = torch.nn.functional.pad(sinks, (0, max(0, call.keys - sinks.shape[2])))[..., : call.keys]
        changed, moved = spread(weights, sinks, self.settings.keep, self._touched(call, batch))
        self.changed.add(call.start, (moved > 0).sum(1))
        self.moved.add(call.start, moved.sum(1))
        return changed

    def _find(self, call: Call, weights: Tensor) -> None:
        if call.start > 0 or call.rows < call.prompt:
            raise ItemError(f"{self.name}: needs the prompt in one piece, got {call.rows} of its {call.prompt} tokens")
        # beams of one prompt are alike while the prompt is read
        whole = weights[:: len(weights) // len(self.real), :, : call.prompt, : call.prompt]
        found = find_sinks(
            attention_received(whole, self.real),
            self.real,
            self.threshold,
            least_queries=self.settings.least_queries,
            compat=self.settings.compat,
        )
        chosen = torch.zeros(found.shape[1], dtype=torch.bool, device=found.device)
        chosen[self.heads_of[call.layer]] = True
        self.sinks[call.layer] = found & chosen[:, None]
        self.active[call.layer] = bool(self.sinks[call.layer].any())

    def _touched(self, call: Call, batch: int) -> Tensor:
        """[B, R] bool: rows that are no padding."""
        rows = rows_for(self.real, batch)[:, call.start : call.start + call.rows]
        return torch.nn.functional.pad(rows, (0, call.rows - rows.shape[1]), value=True)

    def report(self, row: int) -> dict[str, Any]:
        # positions are told as in the prompt without padding
        padding = int((~self.real[row]).sum())
        found = {layer: sinks[row] for layer, sinks in sorted(self.sinks.items())}
        places = {layer: torch.nonzero(sinks.any(0)).flatten() for layer, sinks in found.items()}
        report: dict[str, Any] = {
            "threshold": round(float(self.threshold[row]), 6),
            "sinks": {layer: (place - padding).tolist() for layer, place in places.items() if len(place)},
            "heads_changed": {layer: int(sinks.any(1).sum()) for layer, sinks in found.items() if bool(sinks.any())},
            "rows_changed": int(self.total(self.changed, row)),
            "attention_moved": round(self.total(self.moved, row), 6),
        }
        if not report["sinks"] and self.settings.keep < 1:
            report["warning"] = (
                f"{self.name} changed nothing: no token behind the first gets more than "
                f"{report['threshold']:g} of the attention in the chosen heads"
            )
        return report
