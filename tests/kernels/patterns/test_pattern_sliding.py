"""Patterns over the row-major index: dense, causal, sliding, streaming, random blocks."""

import numpy as np
import pytest
from attnkit_kernels.patterns import pattern
from attnkit_kernels.patterns.random_blocks import RandomBlocks
from attnkit_kernels.patterns.sliding import Sliding, Streaming
from pattern_checks import assert_attends_as, assert_map_shows


def distances(tokens):
    return np.arange(tokens)[:, None] - np.arange(tokens)


def test_dense_and_causal():
    assert_map_shows(pattern("dense").block_map((5, 9), 16, 8), np.ones((45, 45), np.bool_))
    assert_map_shows(pattern("causal").block_map((5, 9), 16, 8), distances(45) >= 0)
    assert pattern("dense").block_map((4, 64)).kind == "dense"
    assert pattern("causal").block_map(256).kind == "causal"


@pytest.mark.parametrize(("window", "sink", "causal"), [(5, 0, True), (5, 0, False), (9, 3, True), (4, 20, False)])
def test_sliding_is_exact_to_the_token(window, sink, causal):
    distance = distances(53)
    mask = (np.abs(distance) < window) | (np.arange(53) < sink)
    if causal:
        mask &= distance >= 0
    block_map = Sliding(window, sink, causal).block_map((53,), 8, 4)
    assert_map_shows(block_map, mask)
    assert_attends_as(block_map, mask)
    assert block_map.kind == "sliding"


def test_sliding_with_a_sink_is_exact_wherever_window_and_sink_meet():
    generator = np.random.default_rng(2)
    for _ in range(80):
        tokens, window, sink, query, key = generator.integers(1, (70, 40, 40, 20, 20)).tolist()
        causal = bool(generator.integers(2))
        mask = (np.abs(distances(tokens)) < window) | (np.arange(tokens) < sink)
        mask &= (distances(tokens) >= 0) | (not causal)
        assert_map_shows(Sliding(window, sink, causal).block_map((tokens,), query, key), mask)


def streaming_mask(tokens, block, sink, window, last):
    number = np.arange(tokens) // block
    apart = number[:, None] - number
    near = (number < -(-sink // block)) | (apart < -(-window // block))
    near |= (number >= -(-tokens // block) - -(-last // block))[:, None]
    return near & (distances(tokens) >= 0)


@pytest.mark.parametrize(("sink", "window", "last"), [(4, 8, 0), (1, 9, 0), (0, 4, 0), (5, 6, 7), (0, 1000, 0)])
@pytest.mark.parametrize("tokens", [48, 45])
def test_streaming_shows_its_blocks(sink, window, last, tokens):
    mask = streaming_mask(tokens, 4, sink, window, last)
    block_map = Streaming(sink, window, last).block_map(tokens, 4)
    assert_map_shows(block_map, mask)
    assert_attends_as(block_map, mask)


def test_a_block_of_queries_sees_its_number_plus_one_or_sink_and_window_blocks():
    block_map = Streaming().block_map(64 * 128)
    np.testing.assert_array_equal(np.diff(block_map.starts), np.minimum(np.arange(64) + 1, 1 + 16))
    # only the diagonal needs a mask
    assert block_map.partial_count == 64


def test_streaming_with_room_for_all_is_causal():
    wide, causal = Streaming(128, 1024 - 128).block_map(1024), pattern("causal").block_map(1024)
    for name in ("starts", "columns", "full"):
        np.testing.assert_array_equal(getattr(wide, name), getattr(causal, name))


def test_random_blocks_have_the_density_and_the_seed():
    block_map = RandomBlocks(0.1, seed=3, heads=2).block_map((64, 64), 64)
    assert block_map.heads == 2 and block_map.total == 2 * 64 * 64
    assert block_map.visited == block_map.full_count == 2 * round(0.1 * 64 * 64)
    again, other = (RandomBlocks(0.1, seed=seed, heads=2).block_map((64, 64), 64) for seed in (3, 4))
    np.testing.assert_array_equal(block_map.columns, again.columns)
    assert not np.array_equal(block_map.blocks(), other.blocks())
    assert not np.array_equal(block_map.blocks()[0, 0], block_map.blocks()[0, 1])
    # uniform: no row or column stands out
    sums = RandomBlocks(0.5, seed=1).block_map(64 * 256, 64).blocks()[0, 0].sum(1)
    assert sums.min() > 96 and sums.max() < 160
    assert RandomBlocks(0).block_map(512).visited == 0 and RandomBlocks(1).block_map(512).density == 1


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: Sliding(0), "got 0 and 0"),
        (lambda: Streaming(window=0), "got window 0"),
        (lambda: RandomBlocks(1.5), "got 1.5"),
        (lambda: RandomBlocks(heads=0), "got 0"),
        (lambda: Streaming().block_map(64, 16, 8), "got 16 and 8"),
        (lambda: Sliding(4).block_map((4, 4, 4), (2, 2, 2)), "got (2, 2, 2)"),
        (lambda: pattern("dense").block_map((4, 0)), "got (4, 0)"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_values(build, text):
    with pytest.raises(ValueError) as error:
        build()
    assert text in str(error.value)
