"""Balanced membership by hand and against loops, and the map of the gathered tokens."""

import numpy as np
import pytest
import torch
from attnkit_kernels.patterns import pattern
from attnkit_kernels.patterns.kmeans import Kmeans, gathered_map, members, nearest


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize(
    ("tokens", "window", "sets"),
    [
        ([3.0, 1.0, -1.0, -3.0], 2, [[0, 1], [2, 3]]),
        ([3.0, 2.0, 1.0, -3.0], 2, [[0, 1], [2, 3]]),
        ([3.0, 2.0, 1.0, -3.0], 3, [[0, 1, 2], [1, 2, 3]]),
        ([0.0, 0.0, 0.0, 0.0], 2, [[0, 1], [0, 1]]),
        ([1.0, 3.0], 5, [[0, 1], [0, 1]]),
    ],
)
def test_members_by_hand(tokens, window, sets):
    """d = 1 and centroids 1 and -1; of equal tokens the earlier is taken; the window is cut to the tokens."""
    found = members(torch.tensor(tokens).reshape(1, -1, 1, 1), torch.tensor([[[1.0], [-1.0]]]), window)
    assert found[0, 0].tolist() == sets


def test_members_and_nearest_equal_loops():
    tokens, centroids = normal(2, 30, 3, 4, seed=1), normal(3, 5, 4, seed=2)
    found, near = members(tokens, centroids, 7), nearest(tokens, centroids)
    for b, h in np.ndindex(2, 3):
        products = (tokens[b, :, h].double() @ centroids[h].double().T).numpy()
        assert near[b, h].tolist() == products.argmax(1).tolist()
        for c in range(5):
            assert found[b, h, c].tolist() == sorted(np.argsort(-products[:, c])[:7].tolist())


def test_unreal_tokens_are_taken_last():
    tokens, centroids = normal(2, 8, 1, 4, seed=3), normal(1, 3, 4, seed=4)
    real = torch.tensor([[True] * 8, [True] * 5 + [False] * 3])
    found = members(tokens, centroids, 6, real)
    assert (found[1, 0, :, :5] == torch.arange(5)).all()
    assert (found[1, 0, :, 5] >= 5).all()


def test_half_tokens_are_measured_in_float32():
    tokens, centroids = normal(1, 64, 1, 4, seed=3).bfloat16(), normal(1, 3, 4, seed=4)
    assert torch.equal(members(tokens, centroids, 9), members(tokens.float(), centroids, 9))


@pytest.mark.parametrize("causal", [False, True])
def test_map_of_the_gathered_tokens(causal):
    dense = gathered_map(3, 5, 5, causal, 4).to_dense()[0, 0]
    block = np.tri(5, dtype=bool) if causal else np.ones((5, 5), bool)
    assert np.array_equal(dense, np.kron(np.eye(3, dtype=bool), block))


def test_pattern_counts_the_work_of_its_clusters():
    tokens = torch.zeros(1, 64, 2, 4)
    block_map = pattern("kmeans", clusters=4, window=16, block=16).block_map(tokens, tokens)
    assert block_map.counts() == {"visited": 4, "full": 4, "partial": 0, "total": 16, "density": 0.25}
    # w > n falls back to n
    assert Kmeans(clusters=2, window=100).block_map(tokens, tokens).query_tokens == 128


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="clusters, window and block must be at least 1, got 0, 512 and 128"):
        Kmeans(clusters=0)
