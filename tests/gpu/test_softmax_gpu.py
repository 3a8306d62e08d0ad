"""Softmax attention on a CUDA GPU beside the reference, forward and backward, in every dtype of its kernels."""

import pytest
import torch
from attnkit_kernels.patterns import pattern
from attnkit_kernels.softmax import DenseBias, attention, dense, resolve_impl

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU on this machine")

# name: pattern, settings, canvas, tile
CASES = {
    "dense": ("dense", {}, (1000,), 128),
    "causal": ("causal", {}, (1000,), 128),
    "radial": ("radial", {"decay": 0.2}, (6, 12, 16), 128),
    "neighborhood in steps of its tile": (
        "neighborhood",
        {"window": (4, 8, 16), "stride": (4, 8, 8)},
        (8, 16, 24),
        (4, 8, 8),
    ),
    "neighborhood": ("neighborhood", {"window": (3, 5, 7)}, (8, 16, 24), (2, 8, 8)),
}
# shares of the largest number of each result: half inputs round the weights and their gradients once
TOLERANCES = {torch.float32: 5e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
NAMES = ("output", "lse", "to_query", "to_key", "to_value")


def normal(*shape, dtype, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to("cuda", dtype)


def inputs(block_map, dtype, dim=64, heads=4, kv_heads=2):
    counts = ((block_map.query_tokens, heads), (block_map.key_tokens, kv_heads), (block_map.key_tokens, kv_heads))
    return [
        normal(2, tokens, count, dim, dtype=dtype, seed=seed).requires_grad_()
        for seed, (tokens, count) in enumerate(counts)
    ]


def results(tensors, impl, **named):
    """Output, lse, and gradients through both."""
    output, lse = attention(*tensors, impl=impl, **named)
    up = [normal(*part.shape, dtype=part.dtype, seed=seed) for seed, part in ((7, output), (8, lse))]
    return output, lse, *torch.autograd.grad((output, lse), tensors, up)


def assert_agree(got, expected, tolerance):
    for name, one, other in zip(NAMES, got, expected, strict=True):
        assert one.dtype == other.dtype and one.shape == other.shape, name
        gap = float((one.double() - other.double()).abs().max() / other.double().abs().max().clamp_min(1))
        assert gap <= tolerance, (name, gap)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_triton_agrees_with_the_reference(case, dtype):
    name, settings, canvas, tile = CASES[case]
    block_map = pattern(name, **settings).block_map(canvas, tile)
    tensors = inputs(block_map, dtype)
    got, expected = (results(tensors, impl, block_map=block_map) for impl in ("triton", "reference"))
    assert_agree(got, expected, TOLERANCES[dtype])


@pytest.mark.parametrize("case", CASES)
def test_flex_attention_agrees_on_the_same_map(case):
    name, settings, canvas, tile = CASES[case]
    block_map = pattern(name, **settings).block_map(canvas, tile)
    tensors = inputs(block_map, torch.float16)
    got, expected = (results(tensors, impl, block_map=block_map) for impl in ("flex", "triton"))
    assert_agree(got, expected, TOLERANCES[torch.float16])


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("dim", [40, 128])
def test_heads_of_other_sizes(dim, dtype):
    block_map = dense(300, 500, 128, 128)
    tensors = inputs(block_map, dtype, dim)
    got, expected = (results(tensors, impl, block_map=block_map) for impl in ("triton", "reference"))
    assert_agree(got, expected, TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_gradients_of_a_bias(dtype):
    block_map = dense(200, 300, 64, 64)
    tensors = inputs(block_map, dtype)
    bias = normal(1, 4, 200, 300, dtype=dtype, seed=5).requires_grad_()
    found = []
    for impl in ("triton", "reference"):
        output = attention(*tensors, block_map=block_map, bias=DenseBias(bias), impl=impl).output
        found.append((output, torch.autograd.grad(output, bias, normal(*output.shape, dtype=dtype, seed=6))[0]))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=TOLERANCES[dtype], atol=TOLERANCES[dtype])


def test_what_is_not_visible_does_not_matter():
    """A key that is no number changes nothing for the queries that do not see it."""
    block_map = pattern("causal").block_map((300,), 64)
    query, key, value = (tensor.detach() for tensor in inputs(block_map, torch.float16))
    clean = attention(query, key, value, block_map=block_map, impl="triton").output
    key[:, 290] = float("nan")
    output = attention(query, key, value, block_map=block_map, impl="triton").output
    assert torch.equal(output[:, :290], clean[:, :290])
    assert output[:, 290:].isnan().all()


def test_auto_is_triton_up_to_its_widest_heads():
    for dtype, dim, expected in (
        (torch.float16, 256, "triton"),
        (torch.float16, 257, "torch"),
        (torch.float32, 128, "triton"),
        (torch.float32, 129, "torch"),
        (torch.float64, 64, "torch"),
    ):
        tensors = [torch.zeros(1, 16, 1, dim, dtype=dtype, device="cuda") for _ in range(3)]
        assert resolve_impl(*tensors) == expected, (dtype, dim)
