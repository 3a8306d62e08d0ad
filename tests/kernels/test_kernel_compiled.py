"""Where compiled code is kept, what happens where it cannot be, and threads."""

import os
import subprocess
import sys
from pathlib import Path

import attnkit_kernels
import numpy as np
import pytest
from attnkit_kernels import compiled
from numba import prange

PACKAGE = Path(attnkit_kernels.__file__).parent
REMAP = (
    "import numpy as np\n"
    "from attnkit_kernels.image import local_laplacian\n"
    "from attnkit_kernels.image.local_laplacian import numba as loops\n"
    "x = np.arange(12, dtype=np.float32).reshape(1, 1, 3, 4)\n"
    "result = local_laplacian.remap(x, x, 0.1, 0.5, form='in_band')\n"
    "kernels = [value for value in vars(loops).values() if hasattr(value, 'stats')]\n"
    "print(float(result.sum()), sum(sum(kernel.stats.cache_hits.values()) for kernel in kernels))\n"
)


def python(code: str, **variables: str | None) -> str:
    environment = {**os.environ, **{key: value for key, value in variables.items() if value is not None}}
    for key in [*(key for key, value in variables.items() if value is None), "NUMBA_CACHE_DIR"]:
        if key not in variables or variables[key] is None:
            environment.pop(key, None)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_a_second_process_finds_the_code_in_the_user_cache_folder(tmp_path):
    first = python(REMAP, XDG_CACHE_HOME=str(tmp_path))
    second = python(REMAP, XDG_CACHE_HOME=str(tmp_path))
    assert list((tmp_path / "attnkit" / "numba").rglob("*.nbc"))
    assert first.split() == [first.split()[0], "0"]
    assert second.split() == [first.split()[0], "1"]
    assert not list(PACKAGE.rglob("*.nb[ci]"))


def test_a_folder_that_cannot_be_written_costs_the_compilation_and_nothing_else(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    assert python(REMAP, XDG_CACHE_HOME=str(blocked), HOME=None).split()[1] == "0"
    assert not list(PACKAGE.rglob("*.nb[ci]"))


@pytest.mark.parametrize("broken", ["load_overload", "save_overload"])
def test_a_full_disk_or_a_damaged_file_does_not_fail_the_run(monkeypatch, tmp_path, broken):
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(compiled, "_FOLDER", tmp_path)
    monkeypatch.setattr(compiled.caching.FunctionCache, broken, fail)

    def double(values, result):  # type: ignore[no-untyped-def]
        for at in prange(values.size):
            result[at] = 2 * values[at]

    kernel = compiled.loops(parallel=True)(double)
    assert isinstance(kernel._cache, compiled._Cache)
    result = np.zeros(3)
    compiled.launch(kernel, np.arange(3.0), result)
    assert result.tolist() == [0, 2, 4]


def test_python_threads_may_call_at_once_under_the_plainest_threading_layer():
    code = (
        "import numpy as np\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from attnkit_kernels.image import local_laplacian\n"
        "import numba\n"
        "flat = lambda x: local_laplacian.remap(x, x, 0.1, 0.0, form='in_band')\n"
        "images = [np.full((1, 3, 200, 200), value, np.float32) for value in range(8)]\n"
        "with ThreadPoolExecutor(4) as pool:\n"
        "    for _ in range(5):\n"
        "        for value, result in enumerate(pool.map(flat, images)):\n"
        "            assert (result == value).all()\n"
        "print(numba.threading_layer())\n"
    )
    assert python(code, NUMBA_THREADING_LAYER="workqueue", NUMBA_NUM_THREADS="2").strip() == "workqueue"
