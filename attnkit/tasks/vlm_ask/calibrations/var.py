"""Visual attention redistribution (VAR)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attnkit.models.vlm.attention import Call, rows_for
from attnkit.models.vlm.sinks import sink_scores
from attnkit.runtime.errors import UsageError

from .base import Asked, Calibration, Tally
from .settings import VarSettings

# what the published code adds to every image token of the ratio's denominator
CODE_EPSILON = 1e-6


@dataclass(frozen=True)
class Redistribution:
    """Attention of sinks handed to the other image tokens, in rows that really look at the image.

    It is made once for the prompts of a batch and used in every step, so what can be multiplied out beforehand is.

    read      [B, 1, K, 4]: what a map is multiplied with to have, for each row, its attention to all sinks, to image
              tokens that are no sinks, to the image, and how far it is above the bound of rho
    spread    [B, 1, 2, K]: what each key loses (sinks) and gains (other image tokens)
    mass      least attention of a row to the image
    floor     [B, 1, 1] or a number, least of the last column of `read`
    guarded   rows without attention on image tokens that are no sinks have to be looked for

    Notes
    -----
    VAR ("See What You Are Told: Visual Attention Sink in Large Multimodal Models", arXiv 2503.03321), image-centric
    head selection and redistribution. Prompts without a visual sink have columns of 0, and nothing of them is chosen.
    """

    read: Tensor
    spread: Tensor
    mass: float
    floor: Tensor | float
    guarded: bool

    @classmethod
    def of(
        cls, image: Tensor, sinks: Tensor, *, mass: float, rho: float, recycle: float, compat: bool = False
    ) -> Redistribution:
        """The rule for image tokens and sinks, [B, K] bool each.

        mass     least attention to the image
        rho      least share of it on tokens that are no sinks; with `compat` most share on sinks
        recycle  share that is taken from every sink, of text and image (the paper's p)
        """
        visual = image & sinks
        kinds = torch.stack([sinks, image & ~sinks, image, visual], -1) & visual.any(-1)[:, None, None]
        on_sinks, on_others, whole, on_visual = kinds.float().unbind(-1)
        margin = rho * whole - on_visual if compat else on_others - rho * whole
        floor = -rho * CODE_EPSILON * whole.sum(-1)[:, None, None] if compat else 0.0
        return cls(
            torch.stack([on_sinks, on_others, whole, margin], -1)[:, None],
            recycle * torch.stack([-on_sinks, on_others], 1)[:, None],
            mass,
            floor,
            guarded=compat or not (mass and rho),
        )

    def choose(self, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rows of maps [B, H, R, K] that are changed, bool, and their attention to sinks and to others, [B, H, R]."""
        on_sinks, on_others, whole, margin = (weights @ self.read).unbind(-1)
        chosen = (whole >= self.mass) & (margin >= self.floor)
        # with nothing to hand it to, attention stays where it is
        return chosen & (on_others > 0) if self.guarded else chosen, on_sinks, on_others

    def apply_(self, weights: Tensor, chosen: Tensor, on_sinks: Tensor, on_others: Tensor) -> Tensor:
        """Change maps [B, H, R, K] in place: rows keep their sum, all but sinks and image tokens their bits."""
        given = torch.where(chosen, on_sinks / on_others, 0.0)
        return weights.addcmul_(weights, torch.stack([chosen.to(given.dtype), given], -1) @ self.spread)


class Var(Calibration):
    """Takes attention from sink tokens and gives it to the image tokens that are none, in heads that see the image.

    Sinks are found once, in the hidden states of the prompt that enter each layer, and serve all later tokens. Only
    rows behind the image are changed: the end of the prompt and every generated token.
    """

    name = "var"
    settings: VarSettings
    layers: frozenset[int]

    def prepare(self, asked: Asked) -> Asked:
        count = len(self.vlm.layers)
        # the published code finds no sinks in the first two layers, and its switch for the last one does not work
        auto = range(2, count) if self.settings.compat else range(count - 1)
        self.layers = self.layers_of(auto)
        self.dims, self.tau = self._sink_rule()
        prompt = asked.prompt
        self.image = prompt.image_mask
        self.behind = prompt.after_images()
        self.padded = ~prompt.attention_mask.bool()
        self.any_padded = bool(self.padded.any())
        # rows behind the image begin at another place in each prompt; the earliest says what to look at
        self.first = int(self.behind.int().argmax(1).min())
        self.sinks: dict[int, Tensor] = {}
        self.active: dict[int, bool] = {}
        self.sink_scores: dict[int, list[Tensor]] = {}
        self._rules: dict[tuple[int, int], Redistribution] = {}
        # first position, rows changed, and the attention moved in them as a share of an amount
        self.booked: list[tuple[int, Tensor, float, Tensor]] = []
        return asked

    def _sink_rule(self) -> tuple[list[int], float]:
        settings, profile = self.settings, self.profile
        if settings.dims == "profile":
            dims = list(profile.dims) if profile is not None else []
        else:
            try:
                dims = [int(part) for part in settings.dims.split(",")]
            except ValueError:
                raise UsageError(
                    f"--set {self.name}.dims: got {settings.dims!r}, expected numbers such as 1415,2533"
                ) from None
        size = self.vlm.hidden_size
        if any(not 0 <= number < size for number in dims):
            raise UsageError(f"--set {self.name}.dims: got {dims}, expected numbers from 0 to {size - 1}")
        tau = settings.tau or (profile.tau if profile is not None else 20.0)
        return dims, tau

    def observe(self, layer: int, start: int, hidden: Tensor) -> None:
        if layer not in self.layers:
            return
        # beams of one prompt are alike while the prompt is read; only the prompt is looked at: keys are cached, and
        # what a token was then is what it stays
        stride = len(hidden) // len(self.image)
        looked_at = hidden[::stride, : self.image.shape[1] - start]
        # where no dimension is known, the largest of all is told, and nothing is a sink
        scores = sink_scores(looked_at, self.dims or range(looked_at.shape[-1]))
        if self.any_padded:
            scores = scores.masked_fill(self.padded[:, start : start + scores.shape[1]], 0)
        self.sink_scores.setdefault(layer, []).append(scores)
        if not self.dims:
            return
        known, found = self.sinks.get(layer), scores > self.tau
        sinks = self.sinks[layer] = found if known is None else torch.cat([known, found], 1)
        self.active[layer] = bool((sinks & self.image[:, : sinks.shape[1]]).any())

    @property
    def recycle(self) -> float:
        """Share of the sinks' attention that is taken."""
        return 1 - self.settings.recycle if self.settings.compat else self.settings.recycle

    def rows(self, layer: int, start: int, stop: int, prompt: int) -> tuple[int, int] | None:
        if not self.active.get(layer) or stop <= self.first or not self.recycle or self.settings.mass > 1:
            return None
        return max(start, self.first), stop

    def weights(self, call: Call, weights: Tensor) -> Tensor | None:
        if self.rows(call.layer, call.start, call.start + call.rows, call.prompt) is None:
            return None
        rule = self._rule_for(call.layer, len(weights))
        # generated tokens are neither image nor sinks
        part = weights[..., : rule.read.shape[2]]
        chosen, on_sinks, on_others = rule.choose(part)
        if call.prefill:
            chosen = chosen & self._touched(call, len(weights))[:, None]
        self.change_(call, part, rule, chosen, on_sinks, on_others)
        return weights

    def change_(
        self, call: Call, weights: Tensor, rule: Redistribution, chosen: Tensor, on_sinks: Tensor, on_others: Tensor
    ) -> None:
        """Change rows in place, and book them for the record."""
        self.booked.append((call.start, chosen, self.recycle, on_sinks))
        rule.apply_(weights, chosen, on_sinks, on_others)

    def _rule_for(self, layer: int, batch: int) -> Redistribution:
        """The rule of a layer for a batch of beams, made once."""
        if (layer, batch) not in self._rules:
            settings, sinks = self.settings, rows_for(self.sinks[layer], batch)
            image = rows_for(self.image[:, : sinks.shape[1]], batch)
            self._rules[layer, batch] = Redistribution.of(
                image, sinks, mass=settings.mass, rho=settings.rho, recycle=self.recycle, compat=settings.compat
            )
        return self._rules[layer, batch]

    def _touched(self, call: Call, batch: int) -> Tensor:
        """[B, R] bool: rows behind the image."""
        behind = rows_for(self.behind, batch)
        rows = behind[:, call.start : call.start + call.rows]
        return torch.nn.functional.pad(rows, (0, call.rows - rows.shape[1]), value=True)

    def _all_scores(self) -> Iterator[Tensor]:
        for parts in self.sink_scores.values():
            yield from parts

    def _tallies(self) -> tuple[Tally, Tally]:
        changed, moved = (Tally(len(self.image), self.image.shape[1]) for _ in range(2))
        for start, chosen, share, available in self.booked:
            changed.add(start, chosen.sum(1))
            moved.add(start, (share * chosen * available).sum(1))
        return changed, moved

    def report(self, row: int) -> dict[str, Any]:
        # positions are told as in the prompt without padding, image tokens counted from the first one of them
        padding, order = int(self.padded[row].sum()), self.image[row].cumsum(0) - 1
        places = {layer: torch.nonzero(sinks[row]).flatten() for layer, sinks in sorted(self.sinks.items())}
        visual = {layer: order[found[self.image[row, found]]].tolist() for layer, found in places.items()}
        changed, moved = self._tallies()
        report: dict[str, Any] = {
            "dims": self.dims,
            "tau": self.tau,
            "largest_score": round(max((float(one[row].max()) for one in self._all_scores()), default=0.0), 4),
            "sinks": {layer: (found - padding).tolist() for layer, found in places.items() if len(found)},
            "visual_sinks": {layer: found for layer, found in visual.items() if found},
            "rows_changed": int(self.total(changed, row)),
            "attention_moved": round(self.total(moved, row), 6),
        }
        if not report["visual_sinks"]:
            why = (
                "no sink dimension is known for this model" if not self.dims else f"no image token exceeds {self.tau:g}"
            )
            report["warning"] = (
                f"{self.name} changed nothing: {why} (largest score {report['largest_score']:g}); "
                "attnkit models sinks MODEL finds its sinks"
            )
        return report
