"""Visual attention redistribution (VAR)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from attnkit.models.vlm.attention import Call, rows_for
from attnkit.models.vlm.sinks import sink_scores
from attnkit.runtime.errors import UsageError

from .base import Asked, Calibration, Tally
from .settings import VarSettings, read_numbers

# what the published code adds to every image token of the ratio's denominator
CODE_EPSILON = 1e-6


@lru_cache(maxsize=8)
def _constants(mass: float, rho: float, recycle: float, compat: bool, device: torch.device) -> Tensor:
    """[5, 6]: a row for each kind of token (text, sink of the text, image, sink of the image), and least values.

    The first four columns are read of a map, the last two spread over it, see `Redistribution`.
    """
    margins = (rho, rho - 1) if compat else (1 - rho, -rho)
    return torch.tensor(
        [
            [0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
            [1.0, 0.0, 0.0, 0.0, 0.0, -recycle],
            [0.0, 1.0, 1.0, margins[0], recycle, 0.0],
            [1.0, 0.0, 1.0, margins[1], 0.0, -recycle],
            # with nothing to hand it to, attention stays where it is
            [torch.finfo(torch.float32).tiny, mass, 0.0, 0.0, 0.0, 0.0],
        ],
        device=device,
    )


@dataclass(frozen=True)
class Redistribution:
    """Attention of sinks handed to the other image tokens, in rows that really look at the image.

    It is made once for the prompts of a batch and used in every step, so what can be multiplied out beforehand is:
    a step of one token costs as much as the number of its calls.

    read      [B, K, 4]: what a map is multiplied with to have, for each row, its attention to all sinks, to image
              tokens that are no sinks, to the image, and how far it is above the bound of rho
    spread    [B, 2, K]: what each key gains (image tokens that are no sinks) and loses (sinks)
    least     [3] or [B, 1, 1, 3]: least values of the last three columns of `read` in a row that is changed

    Notes
    -----
    VAR ("See What You Are Told: Visual Attention Sink in Large Multimodal Models", arXiv 2503.03321), image-centric
    head selection and redistribution. Prompts without a visual sink have columns of 0, and nothing of them is chosen.
    """

    read: Tensor
    spread: Tensor
    least: Tensor

    @classmethod
    def of(
        cls, image: Tensor, sinks: Tensor, *, mass: float, rho: float, recycle: float, compat: bool = False
    ) -> Redistribution:
        """The rule for image tokens and sinks, [B, K] bool each.

        mass     least attention to the image
        rho      least share of it on tokens that are no sinks; with `compat` most share on sinks
        recycle  share that is taken from every sink, of text and image (the paper's p)
        """
        constants = _constants(mass, rho, recycle, compat, image.device)
        kinds = image.int().mul_(2).add_(sinks)
        columns = torch.nn.functional.embedding(kinds, constants)
        columns.mul_((kinds == 3).any(1)[:, None, None])
        bounds = constants[4, :3]
        if compat:
            bounds = bounds.repeat(len(image), 1, 1, 1)
            bounds[..., 2] -= rho * CODE_EPSILON * image.sum(1)[:, None, None]
        return cls(columns[..., :4], columns[..., 4:].mT, bounds)

    def choose(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of maps [B, H, R, K] that are left alone, [B, H, R, 1] bool, and what is read of all, [B, H, R, 4]."""
        found = torch.bmm(weights.flatten(1, 2), self.read).view(*weights.shape[:3], 4)
        return (found[..., 1:] < self.least).any(-1, keepdim=True), found

    def apply_(self, weights: Tensor, left: Tensor, found: Tensor) -> Tensor:
        """Change maps [B, H, R, K] in place: rows keep their sum, all but sinks and image tokens their bits."""
        # sinks to others, and 1
        given = (found[..., :2] / found[..., 1:2]).masked_fill_(left, 0)
        return weights.addcmul_(weights, torch.bmm(given.flatten(1, 2), self.spread).view(weights.shape))


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
        self.even = bool(self.behind[:, self.first :].all())
        self.idle = not self.recycle or self.settings.mass > 1
        self.sinks: dict[int, Tensor] = {}
        self.active: dict[int, bool] = {}
        self.sink_scores: dict[int, list[Tensor]] = {}
        self._rules: dict[int, Redistribution] = {}
        # first position, rows left alone [B, H, R, 1], and a share of the first column of amounts [B, H, R, ...] moved
        self.booked: list[tuple[int, Tensor, float, Tensor]] = []
        return asked

    def _sink_rule(self) -> tuple[list[int], float]:
        settings, profile = self.settings, self.profile
        if settings.dims == "profile":
            dims = list(profile.dims) if profile is not None else []
        else:
            dims = read_numbers(settings.dims, f"--set {self.name}.dims")
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
        self.active[layer] = not self.idle and bool((sinks & self.image[:, : sinks.shape[1]]).any())
        self._rules.pop(layer, None)

    @property
    def recycle(self) -> float:
        """Share of the sinks' attention that is taken."""
        return 1 - self.settings.recycle if self.settings.compat else self.settings.recycle

    def rows(self, layer: int, start: int, stop: int, prompt: int) -> tuple[int, int] | None:
        if not self.active.get(layer) or stop <= self.first:
            return None
        return max(start, self.first), stop

    def weights(self, call: Call, weights: Tensor) -> Tensor | None:
        # rows may be wanted by another rule alone
        if not self.active.get(call.layer) or call.start + call.rows <= self.first:
            return None
        rule = self._rule_for(call.layer, len(weights))
        # generated tokens are neither image nor sinks
        part = weights[..., : rule.read.shape[1]]
        left, found = rule.choose(part)
        if call.prefill and not (self.even and call.start >= self.first):
            left |= self._before(call, len(weights))[:, None, :, None]
        self.change_(call, part, rule, left, found)
        return weights

    def change_(self, call: Call, weights: Tensor, rule: Redistribution, left: Tensor, found: Tensor) -> None:
        """Change rows in place, and book them for the record."""
        self.booked.append((call.start, left, self.recycle, found))
        rule.apply_(weights, left, found)

    def _rule_for(self, layer: int, batch: int) -> Redistribution:
        """The rule of a layer for a batch of beams, made once."""
        rule = self._rules.get(layer)
        if rule is None or len(rule.read) != batch:
            settings, sinks = self.settings, rows_for(self.sinks[layer], batch)
            image = rows_for(self.image[:, : sinks.shape[1]], batch)
            rule = self._rules[layer] = Redistribution.of(
                image, sinks, mass=settings.mass, rho=settings.rho, recycle=self.recycle, compat=settings.compat
            )
        return rule

    def _before(self, call: Call, batch: int) -> Tensor:
        """[B, R] bool: rows that are not behind the image."""
        behind = rows_for(self.behind, batch)
        rows = ~behind[:, call.start : call.start + call.rows]
        return torch.nn.functional.pad(rows, (0, call.rows - rows.shape[1]))

    def _scores_of(self, row: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Per layer the sink scores of a prompt's tokens, and which of them are image tokens."""
        for parts in self.sink_scores.values():
            scores = torch.cat([part[row] for part in parts])
            yield scores, self.image[row, : len(scores)]

    def _tallies(self) -> tuple[Tally, Tally]:
        changed, moved = (Tally(len(self.image), self.image.shape[1]) for _ in range(2))
        for start, left, share, amounts in self.booked:
            chosen = ~left[..., 0]
            changed.add(start, chosen.sum(1))
            moved.add(start, (share * chosen * amounts[..., 0]).sum(1))
        return changed, moved

    def report(self, row: int) -> dict[str, Any]:
        # positions are told as in the prompt without padding, image tokens counted from the first one of them
        padding, order = int(self.padded[row].sum()), self.image[row].cumsum(0) - 1
        places = {layer: torch.nonzero(sinks[row]).flatten() for layer, sinks in sorted(self.sinks.items())}
        visual = {layer: order[found[self.image[row, found]]].tolist() for layer, found in places.items()}
        changed, moved = self._tallies()
        scores = list(self._scores_of(row))
        report: dict[str, Any] = {
            "dims": self.dims,
            "tau": self.tau,
            "largest_score": round(max((float(one.max()) for one, _ in scores), default=0.0), 4),
            "largest_image_score": round(
                max((float(one[image].max()) for one, image in scores if image.any()), default=0.0), 4
            ),
            "sinks": {layer: (found - padding).tolist() for layer, found in places.items() if len(found)},
            "visual_sinks": {layer: found for layer, found in visual.items() if found},
            "rows_changed": int(self.total(changed, row)),
            "attention_moved": round(self.total(moved, row), 6),
        }
        if not report["visual_sinks"]:
            why = (
                f"no image token exceeds {self.tau:g} (largest score of one {report['largest_image_score']:g}); "
                f"--set {self.name}.tau sets another threshold"
                if self.dims
                else f"no sink dimension is known for this model (largest score {report['largest_score']:g}); "
                "attnkit models sinks MODEL looks for sinks"
            )
            report["warning"] = f"{self.name} changed nothing: {why}"
        return report
