"""SLA's block choice against loops, its counts, and what must not move it."""

import numpy as np
import pytest
import torch
from attnkit_kernels.patterns import pattern
from attnkit_kernels.patterns.routing import block_means, ranks
from attnkit_kernels.patterns.sla import Sla, block_scores


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_block_means_of_a_partial_block_count_its_tokens():
    tokens = torch.arange(10.0).reshape(1, 5, 2, 1)
    assert block_means(tokens, 2)[0, :, :, 0].tolist() == [[1.0, 5.0, 8.0], [2.0, 6.0, 9.0]]
    assert block_means(tokens[:, :0], 2).shape == (1, 2, 0, 1)


def test_ranks_break_ties_by_index():
    assert ranks(torch.tensor([2.0, 5.0, 2.0, 5.0, 9.0])).tolist() == [3, 1, 4, 2, 0]


@pytest.mark.parametrize("tokens", [32, 30])
def test_classes_equal_loops(tokens):
    query, key = normal(2, tokens, 4, 8, seed=1), normal(2, tokens, 2, 8, seed=2)
    sla = Sla(ratio=0.4, skip=0.25, query_block=8, key_block=4)
    classes = sla.classes(query, key)
    blocks = -(-tokens // 4)
    for b, h, i in np.ndindex(2, 4, 4):
        q = query[b, 8 * i : 8 * i + 8, h].double().mean(0)
        keys = key[b, :, h // 2].double()
        scores = [float(q @ (keys[4 * j : 4 * j + 4] - keys.mean(0)).mean(0)) for j in range(blocks)]
        order = sorted(range(blocks), key=lambda j: -scores[j])
        expected = np.zeros(blocks, int)
        expected[order[: int(0.4 * blocks)]] = 1
        expected[order[int(0.75 * blocks) :]] = -1
        assert classes[b, h, i].tolist() == expected.tolist()


def test_map_lists_the_critical_blocks_of_each_sample_and_head():
    query, key = normal(2, 30, 4, 8, seed=1), normal(2, 50, 2, 8, seed=2)
    sla = Sla(ratio=0.4, query_block=8, key_block=16)
    block_map = sla.block_map(query, key)
    assert (block_map.batch, block_map.heads, block_map.query_blocks, block_map.key_blocks) == (2, 4, 4, 4)
    assert np.array_equal(block_map.blocks(), (sla.classes(query, key) == 1).numpy())
    # int(0.4 * 4) blocks a row
    assert block_map.density == 1 / 4


@pytest.mark.parametrize(
    ("ratio", "blocks", "kept"), [(0.4, 5, 2), (0.05, 7, 1), (1.0, 3, 3), (0.5, 1, 1), (0.5, 0, 0)]
)
def test_kept_blocks_are_a_ratio_rounded_down_but_one(ratio, blocks, kept):
    assert Sla(ratio=ratio).counts(blocks)[0] == kept


@pytest.mark.parametrize("ratio", [0.05, 0.1, 0.3, 0.4, 0.7])
@pytest.mark.parametrize("blocks", [1, 3, 10, 77])
def test_skipping_all_the_rest_leaves_nothing_marginal(ratio, blocks):
    critical, kept = Sla(ratio=ratio, skip=1 - ratio).counts(blocks)
    assert critical == kept
    assert Sla(ratio=ratio, skip=0.0).counts(blocks)[1] == blocks


def test_adding_a_vector_to_every_key_changes_no_choice():
    query, key = normal(1, 64, 2, 8, seed=3), normal(1, 64, 2, 8, seed=4)
    sla = Sla(ratio=0.3, query_block=8, key_block=8)
    moved = key + 100 * normal(8, seed=5)
    assert torch.equal(sla.classes(query, key), sla.classes(query, moved))


def test_half_inputs_are_scored_in_float32():
    query, key = normal(1, 64, 2, 8, dtype=torch.float32).bfloat16(), normal(1, 64, 2, 8, seed=1).bfloat16()
    assert torch.equal(block_scores(query, key, 8, 8), block_scores(query.float(), key.float(), 8, 8))


def test_routing_records_no_gradient():
    query = normal(1, 16, 1, 4).requires_grad_()
    assert not block_scores(query, query, 4, 4).requires_grad


def test_nothing_in_nothing_out():
    block_map = Sla(query_block=4, key_block=4).block_map(normal(1, 0, 1, 4), normal(1, 0, 1, 4))
    assert block_map.visited == 0


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"ratio": 0.0}, r"ratio must be in \(0, 1\] and skip in \[0, 1\), got 0.0 and 0.1"),
        ({"skip": 1.0}, "got 0.05 and 1.0"),
        ({"key_block": 0}, "blocks must be at least 1, got 64 and 0"),
    ],
)
def test_wrong_settings_are_refused(settings, text):
    with pytest.raises(ValueError, match=text):
        pattern("sla", **settings)


@pytest.mark.parametrize(
    ("query", "key", "canvas", "text"),
    [
        ((1, 8, 4), (1, 8, 1, 4), None, r"query: expected \[batch, tokens, heads, dim\], got shape \[1, 8, 4\]"),
        ((1, 8, 1, 4), (2, 8, 1, 4), None, "query and key must have one batch, got 1 and 2"),
        ((1, 8, 3, 4), (1, 8, 2, 4), None, "query heads must be a multiple of kv heads, got 3 and 2"),
        ((1, 8, 1, 4), (1, 8, 1, 4), (3, 3), r"query: canvas \(3, 3\) has 9 tokens, got 8"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(query, key, canvas, text):
    with pytest.raises(ValueError, match=text):
        Sla().block_map(torch.zeros(query), torch.zeros(key), canvas=canvas)
