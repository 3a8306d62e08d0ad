"""Keys and queries beside the map, the merge by lse, and packed sequences; padding, NaN too, has no effect."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from attnkit_kernels.softmax import (
    AttentionResult,
    DenseBias,
    attention,
    causal,
    dense,
    from_boxes,
    merge,
    pack,
    sliding,
)
from cases import assert_close, brute_force, gradients, inputs, maps, neighborhood_boxes, normal, order

GRID = from_boxes(neighborhood_boxes(5, 6, 3), 8, 8, order(30, 8, 3, 0), order(30, 8, 0, 1))
IMPLS = ["reference", "torch"]


def attend(*tensors, impl, **options):
    return attention(*tensors, impl=impl, **options)


def concatenated(visible, batch, extras, lengths):
    """The mask of the map with `extras` further columns, cut to lengths."""
    visible = np.broadcast_to(visible, (batch, 1, *visible.shape[2:]))
    seen = np.arange(extras) < np.asarray(lengths)[:, None]
    return np.concatenate([visible, np.broadcast_to(seen[:, None, None], (*visible.shape[:3], extras))], -1)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("lengths", [None, [4, 0], [1, 3]], ids=str)
def test_extra_keys_are_one_softmax_over_all_keys(impl, lengths):
    query, key, value = tensors = inputs(GRID, dtype=torch.float64)
    extra = tuple(normal(2, 4, 2, 16, dtype=torch.float64, seed=at).requires_grad_() for at in (1, 2))
    got = attend(*tensors, block_map=GRID, extra_key=extra[0], extra_value=extra[1], extra_lengths=lengths, impl=impl)
    everything = torch.cat([key, extra[0]], 1), torch.cat([value, extra[1]], 1)
    mask = concatenated(GRID.to_dense(), 2, 4, [4, 4] if lengths is None else lengths)
    assert_close(got, brute_force(query, *everything, mask), 1e-12)
    shown = DenseBias(torch.zeros(2, 1, 30, 34).double().masked_fill(torch.from_numpy(~mask), -torch.inf))
    single = attention(query, *everything, bias=shown, impl="reference")
    for left, right in zip(gradients(got, (*tensors, *extra)), gradients(single, (*tensors, *extra)), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("tails", [(3, 3), (0, 4), (3, 0)], ids=str)
@pytest.mark.parametrize("full", [True, False], ids=["whole", "cut"])
def test_tails_are_dense_rows_and_columns(impl, tails, full):
    block_map = replace(GRID, tail_queries=tails[0], tail_keys=tails[1])
    longest = max(tails)
    lengths = [longest, longest] if full else [1, 0]
    tensors = inputs(block_map)
    got = attend(*tensors, block_map=block_map, tail_lengths=None if full else lengths, impl=impl)
    visible = np.repeat(block_map.to_dense(), 2, 0)
    for at, length in enumerate(lengths):
        visible[at, :, 30 + length :, :] = False
        if tails[1]:
            visible[at, :, :, 30 + length :] = False
    assert_close(got, brute_force(*tensors, visible))


@pytest.mark.parametrize("impl", IMPLS)
def test_tails_extras_and_bias_together(impl):
    """The bias is one of the mapped tokens only."""
    block_map = replace(GRID, tail_queries=3, tail_keys=3)
    query, key, value = tensors = inputs(block_map)
    extra = normal(2, 5, 2, 16, seed=1), normal(2, 5, 2, 16, seed=2)
    bias = normal(1, 4, 30, 30)
    got = attend(
        *tensors,
        block_map=block_map,
        bias=DenseBias(bias),
        tail_lengths=torch.tensor([2, 3]),
        extra_key=extra[0],
        extra_value=extra[1],
        extra_lengths=np.array([5, 1]),
        impl=impl,
    )
    visible = concatenated(block_map.to_dense(), 2, 5, [5, 1]).copy()
    visible[0, :, 32:] = False
    visible[0, :, :, 32:33] = False
    wide = torch.zeros(1, 4, 33, 38)
    wide[:, :, :30, :30] = bias
    everything = torch.cat([key, extra[0]], 1), torch.cat([value, extra[1]], 1)
    assert_close(got, brute_force(query, *everything, visible, bias=wide))


@pytest.mark.parametrize("impl", IMPLS)
def test_nan_in_padding_reaches_neither_result_nor_gradient(impl):
    block_map = replace(GRID, tail_queries=3, tail_keys=3)
    clean = [tensor.detach() for tensor in inputs(block_map)]
    extras = [normal(2, 4, 2, 16, seed=at) for at in (1, 2)]
    lengths = {"tail_lengths": [2, 0], "extra_lengths": [1, 0]}
    results = []
    for poison in (0.0, float("nan")):
        tensors = [tensor.clone() for tensor in (*clean, *extras)]
        for tensor in tensors[:3]:
            tensor[0, 32:], tensor[1, 30:] = poison, poison
        for tensor in tensors[3:]:
            tensor[0, 1:], tensor[1] = poison, poison
        for tensor in tensors:
            tensor.requires_grad_()
        got = attend(
            *tensors[:3], block_map=block_map, extra_key=tensors[3], extra_value=tensors[4], **lengths, impl=impl
        )
        results.append((*got, *gradients(got, tensors)))
    for left, right in zip(*results, strict=True):
        assert not left.isnan().any()
        assert torch.equal(left, right)
    assert (results[0][0][1, 30:] == 0).all() and (results[0][1][1, 30:] == -torch.inf).all()


def test_merge_of_parts_is_the_whole():
    block_map = maps()["mask_each_sample"]
    tensors = inputs(block_map, dtype=torch.float64)
    visible = block_map.to_dense()
    # three disjoint parts of the keys, the last seen by nobody
    thirds = [np.broadcast_to(np.arange(45) % 3 == at, visible.shape) for at in range(3)]
    parts = [AttentionResult(*brute_force(*tensors, visible & part)) for part in thirds[:2]]
    parts.append(AttentionResult(*brute_force(*tensors, visible & False)))
    assert_close(merge(parts), brute_force(*tensors, visible & (thirds[0] | thirds[1])), 1e-12)
    assert merge(parts[:1]) == parts[0]


def test_merge_is_differentiable_in_outputs_and_lse():
    outputs = [normal(1, 3, 2, 4, dtype=torch.float64, seed=at).requires_grad_() for at in range(2)]
    sums = [normal(1, 3, 2, dtype=torch.float64, seed=at + 5).requires_grad_() for at in range(2)]
    assert torch.autograd.gradcheck(
        lambda *flat: tuple(merge([flat[0::2], flat[1::2]])), (outputs[0], outputs[1], sums[0], sums[1])
    )


def test_merge_where_no_part_sees_anything():
    lse = torch.full((2, 1, 1, 1), -torch.inf, requires_grad=True)
    output = torch.zeros(2, 1, 1, 1, 4, requires_grad=True)
    got = merge([AttentionResult(output[at], lse[at]) for at in range(2)])
    assert (got.output == 0).all() and (got.lse == -torch.inf).all()
    found = torch.autograd.grad(got.output.sum() + got.lse.exp().sum(), (output, lse))
    assert all((gradient == 0).all() for gradient in found)


def test_merge_refuses_parts_of_different_queries():
    with pytest.raises(ValueError, match="expected one result or more, got 0"):
        merge([])
    parts = [(torch.zeros(1, n, 2, 4), torch.zeros(1, n, 2)) for n in (3, 4)]
    with pytest.raises(ValueError, match=r"every output must have one shape, got \(1, 3, 2, 4\) and \(1, 4, 2, 4\)"):
        merge(parts)


BOUNDS = [0, 7, 7, 8, 25, 40]
KINDS = {
    "dense": lambda n: dense(n, query_block=8, key_block=8),
    "causal": lambda n: causal(n, 8, 8),
    "sliding": lambda n: sliding(n, 5, query_block=8, key_block=8),
    "sliding_causal": lambda n: sliding(n, 5, causal=True, query_block=8, key_block=8),
    "sliding_sink": lambda n: sliding(n, 4, 2, query_block=8, key_block=8),
    "sliding_sink_causal": lambda n: sliding(n, 4, 2, True, query_block=8, key_block=16),
}


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("kind", KINDS)
def test_packed_sequences_are_runs_of_each(impl, kind):
    block_map = KINDS[kind](40)
    tensors = inputs(block_map, batch=1)
    got = attend(*tensors, block_map=block_map, cu_seqlens=torch.tensor(BOUNDS, dtype=torch.int32), impl=impl)
    for start, end in pairwise(BOUNDS):
        part = (tensor[:, start:end] for tensor in tensors)
        single = attention(*part, block_map=KINDS[kind](end - start), impl="reference")
        assert_close((got.output[:, start:end], got.lse[:, start:end]), single)
    kept = attend(*tensors, block_map=pack(block_map, BOUNDS), impl=impl)
    assert torch.equal(kept.output, got.output)


def test_packed_without_a_map_is_dense_in_each_sequence():
    tensors = inputs(KINDS["dense"](40), batch=1)
    got = attention(*tensors, cu_seqlens=BOUNDS, impl="reference")
    assert_close(got, attention(*tensors, block_map=KINDS["dense"](40), cu_seqlens=BOUNDS, impl="reference"))


@pytest.mark.parametrize(
    ("block_map", "bounds", "text"),
    [
        (maps()["mask"], [0, 37], "needs a dense, causal or sliding map without order, got kind 'map'"),
        (causal(8, tail_keys=3), [0, 8], "without tails shared by .* got tails 0 and 3, 1 x 1 maps"),
        (dense(8, 9), [0, 8], "as many queries as keys, got 8 and 9"),
        (causal(8), [0.0, 8.0], r"expected integers \[sequences \+ 1\], got float64 \[2\]"),
        (causal(8), [0, 9], "expected to rise from 0 to 8 tokens, got 0 to 9"),
        (causal(8), [0, 5, 3, 8], "expected to rise from 0 to 8 tokens"),
    ],
)
def test_what_cannot_be_packed_is_refused(block_map, bounds, text):
    with pytest.raises(ValueError, match=f"cu_seqlens: .*{text}"):
        pack(block_map, bounds)
