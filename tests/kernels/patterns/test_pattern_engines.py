"""Every static pattern through every implementation, forward and backward, against the reference."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pattern_engines
import pytest
import torch
from attnkit_kernels.patterns import STATIC
from attnkit_kernels.softmax import attention

torch.set_num_threads(1)


def test_every_static_pattern_is_a_case():
    assert {kind for kind, *_ in pattern_engines.CASES.values()} == set(STATIC)


@pytest.mark.parametrize("name", pattern_engines.CASES)
def test_the_torch_path_agrees(name):
    assert pattern_engines.pattern_difference(name, "torch") < 2e-5


def test_the_torch_path_agrees_on_halonets_relative_terms():
    assert pattern_engines.relative_halo_difference("torch") < 2e-5


@pytest.mark.parametrize("name", pattern_engines.CASES)
def test_flex_attention_agrees_forward(name):
    block_map, tensors = pattern_engines.case(name)
    query, key, value = (tensor.detach() for tensor in tensors)
    got, expected = (attention(query, key, value, block_map=block_map, impl=impl) for impl in ("flex", "reference"))
    torch.testing.assert_close(got.output, expected.output, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(got.lse, expected.lse, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def interpreted():
    pytest.importorskip("triton", reason="triton is not installed")
    interpreting = Path(__file__).parents[1] / "interpreting.py"
    done = subprocess.run(
        [sys.executable, interpreting, pattern_engines.__file__, "triton"],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", [*pattern_engines.CASES, "relative halo"])
def test_interpreted_kernels_agree(interpreted, name):
    assert interpreted[name] < 5e-5
