"""The CPU's fast path against the reference on every kind of map, forward and backward."""

import numpy as np
import pytest
import torch
from attnkit_kernels.softmax import DenseBias, TableBias, TermsBias, attention, causal, dense, from_blocks
from cases import assert_close, gradients, inputs, maps, normal, odd_maps

MAPS = maps() | odd_maps()


def both(tensors, **options):
    return [attention(*tensors, impl=impl, **options) for impl in ("torch", "reference")]


@pytest.mark.parametrize("name", MAPS)
def test_forward_and_backward_agree_with_the_reference(name):
    tensors = inputs(MAPS[name])
    got, expected = both(tensors, block_map=MAPS[name])
    assert_close(got, expected)
    for mine, theirs in zip(gradients(got, tensors), gradients(expected, tensors), strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", MAPS)
def test_gradient_of_the_output_alone_takes_the_fused_backward(name):
    tensors = inputs(MAPS[name])
    got, expected = both(tensors, block_map=MAPS[name])
    upstream = normal(*got.output.shape, seed=3)
    for mine, theirs in zip(
        torch.autograd.grad(got.output, tensors, upstream, allow_unused=True),
        torch.autograd.grad(expected.output, tensors, upstream, allow_unused=True),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["dense", "table", "terms"])
@pytest.mark.parametrize("name", ["boxes_permuted", "mask_all"])
def test_bias_and_its_gradients(name, kind):
    block_map = MAPS[name]
    queries, keys = block_map.query_tokens, block_map.key_tokens
    rows, columns = torch.arange(queries).int(), torch.arange(keys).int()
    bias = {
        "dense": DenseBias(normal(1, 4, queries, keys).requires_grad_()),
        "table": TableBias(normal(4, queries + keys).requires_grad_(), rows, columns, queries),
        "terms": TermsBias(
            (normal(2, queries, 4, 20).requires_grad_(), normal(1, queries, 4, 8).requires_grad_()),
            torch.stack([rows // 4, rows % 4]),
            torch.stack([columns // 4, columns % 4]),
            (9, 3),
        ),
    }[kind]
    tensors = inputs(block_map)
    got, expected = both(tensors, block_map=block_map, bias=bias)
    assert_close(got, expected)
    wanted = [*tensors, *bias.tensors()]
    for mine, theirs in zip(gradients(got, wanted), gradients(expected, wanted), strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-5, rtol=1e-4)


def test_dense_is_torch_attention():
    query, key, value = (normal(2, 50, 3, 16, seed=seed) for seed in range(3))
    expected = torch.nn.functional.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (query, key, value)))
    got = attention(query, key, value, block_map=dense(50, 50, 16, 16), impl="torch")
    torch.testing.assert_close(got.output, expected.transpose(1, 2), atol=2e-6, rtol=1e-5)


def test_keys_side_by_side_and_gathered_keys_give_the_same():
    blocks = np.zeros((4, 6), bool)
    blocks[:, 1:4] = True
    near = from_blocks(blocks, 64, 96, 16, 16)
    # the same visible tokens, stored apart
    order = np.arange(96).reshape(6, 16)[[0, 1, 4, 2, 5, 3]].reshape(-1)
    far_blocks = np.zeros((4, 6), bool)
    far_blocks[:, [1, 3, 5]] = True
    far = from_blocks(far_blocks, 64, 96, 16, 16, key_order=order)
    tensors = inputs(near)
    torch.testing.assert_close(
        attention(*tensors, block_map=near, impl="torch").output,
        attention(*tensors, block_map=far, impl="torch").output,
        atol=2e-6,
        rtol=1e-5,
    )


def test_float64_gradients():
    block_map = causal(11, 4, 4)
    tensors = [normal(1, 11, 2, 3, dtype=torch.float64, seed=seed).requires_grad_() for seed in range(3)]
    assert torch.autograd.gradcheck(
        lambda *x: tuple(attention(*x, block_map=block_map, impl="torch")), tensors, atol=1e-6
    )
    assert torch.autograd.gradcheck(lambda *x: attention(*x, block_map=block_map, impl="torch").output, tensors)


def test_masks_too_large_to_keep_are_made_again(monkeypatch):
    from attnkit_kernels.softmax import torch as fast

    monkeypatch.setattr(fast, "KEPT_MASK_BYTES", 0)
    block_map = causal(70, 16, 16)
    got, expected = both(inputs(block_map), block_map=block_map)
    assert_close(got, expected)
    assert all(group.mask is None for group in block_map.__dict__["_groups"])
