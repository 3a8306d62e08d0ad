"""BiFormer's routing table against loops, planted permutations, and the map of a table."""

import numpy as np
import pytest
import torch
from attnkit_kernels.patterns import parse_settings, pattern
from attnkit_kernels.patterns.bilevel import Bilevel, region_order, region_table, table_map


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def region_of(canvas, sides):
    """Region number of each token, row-major, by the rows and columns of the canvas."""
    row, column = np.indices(canvas).reshape(2, -1)
    return row // sides[0] * -(-canvas[1] // sides[1]) + column // sides[1]


@pytest.mark.parametrize(("canvas", "sides"), [((8, 12), (4, 3)), ((7, 10), (3, 4))])
@pytest.mark.parametrize("kv_heads", [1, 2])
def test_table_equals_loops(canvas, sides, kv_heads):
    tokens = canvas[0] * canvas[1]
    query, key = normal(2, tokens, 2, 4, seed=1), normal(2, tokens, kv_heads, 4, seed=2)
    table = region_table(query, key, canvas, sides, 3)
    region = region_of(canvas, sides)
    flat_query, flat_key = (np.asarray(x.double().expand(2, tokens, 2, 4)).reshape(2, tokens, 8) for x in (query, key))
    for b in range(2):
        means = [np.array([x[b, region == r].mean(0) for r in range(region.max() + 1)]) for x in (flat_query, flat_key)]
        scores = means[0] @ means[1].T
        assert table[b].tolist() == np.argsort(-scores, axis=1, kind="stable")[:, :3].tolist()


def test_planted_features_give_their_permutation():
    """Region r has key e_r and query e_pi(r)."""
    permutation = torch.randperm(9, generator=torch.Generator().manual_seed(3))
    region = torch.from_numpy(region_of((6, 9), (2, 3)))
    eye = torch.eye(9)
    table = region_table(eye[permutation][region][None, :, None], eye[region][None, :, None], (6, 9), (2, 3), 1)
    assert table[0, :, 0].tolist() == permutation.tolist()


def test_a_map_shows_the_tokens_of_the_chosen_regions():
    table = torch.tensor([[[1], [0], [3], [2]], [[0], [1], [2], [3]]])
    for block in (3, 4, 16):
        block_map = table_map(table, (4, 4), (2, 2), block)
        region = region_of((4, 4), (2, 2))
        for b in range(2):
            expected = table[b, :, 0].numpy()[region][:, None] == region[None]
            assert np.array_equal(block_map.to_dense()[b, 0], expected)


def test_a_table_may_differ_between_heads():
    table = torch.tensor([[[[1], [0]], [[0], [1]]]])
    block_map = table_map(table, (4,), (2,), 2)
    assert (block_map.batch, block_map.heads, block_map.visited) == (1, 2, 4)
    assert block_map.blocks()[0].tolist() == [[[False, True], [True, False]], [[True, False], [False, True]]]


def test_no_block_of_padding_is_listed():
    """7 rows of 3 regions: 3, 3, 1; a region of one row has blocks without a token."""
    table = torch.arange(3)[None, :, None]
    block_map = table_map(table, (7, 2), (3, 2), 2)
    assert block_map.visible_pairs() == 6 * 6 + 6 * 6 + 2 * 2
    assert block_map.visited == 3 * 3 + 3 * 3 + 1


@pytest.mark.parametrize(("topk", "canvas"), [(1, (56, 56)), (4, (28, 28)), (16, (14, 14))])
def test_a_query_of_the_published_stages_sees_64_keys(topk, canvas):
    tokens = normal(1, canvas[0] * canvas[1], 1, 4)
    block_map = Bilevel(7, topk).block_map(tokens, tokens, canvas=canvas)
    assert (block_map.to_dense().sum(-1) == 64).all()


@pytest.mark.parametrize(("canvas", "block"), [((14, 14), 16), ((28, 28), 16), ((56, 56), 64), ((112, 112), 128)])
def test_blocks_fit_the_region(canvas, block):
    pixels = normal(1, canvas[0] * canvas[1], 1, 2)
    assert Bilevel(7, 1).block_map(pixels, pixels, canvas=canvas).query_block == block


def test_sides_that_do_not_divide_are_rounded_up():
    pattern = Bilevel(7, 2)
    assert pattern.sides((30, 28)) == (5, 4)
    assert region_order((30, 28), (5, 4)).shape == (6 * 7, 20)


def test_padding_counts_in_no_mean():
    """6 columns in regions of 5: the second holds one real column, and no part of token 0, which fills its slots."""
    query, key = normal(1, 30, 1, 4), normal(1, 30, 1, 4, seed=1)
    assert (region_order((5, 6), (5, 5)) >= 0).sum(1).tolist() == [25, 5]
    clean = region_table(query, key, (5, 6), (5, 5), 2)
    query[0, 0] = torch.nan
    assert torch.equal(region_table(query, key, (5, 6), (5, 5), 2)[0, 1], clean[0, 1])
    assert table_map(clean, (5, 6), (5, 5)).to_dense().all()


def test_half_inputs_are_routed_in_float32():
    pixels = normal(1, 64, 2, 4, seed=5).half()
    assert torch.equal(
        region_table(pixels, pixels, (8, 8), (2, 2), 4),
        region_table(pixels.float(), pixels.float(), (8, 8), (2, 2), 4),
    )


def test_settings_from_text():
    assert parse_settings(["bilevel.regions=7,8", "bilevel.topk=2", "bilevel.block=none"]) == {
        "bilevel": {"regions": (7, 8), "topk": 2, "block": None}
    }
    assert pattern("bilevel", regions=4).regions == (4,)


@pytest.mark.parametrize(
    ("settings", "canvas", "text"),
    [
        ({"regions": 0}, (4, 4), r"regions and topk must be at least 1, got \(0,\) and 4"),
        ({"block": 0}, (4, 4), "block must be at least 1, got 0"),
        ({"regions": 2, "topk": 5}, (4, 4), "topk must be at most the number of regions, got 5 and 4"),
        ({}, None, "bilevel needs the canvas of its tokens, got None"),
        ({}, (3, 3), "query: canvas \\(3, 3\\) has 9 tokens, got 16"),
        ({"regions": (2, 2, 2)}, (4, 4), "regions needs one value or one per axis"),
    ],
)
def test_wrong_settings_are_refused(settings, canvas, text):
    pixels = torch.zeros(1, 16, 1, 2)
    with pytest.raises(ValueError, match=text):
        Bilevel(**settings).block_map(pixels, pixels, canvas=canvas)
