"""Routing Transformer's attention and centroids: limits, hand cases, mass, causality, gradients, the online update."""

import numpy as np
import pytest
import torch
from attnkit_kernels.patterns.kmeans import gathered_map, members, nearest
from attnkit_kernels.softmax import TableBias, attention
from attnkit_kernels.softmax.variants.centroids import (
    cluster_sums,
    commitment_loss,
    move,
    random_centroids,
    start,
)
from attnkit_kernels.softmax.variants.routing import DIVISORS, normed, routing_attention
from cases import normal

IMPLS = ["reference", "auto"]


def inputs(tokens=24, heads=2, dim=4, batch=2, dtype=torch.float64):
    return [normal(batch, tokens, heads, dim, dtype=dtype, seed=at) for at in range(3)]


def naive(query, key, value, centroids, window, causal, divisor, real=None):
    """(output, counts) one cluster after the other, float64, of normalised query and key."""
    query, key, value, centroids = (np.asarray(x.detach().double()) for x in (query, key, value, centroids))
    total, counts = np.zeros(value.shape), np.zeros(query.shape[:3], int)
    for b, h, c in np.ndindex(query.shape[0], query.shape[2], centroids.shape[1]):
        length = query.shape[1] if real is None else real[b]
        of_query, of_key = (
            np.sort(np.argsort(-(x[b, :length, h] @ centroids[h, c]), kind="stable")[:window]) for x in (query, key)
        )
        scores = query[b, of_query, h] @ key[b, of_key, h].T
        if causal:
            scores[np.triu_indices(len(of_query), 1)] = -np.inf
        weights = np.exp(scores - scores.max(1, keepdims=True))
        total[b, of_query, h] += weights / weights.sum(1, keepdims=True) @ value[b, of_key, h]
        counts[b, of_query, h] += 1
    return torch.from_numpy(total / (counts + divisor)[..., None]), torch.from_numpy(counts)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("tokens", "window"), [(24, 8), (25, 7), (5, 9)])
def test_equals_loops(impl, causal, tokens, window):
    query, key, value = inputs(tokens)
    key = query if causal else key
    centroids = random_centroids(2, 3, 4, torch.Generator().manual_seed(5)).double()
    result = routing_attention(query, key, value, centroids, window=window, causal=causal, impl=impl)
    output, counts = naive(result.query, result.key, value, centroids, window, causal, 0.01)
    assert torch.equal(result.counts, counts)
    torch.testing.assert_close(result.output, output, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("divisor", ["authors", "pytorch"])
@pytest.mark.parametrize("clusters", [1, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_windows_of_everything_are_dense_attention(divisor, clusters, dtype):
    query, key, value = inputs(dtype=dtype)
    result = routing_attention(
        query, key, value, normal(2, clusters, 4, dtype=dtype, seed=4), window=24, divisor=divisor, impl="reference"
    )
    dense = attention(normed(query, "layer"), normed(key, "layer"), value, scale=1.0, impl="reference").output
    expected = dense * clusters / (clusters + DIVISORS[divisor])
    torch.testing.assert_close(result.output, expected, rtol=1e-5, atol=1e-6)
    assert (result.counts == clusters).all()


def test_planted_groups_are_attention_under_a_block_mask():
    """Groups of exactly `window` tokens, strewn over the sequence; not causal and causal, where rank is position."""
    group = torch.randperm(24, generator=torch.Generator().manual_seed(6)) % 3
    centroids = torch.eye(4, dtype=torch.float64)[None, :3].repeat(2, 1, 1) * 9
    query = (centroids[0][group] + 0.1 * normal(2, 2, 24, 4, dtype=torch.float64, seed=7)).transpose(1, 2)
    value = inputs()[2]
    for causal in (False, True):
        result = routing_attention(
            query, query, value, centroids, window=8, causal=causal, divisor="pytorch", norm="none", impl="reference"
        )
        mask = group[:, None] == group[None]
        if causal:
            mask = mask.tril()
        scores = torch.einsum("bihd,bjhd->bhij", query, query).masked_fill(~mask, -torch.inf)
        expected = torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), value) / (1 + 1e-5)
        assert (result.counts == 1).all()
        torch.testing.assert_close(result.output, expected)


def test_mass_and_the_unrouted():
    """Counts sum to clusters * window in each head; tokens in no cluster are exactly the zero rows."""
    query, key, value = inputs(32)
    centroids = normal(2, 4, 4, dtype=torch.float64, seed=8)
    result = routing_attention(query, key, value, centroids, window=8, impl="reference")
    assert (result.counts.sum(1) == 32).all()
    unrouted = result.counts == 0
    assert unrouted.any()
    assert torch.equal(unrouted, (result.output == 0).all(-1))


@pytest.mark.parametrize(
    ("x", "window", "counts"), [([3.0, 1, -1, -3], 2, [1, 1, 1, 1]), ([3.0, 2, 1, -3], 3, [1, 2, 2, 1])]
)
def test_hand_case(x, window, counts):
    tokens = torch.tensor(x, dtype=torch.float64).reshape(1, 4, 1, 1)
    value = torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=torch.float64).reshape(1, 4, 1, 1)
    centroids = torch.tensor([[[1.0], [-1.0]]], dtype=torch.float64)
    result = routing_attention(
        tokens, tokens * 0, value, centroids, window=window, norm="none", divisor="authors", impl="reference"
    )
    assert result.counts.flatten().tolist() == counts
    # keys are all 0, so that their clusters are the first tokens and the weights equal
    mean = value[0, :window].mean()
    expected = torch.tensor([count * mean / (count + 0.01) for count in counts], dtype=torch.float64)
    torch.testing.assert_close(result.output.flatten(), expected)


def test_authors_factor_of_one_and_two_clusters():
    one, two = 1 / 1.01, 2 / 2.01
    assert (round(one, 3), round(two, 3)) == (0.990, 0.995)


def test_layer_norm_has_length_root_dim_and_forgets_scale():
    query, key, value = (x.float() for x in inputs(dim=8))
    assert torch.allclose(normed(query, "layer").norm(dim=-1), torch.tensor(8.0).sqrt(), atol=1e-4)
    assert torch.allclose(normed(query, "unit").norm(dim=-1), torch.tensor(1.0))
    centroids = normal(2, 3, 8, seed=4)
    one, other = (routing_attention(q, key, value, centroids, window=8).output for q in (query, 7 * query))
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_results_repeat_bit_for_bit_and_do_not_depend_on_the_batch():
    query, key, value = (x.float() for x in inputs())
    centroids = normal(2, 3, 4, seed=4)
    one, other = (routing_attention(query, key, value, centroids, window=8).output for _ in range(2))
    assert torch.equal(one, other)
    alone = routing_attention(query[:1], key[:1], value[:1], centroids, window=8).output
    torch.testing.assert_close(one[:1], alone)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("causal", [False, True])
def test_padding_is_outside_whatever_stands_there(impl, causal):
    query, key, value = inputs(10)
    centroids = normal(2, 3, 4, dtype=torch.float64, seed=4)
    for x in (query, key, value):
        x[1, 6:] = torch.nan
    lengths = [10, 6]
    result = routing_attention(query, key, value, centroids, window=7, causal=causal, lengths=lengths, impl=impl)
    output, counts = naive(normed(query, "layer"), normed(key, "layer"), value, centroids, 7, causal, 0.01, lengths)
    assert torch.equal(result.counts, counts)
    torch.testing.assert_close(result.output, output, rtol=1e-9, atol=1e-9)
    strict = routing_attention(query, key, value, centroids, window=7, strict=True, lengths=lengths, impl=impl)
    short = routing_attention(query[1:, :6], key[1:, :6], value[1:, :6], centroids, window=7, strict=True, impl=impl)
    torch.testing.assert_close(strict.output[1:, :6], short.output)
    assert (strict.output[1, 6:] == 0).all()


def changed_rows(strict):
    query, _, value = inputs(32)
    other_query, other_value = query.clone(), value.clone()
    other_query[:, -1] = 3 * normal(2, 4, dtype=torch.float64, seed=9)
    other_value[:, -1] = 5.0
    centroids = random_centroids(2, 4, 4, torch.Generator().manual_seed(5)).double()
    one, other = (
        routing_attention(q, q, v, centroids, window=8, causal=True, strict=strict, impl="reference").output
        for q, v in ((query, value), (other_query, other_value))
    )
    return int(((one - other)[:, :-1].abs() > 1e-9).any(-1).sum())


def test_causal_leaks_through_membership_and_strict_does_not():
    """Only the last token changes; earlier rows that move are leaks, which both published versions have."""
    assert changed_rows(strict=False) > 0
    assert changed_rows(strict=True) == 0


@pytest.mark.parametrize("impl", IMPLS)
def test_strict_equals_loops(impl):
    query, _, value = inputs(29)
    centroids = normal(2, 3, 4, dtype=torch.float64, seed=4)
    result = routing_attention(query, query, value, centroids, window=5, strict=True, impl=impl)
    x = result.query
    cluster = nearest(x, centroids)
    expected = torch.zeros_like(value)
    for b, i, h in np.ndindex(2, 29, 2):
        seen = [j for j in range(i + 1) if cluster[b, h, j] == cluster[b, h, i]][-5:]
        expected[b, i, h] = (x[b, seen, h] @ x[b, i, h]).softmax(0) @ value[b, seen, h] / 1.01
    torch.testing.assert_close(result.output, expected)
    assert (result.counts == 1).all()


def test_bias_goes_by_rank_in_the_cluster():
    query, key, value = inputs()
    centroids = normal(2, 3, 4, dtype=torch.float64, seed=4)
    rank = torch.arange(8, dtype=torch.int32)
    table = normal(2, 15, dtype=torch.float64, seed=10)
    result = routing_attention(
        query, key, value, centroids, window=8, bias=TableBias(table, rank, rank, 7), impl="reference"
    )
    of_query, of_key = (members(x, centroids, 8) for x in (result.query, result.key))
    total = torch.zeros_like(value)
    for b, h, c in np.ndindex(2, 2, 3):
        q, k = of_query[b, h, c], of_key[b, h, c]
        scores = result.query[b, q, h] @ result.key[b, k, h].T + table[h, rank[None] - rank[:, None] + 7]
        total[b, q, h] += scores.softmax(-1) @ value[b, k, h]
    torch.testing.assert_close(result.output, total / (result.counts + 0.01)[..., None])


def test_the_pattern_counts_what_runs():
    """The map of the gathered tokens, run over them, gives the same sums as the clusters one by one."""
    query, key, value = inputs(16, batch=1, heads=1)
    centroids = normal(1, 3, 4, dtype=torch.float64, seed=4)
    result = routing_attention(query, key, value, centroids, window=5, causal=True, impl="reference")
    of_query, of_key = (members(x, centroids, 5)[0, 0].flatten() for x in (result.query, result.key))
    gathered = attention(
        result.query[:, of_query],
        result.key[:, of_key],
        value[:, of_key],
        block_map=gathered_map(3, 5, 5, True, 4),
        scale=1.0,
        impl="reference",
    ).output
    total = torch.zeros_like(value).index_add(1, of_query, gathered)
    torch.testing.assert_close(result.output, total / (result.counts + 0.01)[..., None])


@pytest.mark.parametrize("named", [{"causal": True}, {"strict": True}, {}])
def test_gradients_with_constant_membership(named):
    query, key, value = (x.requires_grad_() for x in inputs(9, batch=1))
    centroids = normal(2, 3, 4, dtype=torch.float64, seed=4).requires_grad_()

    def run(query, key, value):
        return routing_attention(
            query, key, value, centroids.detach(), window=4, norm="layer", impl="reference", **named
        ).output

    assert torch.autograd.gradcheck(run, (query, key, value))
    result = routing_attention(query, key, value, centroids, window=4, impl="reference", **named)
    # none into the centroids
    assert torch.autograd.grad(result.output.sum(), centroids, allow_unused=True) == (None,)


def test_half_inputs_sum_in_float32():
    query, key, value = (x.half() for x in inputs(8))
    centroids = normal(2, 2, 4, seed=4)
    result = routing_attention(query, key, value, centroids, window=4, norm="none", impl="reference")
    exact, _ = naive(query, key, value, centroids, 4, False, 0.01)
    assert result.output.dtype == torch.float16
    torch.testing.assert_close(result.output.double(), exact, rtol=4e-3, atol=4e-3)


def test_moving_counts_follow_the_average():
    state = start(normal(1, 2, 3, seed=1))
    for _ in range(5):
        state = move(state, torch.tensor([[3.0, 1.0]]), torch.zeros(1, 2, 3), decay=0.9)
    torch.testing.assert_close(state.counts, torch.tensor([[3.0, 1.0]]) * (1 - 0.9**5))


def test_first_step_of_the_authors_rule_is_far_too_long():
    """g = .999 and one token: 999 mu_0 + s."""
    centroids, total = normal(2, 3, 4, dtype=torch.float64, seed=1), normal(2, 3, 4, dtype=torch.float64, seed=2)
    state = move(start(centroids), torch.ones(2, 3, dtype=torch.float64), total, decay=0.999)
    torch.testing.assert_close(state.centroids, 999 * centroids + total)
    # the smoothing of unequal counts
    counts = torch.tensor([[0.0, 1.0, 2.0]]).double().repeat(2, 1)
    uneven = move(start(centroids), counts, total, decay=0.5, epsilon=0.1)
    smooth = torch.tensor([0.1, 0.6, 1.1]).double() / 1.8 * 1.5
    torch.testing.assert_close(uneven.centroids, (0.5 * centroids + 0.5 * total) / smooth[:, None])


def test_corrected_rule_stays_in_the_hull_of_the_data():
    tokens = normal(2, 16, 1, 1, dtype=torch.float64, seed=3)
    state = start(100 * torch.tensor([[[1.0], [-1.0], [0.0]]], dtype=torch.float64), "corrected")
    for _ in range(4):
        state = move(state, *cluster_sums(tokens, state.centroids), decay=0.9)
    assert tokens.min() <= state.centroids[0, :2].min() <= state.centroids[0, :2].max() <= tokens.max()
    # no token was ever nearest to the third
    assert state.counts[0, 2] == 0
    assert state.centroids[0, 2] == 0


def test_sums_are_of_the_nearest_tokens_and_leave_padding_out():
    tokens = torch.tensor([[[[3.0]], [[1.0]], [[-2.0]], [[torch.nan]]]])
    real = torch.tensor([[True, True, True, False]])
    counts, sums = cluster_sums(tokens, torch.tensor([[[1.0], [-1.0]]]), real)
    assert counts.tolist() == [[2.0, 1.0]]
    assert sums.tolist() == [[[4.0], [-2.0]]]


def test_commitment_pulls_tokens_only():
    tokens = normal(2, 6, 2, 4, dtype=torch.float64, seed=3).requires_grad_()
    centroids = normal(2, 3, 4, dtype=torch.float64, seed=4).requires_grad_()
    loss = commitment_loss(tokens, centroids, weight=0.5)
    index = nearest(tokens, centroids)
    chosen = torch.stack([centroids[h][index[:, h]] for h in range(2)], 2).detach()
    torch.testing.assert_close(loss, 0.5 * (tokens - chosen).square().mean())
    gradient, none = torch.autograd.grad(loss, (tokens, centroids), allow_unused=True)
    torch.testing.assert_close(gradient, 2 * 0.5 * (tokens - chosen).detach() / tokens.numel())
    assert none is None
    real = torch.ones(2, 6, dtype=torch.bool)
    real[1, 3:] = False
    part = commitment_loss(tokens, centroids, weight=0.5, real=real)
    torch.testing.assert_close(part, 0.5 * (tokens - chosen)[real].square().mean())


def test_random_centroids_repeat_by_seed():
    one, other = (random_centroids(2, 3, 8, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(one, other)
    assert torch.allclose(one.norm(dim=-1), torch.tensor(8.0).sqrt(), atol=1e-4)


@pytest.mark.parametrize("strict", [False, True])
def test_nothing_in_nothing_out(strict):
    empty = torch.zeros(2, 0, 1, 4)
    result = routing_attention(empty, empty, empty, torch.zeros(1, 3, 4), window=4, strict=strict)
    assert result.output.shape == (2, 0, 1, 4)


@pytest.mark.parametrize(
    ("named", "text"),
    [
        ({"window": 0}, "window: expected 1 token or more, got 0"),
        ({"norm": "batch"}, "norm: expected one of layer, unit, none, got 'batch'"),
        ({"divisor": "none"}, "divisor: expected one of authors, pytorch, got 'none'"),
        ({"centroids": torch.zeros(3, 2, 4)}, r"centroids: expected \[2, clusters, 4\], got shape \[3, 2, 4\]"),
        ({"lengths": [3]}, r"lengths: expected integers \[2\], got int64 \[1\]"),
        ({"strict": True, "bias": "any"}, "expected none with strict"),
    ],
)
def test_wrong_arguments_are_refused(named, text):
    arguments = {"centroids": torch.zeros(2, 3, 4, dtype=torch.float64), "window": 4} | named
    with pytest.raises(ValueError, match=text):
        routing_attention(*inputs(6), **arguments)


def test_other_wrong_values_are_refused():
    with pytest.raises(ValueError, match="rule: expected one of authors, corrected, got 'none'"):
        start(torch.zeros(1, 2, 3), "none")
    with pytest.raises(ValueError, match=r"decay must be in \[0, 1\), got 1"):
        move(start(torch.zeros(1, 2, 3)), torch.zeros(1, 2), torch.zeros(1, 2, 3), decay=1)
    query, key, value = inputs(6)
    with pytest.raises(ValueError, match="query and key must agree in batch, tokens and heads"):
        routing_attention(query, key[:, :, :1], value[:, :, :1], torch.zeros(2, 3, 4), window=2)
