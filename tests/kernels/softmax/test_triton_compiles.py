"""The Triton kernels of attention compiled ahead of time, with every tuning choice, for GPUs that are not there.

Maps of boxes at heads of 64 and 128; with ATTNKIT_COMPILE_ALL=1 in the environment every kind of map, block, bias and
size, which takes some 10 minutes.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is not installed on this platform")

from attnkit_kernels.ahead_of_time import REGISTER_LIMITS, SHARED_LIMITS, TARGETS, TENSOR_MEMORY_LIMIT
from attnkit_kernels.softmax.triton_tuning import FAMILIES, KERNELS, choices, family_of
from attnkit_kernels.softmax.triton_variants import BIASES, DTYPES, RULES, Variant

# NVIDIA's chips with little shared memory take the choices of sm_80
SMALL_SHARED = 101376
MATRIX = {"sm_80": {"mma"}, "sm_90": {"mma", "wgmma"}, "sm_100": {"mma", "tcgen05"}, "gfx942": {"mfma"}}
EVERYTHING = os.environ.get("ATTNKIT_COMPILE_ALL", "0") == "1"


@pytest.fixture(scope="module")
def compiled():
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    command = [sys.executable, "-W", "ignore", str(Path(__file__).parent / "compiled_attention.py")]
    command += ["--all"] if EVERYTHING else []
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_kernel_is_compiled_for_every_target(compiled):
    seen = {(row["name"], row["target"], row["dtype"], row["dim"]) for row in compiled}
    for name in (*KERNELS, "prepare"):
        for target in TARGETS:
            assert {("float32", 64), ("float32", 128), ("bfloat16", 64), ("bfloat16", 128)} <= {
                key[2:] for key in seen if key[:2] == (name, target)
            }
    if EVERYTHING:
        assert {row["rule"] for row in compiled} == set(RULES)
        assert {row["bias"] for row in compiled} == set(BIASES)
        assert {row["dtype"] for row in compiled} == set(DTYPES)


@pytest.mark.parametrize("target", TARGETS)
def test_no_choice_spills(compiled, target):
    assert [row for row in compiled if row["target"] == target and row["spilled"]] == []


@pytest.mark.parametrize("target", TARGETS)
def test_registers_and_memory_fit(compiled, target):
    shared = min(SHARED_LIMITS[target], SMALL_SHARED) if target == "sm_80" else SHARED_LIMITS[target]
    for row in compiled:
        if row["target"] == target:
            # a processor of NVIDIA's has 65536 registers, in groups of 8 a thread
            most = REGISTER_LIMITS[target] if target == "gfx942" else min(255, 2048 // row["choice"]["warps"])
            assert 0 < row["registers"] <= most, row
            assert row["shared"] <= shared, row
            assert row["tensor_memory"] <= TENSOR_MEMORY_LIMIT, row


@pytest.mark.parametrize("target", TARGETS)
def test_products_are_matrix_instructions(compiled, target):
    multiplying = [row for row in compiled if row["target"] == target and row["name"] != "prepare"]
    assert multiplying
    assert [row for row in multiplying if row["matrix"] not in MATRIX[target]] == []


def test_wide_chips_use_their_own_instructions_for_halves(compiled):
    for target, own in (("sm_90", "wgmma"), ("sm_100", "tcgen05")):
        used = {row["matrix"] for row in compiled if row["target"] == target and row["dtype"] == "bfloat16"}
        assert own in used


@pytest.mark.parametrize("family", FAMILIES)
def test_every_shape_that_is_taken_has_choices_that_fit_its_blocks(family):
    target = "gfx942" if family == "amd" else family
    for dtype, most in (("float32", 128), ("float16", 256), ("bfloat16", 256)):
        for dim in (1, 16, 64, 65, 128, 129, most):
            for name in KERNELS if dim <= most else ():
                for bias in BIASES:
                    shape = Variant(name, dim, dtype, bias=bias, blocks=(16, 48)).shape(target)
                    found = choices(name, family, shape)
                    assert found
                    assert all(one.kwargs["BLOCK_M"] == 16 and one.kwargs["BLOCK_N"] <= 64 for one in found)
                    assert len({str(one) for one in found}) == len(found)


def test_what_is_not_a_gpu_belongs_to_a_family():
    import torch

    assert family_of(torch.device("cpu")) in FAMILIES
