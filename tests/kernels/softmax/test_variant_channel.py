"""Channel attention: loops, roles, hand case, scales, gradients; the Triton kernels interpreted and compiled."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from attnkit_kernels.softmax.variants.channel import channel_attention, resolve_impl
from cases import normal


def double(*shape, seed=0):
    return normal(*shape, dtype=torch.float64, seed=seed)


def inputs(tokens=7, groups=2, dim=4, batch=2):
    return [double(batch, tokens, groups, dim, seed=at) for at in range(3)]


def naive(query, key, value, form):
    """Groups, then pairs of channels, one after the other."""
    batch, tokens, groups, dim = query.shape
    left, right, mixed = (key, value, query) if form == "v1" else (query, key, value)
    scale = dim**-0.5 if form == "v1" else tokens**-0.5
    output = torch.zeros_like(query)
    for b, g, a in np.ndindex(batch, groups, dim):
        scores = torch.stack([(left[b, :, g, a] * right[b, :, g, c]).sum() * scale for c in range(dim)])
        weights = scores.softmax(0)
        for c in range(dim):
            output[b, :, g, a] += weights[c] * mixed[b, :, g, c]
    return output


@pytest.mark.parametrize("form", ["v1", "v2"])
def test_equals_loops(form):
    tensors = inputs()
    torch.testing.assert_close(channel_attention(*tensors, form=form), naive(*tensors, form), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("form", ["v1", "v2"])
def test_permuted_tokens_permute_the_output(form):
    tensors = inputs()
    order = torch.randperm(7, generator=torch.Generator().manual_seed(1))
    moved = channel_attention(*(x[:, order] for x in tensors), form=form)
    torch.testing.assert_close(moved, channel_attention(*tensors, form=form)[:, order])


def test_roles_are_those_of_the_code():
    """v1: with q = 0 nothing comes out, with k = 0 every channel is the mean of q; read as in the paper they swap."""
    query, key, value = inputs()
    zero = torch.zeros_like(query)
    assert (channel_attention(zero, key, value) == 0).all()
    uniform = channel_attention(query, zero, value)
    torch.testing.assert_close(uniform, query.mean(-1, keepdim=True).expand_as(query))
    # v2 has the usual roles
    assert (channel_attention(query, key, zero, form="v2") == 0).all()
    uniform = channel_attention(zero, key, value, form="v2")
    torch.testing.assert_close(uniform, value.mean(-1, keepdim=True).expand_as(query))


def test_hand_case():
    eye = torch.eye(2, dtype=torch.float64)[None, :, None]
    output = channel_attention(eye, eye, eye * math.sqrt(2) * math.log(3))
    expected = torch.tensor([[0.75, 0.25], [0.25, 0.75]], dtype=torch.float64)
    torch.testing.assert_close(output[0, :, 0], expected)


def test_repeated_tokens_sharpen():
    """Every token four times: v1's scores are four times as large, v2's twice; neither is normalised by the length."""
    query, key, value = inputs()
    four = [x.repeat_interleave(4, 1) for x in (query, key, value)]
    for form, factor in (("v1", 4), ("v2", 2)):
        scale = {"v1": 4**-0.5, "v2": 7**-0.5}[form] * factor
        sharper = channel_attention(query, key, value, form=form, scale=scale)
        repeated = channel_attention(*four, form=form)
        torch.testing.assert_close(repeated, sharper.repeat_interleave(4, 1))
        assert (sharper - channel_attention(query, key, value, form=form)).abs().max() > 0.1


@pytest.mark.parametrize("form", ["v1", "v2"])
def test_gradients(form):
    tensors = [x.requires_grad_() for x in inputs(5, dim=3, batch=1)]
    assert torch.autograd.gradcheck(lambda *x: channel_attention(*x, form=form), tensors)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_sums_in_float32(dtype):
    """3000 tokens of 8: scores of a sum of 192,000 would overflow float16."""
    tensors = [torch.full((1, 3000, 1, 16), 8.0, dtype=dtype) for _ in range(3)]
    output = channel_attention(*tensors)
    assert output.dtype == dtype
    assert (output == 8).all()


def test_batch_and_layout_do_not_matter():
    query, key, value = inputs()
    whole = channel_attention(query, key, value)
    alone = channel_attention(*(x[1:] for x in (query, key, value)))
    torch.testing.assert_close(whole[1:], alone)
    turned = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (query, key, value))
    torch.testing.assert_close(channel_attention(*turned), whole)


def test_nothing_in_nothing_out():
    empty = torch.zeros(2, 0, 2, 4)
    for form in ("v1", "v2"):
        assert channel_attention(empty, empty, empty, form=form).shape == (2, 0, 2, 4)


def test_resolves_to_the_reference_on_a_cpu():
    assert resolve_impl(*inputs()) == "reference"


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda q, k, v: channel_attention(q, k[:, :3], v), r"query, key and value must have one shape|must agree"),
        (lambda q, k, v: channel_attention(q, k, v, form="v3"), "form: expected one of v1, v2, got 'v3'"),
        (lambda q, k, v: channel_attention(q, k, v, impl="torch"), "has no impl 'torch'; works here: reference"),
    ],
)
def test_wrong_arguments_are_refused(call, text):
    with pytest.raises(ValueError, match=text):
        call(*inputs())


def script(*before, **variables):
    """Rows that the script beside this file prints, interpreted (by the script `before`) or compiled."""
    pytest.importorskip("triton", reason="triton is not installed on this platform")
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    command = [sys.executable, "-W", "ignore", *before, str(Path(__file__).parent / "channel_kernels.py")]
    done = subprocess.run(command, env={**environment, **variables}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_interpreted_kernels_agree_with_the_reference():
    found = script(str(Path(__file__).parents[1] / "interpreting.py"), TRITON_INTERPRET="1")
    assert len(found["gaps"]) == 14
    half = {name: gap for name, gap in found["gaps"].items() if "float16" in name}
    assert len(half) == 2
    assert {name: gap for name, gap in half.items() if not gap <= 4e-3} == {}
    assert {name: gap for name, gap in found["gaps"].items() if name not in half and not gap <= 2e-5} == {}
    assert found["refused"] == ("channel.attend: impl 'triton' takes dims up to 64, got 65; works here: reference")


def test_compiled_kernels_fit_each_target():
    from attnkit_kernels.ahead_of_time import REGISTER_LIMITS, SHARED_LIMITS

    rows = script()
    assert {row["target"] for row in rows} == set(SHARED_LIMITS)
    # kernels x (two widest with both choices, two narrow ones with one each) x targets, and one with arguments of 1
    assert len(rows) == 2 * (2 * 2 + 2) * 4 + 2
    assert [row for row in rows if row["spilled"]] == []
    assert [row for row in rows if not row["matrix"]] == []
    for row in rows:
        most = REGISTER_LIMITS[row["target"]]
        assert 0 < row["registers"] <= (most if row["target"] == "gfx942" else min(most, 2048 // row["warps"])), row
        assert row["shared"] <= SHARED_LIMITS[row["target"]], row
