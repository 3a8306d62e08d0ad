"""What the backward kernels of attention read for each query, made from the output before they start."""

from __future__ import annotations

import triton
import triton.language as tl

from .triton_tiles import LOG2E, head_of, load_rows, rows_at, side_of


@triton.jit
def prepare_kernel(
    output, gradient, lse, lse_gradient, p_peaks, p_deltas, p_order, sizes, SHAPE: tl.constexpr, BLOCK_M: tl.constexpr
):
    """delta and lse in powers of 2 of each slot [batch, heads, slots], so that what follows reads them in a row.

    lse is infinite, so that every weight is 0, at padding slots and where a query sees nothing.
    """
    M_PARTS: tl.constexpr = (SHAPE.QUERY_BLOCK + BLOCK_M - 1) // BLOCK_M
    i_part = tl.program_id(0) % M_PARTS
    i_block = tl.program_id(0) // M_PARTS % sizes.query_blocks
    i_row = tl.program_id(0) // M_PARTS // sizes.query_blocks
    i_batch = i_row // sizes.heads
    i_head = i_row % sizes.heads
    i_first, o_slot, o_query, m_query = side_of(p_order, i_block, i_part, sizes.queries, SHAPE.QUERY_BLOCK, BLOCK_M)
    p_outputs = rows_at(
        head_of(output, i_batch, i_head), output.token, p_order, i_first, o_query, BLOCK_M, SHAPE.PADDED_WIDTH
    )
    p_gradients = rows_at(
        head_of(gradient, i_batch, i_head), gradient.token, p_order, i_first, o_query, BLOCK_M, SHAPE.PADDED_WIDTH
    )
    b_output = load_rows(p_outputs, m_query, SHAPE.WIDTH, SHAPE.PADDED_WIDTH, True).to(tl.float32)
    b_gradient = load_rows(p_gradients, m_query, SHAPE.WIDTH, SHAPE.PADDED_WIDTH, True).to(tl.float32)
    o_wide = o_query.to(tl.int64)
    b_lse = tl.load(head_of(lse, i_batch, i_head) + o_wide * lse.token, mask=m_query, other=float("-inf"))
    p_lse_gradient = head_of(lse_gradient, i_batch, i_head) + o_wide * lse_gradient.token
    b_delta = tl.sum(b_output * b_gradient, 1) - tl.load(p_lse_gradient, mask=m_query, other=0.0)
    m_blind = b_lse == float("-inf")
    o_place = i_row.to(tl.int64) * sizes.query_blocks * SHAPE.QUERY_BLOCK + i_first + tl.arange(0, BLOCK_M)
    m_place = o_slot < SHAPE.QUERY_BLOCK
    tl.store(p_peaks + o_place, tl.where(m_blind, float("inf"), b_lse * LOG2E), mask=m_place)
    tl.store(p_deltas + o_place, tl.where(m_blind, 0.0, b_delta), mask=m_place)
