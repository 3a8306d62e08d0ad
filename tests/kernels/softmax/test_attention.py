"""The definition of attention over a map: brute force, limit cases, gradients, dtypes, laws, and refusals."""

import doctest
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from attnkit_kernels.dispatch import ImplementationError
from attnkit_kernels.softmax import (
    DenseBias,
    attention,
    causal,
    dense,
    from_blocks,
    from_boxes,
    from_mask,
    resolve_impl,
)
from cases import assert_close, brute_force, gradients, inputs, maps, neighborhood_boxes, normal, odd_maps, order

MAPS = maps() | odd_maps()
CAUSAL = causal(21, 8, 8)


def sdpa(query, key, value, **options):
    planes = (tensor.transpose(1, 2) for tensor in (query, key, value))
    return F.scaled_dot_product_attention(*planes, enable_gqa=True, **options).transpose(1, 2)


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_every_kind_of_map_against_brute_force(name, dtype):
    block_map = MAPS[name]
    tensors = inputs(block_map, dtype=dtype)
    got = attention(*tensors, block_map=block_map, impl="reference")
    assert got.output.dtype == got.lse.dtype == dtype
    assert_close(got, brute_force(*tensors, block_map.to_dense()), 1e-5 if dtype == torch.float32 else 1e-12)


def test_dense_and_causal_are_scaled_dot_product_attention():
    tensors = inputs(CAUSAL)
    for block_map, options in ((None, {}), (dense(21), {}), (CAUSAL, {"is_causal": True})):
        got = attention(*tensors, block_map=block_map, impl="reference")
        expected = sdpa(*tensors, **options)
        torch.testing.assert_close(got.output, expected, rtol=1e-5, atol=1e-6)
        for left, right in zip(
            torch.autograd.grad(got.output.square().sum(), tensors),
            torch.autograd.grad(expected.square().sum(), tensors),
            strict=True,
        ):
            torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (4, 1)], ids=lambda heads: f"{heads[0]}q{heads[1]}kv")
def test_key_heads_serve_groups_of_query_heads(heads):
    query, key, value = inputs(CAUSAL, heads=heads[0], kv_heads=heads[1])
    got = attention(query, key, value, block_map=CAUSAL, impl="reference")
    group = heads[0] // heads[1]
    repeated = (tensor.repeat_interleave(group, 2) for tensor in (key, value))
    assert_close(got, attention(query, *repeated, block_map=CAUSAL, impl="reference"), 1e-6)


def test_scale_and_a_value_dim_of_its_own():
    query, key, _ = inputs(CAUSAL)
    value = normal(2, 21, 2, 5)
    for scale in (None, 0.3, 0.0):
        got = attention(query, key, value, block_map=CAUSAL, scale=scale, impl="reference")
        assert got.output.shape == (2, 21, 4, 5)
        assert_close(got, brute_force(query, key, value, CAUSAL.to_dense(), scale))


def test_query_that_sees_nothing_is_zero_with_finite_gradients():
    block_map = MAPS["blind_queries"]
    tensors = inputs(block_map, dtype=torch.float64)
    output, lse = attention(*tensors, block_map=block_map, impl="reference")
    blind = ~block_map.to_dense()[0, 0].any(1)
    assert blind.sum() == 19
    assert (output[:, blind] == 0).all() and (lse[:, blind] == -torch.inf).all() and lse[:, ~blind].isfinite().all()
    # upstream gradients on the blind rows too
    total = output.sum() + lse.exp().sum()
    found = torch.autograd.grad(total, tensors)
    assert all(gradient.isfinite().all() for gradient in found)
    assert (found[0][:, blind] == 0).all() and (found[0][:, ~blind] != 0).any()


@pytest.mark.parametrize("name", ["boxes_permuted", "mask_all", "blind_queries", "odd_mask"])
def test_gradients_through_output_and_lse(name):
    """gradcheck of both results at once, on a map of a few tokens."""
    seen = MAPS[name].to_dense()[:1, :2, 14:21, 14:20]
    block_map = from_mask(seen, 4, 2, order(7, 4, 1, 0), order(6, 2, 2, 1))
    tensors = inputs(block_map, batch=1, heads=2, kv_heads=1, dim=3, dtype=torch.float64)

    def both(*arguments):
        output, lse = attention(*arguments, block_map=block_map, impl="reference")
        return output, lse.where(lse.isfinite(), 0)

    assert torch.autograd.gradcheck(both, tensors)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_is_computed_in_float32(dtype):
    """Equal, to the last bit, to float32 on the same numbers, rounded once at the end."""
    tensors = inputs(CAUSAL, dtype=dtype)
    got = attention(*tensors, block_map=CAUSAL, impl="reference")
    wide = attention(*(tensor.float() for tensor in tensors), block_map=CAUSAL, impl="reference")
    assert got.output.dtype == dtype and got.lse.dtype == torch.float32
    assert torch.equal(got.output, wide.output.to(dtype)) and torch.equal(got.lse, wide.lse)
    assert all(gradient.dtype == dtype for gradient in gradients(got, tensors))


def test_autocast_does_not_reach_the_reference():
    tensors = inputs(CAUSAL)
    expected = attention(*tensors, block_map=CAUSAL, impl="reference")
    with torch.autocast("cpu", torch.bfloat16):
        got = attention(*tensors, block_map=CAUSAL, impl="reference")
    assert torch.equal(got.output, expected.output) and torch.equal(got.lse, expected.lse)


def test_views_that_are_not_contiguous():
    tensors = inputs(CAUSAL)
    views = [tensor.detach().transpose(1, 2).contiguous().transpose(1, 2) for tensor in tensors]
    views[0] = torch.cat([views[0], views[0]], -1)[..., :16]
    assert not any(view.is_contiguous() for view in views)
    assert_close(
        attention(*views, block_map=CAUSAL, impl="reference"),
        attention(*tensors, block_map=CAUSAL, impl="reference"),
        1e-6,
    )


def test_a_sample_alone_is_the_sample_in_a_batch():
    for block_map in (CAUSAL, MAPS["mask_all"]):
        tensors = inputs(block_map)
        got = attention(*tensors, block_map=block_map, impl="reference")
        for at in range(2):
            alone = from_mask(block_map.to_dense()[at : at + 1] if block_map.batch > 1 else block_map.to_dense(), 8, 8)
            single = attention(*(tensor[at : at + 1] for tensor in tensors), block_map=alone, impl="reference")
            assert_close((got.output[at : at + 1], got.lse[at : at + 1]), single, 1e-6)


def test_an_order_of_slots_changes_the_blocks_and_not_the_result():
    boxes = neighborhood_boxes(6, 8, 3)
    tensors = inputs(MAPS["boxes"])
    plain = attention(*tensors, block_map=MAPS["boxes"], impl="reference")
    for seed in range(3):
        permuted = from_boxes(boxes, 8, 4, order(48, 8, 3, seed), order(48, 4, 6, seed + 10))
        assert_close(attention(*tensors, block_map=permuted, impl="reference"), plain, 1e-6)


def test_permuted_tokens_give_permuted_results():
    """A permutation of queries permutes rows; one of keys, with its mask, changes nothing."""
    mask = MAPS["mask"].to_dense()
    query, key, value = inputs(MAPS["mask"])
    plain = attention(query, key, value, block_map=MAPS["mask"], impl="reference")
    rows, columns = order(37, 1, 0, 1), order(53, 1, 0, 2)
    moved = from_mask(mask[:, :, rows][..., columns], 16, 16)
    got = attention(query[:, rows], key[:, columns], value[:, columns], block_map=moved, impl="reference")
    assert_close(got, (plain.output[:, rows], plain.lse[:, rows]), 1e-6)


def test_a_causal_result_does_not_depend_on_what_follows():
    query, key, value = (tensor.detach() for tensor in inputs(CAUSAL))
    whole = attention(query, key, value, block_map=CAUSAL, impl="reference")
    part = attention(*(tensor[:, :13] for tensor in (query, key, value)), block_map=causal(13, 8, 8), impl="reference")
    assert_close((whole.output[:, :13], whole.lse[:, :13]), part, 1e-6)


@pytest.mark.parametrize("impl", ["auto", "reference"])
@pytest.mark.parametrize(("queries", "keys", "batch"), [(0, 5, 2), (5, 0, 2), (0, 0, 2), (5, 4, 0)])
def test_no_queries_no_keys_no_samples(impl, queries, keys, batch):
    tensors = inputs(dense(queries, keys), batch=batch)
    output, lse = attention(*tensors, impl=impl)
    assert output.shape == (batch, queries, 4, 16) and lse.shape == (batch, queries, 4)
    assert (output == 0).all() and (lse == -torch.inf).all()
    assert all((gradient == 0).all() for gradient in torch.autograd.grad(output.sum() + lse.exp().sum(), tensors))


def test_auto_is_torch_on_a_cpu_and_can_be_asked():
    tensors = inputs(CAUSAL)
    assert resolve_impl(*tensors) == "torch"
    assert resolve_impl(*tensors, impl="reference") == "reference"


def changed(**arguments):
    query, key, value = inputs(CAUSAL)
    return {"query": query, "key": key, "value": value, "block_map": CAUSAL, **arguments}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"query": np.zeros((2, 21, 4, 16))}, "query: expected a torch tensor, got ndarray"),
        ({"key": torch.zeros(2, 21, 16)}, r"key: expected \[batch, tokens, heads, dim\], got shape \[2, 21, 16\]"),
        ({"query": torch.zeros(2, 21, 4, 0)}, r"query: expected .* got shape \[2, 21, 4, 0\]"),
        ({"query": torch.zeros(2, 21, 4, 16).int()}, "query: expected float32, .* got int32"),
        ({"key": torch.zeros(2, 21, 2, 16).double()}, "query and key must have one dtype, got float32 and float64"),
        ({"value": torch.zeros(2, 21, 2, 16, device="meta")}, "query and value must have one device, got cpu and meta"),
        ({"value": torch.zeros(2, 20, 2, 16)}, r"agree in .* got \[2, 21, 2, 16\] and \[2, 20, 2, 16\]"),
        ({"query": torch.zeros(3, 21, 4, 16)}, "query and key must have one batch, got 3 and 2"),
        ({"query": torch.zeros(2, 21, 4, 8)}, "query and key must have one dim, got 8 and 16"),
        ({"query": torch.zeros(2, 21, 3, 16)}, "heads must be a multiple of kv heads, got 3 and 2"),
        ({"block_map": "causal"}, "block_map: expected a BlockMap, got str"),
        ({"block_map": causal(20)}, "block_map: maps 20 tokens of query, got 21 tokens"),
        ({"block_map": replace(CAUSAL, tail_keys=3)}, "maps 21 tokens and a tail of 3 of key, got 21 tokens"),
        (
            {"block_map": from_blocks(np.ones((3, 1, 1, 1), bool), 21, 21, 32, 32)},
            "block_map: has batch 3, expected 1 or 2 as query",
        ),
        (
            {"block_map": from_blocks(np.ones((1, 2, 1, 1), bool), 21, 21, 32, 32)},
            "block_map: has heads 2, expected 1 or 4 as query",
        ),
        ({"bias": torch.zeros(1, 1, 21, 21)}, "bias: expected DenseBias, TableBias or TermsBias, got Tensor"),
        (
            {"bias": DenseBias(torch.zeros(1, 1, 21, 20))},
            r"bias: expected \[2 or 1, 4 or 1, 21, 21\], got shape \[1, 1, 21, 20\]",
        ),
        (
            {"bias": DenseBias(torch.zeros(1, 1, 21, 21, device="meta"))},
            "query and bias must have one device, got cpu and meta",
        ),
        ({"bias": DenseBias(torch.zeros(1, 1, 21, 21).int())}, "bias: expected floating point tensors, got int32"),
        ({"extra_key": torch.zeros(2, 3, 2, 16)}, "extra_key and extra_value go together, got no extra_value"),
        ({"extra_lengths": [1, 2]}, "extra_lengths: expected extra_key and extra_value with it, got neither"),
        (
            {"extra_key": torch.zeros(2, 3, 2, 8), "extra_value": torch.zeros(2, 3, 2, 8)},
            "query and extra_key must have one dim, got 16 and 8",
        ),
        (
            {"extra_key": torch.zeros(2, 3, 2, 16), "extra_value": torch.zeros(2, 3, 2, 16), "extra_lengths": [1, 4]},
            r"extra_lengths: expected 0\.\.3, got 1\.\.4",
        ),
        ({"tail_lengths": [1, 1]}, "tail_lengths: the map has tails of 0 queries and 0 keys"),
        (
            {"block_map": causal(18, tail_queries=3, tail_keys=3), "tail_lengths": [1]},
            r"tail_lengths: expected integers \[2\], got int64 \[1\]",
        ),
        (
            {"block_map": dense(17, 18, tail_queries=4, tail_keys=3), "tail_lengths": [1, 1]},
            "tail_lengths: one length serves both tails, got 4 queries and 3 keys",
        ),
        ({"cu_seqlens": [0, 21]}, "cu_seqlens: expected batch 1 of packed sequences, got 2"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_with_both_values(arguments, text):
    arguments = changed(**arguments)
    with pytest.raises(ValueError, match=text) as caught:
        attention(arguments.pop("query"), arguments.pop("key"), arguments.pop("value"), **arguments, impl="reference")
    assert "\n" not in str(caught.value)


def test_unsupported_pairs_of_implementation_and_dtype_list_what_works():
    works = "works here: torch, reference$"
    with pytest.raises(ImplementationError, match=r"softmax.attention: impl 'triton' .*" + works):
        attention(*inputs(CAUSAL, dtype=torch.float64), block_map=CAUSAL, impl="triton")
    with pytest.raises(ImplementationError, match="softmax.attention: has no impl 'numba'; " + works):
        attention(*inputs(CAUSAL), block_map=CAUSAL, impl="numba")
    with pytest.raises(ImplementationError, match="unknown impl 'cudnn'; known: auto, reference, .*; " + works):
        attention(*inputs(CAUSAL), block_map=CAUSAL, impl="cudnn")
    with pytest.raises(ImplementationError, match="impl 'flex' runs forward only on cpu .*; " + works):
        attention(*inputs(CAUSAL), block_map=CAUSAL, impl="flex")
    detached = (tensor.detach() for tensor in inputs(CAUSAL, dtype=torch.float64))
    with pytest.raises(ImplementationError, match="'flex' takes float32, float16, bfloat16, not float64; " + works):
        attention(*detached, block_map=CAUSAL, impl="flex")


@pytest.mark.parametrize("name", ["api", "builders"])
def test_examples_of_docstrings(name):
    found = doctest.testmod(import_module(f"attnkit_kernels.softmax.{name}"))
    assert found.attempted > 0
    assert found.failed == 0
