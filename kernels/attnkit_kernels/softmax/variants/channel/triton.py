"""Triton kernels of channel attention: a product over all tokens in parts, and one that mixes channels.

With G(x, y) = x^T y and M(x, a) = x a^T, the output is M(mixed, softmax(scale G(rows, columns))). The gradients of
either are made of both, so two kernels are the forward and the backward pass; the softmax of [dim, dim] between them is
torch's. Sums run in float32 and in a fixed order, without atomics. Runs interpreted on a CPU with TRITON_INTERPRET=1.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from ....dispatch import ImplementationError
from ....tiles import choices, on_device

LARGEST = 64
# programs that share the tokens of a group in the first product
PARTS = 32


# 64 tokens of 32 channels spill with 4 warps on sm_90 under Triton 3.7
@triton.autotune(choices((32, 4), (64, 8)), key=["tokens", "DIM"])
@triton.jit
def gram_kernel(
    p_left,
    p_right,
    p_partial,
    tokens,
    groups,
    parts,
    left_batch,
    left_token,
    left_group,
    right_batch,
    right_token,
    right_group,
    DIM: tl.constexpr,
    PADDED: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK: tl.constexpr,
):
    i_part = tl.program_id(0) % parts
    i_pair = (tl.program_id(0) // parts).to(tl.int64)
    p_left += i_pair // groups * left_batch + i_pair % groups * left_group
    p_right += i_pair // groups * right_batch + i_pair % groups * right_group
    # [PADDED]
    o_dim = tl.arange(0, PADDED)
    m_dim = o_dim < DIM
    b_sum = tl.zeros([PADDED, PADDED], tl.float32)
    for start in range(i_part * BLOCK, tokens, parts * BLOCK):
        # [BLOCK]
        o_token = (start + tl.arange(0, BLOCK)).to(tl.int64)
        m_token = o_token < tokens
        # [PADDED, BLOCK]
        b_left = tl.load(
            p_left + o_dim[:, None] + o_token[None, :] * left_token, mask=m_dim[:, None] & m_token[None, :], other=0.0
        )
        # [BLOCK, PADDED]
        b_right = tl.load(
            p_right + o_token[:, None] * right_token + o_dim[None, :], mask=m_token[:, None] & m_dim[None, :], other=0.0
        )
        # [PADDED, BLOCK] @ [BLOCK, PADDED] -> [PADDED, PADDED]
        b_sum = tl.dot(b_left, b_right, b_sum, input_precision=PRECISION)
    p_partial += (i_pair * parts + i_part) * DIM * DIM
    tl.store(p_partial + o_dim[:, None] * DIM + o_dim[None, :], b_sum, mask=m_dim[:, None] & m_dim[None, :])


# 64 tokens of 64 channels in float32 need more registers than a thread of sm_80 has, 32 with 4 warps spill on sm_90
# under Triton 3.7
@triton.autotune(choices((16, 4), (32, 8)), key=["tokens", "DIM"])
@triton.jit
def mix_kernel(
    p_source,
    p_weights,
    p_result,
    tokens,
    groups,
    source_batch,
    source_token,
    source_group,
    DIM: tl.constexpr,
    PADDED: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK: tl.constexpr,
):
    blocks = tl.cdiv(tokens, BLOCK)
    i_pair = (tl.program_id(0) // blocks).to(tl.int64)
    i_batch, i_group = i_pair // groups, i_pair % groups
    p_source += i_batch * source_batch + i_group * source_group
    p_weights += i_pair * DIM * DIM
    p_result += (i_batch * tokens * groups + i_group) * DIM
    # [PADDED]
    o_dim = tl.arange(0, PADDED)
    m_dim = o_dim < DIM
    # [BLOCK]
    o_token = (tl.program_id(0) % blocks).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    m_token = o_token < tokens
    # [BLOCK, PADDED]; float32 as the weights, which half inputs would round twice
    b_source = tl.load(
        p_source + o_token[:, None] * source_token + o_dim[None, :], mask=m_token[:, None] & m_dim[None, :], other=0.0
    ).to(tl.float32)
    # [PADDED, PADDED], turned: column a of it makes channel a
    b_weights = tl.load(
        p_weights + o_dim[:, None] + o_dim[None, :] * DIM, mask=m_dim[:, None] & m_dim[None, :], other=0.0
    )
    # [BLOCK, PADDED] @ [PADDED, PADDED] -> [BLOCK, PADDED]
    b_result = tl.dot(b_source, b_weights, input_precision=PRECISION)
    tl.store(
        p_result + o_token[:, None] * groups * DIM + o_dim[None, :],
        b_result.to(p_result.dtype.element_ty),
        mask=m_token[:, None] & m_dim[None, :],
    )


def precision(half: bool, hip: bool) -> str:
    """Of products of float32: AMD's matrix instructions take them; TF32 holds every half number exactly."""
    return "ieee" if hip else "tf32" if half else "tf32x3"


def _sizes(tensor: Tensor) -> dict[str, Any]:
    dim = tensor.shape[3]
    padded = max(16, triton.next_power_of_2(dim))
    return {
        "DIM": dim,
        "PADDED": padded,
        "PRECISION": precision(tensor.dtype != torch.float32, torch.version.hip is not None),
    }


def _gram(left: Tensor, right: Tensor) -> Tensor:
    """left^T right, float32 [batch, groups, dim, dim]."""
    batch, tokens, groups, dim = left.shape
    parts = max(1, min(PARTS, triton.cdiv(tokens, 64)))
    partial = torch.empty(batch, groups, parts, dim, dim, dtype=torch.float32, device=left.device)
    if partial.numel():
        with on_device(left):
            gram_kernel[(batch * groups * parts,)](
                left, right, partial, tokens, groups, parts, *left.stride()[:3], *right.stride()[:3], **_sizes(left)
            )
    return partial.sum(2)


def _mix(source: Tensor, weights: Tensor) -> Tensor:
    """source weights^T, [batch, tokens, groups, dim] in the dtype of source."""
    batch, tokens, groups = source.shape[:3]
    result = torch.empty(source.shape, dtype=source.dtype, device=source.device)
    if result.numel():
        with on_device(source):
            mix_kernel[lambda meta: (triton.cdiv(tokens, meta["BLOCK"]) * batch * groups,)](
                source, weights.contiguous(), result, tokens, groups, *source.stride()[:3], **_sizes(source)
            )
    return result


def _readable(tensor: Tensor) -> Tensor:
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


class _Gram(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor) -> Tensor:
        left, right = _readable(left), _readable(right)
        ctx.save_for_backward(left, right)
        return _gram(left, right)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        left, right = ctx.saved_tensors
        return _mix(right, gradient), _mix(left, gradient.mT)


class _Mix(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, source: Tensor, weights: Tensor) -> Tensor:
        source = _readable(source)
        ctx.save_for_backward(source, weights)
        return _mix(source, weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        source, weights = ctx.saved_tensors
        gradient = _readable(gradient)
        return _mix(gradient, weights.mT), _gram(gradient, source)


def attend(rows: Tensor, columns: Tensor, mixed: Tensor, scale: float) -> Tensor:
    """See `reference.attend`; ImplementationError for a dim above 64."""
    if rows.shape[3] > LARGEST:
        raise ImplementationError(
            f"channel.attend: impl 'triton' takes dims up to {LARGEST}, got {rows.shape[3]}; works here: reference"
        )
    scores = _Gram.apply(rows, columns)  # type: ignore[no-untyped-call]
    return _Mix.apply(mixed, (scale * scores).softmax(-1))  # type: ignore[no-any-return, no-untyped-call]
