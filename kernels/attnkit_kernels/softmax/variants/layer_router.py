"""Flux Attention's layer router: once per request, full or sparse attention for a whole layer."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ...dispatch import Impl
from ..api import attention
from ..blockmap import BlockMap
from ..result import AttentionResult

__all__ = [
    "TARGETS",
    "AttentionRouter",
    "SparsityConstraint",
    "blend_attention",
    "choose_attention",
    "gumbel_gate",
    "gumbel_noise",
    "model_sparsity",
    "pool_ends",
    "temperature",
]

# of the published training script: the sparsity that each type of task is held to
TARGETS = {"code": 1.0, "in_context": 1.0, "summarisation": 1.0, "single_hop": 0.45, "multi_hop": 0.45}
# index of the logits that means full attention
FULL = 1


def pool_ends(query: Tensor, ends: int, start: int = 0, stop: int | None = None) -> Tensor:
    """Mean [batch, dim] over the heads and the first and last `ends` tokens of query[:, start:stop].

    query : [batch, tokens, heads, dim], after its norm and before rotary positions. Published: ends 150 in training
    over context and question, 100 by default; packed inference takes all tokens (ends >= tokens / 2 does that).
    ValueError for ends below 1 or an empty segment.
    """
    segment = query[:, start:stop]
    tokens = segment.shape[1]
    if ends < 1 or not tokens:
        raise ValueError(f"pooling needs 1 token or more at each end, got ends {ends} and {tokens} tokens")
    if 2 * ends < tokens:
        segment = torch.cat([segment[:, :ends], segment[:, -ends:]], 1)
    return segment.mean((1, 2))


def gumbel_noise(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Gumbel noise -log(-log u) of the shape of `logits`."""
    tiny = torch.finfo(torch.float32).tiny
    uniform = torch.rand(logits.shape, generator=generator, device=generator.device).clamp(tiny, 1 - 2**-24)
    return -(-uniform.log()).log().to(logits.device)


def gumbel_gate(logits: Tensor, temperature: float, noise: Tensor) -> Tensor:
    """Gate [batch], 1.0 for full attention and 0.0 for sparse, whose gradient is that of the soft choice.

    logits, noise : [batch, 2]. Straight-through: hard + soft - stopgrad(soft), soft = softmax((logits + noise) /
    temperature). The frequency of 1 is sigmoid(logit_1 - logit_0) at any temperature.
    """
    soft = ((logits + noise) / temperature).softmax(-1)[..., FULL]
    hard = (soft > 0.5).to(soft.dtype)
    return hard + (soft - soft.detach())


class AttentionRouter(nn.Module):
    """Full or sparse attention for one layer, from the queries of the request; 36 dim^2 + 17 dim + 2 parameters.

    dim : of a head; ends : tokens pooled at each end; generator : of the initial weights. The last layer starts with
    weight 0 and bias (0, 4.5): full attention, as published.
    """

    def __init__(
        self,
        dim: int,
        *,
        ends: int = 100,
        generator: torch.Generator | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.ends = ends

        def linear(inputs: int, outputs: int) -> nn.Linear:
            layer = nn.utils.skip_init(nn.Linear, inputs, outputs, device=device or "cpu", dtype=dtype)
            nn.init.kaiming_uniform_(layer.weight, math.sqrt(5), generator=generator)
            nn.init.zeros_(layer.bias)
            return layer  # type: ignore[no-any-return]

        last = linear(dim, 2)
        nn.init.zeros_(last.weight)
        with torch.no_grad():
            last.bias[FULL] = 4.5
        self.features = nn.Sequential(linear(dim, 8 * dim), nn.SiLU(), linear(8 * dim, 2 * dim))
        self.head = nn.Sequential(linear(2 * dim, 4 * dim), nn.SiLU(), linear(4 * dim, dim), nn.SiLU(), last)

    def forward(self, query: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
        """Logits [batch, 2] of sparse and full attention for query [batch, tokens, heads, dim], `pool_ends` of it."""
        pooled = pool_ends(query, self.ends, start, stop)
        return self.head(self.features(pooled))  # type: ignore[no-any-return]

    def choose(self, query: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
        """bool [batch], whether to run full attention: the larger logit, without noise."""
        return self(query, start, stop).argmax(-1) == FULL


def blend_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    gate: Tensor,
    *,
    full: BlockMap,
    sparse: BlockMap,
    scale: float | None = None,
    impl: str | Impl = "auto",
) -> Tensor:
    """gate * full attention + (1 - gate) * sparse attention, [batch, tokens, heads, dim]; for training.

    gate : [batch], of `gumbel_gate`; both attentions run, so that its gradient is <dO, full - sparse>. full, sparse :
    maps, as published causal and `patterns.pattern("streaming")`.
    """
    _check_gate(gate, query)
    outputs = [
        attention(query, key, value, block_map=block_map, scale=scale, impl=impl).output for block_map in (full, sparse)
    ]
    weight = gate.to(query.dtype)[:, None, None, None]
    return weight * outputs[0] + (1 - weight) * outputs[1]


def choose_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    gate: Tensor,
    *,
    full: BlockMap,
    sparse: BlockMap,
    scale: float | None = None,
    impl: str | Impl = "auto",
) -> AttentionResult:
    """Full attention for the samples whose gate is set, sparse for the others; each runs one only. For inference.

    gate : bool [batch], of `AttentionRouter.choose`. The maps are shared by all samples (their batch is 1).
    """
    _check_gate(gate, query)
    for name, block_map in (("full", full), ("sparse", sparse)):
        if block_map.batch != 1:
            raise ValueError(f"{name}: expected a map of batch 1, got {block_map.batch}")
    parts, order = [], []
    for wanted, block_map in ((True, full), (False, sparse)):
        chosen = torch.nonzero(gate.bool() == wanted)[:, 0]
        if len(chosen) or not len(gate):
            samples = (query, key, value) if len(chosen) == len(gate) else [x[chosen] for x in (query, key, value)]
            parts.append(attention(*samples, block_map=block_map, scale=scale, impl=impl))
            order.append(chosen)
    if len(parts) == 1:
        return parts[0]
    back = torch.cat(order).argsort()
    return AttentionResult(*(torch.cat(pair)[back] for pair in zip(*parts, strict=True)))


def _check_gate(gate: Tensor, query: Tensor) -> None:
    if gate.shape != query.shape[:1]:
        raise ValueError(f"gate: expected one for each of {query.shape[0]} samples, got shape {list(gate.shape)}")


def model_sparsity(gates: Tensor) -> Tensor:
    """Share of sparse layers [batch] for gates [layers, batch]: 1 - mean over layers."""
    return 1 - gates.mean(0)


class SparsityConstraint(nn.Module):
    """Holds the sparsity of each type of task to its target: l1 |m - t| + l2 (m - t)^2, mean over the types present.

    targets : by task name; generator : of the multipliers l1 and l2, which start uniform in 0..0.5. They are trained by
    gradient ascent (`ascend`, or an optimiser with maximize=True), the model by descent on its loss plus this.
    """

    def __init__(self, targets: dict[str, float] | None = None, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        targets = TARGETS if targets is None else targets
        self.names = tuple(targets)
        self.register_buffer("targets", torch.tensor([float(target) for target in targets.values()]))
        self.linear = nn.Parameter(torch.rand(len(targets), generator=generator) / 2)
        self.square = nn.Parameter(torch.rand(len(targets), generator=generator) / 2)

    def forward(self, sparsity: Tensor, tasks: list[str]) -> Tensor:
        """The loss for sparsity [batch], of `model_sparsity`, and the task of each sample; ValueError if unknown."""
        unknown = [name for name in tasks if name not in self.names]
        if unknown or len(tasks) != len(sparsity):
            raise ValueError(
                f"tasks: expected {len(sparsity)} of {', '.join(self.names)}, got {len(tasks)}: {', '.join(tasks)}"
            )
        index = torch.tensor([self.names.index(name) for name in tasks], device=sparsity.device)
        gap = (sparsity - self.targets[index]).abs()  # type: ignore[index]
        losses = self.linear[index] * gap + self.square[index] * gap**2
        return torch.stack([losses[index == at].mean() for at in index.unique()]).mean()

    @torch.no_grad()
    def ascend(self, rate: float) -> None:
        """One step of gradient ascent of the multipliers, after `backward()`; their gradients are cleared."""
        for multiplier in (self.linear, self.square):
            if multiplier.grad is not None:
                multiplier.add_(multiplier.grad, alpha=rate)
                multiplier.grad = None


def temperature(step: int, steps: int, *, first: float = 1.5, last: float = 1.0, share: float = 0.6) -> float:
    """Temperature of the gate at a training step: a cosine from first to last over the first `share` of the steps."""
    progress = min(1.0, step / max(1.0, share * steps))
    return last + (first - last) * (1 + math.cos(math.pi * progress)) / 2
