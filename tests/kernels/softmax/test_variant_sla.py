"""SLA's composition: its three forms against loops over tokens, limits, gradients and the paper's table of work."""

import numpy as np
import pytest
import torch
from attnkit_kernels.patterns.sla import Sla
from attnkit_kernels.softmax import attention, from_blocks
from attnkit_kernels.softmax.variants.sla import SparseLinearAttention, flops, sparse_linear_attention
from cases import normal

IMPLS = ["reference", "auto"]
ROUTING = Sla(ratio=0.4, skip=0.3, query_block=16, key_block=8)
FEATURES = {
    "softmax": lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True),
    "elu": lambda x: np.where(x > 0, x, np.exp(np.minimum(x, 0)) - 1) + 1,
    "relu": lambda x: np.maximum(x, 0),
}


def inputs(tokens=40, dtype=torch.float64, heads=4, kv_heads=2, dim=4):
    shapes = ((2, tokens, heads, dim), (2, tokens, kv_heads, dim), (2, tokens, kv_heads, dim))
    return [normal(*shape, dtype=dtype, seed=at) for at, shape in enumerate(shapes)]


def naive(query, key, value, classes, routing, form, feature):
    """(sparse, linear) of float64 arrays, one query after the other."""
    query, key, value, classes = (np.asarray(x) for x in (query, key, value, classes))
    group = query.shape[2] // key.shape[2]
    sparse, linear = np.zeros(query.shape), np.zeros(query.shape)
    block_of = np.arange(key.shape[1]) // routing.key_block
    for b, i, h in np.ndindex(query.shape[:3]):
        row = classes[b, h, i // routing.query_block][block_of]
        keys, values = key[b, :, h // group], value[b, :, h // group]
        weights = np.exp(keys @ query[b, i, h] * query.shape[-1] ** -0.5) * (row == 1)
        sparse[b, i, h] = weights @ values / weights.sum()
        summed = {"paper": row == 0, "marginal": row != 1, "global": row < 2}[form]
        weights = FEATURES[feature](keys) @ FEATURES[feature](query[b, i, h]) * summed
        total = weights.sum() + (1e-5 if form == "global" else 0)
        linear[b, i, h] = weights @ values / total if total else 0
    return torch.from_numpy(sparse), torch.from_numpy(linear)


@pytest.mark.parametrize("form", ["paper", "marginal", "global"])
@pytest.mark.parametrize("feature", ["softmax", "elu", "relu"])
@pytest.mark.parametrize("tokens", [40, 37])
def test_forms_equal_loops(form, feature, tokens):
    query, key, value = inputs(tokens)
    weight, bias = normal(4, 4, dtype=torch.float64, seed=8), normal(4, dtype=torch.float64, seed=9)
    result = sparse_linear_attention(
        query,
        key,
        value,
        routing=ROUTING,
        form=form,
        feature_map=feature,
        projection=weight,
        projection_bias=bias,
        impl="reference",
    )
    sparse, linear = naive(query, key, value, result.classes, ROUTING, form, feature)
    torch.testing.assert_close(result.sparse, sparse, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(result.linear, linear, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(result.output, sparse + linear @ weight.T + bias, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("impl", IMPLS)
def test_float32_agrees_with_loops_in_float64(impl):
    """The sheet's case: 2 heads of 32, ratio .4, 320 and 300 tokens, identity as projection."""
    routing = Sla(ratio=0.4, skip=0.0, query_block=64, key_block=64)
    for tokens in (320, 300):
        query, key, value = (x.float() for x in inputs(tokens, heads=2, dim=32))
        result = sparse_linear_attention(
            query, key, value, routing=routing, form="marginal", projection=torch.eye(32), impl=impl
        )
        sparse, linear = naive(
            query.double(), key.double(), value.double(), result.classes, routing, "marginal", "softmax"
        )
        torch.testing.assert_close(result.output.double(), sparse + linear, rtol=1e-5, atol=2e-6)
        assert result.block_map.density == 2 / 5


def test_ratio_1_is_dense_attention_and_for_global_its_sum_with_linear_attention():
    query, key, value = inputs()
    routing, eye = Sla(ratio=1.0, skip=0.0, query_block=16, key_block=8), torch.eye(4, dtype=torch.float64)
    dense = attention(query, key, value, impl="reference").output
    for form in ("paper", "marginal"):
        result = sparse_linear_attention(
            query, key, value, routing=routing, form=form, projection=eye, impl="reference"
        )
        assert torch.equal(result.linear, torch.zeros_like(dense))
        torch.testing.assert_close(result.output, dense)
    result = sparse_linear_attention(
        query, key, value, routing=routing, form="global", projection=eye, impl="reference"
    )
    _, linear = naive(query, key, value, result.classes, routing, "global", "softmax")
    torch.testing.assert_close(result.output, dense + linear)


@pytest.mark.parametrize("impl", IMPLS)
def test_module_starts_as_masked_attention_over_the_critical_blocks(impl):
    query, key, value = (x.float() for x in inputs())
    module = SparseLinearAttention(4, routing=ROUTING)
    assert sum(p.abs().sum() for p in module.parameters()) == 0
    mask = (ROUTING.classes(query, key) == 1).repeat_interleave(16, 2).repeat_interleave(8, 3)[:, :, :40]
    expected = torch.nn.functional.scaled_dot_product_attention(
        *(x.transpose(1, 2) for x in (query, key.repeat_interleave(2, 2), value.repeat_interleave(2, 2))), mask
    ).transpose(1, 2)
    torch.testing.assert_close(module(query, key, value, impl=impl), expected, rtol=1e-5, atol=1e-5)


def test_linear_part_is_a_mean_of_marginal_values():
    query, key, _ = inputs()
    constant = torch.tensor([1.0, -2.0, 3.0, 0.5], dtype=torch.float64)
    value = constant.expand(2, 40, 2, 4)
    weight, bias = normal(4, 4, dtype=torch.float64, seed=8), normal(4, dtype=torch.float64, seed=9)
    result = sparse_linear_attention(
        query,
        key,
        value,
        routing=ROUTING,
        form="marginal",
        projection=weight,
        projection_bias=bias,
        impl="reference",
    )
    torch.testing.assert_close(result.linear, constant.expand_as(query))
    torch.testing.assert_close(result.output, (constant + weight @ constant + bias).expand_as(query))


def test_a_common_vector_in_the_keys_moves_the_linear_part_only():
    query, key, value = inputs()
    moved = key + normal(4, dtype=torch.float64, seed=11)
    one, other = (
        sparse_linear_attention(
            query, k, value, routing=ROUTING, projection=torch.eye(4, dtype=torch.float64), impl="reference"
        )
        for k in (key, moved)
    )
    assert torch.equal(one.classes, other.classes)
    torch.testing.assert_close(one.sparse, other.sparse)
    assert (one.linear - other.linear).abs().max() > 1e-3


def test_paper_form_without_skip_is_the_marginal_form_and_with_full_skip_the_sparse_part():
    query, key, value = inputs()
    eye = torch.eye(4, dtype=torch.float64)

    def run(skip, form):
        routing = Sla(ratio=0.4, skip=skip, query_block=16, key_block=8)
        return sparse_linear_attention(query, key, value, routing=routing, form=form, projection=eye, impl="reference")

    assert torch.equal(run(0.0, "paper").output, run(0.0, "marginal").output)
    alone = run(0.6, "paper")
    assert torch.equal(alone.linear, torch.zeros_like(query))
    assert torch.equal(alone.output, alone.sparse)
    # the marginal form knows no negligible block
    assert torch.equal(run(0.6, "marginal").output, run(0.0, "marginal").output)


@pytest.mark.parametrize("form", ["paper", "marginal", "global"])
@pytest.mark.parametrize("feature", ["softmax", "elu"])
def test_gradients_with_the_routing_fixed(form, feature):
    query, key, value = (
        normal(1, 24, heads, 4, dtype=torch.float64, seed=at).requires_grad_() for at, heads in enumerate((2, 1, 1))
    )
    routing = Sla(ratio=0.4, skip=0.3, query_block=8, key_block=8)
    weight = normal(4, 4, dtype=torch.float64, seed=3).requires_grad_()
    bias = normal(4, dtype=torch.float64, seed=4).requires_grad_()
    classes = routing.classes(query, key)
    # each class occurs
    assert set(classes.unique().tolist()) == {-1, 0, 1}

    def run(query, key, value, weight, bias):
        return sparse_linear_attention(
            query,
            key,
            value,
            routing=routing,
            form=form,
            feature_map=feature,
            projection=weight,
            projection_bias=bias,
            classes=classes,
            impl="reference",
        ).output

    assert torch.autograd.gradcheck(run, (query, key, value, weight, bias))


def test_published_backward_formulas():
    """The sheet's section 2e for the linear part: block states, then total minus chosen in both directions."""
    query, key, value = (normal(1, 24, 1, 4, dtype=torch.float64, seed=at).requires_grad_() for at in range(3))
    routing = Sla(ratio=0.4, skip=0.0, query_block=8, key_block=8)
    eye = torch.eye(4, dtype=torch.float64)
    result = sparse_linear_attention(
        query, key, value, routing=routing, form="marginal", projection=eye, impl="reference"
    )
    up = normal(1, 24, 1, 4, dtype=torch.float64, seed=5)
    got = torch.autograd.grad((result.linear * up).sum(), (query, key, value), retain_graph=True)
    phi_q, phi_k = (x.detach()[0, :, 0].softmax(-1).requires_grad_() for x in (query, key))
    q, k, v, d_out = (x.reshape(3, 8, 4) for x in (phi_q.detach(), phi_k.detach(), value.detach(), up))
    marginal = (result.classes[0, 0] != 1).double()
    states, sums = k.mT @ v, k.sum(1)
    rows, row_sums = (torch.einsum("ij,j...->i...", marginal, x) for x in (states, sums))
    total = (q @ row_sums[..., None])[..., 0]
    output = (q @ rows) / total[..., None]
    delta = (d_out * output).sum(-1)
    scaled = q / total[..., None]
    d_rows, d_sums = scaled.mT @ d_out, -(scaled.mT @ delta[..., None])[..., 0]
    d_q = (d_out @ rows.mT - delta[..., None] * row_sums[:, None]) / total[..., None]
    d_states, d_all = (x.sum(0) - torch.einsum("ij,i...->j...", 1 - marginal, x) for x in (d_rows, d_sums))
    d_k = v @ d_states.mT + d_all[:, None]
    d_v = k @ d_states

    def through_softmax(x, d):
        return torch.autograd.grad(x[0, :, 0].softmax(-1), x, d.reshape(24, 4))[0]

    expected = through_softmax(query, d_q), through_softmax(key, d_k), d_v.reshape(1, 24, 1, 4)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_half_inputs_give_half_outputs_near_the_exact_ones():
    query, key, value = inputs(24, heads=2)
    run = {}
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        run[dtype] = sparse_linear_attention(
            *(x.to(torch.bfloat16).to(dtype) for x in (query, key, value)),
            routing=ROUTING,
            projection=torch.eye(4),
            impl="reference",
        )
        assert run[dtype].output.dtype == dtype
        torch.testing.assert_close(run[dtype].output.double(), run[torch.float64].output, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize(("ratio", "published"), [(0.05, 2.74), (0.10, 5.38), (0.20, 10.65)])
def test_work_follows_the_published_table(ratio, published):
    """The paper's factor is 8 where a multiply-add of scores and values gives 4, and .10 T is what it adds."""
    whole = flops(32760, 12, 128, 1.0)["sparse"] * 8 / 1e12
    assert round(whole, 2) == 52.75
    assert abs(flops(32760, 12, 128, ratio)["sparse"] * 8 / 1e12 + 0.10 - published) < 0.006


def test_counted_blocks_are_those_of_the_result():
    query, key, value = inputs()
    result = sparse_linear_attention(query, key, value, routing=ROUTING, impl="reference")
    same = from_blocks((result.classes == 1).numpy(), 40, 40, 16, 8)
    assert result.block_map.counts() == same.counts()
    assert result.linear is None
    assert torch.equal(result.output, result.sparse)


def test_nothing_in_nothing_out():
    empty = torch.zeros(1, 0, 2, 4)
    result = sparse_linear_attention(empty, empty, empty, projection=torch.eye(4), impl="reference")
    assert result.output.shape == (1, 0, 2, 4)


@pytest.mark.parametrize(
    ("named", "text"),
    [
        ({"form": "half"}, "form: expected one of paper, marginal, global, got 'half'"),
        ({"feature_map": "hedgehog"}, "feature_map: expected one of softmax, elu, relu, got 'hedgehog'"),
        ({"projection": torch.eye(3)}, r"projection: expected \[4, 4\] as value dim, got shape \[3, 3\]"),
        ({"classes": torch.zeros(1, 1, 1, 1)}, r"classes: expected \[2, 4, 3, 5\], got shape \[1, 1, 1, 1\]"),
    ],
)
def test_wrong_arguments_are_refused(named, text):
    with pytest.raises(ValueError, match=text):
        sparse_linear_attention(*inputs(), routing=ROUTING, **named)
