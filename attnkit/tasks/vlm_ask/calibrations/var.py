"""Visual attention redistribution (VAR)."""

from __future__ import annotations

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


def columns_of(image: Tensor, sinks: Tensor) -> Tensor:
    """Kinds of keys as columns to multiply a map with, [B, 1, K, 3]: sinks, other image tokens, visual sinks.

    image, sinks : [B, K] bool. Where no image token is a sink all columns are 0, so that nothing is chosen.
    """
    kinds = torch.stack([sinks, image & ~sinks, image & sinks], -1)
    return (kinds & (image & sinks).any(-1)[:, None, None]).float()[:, None]


def head_choice(
    weights: Tensor, columns: Tensor, *, mass: float, rho: float, compat: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Which rows of which heads really look at the image, and where their attention is.

    Parameters
    ----------
    weights : [B, H, R, K] after the softmax
    columns : [B, 1, K, 3] as `columns_of` gives them
    mass : least attention to the image
    rho : least share of it on tokens that are no sinks; with `compat` most share on sinks

    Returns
    -------
    chosen [B, H, R] bool; attention of all sinks, and of image tokens that are no sinks, [B, H, R].

    Notes
    -----
    VAR ("See What You Are Told", arXiv 2503.03321), image-centric head selection.
    """
    on_sinks, on_others, on_visual = (weights @ columns).unbind(-1)
    whole = on_others + on_visual
    # with nothing to hand it to, attention stays where it is
    chosen = (whole >= mass) & (on_others > 0)
    if compat:
        tokens = columns[..., 1:].sum((-2, -1))[..., None]
        return chosen & (on_visual / (whole + CODE_EPSILON * tokens) <= rho), on_sinks, on_others
    return chosen & (on_others >= rho * whole), on_sinks, on_others


def redistribute(
    weights: Tensor, columns: Tensor, chosen: Tensor, on_sinks: Tensor, on_others: Tensor, recycle: float
) -> Tensor:
    """Hand a share of the sinks' attention on to the other image tokens, in proportion to what they have.

    Parameters
    ----------
    weights : [B, H, R, K]; columns, chosen, on_sinks, on_others as above
    recycle : share that is taken from every sink, of text and image (the paper's p)

    Returns
    -------
    [B, H, R, K]; rows keep their sum, rows that are not chosen and keys of the text that are no sinks their bits.
    """
    taken = recycle * chosen
    given = taken * on_sinks / on_others.clamp(min=torch.finfo(weights.dtype).tiny)
    change = torch.stack([-taken, given], -1) @ columns[..., :2].mT
    return torch.addcmul(weights, weights, change)


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
        # rows behind the image begin at another place in each prompt; the earliest says what to look at
        self.first = int(self.behind.int().argmax(1).min())
        self.sinks: dict[int, Tensor] = {}
        self.active: dict[int, bool] = {}
        self.largest = torch.zeros(len(prompt.input_ids), device=prompt.input_ids.device)
        self._columns: dict[tuple[int, int], Tensor] = {}
        self._booked: list[tuple[int, Tensor, Tensor]] = []
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
        if layer not in self.layers or not self.dims:
            return
        scores = sink_scores(hidden, self.dims)
        # only the prompt is looked at: keys are cached, and what a token was then is what it stays
        scores = scores[:, : self.image.shape[1] - start].masked_fill(
            rows_for(self.padded, len(hidden))[:, start : start + scores.shape[1]], 0
        )
        if len(scores) != len(self.image):
            # beams of one prompt are alike while the prompt is read
            scores = scores[:: len(scores) // len(self.image)]
        known = self.sinks.get(layer)
        found = scores > self.tau
        self.sinks[layer] = found if known is None else torch.cat([known, found], 1)
        self.active[layer] = bool((self.sinks[layer] & self.image[:, : self.sinks[layer].shape[1]]).any())
        self.largest = torch.maximum(self.largest, scores.amax(1))

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
        columns = self._columns_for(call.layer, len(weights))
        # generated tokens are neither image nor sinks
        part = weights[..., : columns.shape[2]]
        settings = self.settings
        chosen, on_sinks, on_others = head_choice(
            part, columns, mass=settings.mass, rho=settings.rho, compat=settings.compat
        )
        if call.prefill:
            chosen = chosen & self._touched(call, len(weights))[:, None]
        part.copy_(self.change(call, part, columns, chosen, on_sinks, on_others))
        return weights

    def change(
        self, call: Call, weights: Tensor, columns: Tensor, chosen: Tensor, on_sinks: Tensor, on_others: Tensor
    ) -> Tensor:
        """The rows after redistribution, booked for the record."""
        self.book(call, chosen, self.recycle * chosen * on_sinks)
        return redistribute(weights, columns, chosen, on_sinks, on_others, self.recycle)

    def book(self, call: Call, chosen: Tensor, moved: Tensor) -> None:
        """Keep which rows were changed and the attention that was moved in them, [B, H, R] each."""
        self._booked.append((call.start, chosen, moved))

    def _columns_for(self, layer: int, batch: int) -> Tensor:
        """Columns of a layer for a batch of beams, made once."""
        if (layer, batch) not in self._columns:
            sinks = self.sinks[layer]
            columns = columns_of(self.image[:, : sinks.shape[1]], sinks)
            self._columns[layer, batch] = rows_for(columns, batch)
        return self._columns[layer, batch]

    def _touched(self, call: Call, batch: int) -> Tensor:
        """[B, R] bool: rows behind the image."""
        behind = rows_for(self.behind, batch)
        rows = behind[:, call.start : call.start + call.rows]
        return torch.nn.functional.pad(rows, (0, call.rows - rows.shape[1]), value=True)

    def _tallies(self) -> tuple[Tally, Tally]:
        changed, moved = (Tally(len(self.image), self.image.shape[1]) for _ in range(2))
        for start, chosen, amount in self._booked:
            changed.add(start, chosen.sum(1))
            moved.add(start, amount.sum(1))
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
            "largest_score": round(float(self.largest[row]), 4),
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
