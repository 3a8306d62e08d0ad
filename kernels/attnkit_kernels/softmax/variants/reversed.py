"""DependencyViT's reversed attention: tokens send their values under weights that sum to one over the receivers.

With W = softmax(scale q k^T) over receivers, the ordinary attention is W v and the reversed one W^T g. W^T g is what
the backward pass of the ordinary one computes for its values, and both gradients of the reversed one are an ordinary
attention and its backward pass: so the engine does it all, without a kernel of its own, without a table of pairs, over
any block map and in every implementation that has a backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import logsigmoid

from ...dispatch import Impl
from ..api import attention, resolve_impl
from ..blockmap import BlockMap

__all__ = ["dependency_parents", "head_selector", "keep_senders", "lite_schedule", "message", "reversed_attention"]

# pairs whose dependencies are held at once
CHUNK_PAIRS = 1 << 22


def reversed_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    head_weight: Tensor | None = None,
    log_message: Tensor | None = None,
    block_map: BlockMap | None = None,
    scale: float | None = None,
    impl: str | Impl = "auto",
) -> Tensor:
    """Output [batch, receivers, heads, value dim]: the sum of what all senders send to each receiver.

    Parameters
    ----------
    query : [batch, senders, heads, dim]; value : [batch, senders, heads, value dim], what they send
    key : [batch, receivers, heads, dim]
    head_weight : [batch, senders, heads], P of `head_selector`; default 1
    log_message : [batch, senders], the logarithm of M of `message`; default 0. A sender of -inf sends nothing, but
        still receives
    block_map : which receivers a sender sees (default all); without tails
    scale : factor of the scores, default dim ** -0.5
    impl : of the softmax engine: auto, reference, torch or triton

    Raises
    ------
    ValueError for shapes that do not fit, ImplementationError (a ValueError) for an `impl` that cannot.

    Notes
    -----
    DependencyViT, reversed attention: y_j = sum_i A_ij P_i M_i v_i with A_ij = softmax over receivers j of
    scale q_i . k_j. A sender's mass over all receivers and heads is M_i sum_h P_ih; what a receiver gets is not
    normalised. Once differentiable.
    """
    _check(query, key, value, head_weight, log_message, block_map)
    sent = value
    if head_weight is not None:
        sent = sent * head_weight[..., None].to(value.dtype)
    if log_message is not None:
        sent = sent * log_message.exp()[:, :, None, None].to(value.dtype)
    chosen = resolve_impl(query.detach().requires_grad_(), key, value, impl=impl)
    return _Reversed.apply(query, key, sent, block_map, scale, chosen)  # type: ignore[no-any-return, no-untyped-call]


class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, sent: Tensor, block_map: BlockMap | None, scale: float | None, impl: str
    ) -> Tensor:
        ctx.save_for_backward(query, key, sent)
        ctx.settings = {"block_map": block_map, "scale": scale, "impl": impl}
        with torch.enable_grad():
            nothing = key.new_zeros(*key.shape[:3], sent.shape[3]).requires_grad_()
            output = attention(query.detach(), key.detach(), nothing, **ctx.settings).output
            return torch.autograd.grad(output, nothing, sent)[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        query, key, sent = ctx.saved_tensors
        with torch.enable_grad():
            query, key = (x.detach().requires_grad_() for x in (query, key))
            to_sent = attention(query, key, gradient, **ctx.settings).output
            to_query, to_key = torch.autograd.grad(to_sent, (query, key), sent)
        return to_query, to_key, to_sent.detach(), None, None, None


def _check(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    head_weight: Tensor | None,
    log_message: Tensor | None,
    block_map: BlockMap | None,
) -> None:
    for name, tensor in (("query", query), ("key", key), ("value", value)):
        if tensor.ndim != 4:
            raise ValueError(f"{name}: expected [batch, tokens, heads, dim], got shape {list(tensor.shape)}")
    if query.shape[:3] != value.shape[:3]:
        raise ValueError(
            f"query and value are the senders' and must agree in batch, tokens and heads, "
            f"got {list(query.shape)} and {list(value.shape)}"
        )
    if query.shape[2] != key.shape[2]:
        raise ValueError(f"query and key must have as many heads, got {query.shape[2]} and {key.shape[2]}")
    for name, gate, shape in (
        ("head_weight", head_weight, query.shape[:3]),
        ("log_message", log_message, query.shape[:2]),
    ):
        if gate is not None and gate.shape != shape:
            raise ValueError(f"{name}: expected {list(shape)} as query, got shape {list(gate.shape)}")
    if block_map is not None and (block_map.tail_queries or block_map.tail_keys):
        tails = block_map.tail_queries, block_map.tail_keys
        raise ValueError(f"block_map: expected a map without tails, got {tails[0]} queries and {tails[1]} keys")


def head_selector(logits: Tensor, temperature: float = 0.1) -> Tensor:
    """P [batch, tokens, heads], softmax over heads of logits / temperature, float32 or more: nearly one head a token.

    logits : x W_P, [batch, tokens, heads]; published temperature 0.1.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return (wide / temperature).softmax(-1)


def message(logits: Tensor, log_before: Tensor | None = None) -> Tensor:
    """log M [batch, tokens] of this layer: log M of the layer before (None: 0) + log sigmoid(logits), float32 or more.

    logits : the controller's output, [batch, tokens]. M never grows from layer to layer; the product of sigmoids is
    kept as a sum of logarithms, so that deep layers do not lose it.
    """
    wide = logits if logits.dtype == torch.float64 else logits.float()
    sigmoid = logsigmoid(wide)
    return sigmoid if log_before is None else log_before + sigmoid


@torch.no_grad()
def dependency_parents(
    query: Tensor, key: Tensor, head_weight: Tensor | None = None, *, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """The receiver that each token sends most to, over all heads, int64 [batch, senders], and its share, no gradient.

    query [batch, senders, heads, dim], key [batch, receivers, heads, dim], head_weight [batch, senders, heads]. The
    message is a factor of all a token sends and changes no parent. Senders are taken in parts: no table of all pairs.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    step = max(1, CHUNK_PAIRS // max(1, key.shape[1] * key.shape[0] * key.shape[2]))
    parents, shares = [], []
    for start in range(0, query.shape[1], step):
        part = slice(start, start + step)
        scores = query[:, part].to(dtype).transpose(1, 2) @ key.to(dtype).permute(0, 2, 3, 1) * scale
        weights = scores.softmax(-1)
        if head_weight is not None:
            weights = weights * head_weight[:, part].to(dtype).transpose(1, 2)[..., None]
        share, parent = weights.sum(1).max(-1)
        parents.append(parent)
        shares.append(share)
    return torch.cat(parents, 1), torch.cat(shares, 1)


def keep_senders(log_message: Tensor, count: int) -> Tensor:
    """int64 [batch, count], the tokens that still send most, in order of position; ties to the earlier token.

    What a token sends over all heads is M, so ranking by sent mass is ranking by log M [batch, tokens]. Removing a
    token renormalises the rows of the others even if it sent nothing: what i sends to the rest grows by
    1 / (1 - A_ip).
    """
    if not 0 <= count <= log_message.shape[1]:
        raise ValueError(f"count: expected 0..{log_message.shape[1]} tokens, got {count}")
    return log_message.sort(dim=-1, descending=True, stable=True).indices[:, :count].sort(-1).values


def lite_schedule(tokens: int, prunings: int = 4, ratio: float = 0.16) -> list[int]:
    """Tokens after each pruning of the lite models: `ratio` of the original number goes each time.

    >>> lite_schedule(196)
    [165, 133, 102, 71]
    """
    if not 0 <= ratio * prunings < 1:
        raise ValueError(f"ratio * prunings must be in [0, 1), got {ratio} and {prunings}")
    return [round(tokens * (1 - ratio * count)) for count in range(1, prunings + 1)]
