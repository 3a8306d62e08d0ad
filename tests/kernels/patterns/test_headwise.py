"""Base selection and redistribution of HeSS: loops, hand cases of the water-filling, invariants, special tokens."""

import numpy as np
import pytest
import torch
from attnkit_kernels.patterns.headwise import Headwise, redistribute, special_last, water_fill, whole_numbers
from attnkit_kernels.softmax import attention


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def inputs(patches=40, special=3, heads=4, dim=8):
    return [3 * normal(2, patches + special, heads, dim, dtype=torch.float64, seed=at) for at in range(3)]


SMALL = {"query_block": 8, "key_block": 4}


@pytest.mark.parametrize(("threshold", "sparsity"), [(0.6, None), (None, 0.7), (0.6, 0.7), (0.2, 0.9)])
def test_base_equals_loops(threshold, sparsity):
    query, key, _ = inputs(patches=38)
    pattern = Headwise(threshold=threshold, sparsity=sparsity, special=3, **SMALL)
    blocks = pattern.block_map(query, key).blocks()
    assert blocks.shape == (2, 4, 5, 10)
    for b, h, i in np.ndindex(2, 4, 5):
        q = query[b, 8 * i : min(8 * i + 8, 38), h].mean(0)
        scores = torch.stack([q @ key[b, 4 * j : min(4 * j + 4, 38), h].mean(0) for j in range(10)]) * 8**-0.5
        values, order = scores.softmax(0).sort(descending=True)
        count = 1
        if threshold is not None:
            above = [at for at, total in enumerate(values.cumsum(0)) if total > threshold + 1e-5]
            count = max(count, above[0] if above else 10)
        if sparsity is not None:
            count = max(count, int(10 * (1 - sparsity)))
        assert sorted(np.flatnonzero(blocks[b, h, i])) == sorted(order[:count].tolist())


@pytest.mark.parametrize("settings", [{"threshold": 1.0}, {"sparsity": 0.0}])
def test_nothing_dropped_is_dense_attention(settings):
    query, key, value = inputs()
    block_map = Headwise(special=3, **settings, **SMALL).block_map(query, key)
    assert block_map.density == 1
    output = attention(query, key, value, block_map=block_map, impl="reference").output
    torch.testing.assert_close(output, attention(query, key, value, impl="reference").output)


def test_equal_scores_change_nothing_where_the_base_is_equal():
    query, key, _ = inputs()
    base = Headwise(sparsity=0.6, special=3, **SMALL)
    shared = Headwise(sparsity=0.6, special=3, scores=(2.0,) * 4, **SMALL)
    assert np.array_equal(base.block_map(query, key).blocks(), shared.block_map(query, key).blocks())


@pytest.mark.parametrize("settings", [{"threshold": 0.7}, {"sparsity": 0.75}])
def test_redistribution_keeps_the_sum_of_each_block_of_queries(settings):
    query, key, _ = inputs()
    scores = (0.6, 0.25, 0.1, 0.05)
    base = Headwise(special=3, **settings, **SMALL).block_map(query, key).blocks().sum(-1)
    moved = Headwise(special=3, scores=scores, **settings, **SMALL).block_map(query, key).blocks().sum(-1)
    assert np.array_equal(base.sum(1), moved.sum(1))
    assert (moved.min(), moved.max() <= 10) == (1, True)
    assert (np.diff(moved, axis=1) <= 0).all()


@pytest.mark.parametrize(
    ("total", "weights", "most", "shares"),
    [
        (10, (0.7, 0.2, 0.1), 4, (4, 4, 2)),
        (6, (0.9, 0.05, 0.05), 4, (4, 1, 1)),
        (6, (1, 1, 1), 4, (2, 2, 2)),
        (20, (0.7, 0.2, 0.1), 4, (4, 4, 4)),
        (0, (0.7, 0.2, 0.1), 4, (0, 0, 0)),
        # what the first cannot take goes in equal parts to heads without any score
        (8, (1, 0, 0), 4, (4, 2, 2)),
    ],
)
def test_water_filling_by_hand(total, weights, most, shares):
    found = water_fill(total, np.array(weights), most)
    np.testing.assert_allclose(found, shares, atol=1e-9)
    # its own shares as weights give them again
    if total:
        np.testing.assert_allclose(water_fill(total, np.maximum(found, 1e-12), most), found, atol=1e-9)


def capped(total, weights, most):
    """The rule as the paper words it: shares above `most` are set to it and the rest is shared among the others."""
    shares, free = np.zeros(len(weights)), np.ones(len(weights), bool)
    left = total
    while True:
        shares[free] = left * weights[free] / weights[free].sum()
        over = free & (shares > most)
        if not over.any():
            return shares
        shares[over] = most
        free &= ~over
        left = total - most * (~free).sum()
        if not free.any():
            return shares


def test_water_filling_is_the_iterated_rule():
    generator = np.random.default_rng(0)
    for _ in range(200):
        heads = generator.integers(1, 9)
        weights = generator.random(heads) ** 3 + 1e-3
        most = int(generator.integers(1, 20))
        total = int(generator.integers(0, heads * most + 1))
        found = water_fill(total, weights, most)
        np.testing.assert_allclose(found, capped(total, weights, most), atol=1e-9)
        assert abs(found.sum() - total) < 1e-9


def test_integers_keep_sum_order_and_bounds():
    generator = np.random.default_rng(1)
    weights = np.sort(generator.random(6) ** 4)[::-1]
    budgets = generator.integers(1, 13, (50, 6))
    found = redistribute(budgets, weights, 12)
    assert np.array_equal(found.sum(-1), budgets.sum(-1))
    assert (found.min(), found.max()) == (1, 12)
    assert (np.diff(found, axis=-1) <= 0).all()
    assert np.array_equal(redistribute(found, weights, 12), found)


def test_rounding_gives_the_rest_to_the_largest_fractions():
    assert whole_numbers(np.array([[2.5, 1.25, 1.25], [1.4, 1.4, 1.2], [3.0, 0.0, 1.0]])).tolist() == [
        [3, 1, 1],
        [2, 1, 1],
        [3, 0, 1],
    ]


def test_special_tokens_see_all_and_are_seen():
    query, key, value = inputs()
    block_map = Headwise(sparsity=0.9, special=3, **SMALL).block_map(query, key)
    dense = block_map.to_dense()
    assert dense[:, :, 40:].all()
    assert dense[:, :, :, 40:].all()
    output = attention(query, key, value, block_map=block_map, impl="reference").output
    torch.testing.assert_close(output[:, 40:], attention(query[:, 40:], key, value, impl="reference").output)


def test_the_sinks_alone_give_finite_output():
    query, key, value = inputs()
    special = attention(query[:, :40], key[:, 40:], value[:, 40:], impl="reference").output
    assert special.isfinite().all()
    only = Headwise(sparsity=0.9, special=43, **SMALL).block_map(query, key)
    torch.testing.assert_close(
        attention(query, key, value, block_map=only, impl="reference").output,
        attention(query, key, value, impl="reference").output,
    )


def test_special_tokens_of_all_frames_go_last():
    assert special_last(2, 2, 3).tolist() == [2, 3, 4, 7, 8, 9, 0, 1, 5, 6]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({}, "headwise needs threshold, sparsity or both, got neither"),
        ({"threshold": 1.5}, "threshold must be between 0 and 1, got 1.5"),
        ({"sparsity": -0.1}, "sparsity must be between 0 and 1, got -0.1"),
        ({"sparsity": 0.5, "special": -1}, "special must be at least 0 and blocks at least 1, got -1, 128 and 64"),
        ({"sparsity": 0.5, "scores": (0.0, 0.0)}, r"scores must be 0 or more with a positive sum, got \(0.0, 0.0\)"),
        ({"sparsity": 0.5, "scores": (0.5, 0.5)}, "scores: expected one for each of 4 heads, got 2"),
        ({"sparsity": 0.5, "special": 50}, "query: expected 50 special tokens or more, got 43"),
    ],
)
def test_wrong_settings_are_refused(settings, text):
    query, key, _ = inputs()
    with pytest.raises(ValueError, match=text):
        Headwise(**settings).block_map(query, key)
