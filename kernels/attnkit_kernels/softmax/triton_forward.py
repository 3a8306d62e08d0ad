"""Forward kernel of attention over lists of blocks: online softmax, one item for a part of a block of queries.

An item first runs through its row's full blocks, without a mask, then through the partial ones.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .triton_tiles import (
    LN2,
    LOG2E,
    NO_BIAS,
    bias_of,
    head_of,
    load_rows,
    of_keys,
    rows_at,
    side_of,
    store_rows,
    visible_pairs,
)


@triton.jit
def _step(
    state,
    b_query,
    p_key,
    p_value,
    s_key,
    s_value,
    rule,
    bias,
    sizes,
    scale,
    i_batch,
    i_head,
    i_column,
    i_part,
    i_tile,
    query_side,
    SHAPE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    PARTIAL: tl.constexpr,
):
    """One tile of keys: the weighted sum [M, WIDTH], the peak and the total [M] after it; scores are in powers of 2."""
    b_sum, b_peak, b_total = state
    MASKED: tl.constexpr = PARTIAL or SHAPE.KEY_BLOCK % BLOCK_N != 0
    key_side = side_of(rule.key_order, i_column, i_part, sizes.keys, SHAPE.KEY_BLOCK, BLOCK_N)
    i_first, _, o_key, m_key = key_side
    # [M, DIM] @ [DIM, N] -> [M, N]
    p_keys = rows_at(p_key, s_key, rule.key_order, i_first, o_key, BLOCK_N, SHAPE.PADDED_DIM)
    b_key = load_rows(p_keys, m_key, SHAPE.DIM, SHAPE.PADDED_DIM, MASKED)
    b_score = tl.dot(b_query, tl.trans(b_key), input_precision=SHAPE.PRECISION)
    if SHAPE.BIAS != NO_BIAS:
        b_bias = bias_of(bias, sizes, i_batch, i_head, query_side, key_side, SHAPE, False)
        b_score = b_score * scale + b_bias * LOG2E
    if PARTIAL:
        m_pair = visible_pairs(rule, sizes, i_tile, query_side, key_side, SHAPE, BLOCK_M, BLOCK_N, False)
        b_score = tl.where(m_pair, b_score, float("-inf"))
    elif MASKED:
        b_score = tl.where(of_keys(m_key, False), b_score, float("-inf"))
    b_next = tl.max(b_score, 1)
    if SHAPE.BIAS == NO_BIAS:
        b_next *= scale
    b_next = tl.maximum(b_peak, b_next)
    # a row that has seen nothing yet has no peak to subtract
    b_from = tl.where(b_next == float("-inf"), 0.0, b_next)
    if SHAPE.BIAS == NO_BIAS:
        b_weight = tl.exp2(b_score * scale - b_from[:, None])
    else:
        b_weight = tl.exp2(b_score - b_from[:, None])
    b_fade = tl.exp2(b_peak - b_from)
    b_total = b_total * b_fade + tl.sum(b_weight, 1)
    # [M, N] @ [N, WIDTH] -> [M, WIDTH]
    p_values = rows_at(p_value, s_value, rule.key_order, i_first, o_key, BLOCK_N, SHAPE.PADDED_WIDTH)
    b_value = load_rows(p_values, m_key, SHAPE.WIDTH, SHAPE.PADDED_WIDTH, MASKED)
    b_sum = tl.dot(b_weight.to(b_value.dtype), b_value, b_sum * b_fade[:, None], input_precision=SHAPE.PRECISION)
    return b_sum, b_next, b_total


@triton.jit
def _item(
    item,
    query,
    key,
    value,
    output,
    lse,
    lists,
    rule,
    bias,
    sizes,
    scale,
    SHAPE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    M_PARTS: tl.constexpr = (SHAPE.QUERY_BLOCK + BLOCK_M - 1) // BLOCK_M
    N_PARTS: tl.constexpr = (SHAPE.KEY_BLOCK + BLOCK_N - 1) // BLOCK_N
    i_place = item // M_PARTS
    i_head = i_place // sizes.query_blocks % sizes.heads
    i_batch = i_place // sizes.query_blocks // sizes.heads
    i_row = i_batch * lists.batch + i_head * lists.head
    i_block = tl.load(lists.order + i_row + i_place % sizes.query_blocks)
    i_row += i_block
    p_query = head_of(query, i_batch, i_head)
    p_key = head_of(key, i_batch, i_head // sizes.group)
    p_value = head_of(value, i_batch, i_head // sizes.group)
    p_output = head_of(output, i_batch, i_head)

    query_side = side_of(rule.query_order, i_block, item % M_PARTS, sizes.queries, SHAPE.QUERY_BLOCK, BLOCK_M)
    i_first, _, o_query, m_query = query_side
    p_queries = rows_at(p_query, query.token, rule.query_order, i_first, o_query, BLOCK_M, SHAPE.PADDED_DIM)
    b_query = load_rows(p_queries, m_query, SHAPE.DIM, SHAPE.PADDED_DIM, True)
    # as a constant of its own: Triton 3.7 takes no plain number of a tuple for the length of an axis
    WIDTH: tl.constexpr = SHAPE.PADDED_WIDTH
    b_sum = tl.zeros([BLOCK_M, WIDTH], tl.float32)
    b_peak = tl.full([BLOCK_M], float("-inf"), tl.float32)
    b_total = tl.zeros([BLOCK_M], tl.float32)
    start = tl.load(lists.starts + i_row)
    split = tl.load(lists.splits + i_row)
    end = tl.load(lists.starts + i_row + 1)
    for PARTIAL in tl.static_range(2):
        first = split if PARTIAL else start
        last = end if PARTIAL else split
        # the next column is read a step ahead, so that the addresses of its keys do not wait
        i_column = tl.load(lists.columns + first, mask=first < last, other=0)
        for i_step in range(first * N_PARTS, last * N_PARTS):
            i_after = (i_step + 1) // N_PARTS
            i_next = tl.load(lists.columns + i_after, mask=i_after < last, other=0)
            i_tile = i_step // N_PARTS
            if PARTIAL:
                i_tile = tl.load(lists.tiles + i_tile)
            b_sum, b_peak, b_total = _step(
                (b_sum, b_peak, b_total),
                b_query,
                p_key,
                p_value,
                key.token,
                value.token,
                rule,
                bias,
                sizes,
                scale,
                i_batch,
                i_head,
                i_column,
                i_step % N_PARTS,
                i_tile,
                query_side,
                SHAPE,
                BLOCK_M,
                BLOCK_N,
                PARTIAL,
            )
            i_column = i_next

    m_empty = b_total == 0.0
    b_total = tl.where(m_empty, 1.0, b_total)
    p_outputs = rows_at(p_output, output.token, rule.query_order, i_first, o_query, BLOCK_M, SHAPE.PADDED_WIDTH)
    store_rows(p_outputs, b_sum / b_total[:, None], m_query, SHAPE.WIDTH, SHAPE.PADDED_WIDTH)
    b_lse = tl.where(m_empty, float("-inf"), (b_peak + tl.log2(b_total)) * LN2)
    tl.store(head_of(lse, i_batch, i_head) + o_query.to(tl.int64) * lse.token, b_lse, mask=m_query)


@triton.jit
def forward_kernel(
    query,
    key,
    value,
    output,
    lse,
    lists,
    rule,
    bias,
    sizes,
    scale,
    SHAPE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    PERSISTENT: tl.constexpr,
):
    """Output and natural log-sum-exp; an item is (sample, head, block of queries by falling length, part of it).

    scale is in powers of 2. PERSISTENT: as many programs as the chip holds, each taking every so manieth item.
    """
    if PERSISTENT:
        items = sizes.batch * sizes.heads * sizes.query_blocks * tl.cdiv(SHAPE.QUERY_BLOCK, BLOCK_M)
        for item in range(tl.program_id(0), items, tl.num_programs(0)):
            _item(item, query, key, value, output, lse, lists, rule, bias, sizes, scale, SHAPE, BLOCK_M, BLOCK_N)
    else:
        item = tl.program_id(0)
        _item(item, query, key, value, output, lse, lists, rule, bias, sizes, scale, SHAPE, BLOCK_M, BLOCK_N)
