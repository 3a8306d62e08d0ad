"""The one attention function that attnkit registers with transformers, and the sessions in which rules act in it.

Outside a session, and in every layer that no rule of the session wants, the function is transformers' own SDPA with
its own mask: the same bits as the plain model. Where a rule wants rows of the map, only those rows are computed a
second time with a softmax that can be seen and changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "attnkit"


@dataclass(frozen=True)
class Call:
    """Some rows of one attention map, as they are handed to a rule.

    layer      of the decoder, from 0
    start      position of the first row; positions count the padded prompt from 0 and go on with generated tokens
    rows, keys number of rows and of columns; columns beyond the last row's position are masked
    prompt     length of the padded prompt
    """

    layer: int
    start: int
    rows: int
    keys: int
    prompt: int

    @property
    def prefill(self) -> bool:
        """Whether the first row belongs to the prompt."""
        return self.start < self.prompt


class Rule:
    """What a calibration or an observer does inside a forward pass. Every method may be left as it is.

    `layers` are the decoder layers that `scores`, `weights` and `heads` are for; None is all of them. The number of
    rows of a batch may be a multiple of the prompts' (beams): `rows_for` repeats a tensor of the prompts.
    """

    layers: frozenset[int] | None = None
    vision_layers: frozenset[int] = frozenset()

    def rows(self, layer: int, start: int, stop: int, prompt: int) -> tuple[int, int] | None:
        """First and last + 1 position of the rows wanted of a call with the queries start:stop; None for none.

        A rule may be handed more rows than it wants, those of other rules: `Call.start` says where they begin.
        """
        return start, stop

    def observe(self, layer: int, start: int, hidden: Tensor) -> None:
        """Hidden states [B, Q, D] of prompt positions start: that enter a decoder layer."""

    def scores(self, call: Call, scores: Tensor) -> Tensor | None:
        """Scaled and masked scores [B, H, R, K] before the softmax; None leaves them."""
        return None

    def weights(self, call: Call, weights: Tensor) -> Tensor | None:
        """Weights [B, H, R, K] after the softmax, float32; they may be changed in place. None leaves them."""
        return None

    def heads(self, layer: int, start: int, outputs: Tensor) -> Tensor | None:
        """Outputs of the heads [B, Q, H, d] before the output projection; None leaves them."""
        return None

    def vision(self, layer: int, weights: Tensor) -> None:
        """Weights [1, H, N, N] of a vision layer for one picture, tile or window, in the order of the tower."""

    def overrides(self, name: str) -> bool:
        return getattr(type(self), name) is not getattr(Rule, name)


def rows_for(tensor: Tensor, batch: int) -> Tensor:
    """A tensor of the prompts [B, ...] repeated for the beams of each, [batch, ...]."""
    return tensor if len(tensor) == batch else tensor.repeat_interleave(batch // len(tensor), 0)


_active: ContextVar[Session | None] = ContextVar("attnkit_attention", default=None)


@contextmanager
def without_session() -> Iterator[None]:
    """The plain model inside a session: a pass of its own, which the rules in force neither see nor change."""
    token = _active.set(None)
    try:
        yield
    finally:
        _active.reset(token)


class Session:
    """Rules in force while one batch of prompts is read and answered; a context manager.

    layers    decoder layers of the model, first to last
    prompt    length of the padded prompt
    rules     act in this order

    Hooks and the context variable are taken back on leaving, also after an error. Two threads may each be in a
    session of their own on one model.
    """

    def __init__(self, layers: Sequence[nn.Module], prompt: int, rules: Sequence[Rule]) -> None:
        self._layers = layers
        self._prompt = prompt
        self._observers = [rule for rule in rules if rule.overrides("observe")]
        self._headed = [rule for rule in rules if rule.overrides("heads")]
        self._seeing = [rule for rule in rules if rule.overrides("vision") and rule.vision_layers]
        row_rules = [rule for rule in rules if rule.overrides("scores") or rule.overrides("weights")]
        self._row_rules = {
            index: [rule for rule in row_rules if rule.layers is None or index in rule.layers]
            for index in range(len(layers))
        }
        self._index = {id(layer.self_attn): index for index, layer in enumerate(layers)}
        self._seen = dict.fromkeys(range(len(layers)), 0)
        self._vision_index: dict[int, int] = {}
        self._handles: list[Any] = []
        self._watching: dict[int, Any] = {}
        # what was made of the last mask: most layers of a pass are given the same
        self._shut: tuple[Tensor | None, tuple[Any, ...], Tensor | None] | None = None
        self._token: Token[Session | None] | None = None

    def __enter__(self) -> Self:
        self._token = _active.set(self)
        for index, layer in enumerate(self._layers):
            if self._observers:
                self._watching[index] = layer.register_forward_pre_hook(self._observing(index), with_kwargs=True)
                self._handles.append(self._watching[index])
            wanted = [rule for rule in self._headed if rule.layers is None or index in rule.layers]
            if wanted:
                projection: nn.Module = layer.self_attn.o_proj  # type: ignore[assignment, union-attr]
                self._handles.append(projection.register_forward_pre_hook(self._heading(index, wanted)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        assert self._token is not None
        _active.reset(self._token)

    def _observing(self, index: int) -> Any:
        def hook(layer: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            # hooks of another thread's session are on the same modules
            if _active.get() is not self:
                return
            if self._seen[index] >= self._prompt:
                # a hook that does nothing is felt in every token
                self._watching[index].remove()
                return
            hidden = given[0] if given else named["hidden_states"]
            for rule in self._observers:
                rule.observe(index, self._seen[index], hidden)

        return hook

    def _heading(self, index: int, rules: Sequence[Rule]) -> Any:
        heads = self._layers[index].self_attn.config.num_attention_heads  # type: ignore[union-attr]

        def hook(projection: nn.Module, given: tuple[Any, ...]) -> tuple[Tensor] | None:
            if _active.get() is not self:
                return None
            outputs, changed = given[0].unflatten(-1, (heads, -1)), False
            # the attention before has counted these rows already
            start = self._seen[index] - outputs.shape[1]
            for rule in rules:
                new = rule.heads(index, start, outputs)
                if new is not None:
                    outputs, changed = new, True
            return (outputs.flatten(-2),) if changed else None

        return hook

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
    ) -> tuple[Tensor, None]:
        """Attention of one module: transformers' SDPA, with the rows that rules change put in their place."""
        index = self._index.get(id(module))
        if index is None:
            self._see(module, query, key, mask, options)
            return sdpa_attention_forward(module, query, key, value, mask, **options)
        queries, keys = query.shape[2], key.shape[2]
        # a static cache hands over its whole buffer; without a cache every call begins at 0
        start = min(keys - queries, self._seen[index])
        self._seen[index] = start + queries
        wanted = [
            (rule, span)
            for rule in self._row_rules[index]
            if (span := rule.rows(index, start, start + queries, self._prompt)) is not None
        ]
        if not wanted:
            return sdpa_attention_forward(module, query, key, value, mask, **options)
        first, stop = min(span[0] for _, span in wanted), max(span[1] for _, span in wanted)
        own = slice(first - start, stop - start)
        whole = stop - first == queries
        shut = self._shut_out(mask, own, first, stop - first, keys, query.device)
        scores = _scores(query if whole else query[:, :, own], key, shut, options.get("scaling"))
        call = Call(index, first, stop - first, keys, self._prompt)
        changed = False
        for rule, _ in wanted:
            new = rule.scores(call, scores)
            scores, changed = (scores, changed) if new is None else (new, True)
        weights = scores.softmax(-1, dtype=torch.float32)
        for rule, _ in wanted:
            new = rule.weights(call, weights)
            weights, changed = (weights, changed) if new is None else (new, True)
        if not changed:
            return sdpa_attention_forward(module, query, key, value, mask, **options)
        mixed = mix(weights.to(query.dtype), value).transpose(1, 2)
        if whole:
            return mixed.contiguous(), None
        output, _ = sdpa_attention_forward(module, query, key, value, mask, **options)
        output[:, own] = mixed
        return output, None

    def _shut_out(
        self, mask: Tensor | None, rows: slice, first: int, count: int, keys: int, device: torch.device
    ) -> Tensor | None:
        given = (rows, first, count, keys, device)
        if self._shut is None or mask is not self._shut[0] or given != self._shut[1]:
            self._shut = mask, given, shut_out(mask, *given)
        return self._shut[2]

    def _see(self, module: nn.Module, query: Tensor, key: Tensor, mask: Tensor | None, options: dict[str, Any]) -> None:
        index = self._vision_index.setdefault(id(module), len(self._vision_index))
        wanting = [rule for rule in self._seeing if index in rule.vision_layers]
        # one at a time: the maps of all tiles of a picture may be larger than its model
        for one in range(len(query) if wanting else 0):
            own = slice(one, one + 1)
            shown = mask if mask is None or len(mask) == 1 else mask[own]
            scores = masked_scores(query[own], key[own], shown, options.get("scaling"), slice(None), None)
            weights = scores.softmax(-1, dtype=torch.float32)
            for rule in wanting:
                rule.vision(index, weights)


def masked_scores(
    query: Tensor, key: Tensor, mask: Tensor | None, scaling: float | None, rows: slice, start: int | None
) -> Tensor:
    """Scaled scores [B, H, R, K] of some rows, with the mask (boolean, additive, or None) applied.

    query    [B, H, Q, d], key [B, H_kv, K, d], H a multiple of H_kv
    start    position of query 0: without a mask, keys beyond a row's position are shut out; None lets all in
    """
    query = query[:, :, rows]
    first = None if start is None else start + (rows.start or 0)
    return _scores(query, key, shut_out(mask, rows, first, query.shape[2], key.shape[2], query.device), scaling)


def shut_out(
    mask: Tensor | None, rows: slice, first: int | None, count: int, keys: int, device: torch.device
) -> Tensor | None:
    """What is done to the scores of some rows: a boolean tensor, True where a key is shut out, one to add, or None.

    first    position of the first of `count` rows, where there is no mask; None lets all keys in
    """
    if mask is not None:
        part = mask[:, :, rows, :keys]
        return ~part if part.dtype == torch.bool else part
    # the last position sees all
    if first is None or first + 1 == keys:
        return None
    positions = torch.arange(first, first + count, device=device)
    return torch.arange(keys, device=device) > positions[:, None]


def _scores(query: Tensor, key: Tensor, shut: Tensor | None, scaling: float | None) -> Tensor:
    batch, heads, count, size = query.shape
    groups, keys = key.shape[1:3]
    # one product of three axes: four are brought to three by more calls, which is what a single row costs
    grouped = (query * (size**-0.5 if scaling is None else scaling)).reshape(batch * groups, -1, size)
    scores = torch.bmm(grouped, key.flatten(0, 1).mT).view(batch, heads, count, keys)
    if shut is None:
        return scores
    return scores.masked_fill_(shut, torch.finfo(scores.dtype).min) if shut.dtype == torch.bool else scores + shut


def mix(weights: Tensor, value: Tensor) -> Tensor:
    """Values [B, H_kv, K, d] weighted by [B, H, R, K]: [B, H, R, d]."""
    batch, heads, count, keys = weights.shape
    groups, size = value.shape[1], value.shape[3]
    grouped = weights.reshape(batch * groups, -1, keys)
    return torch.bmm(grouped, value.flatten(0, 1)).view(batch, heads, count, size)


def attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Attention as transformers asks for it: [B, H, Q, d] and [B, H_kv, K, d] to [B, Q, H, d]."""
    session = _active.get()
    if session is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    return session.attend(module, query, key, value, attention_mask, **options)


def register() -> str:
    """Make the function known to transformers, with the mask of SDPA; returns the name to give to a model."""
    AttentionInterface.register(NAME, attention)
    # without a mask function of the same name transformers hands over None and causality is lost
    AttentionMaskInterface.register(NAME, sdpa_mask)
    return NAME
