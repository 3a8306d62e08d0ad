"""A placebo for VAR: as much attention, from random tokens in random heads."""

from __future__ import annotations

import torch
from torch import Tensor

from attnkit.models.vlm.attention import Call

from .var import Var


class Placebo(Var):
    """Moves as much attention to image tokens as VAR would, in as many heads of each row, but not the sinks'.

    The heads are drawn for each row, the tokens it is taken from for each layer: as many as there are sinks, none of
    them a sink, and no more is taken from them than they have. What VAR gains beyond this is owed to its choice.
    """

    name = "placebo"

    def change(
        self,
        call: Call,
        weights: Tensor,
        image: Tensor,
        sinks: Tensor,
        chosen: Tensor,
        on_sinks: Tensor,
        on_others: Tensor,
    ) -> Tensor:
        draw = torch.Generator().manual_seed(hash((self.seed, call.layer, call.start)) % 2**63)
        order = torch.rand(chosen.shape, generator=draw).argsort(1).to(chosen.device)
        heads = chosen.gather(1, order)
        wanted = (self.settings.recycle * torch.where(chosen, on_sinks, 0.0)).gather(1, order)
        tokens = self._tokens(call, sinks)
        kinds = torch.stack([tokens, image & ~sinks & ~tokens], -1).to(weights.dtype)
        available, receivers = (weights @ kinds[:, None]).unbind(-1)
        heads = heads & (available > 0) & (receivers > 0)
        moved = torch.where(heads, torch.minimum(wanted, available), 0.0)
        self.book(heads, moved)
        tiny = torch.finfo(weights.dtype).tiny
        change = torch.stack([-moved / available.clamp(min=tiny), moved / receivers.clamp(min=tiny)], -1)
        return weights * (1 + change @ kinds[:, None].mT)

    def _tokens(self, call: Call, sinks: Tensor) -> Tensor:
        """[B, K] bool: as many tokens of the prompt as there are sinks, drawn among the others."""
        draw = torch.Generator().manual_seed(hash((self.seed, call.layer)) % 2**63)
        prompt = min(call.prompt, call.keys)
        lottery = torch.rand(sinks.shape[0], prompt, generator=draw).to(sinks.device)
        lottery = lottery.masked_fill(sinks[:, :prompt], -1.0)
        rank = lottery.argsort(1, descending=True).argsort(1)
        chosen = rank < sinks.sum(1, keepdim=True)
        return torch.nn.functional.pad(chosen, (0, sinks.shape[1] - prompt))
