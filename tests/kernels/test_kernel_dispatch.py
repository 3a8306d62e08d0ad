"""Choice of implementations: what runs, what is refused, and what the refusal says."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from attnkit_kernels.dispatch import Impl, ImplementationError, facts_of
from attnkit_kernels.image import laplacian, local_laplacian, lut3d, resolve_impl

IMAGE = np.zeros((1, 3, 4, 4), np.float32)
TABLE = lut3d.identity(3)


def test_auto_is_compiled_loops_on_a_cpu_and_reference_under_autograd():
    tensor = torch.zeros(1, 3, 4, 4)
    table = torch.from_numpy(TABLE)
    assert resolve_impl("lut3d.lookup", IMAGE, TABLE) == "numba"
    assert resolve_impl("lut3d.lookup", tensor, table) == "numba"
    recording = tensor.clone().requires_grad_()
    assert resolve_impl("lut3d.lookup", recording, table) == "reference"
    with torch.no_grad():
        assert resolve_impl("lut3d.lookup", recording, table) == "numba"
    assert resolve_impl("lut3d.lookup", tensor.bfloat16(), table) == "reference"


def test_the_kind_that_comes_in_goes_out():
    for impl in ("numba", "reference"):
        assert isinstance(laplacian.down(IMAGE, impl=impl), np.ndarray)
        assert isinstance(laplacian.down(torch.zeros(1, 3, 4, 4), impl=impl), torch.Tensor)
        assert all(isinstance(band, np.ndarray) for band in laplacian.decompose(IMAGE, 2, impl=impl))


@pytest.mark.parametrize(
    ("impl", "expected"),
    [
        (
            "cuda",
            "unknown impl 'cuda'; known: auto, reference, torch, numba, triton, flex; works here: numba, reference",
        ),
        ("flex", "has no impl 'flex'; works here: numba, reference"),
        ("triton", "impl 'triton' takes torch tensors, not numpy arrays; works here: numba, reference"),
    ],
)
def test_refusals_list_what_would_work(impl, expected):
    with pytest.raises(ImplementationError) as caught:
        lut3d.lookup(IMAGE, TABLE, impl=impl)
    assert str(caught.value) == f"lut3d.lookup: {expected}"


def test_numba_refuses_autograd_and_unknown_dtypes_instead_of_falling_back():
    recording = torch.zeros(1, 3, 4, 4, requires_grad=True)
    with pytest.raises(
        ImplementationError, match=r"has no backward pass and autograd is recording .*works here: reference"
    ):
        laplacian.decompose(recording, 1, impl="numba")
    with pytest.raises(ImplementationError, match="takes float32, float64, float16, not uint8"):
        laplacian.down(IMAGE.astype(np.uint8), impl="numba")
    with pytest.raises(ImplementationError, match="no implementation takes these arrays: numba takes float32"):
        laplacian.down(IMAGE.astype(np.uint8))


def test_triton_on_a_cpu_names_the_way_to_interpret(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ImplementationError, match="TRITON_INTERPRET=1"):
        local_laplacian.remap(None, torch.zeros(1, 3, 4, 4), 1.0, 1.0, form="in_band", impl=Impl.TRITON)


def test_mixed_kinds_and_devices_are_refused():
    with pytest.raises(TypeError, match="one kind, got numpy, torch"):
        facts_of(IMAGE, torch.zeros(1))
    with pytest.raises(TypeError, match="one device, got cpu, meta"):
        facts_of(torch.zeros(1), torch.zeros(1, device="meta"))
    with pytest.raises(TypeError, match="got list"):
        facts_of([1.0])


def test_an_unknown_operator_lists_the_known_ones():
    with pytest.raises(
        ValueError, match=r"unknown 'lut3d.find'; known: laplacian.down, .*lut3d.lookup, local_laplacian.remap"
    ):
        resolve_impl("lut3d.find", IMAGE)


def test_numpy_never_imports_torch_nor_does_the_import_load_numba():
    code = (
        "import sys, numpy as np\n"
        "from attnkit_kernels.image import laplacian, local_laplacian, lut3d\n"
        "assert not {'torch', 'numba', 'triton', 'cv2'} & set(sys.modules), 'heavy import'\n"
        "x = np.full((1, 3, 5, 4), 0.5, np.float32)\n"
        "bands = laplacian.decompose(x, 2)\n"
        "bands[0] = local_laplacian.remap(None, bands[0], 0.1, 0.5, form='in_band')\n"
        "y = lut3d.lookup(laplacian.reconstruct(bands), lut3d.identity(9))\n"
        "assert abs(y - x).max() < 1e-6\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
