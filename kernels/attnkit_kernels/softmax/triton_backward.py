"""Backward kernels of attention over lists of blocks, from the inputs, the output and its log-sum-exp.

With P the softmax weights, dP = dO V^T and delta = rowsum(dO * O) - dlse, the gradient of the scores is
dS = P * (dP - delta) (FlashAttention-2, section 3.1; the gradient of lse joins in delta). Weights are computed again.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .triton_tiles import (
    LOG2E,
    NO_BIAS,
    add_to_bias,
    bias_of,
    head_of,
    load_rows,
    load_slots,
    of_keys,
    of_queries,
    rows_at,
    side_of,
    store_rows,
    visible_pairs,
)


@triton.jit
def _weights(
    b_score,
    b_peak,
    rule,
    bias,
    sizes,
    scale,
    i_batch,
    i_head,
    i_tile,
    query_side,
    key_side,
    SHAPE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    PARTIAL: tl.constexpr,
    TURNED: tl.constexpr,
):
    """Softmax weights of a tile of products, 0 where a pair is not visible, and which pairs are."""
    _, _, _, m_query = query_side
    _, _, _, m_key = key_side
    if SHAPE.BIAS != NO_BIAS:
        b_bias = bias_of(bias, sizes, i_batch, i_head, query_side, key_side, SHAPE, TURNED)
        b_weight = tl.exp2(b_score * scale + (b_bias * LOG2E - of_queries(b_peak, TURNED)))
    else:
        b_weight = tl.exp2(b_score * scale - of_queries(b_peak, TURNED))
    m_pair = of_queries(m_query, TURNED) & of_keys(m_key, TURNED)
    if PARTIAL:
        m_pair = visible_pairs(rule, sizes, i_tile, query_side, key_side, SHAPE, BLOCK_M, BLOCK_N, TURNED)
        b_weight = tl.where(m_pair, b_weight, 0.0)
    elif SHAPE.KEY_BLOCK % BLOCK_N != 0:
        # at padding queries the weights are 0 already
        b_weight = tl.where(of_keys(m_key, TURNED), b_weight, 0.0)
    return b_weight, m_pair


@triton.jit
def _query_loop(
    b_to_query,
    b_query,
    b_gradient,
    b_peak,
    b_delta,
    p_key,
    p_value,
    s_key,
    s_value,
    p_to_bias,
    lists,
    rule,
    bias,
    sizes,
    scale,
    i_batch,
    i_head,
    query_side,
    first,
    last,
    SHAPE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    PARTIAL: tl.constexpr,
):
    """Gradient of a tile of queries after its full or its partial blocks, [M, DIM]."""
    N_PARTS: tl.constexpr = (SHAPE.KEY_BLOCK + BLOCK_N - 1) // BLOCK_N
    MASKED: tl.constexpr = PARTIAL or SHAPE.KEY_BLOCK % BLOCK_N != 0
    i_column = tl.load(lists.columns + first, mask=first < last, other=0)
    for i_step in range(first * N_PARTS, last * N_PARTS):
        i_after = (i_step + 1) // N_PARTS
        i_next = tl.load(lists.columns + i_after, mask=i_after < last, other=0)
        i_tile = i_step // N_PARTS
        if PARTIAL:
            i_tile = tl.load(lists.tiles + i_tile)
        key_side = side_of(rule.key_order, i_column, i_step % N_PARTS, sizes.keys, SHAPE.KEY_BLOCK, BLOCK_N)
        i_first, _, o_key, m_key = key_side
        # [M, DIM] @ [DIM, N] -> [M, N]
        p_keys = rows_at(p_key, s_key, rule.key_order, i_first, o_key, BLOCK_N, SHAPE.PADDED_DIM)
        b_key = load_rows(p_keys, m_key, SHAPE.DIM, SHAPE.PADDED_DIM, MASKED)
        b_score = tl.dot(b_query, tl.trans(b_key), input_precision=SHAPE.PRECISION)
        b_weight, m_pair = _weights(
            b_score,
            b_peak,
            rule,
            bias,
            sizes,
            scale,
            i_batch,
            i_head,
            i_tile,
            query_side,
            key_side,
            SHAPE,
            BLOCK_M,
            BLOCK_N,
            PARTIAL,
            False,
        )
        # [M, WIDTH] @ [WIDTH, N] -> [M, N]
        p_values = rows_at(p_value, s_value, rule.key_order, i_first, o_key, BLOCK_N, SHAPE.PADDED_WIDTH)
        b_value = load_rows(p_values, m_key, SHAPE.WIDTH, SHAPE.PADDED_WIDTH, MASKED)
        b_change = tl.dot(b_gradient, tl.trans(b_value), input_precision=SHAPE.PRECISION)
        b_change = b_weight * (b_change - b_delta[:, None])
        if p_to_bias is not None:
            add_to_bias(p_to_bias, bias, sizes, i_batch, i_head, b_change, m_pair, query_side, key_side, SHAPE)
        # [M, N] @ [N, DIM] -> [M, DIM]
        b_to_query = tl.dot(b_change.to(b_key.dtype), b_key, b_to_query, input_precision=SHAPE.PRECISION)
        i_column = i_next
    return b_to_query


@triton.jit
def query_kernel(
    query,
    key,
    value,
    gradient,
    p_peaks,
    p_deltas,
    to_query,
    p_to_bias,
    lists,
    rule,
    bias,
    sizes,
    scale,
    to_scale,
    SHAPE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Gradients of the query and of the bias; a program as in the forward pass."""
    M_PARTS: tl.constexpr = (SHAPE.QUERY_BLOCK + BLOCK_M - 1) // BLOCK_M
    i_place = tl.program_id(0) // M_PARTS
    i_line = i_place // sizes.query_blocks
    i_head = i_line % sizes.heads
    i_batch = i_line // sizes.heads
    i_row = i_batch * lists.batch + i_head * lists.head
    i_block = tl.load(lists.order + i_row + i_place % sizes.query_blocks)
    i_row += i_block
    p_query = head_of(query, i_batch, i_head)
    p_gradient = head_of(gradient, i_batch, i_head)
    p_to_query = head_of(to_query, i_batch, i_head)
    p_key = head_of(key, i_batch, i_head // sizes.group)
    p_value = head_of(value, i_batch, i_head // sizes.group)
    o_line = i_line.to(tl.int64) * sizes.query_blocks * SHAPE.QUERY_BLOCK

    query_side = side_of(
        rule.query_order, i_block, tl.program_id(0) % M_PARTS, sizes.queries, SHAPE.QUERY_BLOCK, BLOCK_M
    )
    i_first, o_row, o_query, m_query = query_side
    p_queries = rows_at(p_query, query.token, rule.query_order, i_first, o_query, BLOCK_M, SHAPE.PADDED_DIM)
    b_query = load_rows(p_queries, m_query, SHAPE.DIM, SHAPE.PADDED_DIM, True)
    p_gradients = rows_at(p_gradient, gradient.token, rule.query_order, i_first, o_query, BLOCK_M, SHAPE.PADDED_WIDTH)
    b_gradient = load_rows(p_gradients, m_query, SHAPE.WIDTH, SHAPE.PADDED_WIDTH, True)
    b_peak = load_slots(p_peaks + o_line, i_first, o_row, float("inf"), SHAPE.QUERY_BLOCK, BLOCK_M)
    b_delta = load_slots(p_deltas + o_line, i_first, o_row, 0.0, SHAPE.QUERY_BLOCK, BLOCK_M)
    # constants of their own: Triton 3.7 takes no plain number of a tuple for the length of an axis
    DIM: tl.constexpr = SHAPE.PADDED_DIM
    b_to_query = tl.zeros([BLOCK_M, DIM], tl.float32)
    start = tl.load(lists.starts + i_row)
    split = tl.load(lists.splits + i_row)
    end = tl.load(lists.starts + i_row + 1)
    for PARTIAL in tl.static_range(2):
        b_to_query = _query_loop(
            b_to_query,
            b_query,
            b_gradient,
            b_peak,
            b_delta,
            p_key,
            p_value,
            key.token,
            value.token,
            p_to_bias,
            lists,
            rule,
            bias,
            sizes,
            scale,
            i_batch,
            i_head,
            query_side,
            split if PARTIAL else start,
            end if PARTIAL else split,
            SHAPE,
            BLOCK_M,
            BLOCK_N,
            PARTIAL,
        )
    p_changes = rows_at(p_to_query, to_query.token, rule.query_order, i_first, o_query, BLOCK_M, SHAPE.PADDED_DIM)
    store_rows(p_changes, b_to_query * to_scale, m_query, SHAPE.DIM, SHAPE.PADDED_DIM)


@triton.jit
def _key_loop(
    b_to_key,
    b_to_value,
    b_key,
    b_value,
    p_query,
    p_gradient,
    p_peak,
    p_delta,
    s_query,
    s_gradient,
    lists,
    rule,
    bias,
    sizes,
    scale,
    i_batch,
    i_head,
    key_side,
    first,
    last,
    SHAPE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    PARTIAL: tl.constexpr,
):
    """Gradients of a tile of keys and values after the full or the partial blocks of one head, [N, DIM], [N, WIDTH]."""
    M_PARTS: tl.constexpr = (SHAPE.QUERY_BLOCK + BLOCK_M - 1) // BLOCK_M
    MASKED: tl.constexpr = PARTIAL or SHAPE.QUERY_BLOCK % BLOCK_M != 0
    i_column = tl.load(lists.columns + first, mask=first < last, other=0)
    for i_step in range(first * M_PARTS, last * M_PARTS):
        i_after = (i_step + 1) // M_PARTS
        i_next = tl.load(lists.columns + i_after, mask=i_after < last, other=0)
        i_tile = i_step // M_PARTS
        if PARTIAL:
            i_tile = tl.load(lists.tiles + i_tile)
        query_side = side_of(rule.query_order, i_column, i_step % M_PARTS, sizes.queries, SHAPE.QUERY_BLOCK, BLOCK_M)
        i_first, o_row, o_query, m_query = query_side
        # [N, DIM] @ [DIM, M] -> [N, M]
        p_queries = rows_at(p_query, s_query, rule.query_order, i_first, o_query, BLOCK_M, SHAPE.PADDED_DIM)
        b_query = load_rows(p_queries, m_query, SHAPE.DIM, SHAPE.PADDED_DIM, MASKED)
        b_score = tl.dot(b_key, tl.trans(b_query), input_precision=SHAPE.PRECISION)
        b_weight, _ = _weights(
            b_score,
            load_slots(p_peak, i_first, o_row, float("inf"), SHAPE.QUERY_BLOCK, BLOCK_M),
            rule,
            bias,
            sizes,
            scale,
            i_batch,
            i_head,
            i_tile,
            query_side,
            key_side,
            SHAPE,
            BLOCK_M,
            BLOCK_N,
            PARTIAL,
            True,
        )
        # [N, M] @ [M, WIDTH] -> [N, WIDTH]
        p_gradients = rows_at(p_gradient, s_gradient, rule.query_order, i_first, o_query, BLOCK_M, SHAPE.PADDED_WIDTH)
        b_gradient = load_rows(p_gradients, m_query, SHAPE.WIDTH, SHAPE.PADDED_WIDTH, MASKED)
        b_to_value = tl.dot(b_weight.to(b_gradient.dtype), b_gradient, b_to_value, input_precision=SHAPE.PRECISION)
        # [N, WIDTH] @ [WIDTH, M] -> [N, M]
        b_change = tl.dot(b_value, tl.trans(b_gradient), input_precision=SHAPE.PRECISION)
        b_delta = load_slots(p_delta, i_first, o_row, 0.0, SHAPE.QUERY_BLOCK, BLOCK_M)
        b_change = b_weight * (b_change - b_delta[None, :])
        # [N, M] @ [M, DIM] -> [N, DIM]
        b_to_key = tl.dot(b_change.to(b_query.dtype), b_query, b_to_key, input_precision=SHAPE.PRECISION)
        i_column = i_next
    return b_to_key, b_to_value


@triton.jit
def key_kernel(
    query,
    key,
    value,
    gradient,
    p_peaks,
    p_deltas,
    to_key,
    to_value,
    lists,
    rule,
    bias,
    sizes,
    scale,
    to_scale,
    SHAPE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Gradients of key and value over the lists by key block; a program sums over the query heads of its key head."""
    N_PARTS: tl.constexpr = (SHAPE.KEY_BLOCK + BLOCK_N - 1) // BLOCK_N
    i_place = tl.program_id(0) // N_PARTS
    i_shared = i_place // sizes.key_blocks % (sizes.heads // sizes.group)
    i_batch = i_place // sizes.key_blocks // (sizes.heads // sizes.group)
    i_rows = i_batch * lists.batch + i_shared * sizes.group * lists.head
    i_block = tl.load(lists.order + i_rows + i_place % sizes.key_blocks)
    p_key = head_of(key, i_batch, i_shared)
    p_value = head_of(value, i_batch, i_shared)
    p_to_key = head_of(to_key, i_batch, i_shared)
    p_to_value = head_of(to_value, i_batch, i_shared)

    key_side = side_of(rule.key_order, i_block, tl.program_id(0) % N_PARTS, sizes.keys, SHAPE.KEY_BLOCK, BLOCK_N)
    i_first, _, o_key, m_key = key_side
    p_keys = rows_at(p_key, key.token, rule.key_order, i_first, o_key, BLOCK_N, SHAPE.PADDED_DIM)
    b_key = load_rows(p_keys, m_key, SHAPE.DIM, SHAPE.PADDED_DIM, True)
    p_values = rows_at(p_value, value.token, rule.key_order, i_first, o_key, BLOCK_N, SHAPE.PADDED_WIDTH)
    b_value = load_rows(p_values, m_key, SHAPE.WIDTH, SHAPE.PADDED_WIDTH, True)
    DIM: tl.constexpr = SHAPE.PADDED_DIM
    WIDTH: tl.constexpr = SHAPE.PADDED_WIDTH
    b_to_key = tl.zeros([BLOCK_N, DIM], tl.float32)
    b_to_value = tl.zeros([BLOCK_N, WIDTH], tl.float32)
    for i_member in range(sizes.group):
        i_head = i_shared * sizes.group + i_member
        i_row = i_rows + i_member * lists.head + i_block
        o_line = (i_batch * sizes.heads + i_head).to(tl.int64) * sizes.query_blocks * SHAPE.QUERY_BLOCK
        start = tl.load(lists.starts + i_row)
        split = tl.load(lists.splits + i_row)
        end = tl.load(lists.starts + i_row + 1)
        for PARTIAL in tl.static_range(2):
            b_to_key, b_to_value = _key_loop(
                b_to_key,
                b_to_value,
                b_key,
                b_value,
                head_of(query, i_batch, i_head),
                head_of(gradient, i_batch, i_head),
                p_peaks + o_line,
                p_deltas + o_line,
                query.token,
                gradient.token,
                lists,
                rule,
                bias,
                sizes,
                scale,
                i_batch,
                i_head,
                key_side,
                split if PARTIAL else start,
                end if PARTIAL else split,
                SHAPE,
                BLOCK_M,
                BLOCK_N,
                PARTIAL,
            )
    p_changes = rows_at(p_to_key, to_key.token, rule.key_order, i_first, o_key, BLOCK_N, SHAPE.PADDED_DIM)
    store_rows(p_changes, b_to_key * to_scale, m_key, SHAPE.DIM, SHAPE.PADDED_DIM)
    p_changes = rows_at(p_to_value, to_value.token, rule.key_order, i_first, o_key, BLOCK_N, SHAPE.PADDED_WIDTH)
    store_rows(p_changes, b_to_value, m_key, SHAPE.WIDTH, SHAPE.PADDED_WIDTH)
