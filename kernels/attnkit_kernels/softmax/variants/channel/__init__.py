"""DaViT's channel-group attention: the channels of a group attend to each other over all tokens."""

from __future__ import annotations

from torch import Tensor

from ....dispatch import Impl, Operator, takes_reference, takes_triton
from ...validation import check_tensors

__all__ = ["FORMS", "OPERATOR", "channel_attention", "resolve_impl"]

FORMS = ("v1", "v2")
OPERATOR = Operator(__package__, "attend", {Impl.TRITON: takes_triton, Impl.REFERENCE: takes_reference})


def channel_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    form: str = "v1",
    scale: float | None = None,
    impl: str | Impl = "auto",
) -> Tensor:
    """Output [batch, tokens, groups, dim]; linear in the tokens, scores are dim x dim for each group.

    Parameters
    ----------
    query, key, value : [batch, tokens, groups, dim] of one shape, in the roles of the code and of its checkpoints
    form : "v1", DaViT: A = softmax(scale k^T v), output = A q^T (the paper's Q, K, V are the code's k, v, q).
        "v2", Florence-2: A = softmax(scale q^T k), output = A v^T
    scale : default dim ** -0.5 for v1, whose scores are sums over tokens and sharpen as there are more of them, and
        tokens ** -0.5 for v2
    impl : auto, reference or triton (dim up to 64). The reference is two matrix products; there is no table of pairs
        that another path could avoid

    Raises
    ------
    ValueError for shapes that differ or an unknown form, ImplementationError (a ValueError) for an `impl` that cannot.

    Notes
    -----
    DaViT, channel group attention; softmax over the last axis of A [dim, dim]. Half precision sums in float32.
    """
    check_tensors(query, key, value)
    if not query.shape == key.shape == value.shape:
        raise ValueError(
            "query, key and value must have one shape, "
            f"got {list(query.shape)}, {list(key.shape)} and {list(value.shape)}"
        )
    if form not in FORMS:
        raise ValueError(f"form: expected one of {', '.join(FORMS)}, got {form!r}")
    if scale is None:
        scale = (query.shape[3] if form == "v1" else max(1, query.shape[1])) ** -0.5
    roles = (key, value, query) if form == "v1" else (query, key, value)
    return OPERATOR(impl, roles, scale)  # type: ignore[no-any-return]


def resolve_impl(query: Tensor, key: Tensor, value: Tensor, *, impl: str | Impl = "auto") -> str:
    """Name of the implementation that `channel_attention` runs for these tensors."""
    return str(OPERATOR.resolve(impl, query, key, value).value)
