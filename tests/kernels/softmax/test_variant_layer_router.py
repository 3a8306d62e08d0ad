"""The layer router of Flux Attention: size, start, gates, blends, choices per sample, the constraint."""

import numpy as np
import pytest
import torch
from attnkit_kernels.patterns import pattern
from attnkit_kernels.softmax import attention
from attnkit_kernels.softmax.variants.layer_router import (
    AttentionRouter,
    SparsityConstraint,
    blend_attention,
    choose_attention,
    gumbel_gate,
    gumbel_noise,
    model_sparsity,
    pool_ends,
    temperature,
)
from cases import normal

IMPLS = ["reference", "auto"]


def maps(tokens=48, sink=4, window=8, block=4):
    return {
        "full": pattern("causal").block_map(tokens, block, block),
        "sparse": pattern("streaming", sink=sink, window=window).block_map(tokens, block, block),
    }


def inputs(tokens=48, batch=3, dtype=torch.float64):
    return [normal(batch, tokens, heads, 4, dtype=dtype, seed=at) for at, heads in enumerate((4, 2, 2))]


@pytest.mark.parametrize(("dim", "count"), [(128, 592_002), (32, 37_410)])
def test_parameters(dim, count):
    router = AttentionRouter(dim)
    assert sum(p.numel() for p in router.parameters()) == count == 36 * dim**2 + 17 * dim + 2


def test_starts_with_full_attention():
    router = AttentionRouter(4, generator=torch.Generator().manual_seed(0))
    query, key, value = inputs(dtype=torch.float32)
    gate = router.choose(query)
    assert gate.tolist() == [True] * 3
    torch.testing.assert_close(router(query), torch.tensor([0.0, 4.5]).expand(3, 2))
    output = choose_attention(query, key, value, gate, **maps(), impl="reference").output
    dense = attention(query, key, value, block_map=maps()["full"], impl="reference").output
    assert torch.equal(output, dense)
    assert model_sparsity(gate.float()[None]).tolist() == [0.0] * 3


def test_weights_repeat_by_seed():
    one, other = (AttentionRouter(8, generator=torch.Generator().manual_seed(3)).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert (one["features.0.bias"] == 0).all()
    assert 0 < one["features.0.weight"].abs().max() <= 8**-0.5


def test_pooling_takes_the_ends_of_the_segment():
    query = normal(2, 20, 3, 4, seed=1)
    expected = torch.cat([query[:, 2:5], query[:, 9:12]], 1).mean((1, 2))
    torch.testing.assert_close(pool_ends(query, 3, 2, 12), expected)
    # short segments are taken whole, no token twice
    torch.testing.assert_close(pool_ends(query, 15), query.mean((1, 2)))
    torch.testing.assert_close(pool_ends(query, 10), query.mean((1, 2)))


def test_router_ignores_head_order_and_the_middle():
    router = AttentionRouter(4, ends=5, generator=torch.Generator().manual_seed(0)).double()
    torch.nn.init.normal_(router.head[-1].weight, generator=torch.Generator().manual_seed(1))
    query = normal(2, 20, 3, 4, dtype=torch.float64, seed=1)
    logits = router(query)
    torch.testing.assert_close(router(query[:, :, [2, 0, 1]]), logits)
    middle = query.clone()
    middle[:, 5:15] = 100
    torch.testing.assert_close(router(middle), logits)
    middle[:, 4] = 100
    assert (router(middle) - logits).abs().min() > 1e-6


@pytest.mark.parametrize("tau", [0.5, 1.5])
def test_gate_frequency_is_a_sigmoid_whatever_the_temperature(tau):
    logits = torch.tensor([0.3, 1.1]).expand(200_000, 2)
    gate = gumbel_gate(logits, tau, gumbel_noise(logits, torch.Generator().manual_seed(0)))
    assert set(gate.unique().tolist()) == {0.0, 1.0}
    assert abs(gate.mean() - torch.sigmoid(torch.tensor(0.8))) < 0.004


def test_gate_passes_the_gradient_of_the_soft_choice():
    logits = normal(6, 2, dtype=torch.float64, seed=1).requires_grad_()
    noise = gumbel_noise(logits, torch.Generator().manual_seed(2)).double()
    gate = gumbel_gate(logits, 0.7, noise)
    assert (gate == ((logits + noise)[:, 1] > (logits + noise)[:, 0])).all()
    soft = ((logits + noise) / 0.7).softmax(-1)[:, 1]
    up = normal(6, dtype=torch.float64, seed=3)
    one, other = (torch.autograd.grad(x, logits, up)[0] for x in (gate, soft))
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("impl", IMPLS)
def test_blend_is_the_selected_branch_and_its_gate_knows_the_difference(impl):
    query, key, value = inputs()
    gate = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64, requires_grad=True)
    full, sparse = (attention(query, key, value, block_map=m, impl=impl).output for m in maps().values())
    output = blend_attention(query, key, value, gate, **maps(), impl=impl)
    for at, branch in enumerate((full, sparse, full)):
        assert torch.equal(output[at], branch[at])
    up = normal(*output.shape, dtype=torch.float64, seed=5)
    gradient = torch.autograd.grad(output, gate, up)[0]
    torch.testing.assert_close(gradient, (up * (full - sparse)).sum((1, 2, 3)))


def test_blend_gradients():
    query, key, value = (x[:2, :, : x.shape[2] // 2].requires_grad_() for x in inputs(6))
    gate = torch.tensor([0.25, 0.75], dtype=torch.float64, requires_grad=True)

    def run(query, key, value, gate):
        return blend_attention(query, key, value, gate, **maps(6, sink=2, window=2, block=2), impl="reference")

    assert torch.autograd.gradcheck(run, (query, key, value, gate))


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("gate", [[True, True, True], [False, False, False], [False, True, False]])
def test_choice_runs_one_branch_for_each_sample(impl, gate):
    query, key, value = inputs()
    chosen = choose_attention(query, key, value, torch.tensor(gate), **maps(), impl=impl)
    full, sparse = (attention(query, key, value, block_map=m, impl=impl) for m in maps().values())
    for at, wanted in enumerate(gate):
        expected = full if wanted else sparse
        torch.testing.assert_close(chosen.output[at], expected.output[at])
        torch.testing.assert_close(chosen.lse[at], expected.lse[at])


def test_branches_are_causal_and_streaming():
    query, key, value = inputs()
    scores = torch.einsum("bihd,bjhd->bhij", query, key.repeat_interleave(2, 2)) * 4**-0.5
    at = torch.arange(48)
    causal = at[None] <= at[:, None]
    # blocks of 4: one of sink, two that end with the query's own
    near = (at[None] // 4 < 1) | (at[:, None] // 4 - at[None] // 4 < 2)
    for gate, mask in ((True, causal), (False, causal & near)):
        weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
        expected = torch.einsum("bhij,bjhd->bihd", weights, value.repeat_interleave(2, 2))
        output = choose_attention(query, key, value, torch.full((3,), gate), **maps(), impl="reference").output
        torch.testing.assert_close(output, expected)


def test_a_window_over_everything_makes_both_branches_equal():
    query, key, value = inputs()
    wide = maps(sink=8, window=40)
    outputs = [
        choose_attention(query, key, value, torch.full((3,), gate), **wide, impl="reference").output
        for gate in (True, False)
    ]
    torch.testing.assert_close(*outputs)


def test_streaming_blocks_seen():
    blocks = maps()["sparse"].blocks()[0, 0].sum(-1)
    assert blocks.tolist() == [min(i + 1, 1 + 2) for i in range(12)]


def test_sparsity_is_the_share_of_sparse_layers():
    gates = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [1.0, 0.0]])
    assert model_sparsity(gates).tolist() == [0.25, 0.75]


def test_constraint_is_zero_at_the_target_and_one_ascent_step_follows_the_gap():
    constraint = SparsityConstraint(generator=torch.Generator().manual_seed(0))
    assert constraint(torch.tensor([1.0, 0.45]), ["code", "multi_hop"]) == 0
    before = constraint.linear.detach().clone(), constraint.square.detach().clone()
    assert all(((x >= 0) & (x <= 0.5)).all() for x in before)
    loss = constraint(torch.tensor([0.7]), ["code"])
    torch.testing.assert_close(loss, before[0][0] * 0.3 + before[1][0] * 0.09)
    loss.backward()
    constraint.ascend(0.1)
    torch.testing.assert_close(constraint.linear[0] - before[0][0], torch.tensor(0.1 * 0.3))
    torch.testing.assert_close(constraint.square[0] - before[1][0], torch.tensor(0.1 * 0.09))
    assert torch.equal(constraint.linear[1:], before[0][1:])
    assert constraint.linear.grad is None


def test_constraint_weighs_types_not_samples():
    constraint = SparsityConstraint({"a": 0.0, "b": 0.0})
    with torch.no_grad():
        constraint.linear.copy_(torch.tensor([1.0, 2.0]))
        constraint.square.zero_()
    loss = constraint(torch.tensor([0.1, 0.3, 0.4]), ["a", "a", "b"])
    torch.testing.assert_close(loss, torch.tensor((0.2 + 0.8) / 2))


def test_temperature_falls_as_a_cosine():
    assert [round(temperature(step, 100), 6) for step in (0, 30, 60, 100)] == [1.5, 1.25, 1.0, 1.0]
    assert np.diff([temperature(step, 100) for step in range(61)]).max() < 0


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: pool_ends(torch.zeros(1, 4, 1, 2), 0), "1 token or more at each end, got ends 0 and 4 tokens"),
        (lambda: pool_ends(torch.zeros(1, 4, 1, 2), 2, 4), "got ends 2 and 0 tokens"),
        (
            lambda: choose_attention(*inputs(), torch.ones(2).bool(), **maps()),
            r"gate: expected one for each of 3 samples, got shape \[2\]",
        ),
        (lambda: SparsityConstraint()(torch.zeros(1), ["poems"]), "tasks: expected 1 of code, .* got 1: poems"),
    ],
)
def test_wrong_arguments_are_refused(call, text):
    with pytest.raises(ValueError, match=text):
        call()
