"""The Triton kernels of attention, interpreted on a CPU: every kind of map, shape and bias, patterns, compositions.

The static patterns run through the same kernels in tests/kernels/patterns/test_pattern_engines.py.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from attnkit_kernels.patterns import ROUTED

pytest.importorskip("triton", reason="triton is not installed on this platform")

import interpreted_attention as script


@pytest.fixture(scope="module")
def interpreted():
    interpreting = Path(__file__).parents[1] / "interpreting.py"
    command = [sys.executable, "-W", "ignore", str(interpreting), script.__file__]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def tolerance(case, result):
    """Sums in another order: a few last bits of float32, of which a score is scaled by up to 3; else one of float16."""
    if case.startswith("float16") and result != "lse":
        return 2**-8
    if case == "bias dense half" and result == "to_bias_0":
        return 2**-11
    return 1e-4 if case == "scale 3.0" else 1e-5


@pytest.mark.parametrize("case", script.CASES)
def test_interpreted_kernels_agree_with_the_reference(interpreted, case):
    found = interpreted["differences"][case]
    assert found
    assert {name: gap for name, gap in found.items() if not gap <= tolerance(case, name)} == {}


def test_every_routed_pattern_and_composition_is_a_case():
    assert {name.removeprefix("routed ") for name in script.CASES if name.startswith("routed ")} == set(ROUTED)
    folder = Path(script.reversed_attention.__code__.co_filename).parent
    # what has no kernel of this engine: channel attention has its own, the others call none
    apart = {"__init__", "alignment", "centroids", "headwise"}
    composed = {name.removeprefix("composition ").split(" ")[0] for name in script.CASES if name.startswith("compo")}
    assert composed == {path.stem.split("_")[0] for path in folder.glob("*.py") if path.stem not in apart}


def test_rows_that_see_nothing(interpreted):
    facts = interpreted["facts"]
    assert facts["blind output"] == facts["blind gradient"] == 0
    assert facts["blind lse"] is True


def test_a_value_that_is_no_number_stays_in_the_blocks_that_list_it(interpreted):
    assert interpreted["facts"]["hidden value"] == [True, False, False]


def test_nothing_in_nothing_out(interpreted):
    facts = interpreted["facts"]
    assert facts["no samples"] == [0, 45, 2, 16]
    assert facts["no queries"] == [1, 0, 2, 16]
    assert facts["no keys"] == [0, True]


def test_results_repeat_and_do_not_depend_on_autograd(interpreted):
    assert interpreted["facts"]["repeats"] is True
    assert interpreted["facts"]["without gradients"] is True


def test_refusals(interpreted):
    facts = interpreted["facts"]
    assert "takes float32, float16, bfloat16, not float64; works here: torch, reference" in facts["float64"]
    assert "takes dims up to 128 in float32, got 129; works here: torch, reference" in facts["wide float32"]
    assert "takes dims up to 256 in float16, got 257; works here: torch, reference" in facts["wide float16"]
    assert "does not require grad" in facts["twice"]
