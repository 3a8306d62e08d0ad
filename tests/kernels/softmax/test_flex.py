"""FlexAttention from the same maps, and torch's own mask builder as an outside oracle for the block structure."""

import numpy as np
import pytest
import torch
from attnkit_kernels.softmax import (
    DenseBias,
    TableBias,
    TermsBias,
    attention,
    causal,
    from_boxes,
    from_predicate,
    sliding,
)
from attnkit_kernels.softmax.flex import block_mask
from cases import assert_close, inputs, maps, neighborhood_boxes, normal, odd_maps
from torch.nn.attention.flex_attention import create_block_mask, create_mask, flex_attention

MAPS = maps() | odd_maps()


@pytest.mark.parametrize("name", MAPS)
def test_flex_agrees_with_the_reference(name):
    block_map = MAPS[name]
    tensors = [tensor.detach() for tensor in inputs(block_map)]
    got = attention(*tensors, block_map=block_map, impl="flex")
    assert_close(got, attention(*tensors, block_map=block_map, impl="reference"))


@pytest.mark.parametrize("kind", ["dense", "table", "terms"])
@pytest.mark.parametrize("name", ["boxes_permuted", "mask_all"])
def test_flex_adds_the_bias(name, kind):
    block_map = MAPS[name]
    queries, keys = block_map.query_tokens, block_map.key_tokens
    rows, columns = torch.arange(queries).int(), torch.arange(keys).int()
    bias = {
        "dense": DenseBias(normal(1, 4, queries, keys)),
        "table": TableBias(normal(4, queries + keys), rows, columns, queries),
        "terms": TermsBias(
            (normal(2, queries, 4, 20), normal(1, queries, 4, 8)),
            torch.stack([rows // 4, rows % 4]),
            torch.stack([columns // 4, columns % 4]),
            (9, 3),
        ),
    }[kind]
    tensors = [tensor.detach() for tensor in inputs(block_map)]
    got = attention(*tensors, block_map=block_map, bias=bias, impl="flex")
    assert_close(got, attention(*tensors, block_map=block_map, bias=bias, impl="reference"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half(dtype):
    tensors = [tensor.detach() for tensor in inputs(causal(20, 16, 16), dtype=dtype)]
    got = attention(*tensors, block_map=causal(20, 16, 16), impl="flex")
    assert got.output.dtype == dtype and got.lse.dtype == torch.float32
    assert_close(got, attention(*tensors, block_map=causal(20, 16, 16), impl="reference"), 2e-2)


def test_extra_keys_and_packed_sequences():
    tensors = [tensor.detach() for tensor in inputs(causal(40, 16, 16), batch=1)]
    options = {
        "block_map": causal(40, 16, 16),
        "cu_seqlens": [0, 13, 40],
        "extra_key": normal(1, 5, 2, 16, seed=1),
        "extra_value": normal(1, 5, 2, 16, seed=2),
        "extra_lengths": [3],
    }
    assert_close(attention(*tensors, **options, impl="flex"), attention(*tensors, **options, impl="reference"))


def row_column(query, key):
    return query // 8, query % 8, key // 8, key % 8


def near(query, key):
    """A 3 x 3 window, pushed back at the borders of a 6 x 8 canvas."""
    row, column, at_row, at_column = row_column(query, key)
    first = (row - 1).clip(0, 3), (column - 1).clip(0, 5)
    return (first[0] <= at_row) & (at_row < first[0] + 3) & (first[1] <= at_column) & (at_column < first[1] + 3)


ORACLES = {
    "causal": (causal(48, 16, 16), lambda query, key: key <= query),
    "sliding": (sliding(48, 5, query_block=16, key_block=16), lambda query, key: abs(query - key) < 5),
    "sliding_sink_causal": (
        sliding(48, 5, 3, True, 16, 8),
        lambda query, key: (key <= query) & ((query - key < 5) | (key < 3)),
    ),
    "neighborhood": (from_boxes(neighborhood_boxes(6, 8, 3), 16, 8), near),
    "predicate": (
        from_predicate(lambda query, key: (query * key) % 5 < 2, 48, 48, 8, 16),
        lambda query, key: (query * key) % 5 < 2,
    ),
}


@pytest.mark.parametrize("name", ORACLES)
def test_torch_makes_the_same_mask_and_the_same_blocks(name):
    """create_mask, create_block_mask and flex_attention of torch, from the predicate alone."""
    block_map, predicate = ORACLES[name]

    def mask_mod(b, h, q, k):
        return predicate(q, k)

    assert np.array_equal(block_map.to_dense(), create_mask(mask_mod, 1, 1, 48, 48, "cpu").numpy())
    size = (block_map.query_block, block_map.key_block)
    made = create_block_mask(mask_mod, None, None, 48, 48, "cpu", BLOCK_SIZE=size)
    assert np.array_equal(made.to_dense().bool().numpy(), block_map.blocks())
    assert int(made.full_kv_num_blocks.sum()) == block_map.full_count
    assert int(made.kv_num_blocks.sum()) == block_map.partial_count
    query, key, value = (tensor.detach() for tensor in inputs(block_map))
    planes = (tensor.transpose(1, 2) for tensor in (query, key, value))
    expected = flex_attention(*planes, block_mask=made, enable_gqa=True).transpose(1, 2)
    got = attention(query, key, value, block_map=block_map, impl="reference").output
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ORACLES)
def test_lists_given_to_flex_are_those_that_torch_makes(name):
    """Compiled flex visits lists, eager flex only asks for pairs: so the lists are looked at too."""
    block_map, predicate = ORACLES[name]
    size = (block_map.query_block, block_map.key_block)
    made = create_block_mask(lambda b, h, q, k: predicate(q, k), None, None, 48, 48, "cpu", BLOCK_SIZE=size)
    given = block_mask(block_map, "cpu")
    for count, index in (("kv_num_blocks", "kv_indices"), ("full_kv_num_blocks", "full_kv_indices")):
        counts = getattr(given, count)
        assert torch.equal(counts, getattr(made, count))
        for row, number in enumerate(counts.flatten().tolist()):
            left, right = (getattr(mask, index)[0, 0, row, :number] for mask in (given, made))
            assert torch.equal(left.sort().values, right.sort().values)
    assert block_mask(block_map, "cpu") is given
