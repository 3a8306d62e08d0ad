"""SLA: softmax attention over the critical blocks, plus a projected linear attention over the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...dispatch import Impl
from ...patterns.sla import Sla
from ..api import attention
from ..blockmap import BlockMap

__all__ = ["FEATURE_MAPS", "FORMS", "SlaResult", "SparseLinearAttention", "flops", "sparse_linear_attention"]

FORMS = ("paper", "marginal", "global")
FEATURE_MAPS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda x: x.softmax(-1),
    "elu": lambda x: functional.elu(x) + 1,
    "relu": torch.relu,
}
# of the published main branch; its other branch has none
GLOBAL_EPSILON = 1e-5


class SlaResult(NamedTuple):
    """output = sparse + projection(linear), [batch, queries, heads, value dim] each; linear is None without projection.

    classes : int8 [batch, heads, query_blocks, key_blocks], 1 critical, 0 marginal, -1 negligible
    block_map : the critical blocks; its density is the true share of the work
    """

    output: Tensor
    sparse: Tensor
    linear: Tensor | None
    classes: Tensor
    block_map: BlockMap


def sparse_linear_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    routing: Sla | None = None,
    form: str = "paper",
    feature_map: str = "softmax",
    projection: Tensor | None = None,
    projection_bias: Tensor | None = None,
    classes: Tensor | None = None,
    scale: float | None = None,
    impl: str | Impl = "auto",
) -> SlaResult:
    """Exact attention where it matters, linear attention elsewhere; differentiable but for the choice of blocks.

    Parameters
    ----------
    query : [batch, queries, heads, dim]; key, value : [batch, keys, kv_heads, dim], value may have a dim of its own
    routing : ratio, skip and block sizes; default the paper's
    form : what the linear part sums over. "paper": the marginal blocks. "marginal": every block that is not critical
        (published branch SLA-1: total minus chosen). "global": all keys, 1e-5 in the denominator (published main
        branch, TurboDiffusion). Weights of one form do not fit another
    feature_map : phi of the linear part: "softmax" over the dim, "elu" (+ 1) or "relu"
    projection, projection_bias : [value dim, value dim], [value dim], shared by all heads. Without projection the
        sparse part stands alone, as with a projection of zeros (the start of a fine-tune)
    classes : int8 [batch, heads, query_blocks, key_blocks] of an earlier result, to use its routing again
    scale : of the softmax part only, default dim ** -0.5; impl : of the softmax part

    Returns
    -------
    SlaResult; the linear part is computed in float32 (float64 for float64), output has the dtype of query.

    Raises
    ------
    ValueError for an unknown form or feature map and for shapes that do not fit.

    Notes
    -----
    Paper Eq. 4 to 6: O = softmax_critical(scale q k^T) v + Proj(phi(q) H / (phi(q) Z)), H = sum of phi(k)^T v and
    Z = sum of phi(k) over the summed blocks. The linear part is 0 where Z is (nothing marginal).
    """
    routing = Sla() if routing is None else routing
    for name, given, known in (("form", form, FORMS), ("feature_map", feature_map, tuple(FEATURE_MAPS))):
        if given not in known:
            raise ValueError(f"{name}: expected one of {', '.join(known)}, got {given!r}")
    dim = value.shape[-1]
    if projection is not None and projection.shape != (dim, dim):
        raise ValueError(f"projection: expected [{dim}, {dim}] as value dim, got shape {list(projection.shape)}")
    classes = routing.classes(query, key) if classes is None else classes
    _check_classes(classes, query, key, routing)
    block_map = routing.critical_map(classes, query.shape[1], key.shape[1])
    sparse = attention(query, key, value, block_map=block_map, scale=scale, impl=impl).output
    if projection is None:
        return SlaResult(sparse, sparse, None, classes, block_map)
    with torch.autocast(query.device.type, enabled=False):
        dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
        phi = FEATURE_MAPS[feature_map]
        linear = _linear(
            phi(query.to(dtype)), phi(key.to(dtype)), value.to(dtype), _summed(classes, form), routing, form
        )
        bias = None if projection_bias is None else projection_bias.to(dtype)
        projected = functional.linear(linear, projection.to(dtype), bias)
        output = (sparse.to(dtype) + projected).to(query.dtype)
    return SlaResult(output, sparse, linear.to(query.dtype), classes, block_map)


def _check_classes(classes: Tensor, query: Tensor, key: Tensor, routing: Sla) -> None:
    blocks = -(-query.shape[1] // routing.query_block), -(-key.shape[1] // routing.key_block)
    expected = (query.shape[0], query.shape[2], *blocks)
    if classes.shape != expected:
        raise ValueError(f"classes: expected {list(expected)}, got shape {list(classes.shape)}")


def _summed(classes: Tensor, form: str) -> Tensor | None:
    return None if form == "global" else classes == 0 if form == "paper" else classes != 1


def _linear(query: Tensor, key: Tensor, value: Tensor, summed: Tensor | None, routing: Sla, form: str) -> Tensor:
    """phi(q) H / (phi(q) Z) [batch, queries, heads, value dim] of features; `summed` says which blocks are in H, Z."""
    queries, heads, dim = query.shape[1:]
    kv_heads, width = value.shape[2:]
    # a column of ones beside the values gives Z with H
    values = torch.cat([value, value.new_ones(*value.shape[:3], 1)], -1)
    query = query.transpose(1, 2).unflatten(1, (kv_heads, heads // kv_heads))
    if summed is None:
        state = (key.permute(0, 2, 3, 1) @ values.transpose(1, 2))[:, :, None]
        gathered = query @ state
        gathered, total = gathered[..., :width], gathered[..., width:] + GLOBAL_EPSILON
    else:
        keys, values = (_blocks(x, routing.key_block).permute(0, 3, 1, 2, 4) for x in (key, values))
        # [batch, kv_heads, key_blocks, dim * (width + 1)]: a state of each block, summed where the row says so
        states = (keys.mT @ values).flatten(3)[:, :, None]
        rows = summed.unflatten(1, (kv_heads, heads // kv_heads)).to(states.dtype) @ states
        at = _blocks(query.flatten(1, 2).transpose(1, 2), routing.query_block).permute(0, 3, 1, 2, 4)
        gathered = at @ rows.unflatten(-1, (dim, width + 1)).flatten(1, 2)
        gathered = gathered.flatten(2, 3)[:, :, :queries].unflatten(1, (kv_heads, heads // kv_heads))
        gathered, total = gathered[..., :width], gathered[..., width:]
    nothing = total == 0
    linear = (gathered / total.masked_fill(nothing, 1)).masked_fill(nothing, 0)
    return linear.flatten(1, 2).transpose(1, 2)


def _blocks(tokens: Tensor, block: int) -> Tensor:
    """[batch, blocks, block, heads, dim], zeros at the end: a zero feature adds nothing to a state."""
    count = tokens.shape[1]
    padded = functional.pad(tokens, (0, 0, 0, 0, 0, -count % block))
    return padded.unflatten(1, (padded.shape[1] // block, block))


class SparseLinearAttention(nn.Module):
    """`sparse_linear_attention` with its learned projection, which starts at zero: the sparse part alone.

    dim : value dim of a head; the other settings are those of the function
    """

    def __init__(
        self,
        dim: int,
        *,
        routing: Sla | None = None,
        form: str = "paper",
        feature_map: str = "softmax",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.routing = Sla() if routing is None else routing
        self.form, self.feature_map = form, feature_map
        self.projection = nn.Linear(dim, dim, device=device, dtype=dtype)
        nn.init.zeros_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, *, impl: str | Impl = "auto") -> Tensor:
        """Output [batch, queries, heads, dim]."""
        return sparse_linear_attention(
            query,
            key,
            value,
            routing=self.routing,
            form=self.form,
            feature_map=self.feature_map,
            projection=self.projection.weight,
            projection_bias=self.projection.bias,
            impl=impl,
        ).output


def flops(tokens: int, heads: int, dim: int, ratio: float) -> dict[str, float]:
    """Operations (2 per multiply-add) of one sample: sparse, linear and projection; without routing and phi."""
    return {
        "sparse": 4.0 * tokens * tokens * dim * heads * ratio,
        "linear": 4.0 * tokens * dim * dim * heads,
        "projection": 2.0 * tokens * dim * dim * heads,
    }
