"""A placebo for VAR: as much attention, from random tokens in random heads."""

from __future__ import annotations

import torch
from torch import Tensor

from attnkit.models.vlm.attention import Call

from .var import Redistribution, Var


class Placebo(Var):
    """Moves as much attention to image tokens as VAR would, in as many heads of each row, but not the sinks'.

    The heads are drawn for each row, the tokens it is taken from for each layer: as many as there are sinks, none of
    them a sink, and no more is taken from them than they have. What VAR gains beyond this is owed to its choice.
    """

    name = "placebo"

    def change_(self, call: Call, weights: Tensor, rule: Redistribution, left: Tensor, found: Tensor) -> None:
        chosen, on_sinks = ~left[..., 0], found[..., 0]
        draw = torch.Generator().manual_seed(hash((self.seed, call.layer, call.start)) % 2**63)
        order = torch.rand(chosen.shape, generator=draw).argsort(1).to(chosen.device)
        wanted = (self.recycle * chosen * on_sinks).gather(1, order)
        sinks, others = rule.read[..., 0].bool(), rule.read[..., 1].bool()
        tokens = self._tokens(call, sinks)
        kinds = torch.stack([tokens, others & ~tokens], -1).to(weights.dtype)[:, None]
        available, receivers = (weights @ kinds).unbind(-1)
        heads = chosen.gather(1, order) & (available > 0) & (receivers > 0)
        moved = heads * torch.minimum(wanted, available)
        self.booked.append((call.start, ~heads[..., None], 1.0, moved[..., None]))
        tiny = torch.finfo(weights.dtype).tiny
        change = torch.stack([-moved / available.clamp(min=tiny), moved / receivers.clamp(min=tiny)], -1)
        weights.addcmul_(weights, change @ kinds.mT)

    def _tokens(self, call: Call, sinks: Tensor) -> Tensor:
        """[B, K] bool: as many tokens of the prompt as there are sinks, drawn among the others."""
        draw = torch.Generator().manual_seed(hash((self.seed, call.layer)) % 2**63)
        lottery = torch.rand(sinks.shape, generator=draw).to(sinks.device).masked_fill(sinks, -1.0)
        rank = lottery.argsort(1, descending=True).argsort(1)
        return (rank < sinks.sum(1, keepdim=True)) & ~sinks
