"""Triton kernels of the image operators: interpreted on a CPU, and compiled for GPUs on a machine without one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is not installed on this platform")

from attnkit_kernels.ahead_of_time import REGISTER_LIMITS, SHARED_LIMITS

FOLDER = Path(__file__).parent


def script(*names: str, **variables: str) -> dict | list:
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    command = [sys.executable, "-W", "ignore", *(str(FOLDER / name) for name in names)]
    done = subprocess.run(command, env={**environment, **variables}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def interpreted():
    return script("interpreting.py", "interpreted.py", TRITON_INTERPRET="1")


@pytest.fixture(scope="module")
def compiled():
    return script("ahead_of_time.py")


def part(interpreted, first):
    return {name: gap for name, gap in interpreted["differences"].items() if name.split()[0] in first}


@pytest.mark.parametrize(
    ("operators", "count", "tolerance"),
    [
        (("decompose", "reconstruct", "up", "down"), 25, 5e-7),
        (("lookup",), 14, 3e-6),
        (("remap",), 16, 1e-5),
        (("filter",), 4, 2e-6),
    ],
    ids=["laplacian", "lut3d", "remap", "filter"],
)
def test_interpreted_kernels_agree_with_the_reference(interpreted, operators, count, tolerance):
    """Results and, where there is a backward pass, gradients; half precision within its last bit."""
    gaps = part(interpreted, operators)
    assert len(gaps) == count
    half = {name: gap for name, gap in gaps.items() if "float16" in name}
    assert {name: gap for name, gap in gaps.items() if name not in half and not gap <= tolerance} == {}
    assert {name: gap for name, gap in half.items() if not gap <= 2**-7} == {}


def test_kernels_without_a_backward_pass_say_so(interpreted):
    said = interpreted["refusals"]
    for name in ("laplacian.down", "local_laplacian.filter"):
        assert said[name].startswith(f"{name}: impl 'triton' has no backward pass and autograd is recording")
        assert said[name].endswith("works here: reference")
    assert "takes float32, float16, bfloat16, not float64; works here: numba, reference" in said["float64"]
    assert said["auto"] == "numba"


def test_no_kernel_spills_on_any_target_with_any_tuning_choice(compiled):
    assert {row["target"] for row in compiled} == set(SHARED_LIMITS)
    assert len(compiled) == 152
    assert [row for row in compiled if row["spilled"]] == []


def test_registers_and_shared_memory_fit_each_target(compiled):
    for row in compiled:
        most = REGISTER_LIMITS[row["target"]]
        # a processor of NVIDIA's has 65536
        assert 0 < row["registers"] <= (most if row["target"] == "gfx942" else min(most, 2048 // row["warps"])), row
        assert row["shared"] <= SHARED_LIMITS[row["target"]], row


def test_every_kernel_is_compiled_with_every_choice(compiled):
    seen = {}
    for row in compiled:
        seen.setdefault((row["kernel"], row["target"]), set()).add((row["block"], row["warps"]))
    kernels = {kernel for kernel, _ in seen}
    assert kernels == {
        "down_kernel",
        "up_kernel",
        "lookup_kernel",
        "lookup_backward_kernel",
        "remap_kernel",
        "remap_backward_kernel",
        "curve_kernel",
        "accumulate_kernel",
    }
    assert all(len(choices) == 2 for choices in seen.values())
