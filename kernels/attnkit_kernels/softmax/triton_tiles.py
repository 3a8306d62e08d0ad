"""Parts that the attention kernels share: their arguments, slots, rows of a tensor, masks and biases of tiles.

A side of a tile is a part of a map's block, as `side_of` makes it. A tile is [M, N] of queries and keys, or TURNED.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)

# what a partial block's mask is made of, besides its real slots
NO_RULE = tl.constexpr(0)
BOXES = tl.constexpr(1)
TILES = tl.constexpr(2)

# dense: one number for each pair; indexed: on each axis the entry at a key's index less the query's
NO_BIAS = tl.constexpr(0)
DENSE_BIAS = tl.constexpr(1)
INDEXED_BIAS = tl.constexpr(2)


class Shape(NamedTuple):
    """Constants of a kernel: all that it is compiled for besides types and tuning choice.

    DIM, WIDTH : of a key and of a value, and both padded to a power of two; QUERY_BLOCK, KEY_BLOCK : slots of a map's
    block; RULE, AXES : kind of rule and axes of boxes; BIAS, BIAS_AXES : kind of bias and its axes; BIAS_WIDE : its
    offsets need 64 bits; PRECISION : of products of float32; BYTES : of an input element, which tunes
    """

    DIM: int
    WIDTH: int
    PADDED_DIM: int
    PADDED_WIDTH: int
    QUERY_BLOCK: int
    KEY_BLOCK: int
    RULE: int
    AXES: int
    BIAS: int
    BIAS_AXES: int
    BIAS_WIDE: bool
    PRECISION: str
    BYTES: int


def shape_of(
    dim: int,
    width: int,
    query_block: int,
    key_block: int,
    *,
    rule: int,
    axes: int,
    bias: int,
    bias_axes: int,
    bias_wide: bool,
    bytes: int,
    hip: bool,
) -> Shape:
    """`Shape` with its padded sizes and the precision of float32: AMD's matrix instructions take float32 itself."""
    padded_dim, padded_width = (max(16, triton.next_power_of_2(size)) for size in (dim, width))
    precision = "tf32x3" if bytes == 4 and not hip else "ieee"
    return Shape(
        dim,
        width,
        padded_dim,
        padded_width,
        query_block,
        key_block,
        rule,
        axes,
        bias,
        bias_axes,
        bias_wide,
        precision,
        bytes,
    )


class Rows(NamedTuple):
    """A tensor [batch, tokens, heads, dim] or [batch, tokens, heads]: first element and strides; dim is contiguous."""

    start: Any
    batch: Any
    token: Any
    head: Any


class Sizes(NamedTuple):
    """Numbers of the call: samples, heads of queries, query heads of a key head, tokens, blocks."""

    batch: Any
    heads: Any
    group: Any
    queries: Any
    keys: Any
    query_blocks: Any
    key_blocks: Any


class Lists(NamedTuple):
    """Lists of blocks, full ones first within a row; row = (batch * heads + head) * blocks + block.

    order : [rows], the blocks of each sample and head by falling length, which is the order that they are worked in
    starts : [rows + 1]; splits : [rows], where the partial blocks of a row begin
    columns : [listed]; tiles : [listed], number of the stored tile (zeros without stored tiles)
    batch, head : rows from one sample and head to the next, 0 if they share
    """

    order: Any
    starts: Any
    splits: Any
    columns: Any
    tiles: Any
    batch: Any
    head: Any


class Rule(NamedTuple):
    """Token of each slot (None = identity), and the arrays of the rule (None = absent).

    low, high : [axes, slots of the queries], low above high at padding; coordinate : [axes, slots of the keys]
    """

    query_order: Any
    key_order: Any
    low: Any
    high: Any
    coordinate: Any
    bits: Any


class Entries(NamedTuple):
    """A bias: first number and strides; if indexed, the indices and (start, extent, offset) of each axis.

    Strides are 0 along what shares its numbers. The entries of an indexed bias are contiguous.
    """

    start: Any
    batch: Any
    head: Any
    query: Any
    key: Any
    query_index: Any
    key_index: Any
    axes: Any


@triton.jit
def head_of(rows, i_batch, i_head):
    """Pointer to the first token of a head."""
    return rows.start + i_batch.to(tl.int64) * rows.batch + i_head.to(tl.int64) * rows.head


@triton.jit
def side_of(p_order, i_block, i_part, count, SLOTS: tl.constexpr, BLOCK: tl.constexpr):
    """First slot of a part of a map's block, its slots counted in the block, their tokens, and which are real."""
    i_first = i_block * SLOTS + i_part * BLOCK
    o_slot = i_part * BLOCK + tl.arange(0, BLOCK)
    if p_order is None:
        o_token = i_first + tl.arange(0, BLOCK)
        m_token = o_token < count
    else:
        o_token = load_slots(p_order, i_first, o_slot, -1, SLOTS, BLOCK)
        m_token = o_token >= 0
    if SLOTS % BLOCK != 0:
        m_token = m_token & (o_slot < SLOTS)
    return i_first, o_slot, o_token, m_token


@triton.jit
def load_slots(p_slots, i_first, o_slot, other, SLOTS: tl.constexpr, BLOCK: tl.constexpr):
    """A number for each slot of a side [BLOCK]."""
    p_side = p_slots + i_first + tl.arange(0, BLOCK)
    return tl.load(p_side) if SLOTS % BLOCK == 0 else tl.load(p_side, mask=o_slot < SLOTS, other=other)


@triton.jit
def of_queries(b_side, TURNED: tl.constexpr):
    """[M] as [M, 1], or [1, M] for a turned tile."""
    return tl.expand_dims(b_side, 0 if TURNED else 1)


@triton.jit
def of_keys(b_side, TURNED: tl.constexpr):
    """[N] as [1, N], or [N, 1] for a turned tile."""
    return tl.expand_dims(b_side, 1 if TURNED else 0)


@triton.jit
def rows_at(p_head, s_token, p_order, i_first, o_token, BLOCK: tl.constexpr, PADDED: tl.constexpr):
    """Pointers to rows of one head, [BLOCK, PADDED]."""
    o_dim = tl.arange(0, PADDED)
    if p_order is None:
        # tokens in a row: a wide offset for the tile and narrow ones inside it, which take half the registers
        p_tile = p_head + i_first.to(tl.int64) * s_token
        p_rows = p_tile + (tl.arange(0, BLOCK) * s_token)[:, None] + o_dim[None, :]
    else:
        p_rows = p_head + o_token.to(tl.int64)[:, None] * s_token + o_dim[None, :]
    return p_rows


@triton.jit
def load_rows(p_rows, m_token, DIM: tl.constexpr, PADDED: tl.constexpr, MASKED: tl.constexpr):
    """Rows [BLOCK, PADDED]; zeros beyond DIM and, if MASKED, at padding."""
    o_dim = tl.arange(0, PADDED)
    if MASKED:
        if DIM == PADDED:
            b_rows = tl.load(p_rows, mask=m_token[:, None], other=0.0)
        else:
            b_rows = tl.load(p_rows, mask=m_token[:, None] & (o_dim < DIM)[None, :], other=0.0)
    elif DIM == PADDED:
        b_rows = tl.load(p_rows)
    else:
        b_rows = tl.load(p_rows, mask=(o_dim < DIM)[None, :], other=0.0)
    return b_rows


@triton.jit
def store_rows(p_rows, b_rows, m_token, DIM: tl.constexpr, PADDED: tl.constexpr):
    """Write the real rows of [BLOCK, PADDED] as the type of the tensor."""
    o_dim = tl.arange(0, PADDED)
    tl.store(p_rows, b_rows.to(p_rows.dtype.element_ty), mask=m_token[:, None] & (o_dim < DIM)[None, :])


@triton.jit
def visible_pairs(
    rule,
    sizes,
    i_tile,
    query_side,
    key_side,
    SHAPE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    TURNED: tl.constexpr,
):
    """Visible pairs of a tile of a partial block."""
    i_query, o_row, _, m_query = query_side
    i_key, o_column, _, m_key = key_side
    m_pair = of_keys(m_key, TURNED)
    if SHAPE.RULE != BOXES:
        m_pair = m_pair & of_queries(m_query, TURNED)
    if SHAPE.RULE == BOXES:
        # a constant of its own, which Triton 3.7 wants for the length of a loop
        AXES: tl.constexpr = SHAPE.AXES
        for i_axis in tl.static_range(AXES):
            p_low = rule.low + i_axis * sizes.query_blocks * SHAPE.QUERY_BLOCK
            p_high = rule.high + i_axis * sizes.query_blocks * SHAPE.QUERY_BLOCK
            p_at = rule.coordinate + i_axis * sizes.key_blocks * SHAPE.KEY_BLOCK
            b_low = load_slots(p_low, i_query, o_row, 0, SHAPE.QUERY_BLOCK, BLOCK_M)
            b_high = load_slots(p_high, i_query, o_row, 0, SHAPE.QUERY_BLOCK, BLOCK_M)
            b_at = of_keys(load_slots(p_at, i_key, o_column, 0, SHAPE.KEY_BLOCK, BLOCK_N), TURNED)
            m_pair = m_pair & (of_queries(b_low, TURNED) <= b_at) & (b_at < of_queries(b_high, TURNED))
    if SHAPE.RULE == TILES:
        WIDE: tl.constexpr = (SHAPE.KEY_BLOCK + 7) // 8
        p_tile = rule.bits + i_tile.to(tl.int64) * (SHAPE.QUERY_BLOCK * WIDE)
        o_byte = of_queries(o_row * WIDE, TURNED) + of_keys(o_column >> 3, TURNED)
        b_byte = tl.load(p_tile + o_byte, mask=m_pair, other=0).to(tl.int32)
        m_pair = m_pair & (((b_byte >> of_keys(o_column & 7, TURNED)) & 1) != 0)
    return m_pair


@triton.jit
def _from_start(o_token, stride, SHAPE: tl.constexpr):
    """Offset of a token in a head of the bias."""
    return o_token.to(tl.int64) * stride if SHAPE.BIAS_WIDE else o_token * stride


@triton.jit
def _entry(bias, sizes, i_axis: tl.constexpr, query_side, key_side, SHAPE: tl.constexpr, TURNED: tl.constexpr):
    """Offset of the entry of each pair on one axis of an indexed bias."""
    _, _, o_query, m_query = query_side
    _, _, o_key, m_key = key_side
    start, extent, offset = bias.axes[i_axis]
    b_query = tl.load(bias.query_index + i_axis * sizes.queries + o_query, mask=m_query, other=0)
    b_key = tl.load(bias.key_index + i_axis * sizes.keys + o_key, mask=m_key, other=0)
    index = of_keys(b_key, TURNED) - of_queries(b_query, TURNED) + offset
    # only pairs that are not visible lie outside
    index = tl.minimum(tl.maximum(index, 0), extent - 1)
    return of_queries(_from_start(o_query, bias.query, SHAPE), TURNED) + (index + start)


@triton.jit
def _pair(bias, query_side, key_side, SHAPE: tl.constexpr, TURNED: tl.constexpr):
    """Offset of each pair in a dense bias."""
    _, _, o_query, _ = query_side
    _, _, o_key, _ = key_side
    o_row = of_queries(_from_start(o_query, bias.query, SHAPE), TURNED)
    return o_row + of_keys(_from_start(o_key, bias.key, SHAPE), TURNED)


@triton.jit
def bias_of(bias, sizes, i_batch, i_head, query_side, key_side, SHAPE: tl.constexpr, TURNED: tl.constexpr):
    """Bias of each pair of a tile, float32."""
    _, _, _, m_query = query_side
    _, _, _, m_key = key_side
    p_bias = head_of(bias, i_batch, i_head)
    m_pair = of_queries(m_query, TURNED) & of_keys(m_key, TURNED)
    if SHAPE.BIAS == DENSE_BIAS:
        o_pair = _pair(bias, query_side, key_side, SHAPE, TURNED)
        b_bias = tl.load(p_bias + o_pair, mask=m_pair, other=0.0).to(tl.float32)
    else:
        b_bias = tl.zeros(m_pair.shape, tl.float32)
        BIAS_AXES: tl.constexpr = SHAPE.BIAS_AXES
        for i_axis in tl.static_range(BIAS_AXES):
            o_entry = _entry(bias, sizes, i_axis, query_side, key_side, SHAPE, TURNED)
            b_bias += tl.load(p_bias + o_entry, mask=m_pair, other=0.0).to(tl.float32)
    return b_bias


@triton.jit
def add_to_bias(p_to_bias, bias, sizes, i_batch, i_head, b_change, m_pair, query_side, key_side, SHAPE: tl.constexpr):
    """Add the gradient of each visible pair [M, N] to its entries, which other pairs share: atomics in float32."""
    p_to_bias += i_batch.to(tl.int64) * bias.batch + i_head.to(tl.int64) * bias.head
    if SHAPE.BIAS == DENSE_BIAS:
        o_pair = _pair(bias, query_side, key_side, SHAPE, False)
        tl.atomic_add(p_to_bias + o_pair, b_change, mask=m_pair, sem="relaxed")
    else:
        BIAS_AXES: tl.constexpr = SHAPE.BIAS_AXES
        for i_axis in tl.static_range(BIAS_AXES):
            o_entry = _entry(bias, sizes, i_axis, query_side, key_side, SHAPE, False)
            tl.atomic_add(p_to_bias + o_entry, b_change, mask=m_pair, sem="relaxed")
