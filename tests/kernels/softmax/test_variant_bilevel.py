"""BiFormer's attention: function level against loops, limits, hand case, gradients, scale, both paddings."""

import numpy as np
import pytest
import torch
from attnkit_kernels.patterns.bilevel import table_map
from attnkit_kernels.softmax import attention
from attnkit_kernels.softmax.variants.bilevel import bilevel_attention
from cases import normal

IMPLS = ["reference", "auto"]


def region_of(canvas, sides):
    row, column = np.indices(canvas).reshape(2, -1)
    return torch.from_numpy(row // sides[0] * -(-canvas[1] // sides[1]) + column // sides[1])


def naive(query, key, value, table, region, scale):
    """Float64 attention where a token sees the regions in its own's row of the table [batch, (heads,) regions, k]."""
    table = table if table.ndim == 4 else table[:, None]
    seen = (table[:, :, region][:, :, :, None, :] == region[None, None, None, :, None]).any(-1)
    scores = torch.einsum("bihd,bjhd->bhij", query.double(), key.double()) * scale
    weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    return torch.einsum("bhij,bjhd->bihd", weights, value.double())


def inputs(canvas, heads=2, dim=4, batch=2, dtype=torch.float64):
    return [normal(batch, canvas[0] * canvas[1], heads, dim, dtype=dtype, seed=at) for at in range(3)]


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("topk", [1, 3, 49])
def test_random_tables_equal_loops(impl, topk):
    """The sheet's shapes: 28 x 42 in regions of 4 x 6, a random table for each head, float32."""
    canvas, sides = (28, 42), (4, 6)
    query, key, value = inputs(canvas, dim=32, dtype=torch.float32)
    generator = torch.Generator().manual_seed(4)
    table = torch.rand(2, 2, 49, 49, generator=generator).argsort(-1)[..., :topk]
    block_map = table_map(table, canvas, sides)
    output = attention(query, key, value, block_map=block_map, scale=64**-0.5, impl=impl).output
    expected = naive(query, key, value, table, region_of(canvas, sides), 64**-0.5)
    torch.testing.assert_close(output.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("impl", IMPLS)
def test_routed_attention_equals_loops_over_its_own_table(impl):
    query, key, value = inputs((8, 12))
    result = bilevel_attention(query, key, value, canvas=(8, 12), regions=(2, 3), topk=2, impl=impl)
    assert result.table.shape == (2, 6, 2)
    expected = naive(query, key, value, result.table, region_of((8, 12), (4, 4)), 8**-0.5)
    torch.testing.assert_close(result.output, expected)


def test_all_regions_are_dense_attention_by_the_full_width():
    query, key, value = inputs((6, 6))
    result = bilevel_attention(query, key, value, canvas=(6, 6), regions=3, topk=9, impl="reference")
    dense = attention(query, key, value, scale=8**-0.5, impl="reference")
    torch.testing.assert_close(result.output, dense.output)
    torch.testing.assert_close(result.lse, dense.lse)
    # not the usual scale of a head: sharper by sqrt(heads)
    other = bilevel_attention(query, key, value, canvas=(6, 6), regions=3, topk=9, scale=4**-0.5, impl="reference")
    assert (other.output - result.output).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("table", "quadrants"),
    [([[1], [0], [3], [2]], [4.5, 2.5, 12.5, 10.5]), ([[0, 3], [1, 2], [2, 1], [3, 0]], [7.5] * 4)],
)
def test_hand_case(table, quadrants):
    value = torch.arange(16.0, dtype=torch.float64).reshape(1, 16, 1, 1)
    zero = torch.zeros_like(value)
    block_map = table_map(torch.tensor([table]), (4, 4), (2, 2))
    output = attention(zero, value, value, block_map=block_map, impl="reference").output
    expected = torch.tensor(quadrants, dtype=torch.float64)[region_of((4, 4), (2, 2))]
    torch.testing.assert_close(output.flatten(), expected)


def test_regions_that_nobody_chose_get_no_gradient():
    query, key, value = (x.requires_grad_() for x in inputs((6, 6), batch=1))
    result = bilevel_attention(query, key, value, canvas=(6, 6), regions=3, topk=1, impl="reference")
    unseen = ~torch.isin(region_of((6, 6), (2, 2)), result.table)
    assert unseen.any()
    up = normal(*result.output.shape, dtype=torch.float64, seed=6)
    for gradient in torch.autograd.grad(result.output, (key, value), up):
        assert (gradient[:, unseen] == 0).all()
        assert (gradient[:, ~unseen] != 0).any()


def test_gradients_with_the_routing_constant():
    query, key, value = (x.requires_grad_() for x in inputs((4, 4), batch=1, dim=2))

    def run(query, key, value):
        return bilevel_attention(query, key, value, canvas=(4, 4), regions=2, topk=2, impl="reference").output

    assert torch.autograd.gradcheck(run, (query, key, value))


def test_permuted_regions_permute_the_output():
    query, key, value = inputs((6, 6))
    region = region_of((6, 6), (2, 2))
    permutation = torch.randperm(9, generator=torch.Generator().manual_seed(8))
    by_region = torch.stack([torch.nonzero(region == r)[:, 0] for r in range(9)])
    source = torch.empty(36, dtype=torch.int64)
    source[by_region.flatten()] = by_region[permutation].flatten()
    one = bilevel_attention(query, key, value, canvas=(6, 6), regions=3, topk=2, impl="reference").output
    moved = (x[:, source] for x in (query, key, value))
    other = bilevel_attention(*moved, canvas=(6, 6), regions=3, topk=2, impl="reference").output
    torch.testing.assert_close(one[:, source], other)


@pytest.mark.parametrize("impl", IMPLS)
def test_masked_padding_sees_real_tokens_only(impl):
    """30 rows in 7 regions are 6 of 5; 11 columns in 3 are 4, 4 and 3."""
    canvas = (30, 11)
    query, key, value = inputs(canvas, batch=1)
    result = bilevel_attention(query, key, value, canvas=canvas, regions=(7, 3), topk=4, impl=impl)
    assert result.table.shape == (1, 18, 4)
    expected = naive(query, key, value, result.table, region_of(canvas, (5, 4)), 8**-0.5)
    torch.testing.assert_close(result.output, expected)


def test_zero_padding_takes_part_as_published():
    """The NCHW class: 9 in 4 regions are 5 of 2, zeros behind; means over real pixels, zeros in the softmax."""
    canvas, padded = (9, 9), (10, 10)
    query, key, value = inputs(canvas, batch=1)
    result = bilevel_attention(query, key, value, canvas=canvas, regions=4, topk=3, padding="zeros", impl="reference")
    filled = []
    for x in (query, key, value):
        grid = torch.zeros(1, 10, 10, 2, 4, dtype=torch.float64)
        grid[:, :9, :9] = x.reshape(1, 9, 9, 2, 4)
        filled.append(grid.reshape(1, 100, 2, 4))
    region = region_of(padded, (2, 2))
    real = (torch.arange(100) // 10 < 9) & (torch.arange(100) % 10 < 9)
    means = [torch.stack([x.reshape(100, 8)[(region == r) & real].mean(0) for r in range(25)]) for x in filled[:2]]
    table = (means[0] @ means[1].T).argsort(-1, descending=True)[None, :, :3]
    assert torch.equal(result.table, table)
    expected = naive(*filled, table, region, 8**-0.5).reshape(1, 10, 10, 2, 4)[:, :9, :9].reshape(1, 81, 2, 4)
    torch.testing.assert_close(result.output, expected)
    masked = bilevel_attention(query, key, value, canvas=canvas, regions=4, topk=3, impl="reference").output
    assert (masked - result.output).abs().max() > 1e-2


def test_the_older_class_is_a_padded_canvas():
    """It pads before projecting: padded tokens are keys like any other, and count in the means."""
    query, key, value = inputs((10, 10), batch=1)
    zeros, mask = (
        bilevel_attention(query, key, value, canvas=(10, 10), regions=5, topk=3, padding=padding, impl="reference")
        for padding in ("zeros", "mask")
    )
    assert torch.equal(zeros.output, mask.output)


@pytest.mark.parametrize(
    ("named", "text"),
    [
        ({"padding": "reflect"}, "padding: expected one of mask, zeros, got 'reflect'"),
        ({"padding": "zeros", "regions": 7}, r"one token or more in each, got canvas \(4, 4\) in \(7, 7\) regions"),
        ({"regions": 2, "topk": 5}, "topk must be at most the number of regions, got 5 and 4"),
    ],
)
def test_wrong_arguments_are_refused(named, text):
    with pytest.raises(ValueError, match=text):
        bilevel_attention(*inputs((4, 4)), canvas=(4, 4), **named)
