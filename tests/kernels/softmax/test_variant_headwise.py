"""Head sensitivity and the errors it comes from: Fisher traces, invariances, alignment, a toy of one strong head."""

import numpy as np
import pytest
import torch
from attnkit_kernels.patterns.headwise import Headwise
from attnkit_kernels.softmax import attention
from attnkit_kernels.softmax.variants.alignment import Similarity, camera_error, icp, point_error, umeyama
from attnkit_kernels.softmax.variants.headwise import fisher_traces, head_sensitivity, projection_gradients
from cases import normal


def double(*shape, seed=0):
    return normal(*shape, dtype=torch.float64, seed=seed)


def similarity(seed=1):
    rotation = torch.linalg.qr(double(3, 3, seed=seed)).Q
    rotation = rotation * torch.linalg.det(rotation).sign()
    return Similarity(torch.tensor(1.7, dtype=torch.float64), rotation, double(3, seed=seed + 1))


def test_trace_of_a_linear_head():
    """e = (w.x - y)^2 / 2: the trace is the mean of (w.x - y)^2 |x|^2."""
    weight, x, y = double(4, seed=1).requires_grad_(), double(6, 4, seed=2), double(6, seed=3)
    gradients = torch.stack([projection_gradients((weight @ x[s] - y[s]).square() / 2, [weight])[0] for s in range(6)])
    expected = ((x @ weight.detach() - y) ** 2 * x.square().sum(-1)).mean()
    torch.testing.assert_close(fisher_traces(gradients[:, None], 1), expected[None])


def test_heads_are_rows_of_the_projection():
    gradients = double(3, 8, 5, seed=1)
    traces = fisher_traces(gradients, 4)
    for h in range(4):
        torch.testing.assert_close(traces[h], gradients[:, 2 * h : 2 * h + 2].square().sum((1, 2)).mean())


def test_scores_sum_to_one_forget_units_and_follow_permutations():
    camera, points = double(3, 8, 5, seed=1), double(3, 8, 5, seed=2)
    scores = head_sensitivity(camera, points, 4)
    torch.testing.assert_close(scores.sum(), torch.tensor(1.0, dtype=torch.float64))
    torch.testing.assert_close(head_sensitivity(1000 * camera, points / 7, 4), scores)
    order = torch.tensor([2, 0, 3, 1])
    moved = (g.unflatten(1, (4, 2))[:, order].flatten(1, 2) for g in (camera, points))
    torch.testing.assert_close(head_sensitivity(*moved, 4), scores[order])
    torch.testing.assert_close(head_sensitivity(camera, points, 4, balance=0.0), head_sensitivity(points, points, 4))


def test_a_layer_without_gradient_has_equal_scores():
    none = torch.zeros(2, 8, 3)
    assert head_sensitivity(none, none, 4).tolist() == [0.25] * 4
    weight = double(4, 3).requires_grad_()
    other = double(2).requires_grad_()
    assert torch.equal(projection_gradients(other.sum(), [weight])[0], torch.zeros(4, 3, dtype=torch.float64))


def test_a_head_without_output_has_no_sensitivity():
    """Its output projection is 0; and autograd agrees with finite differences."""
    x, value = double(1, 12, 6, seed=1), double(1, 12, 3, 2, seed=2)
    key = double(1, 12, 3, 2, seed=3)
    weight = double(6, 6, seed=4).requires_grad_()
    out = double(3, 2, seed=5)
    out[1] = 0

    def error(weight):
        query = (x @ weight.T).unflatten(-1, (3, 2))
        return (attention(query, key, value, impl="reference").output * out).sum().square()

    gradient = projection_gradients(error(weight), [weight])[0]
    scores = head_sensitivity(gradient[None], gradient[None], 3)
    assert scores[1] == 0
    assert (scores[[0, 2]] > 0).all()
    for row, column in ((0, 1), (5, 3)):
        step = torch.zeros_like(weight)
        step[row, column] = 1e-5
        with torch.no_grad():
            slope = (error(weight + step) - error(weight - step)) / 2e-5
        torch.testing.assert_close(slope, gradient[row, column], rtol=1e-6, atol=1e-9)


def test_umeyama_returns_the_transform_of_similar_clouds():
    points, truth = double(20, 3, seed=3), similarity()
    found = umeyama(points, truth(points))
    for one, other in zip(found, truth, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    refined = icp(points, truth(points), found)
    for one, other in zip(refined, found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    assert point_error(points, truth(points), refined) < 1e-18


def test_umeyama_never_reflects():
    points = double(20, 3, seed=3)
    mirrored = points * torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)
    assert torch.linalg.det(umeyama(points, mirrored).rotation) > 0


def test_icp_finds_back_without_pairs():
    points = double(60, 3, seed=4)
    small = Similarity(
        torch.tensor(1.02, dtype=torch.float64),
        torch.linalg.matrix_exp(0.05 * torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 0]], dtype=torch.float64)),
        torch.tensor([0.02, -0.01, 0.03], dtype=torch.float64),
    )
    target = small(points)[torch.randperm(60, generator=torch.Generator().manual_seed(5))]
    nothing = Similarity(
        torch.ones((), dtype=torch.float64), torch.eye(3, dtype=torch.float64), torch.zeros(3).double()
    )
    assert point_error(points, target, nothing, inlier=1.0) > 1e-4
    assert point_error(points, target, icp(points, target, nothing), inlier=1.0) < 1e-20


def errors(positions, points, true_positions, true_points):
    alignment = umeyama(points, true_points)
    return (
        camera_error(positions, true_positions, alignment),
        point_error(points, true_points, alignment, inlier=1.0),
    )


def test_errors_do_not_see_a_similarity():
    points, positions = double(30, 3, seed=6), double(5, 3, seed=7)
    noisy = points + 0.01 * double(30, 3, seed=8)
    moved = similarity(9)
    one = errors(positions, noisy, positions + 0.1, points)
    other = errors(moved(positions), moved(noisy), positions + 0.1, points)
    for left, right in zip(one, other, strict=True):
        torch.testing.assert_close(left, right)
    assert one[0] > 0
    assert one[1] > 0


def test_inliers_are_fixed_before_the_gradient():
    target = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]], dtype=torch.float64)
    points = torch.tensor([[0.01, 0, 0], [1, 0.02, 0], [5, 5, 5]], dtype=torch.float64, requires_grad=True)
    nothing = Similarity(
        torch.ones((), dtype=torch.float64), torch.eye(3, dtype=torch.float64), torch.zeros(3).double()
    )
    error = point_error(points, target, nothing)
    torch.testing.assert_close(error, torch.tensor((0.01**2 + 0.02**2) / 4, dtype=torch.float64))
    gradient = torch.autograd.grad(error, points)[0]
    torch.testing.assert_close(gradient[:2], (points.detach() - target)[:2] / 2)
    assert (gradient[2] == 0).all()
    assert point_error(points + 10, target, nothing) == 0


def toy(seed, pattern=None, rows=1.0):
    """Output of two layers of 4 heads over 64 tokens; the projections let through head 0 nearly alone."""
    weight = torch.tensor([1.0, 0.03, 0.03, 0.03], dtype=torch.float64)[:, None]
    out = double(1, 64, 4, 8, seed=seed)
    for layer in (1, 2):
        # runs of similar queries and keys, so that means say something about blocks
        query, key = (
            double(1, 8, 4, 8, seed=seed + 10 * layer + at).repeat_interleave(8, 1)
            + 0.3 * double(1, 64, 4, 8, seed=seed + 10 * layer + 5 + at)
            for at in range(2)
        )
        query = query * (rows if layer == 1 else 1.0)
        block_map = None if pattern is None else pattern.block_map(query, key)
        out = attention(query, key, out, block_map=block_map, impl="reference").output * weight
    return out


def test_moving_blocks_to_the_sensitive_head_beats_equal_and_inverted_budgets():
    """75 % sparsity: the error of the output with HeSS scores < uniform < inverted, for three toys."""
    for seed in (100, 200, 300):
        rows = torch.ones(4, 8, dtype=torch.float64, requires_grad=True)
        dense = toy(seed, rows=rows)
        target = dense.detach() + 0.1 * double(1, 64, 4, 8, seed=seed + 50)
        gradient = projection_gradients((dense - target).square().sum(), [rows])[0].flatten()[None]
        scores = head_sensitivity(gradient, gradient, 4)
        assert scores.argmax() == 0
        found = {}
        for name, used in (("hess", scores), ("uniform", torch.ones(4)), ("inverted", 1 / (scores + 1e-9))):
            pattern = Headwise(sparsity=0.75, query_block=8, key_block=8, scores=tuple(used.tolist()))
            found[name] = float((toy(seed, pattern) - dense).detach().square().mean())
        assert found["hess"] < 0.9 * found["uniform"] < 0.9 * 0.9 * found["inverted"], (seed, found)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: fisher_traces(torch.zeros(2, 7), 2), r"rows a multiple of 2, got \[2, 7\]"),
        (lambda: head_sensitivity(torch.zeros(1, 2), torch.zeros(1, 2), 2, balance=2), "between 0 and 1, got 2"),
        (lambda: umeyama(torch.zeros(2, 3), torch.zeros(2, 3)), r"3 points or more, got \[2, 3\] and \[2, 3\]"),
    ],
)
def test_wrong_arguments_are_refused(call, text):
    with pytest.raises(ValueError, match=text):
        call()


def test_scores_make_a_pattern():
    scores = head_sensitivity(double(1, 8, 3), double(1, 8, 3, seed=1), 4)
    pattern = Headwise(threshold=0.97, scores=tuple(scores.tolist()))
    assert np.isclose(sum(pattern.scores), 1)
    assert hash(pattern) == hash(Headwise(threshold=0.97, scores=tuple(scores.tolist())))
