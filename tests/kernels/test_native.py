"""Row loops: code is kept and linked without numba, a damaged file is never linked, threads may share them."""

import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from attnkit_kernels import cache, native

DOWN = (
    "import sys\n"
    "import numpy as np\n"
    "from attnkit_kernels.image.laplacian import numba as loops\n"
    "x = np.arange(12, dtype=np.float32).reshape(1, 1, 3, 4)\n"
    "print(float(loops.down(x).sum()), loops._DOWN['float32'].compiled_here, 'numba' in sys.modules)\n"
)


def python(folder: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", DOWN], env={"PATH": "", "NUMBA_CACHE_DIR": str(folder)}, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


@native.rows("float32[:, ::1]; float32; float32[:, ::1]; float32[::1]")
def _scaled_means(start, stop, image, factor, result, scratch):  # type: ignore[no-untyped-def]
    columns = image.shape[1]
    for row in range(start, stop):
        total = np.float32(0)
        for column in range(columns):
            scratch[column] = image[row, column] * factor
            total += scratch[column]
        for column in range(columns):
            result[row, column] = total / np.float32(columns)


def test_a_second_process_links_the_kept_code_and_never_imports_numba(tmp_path):
    first, second = python(tmp_path), python(tmp_path)
    assert first[1:] == ["True", "True"]
    assert second == [first[0], "False", "False"]


def test_a_damaged_file_is_compiled_anew(tmp_path):
    first = python(tmp_path)
    (kept,) = (tmp_path / "objects").glob("*.o")
    kept.write_bytes(kept.read_bytes()[:-100])
    assert python(tmp_path)[:2] == [first[0], "True"]
    assert python(tmp_path)[1] == "False"


def test_a_folder_that_cannot_be_written_costs_the_compilation_and_nothing_else(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    assert python(blocked)[1] == "True"
    assert blocked.read_text() == "in the way"


def test_rows_are_done_once_each_by_whatever_number_of_threads(monkeypatch):
    image = np.random.default_rng(0).random((601, 223), dtype=np.float32)
    expected = np.repeat(3 * image.mean(1, keepdims=True), 223, axis=1)
    assert image.size >= native.LARGE
    for count in (1, 2, 5):
        monkeypatch.setattr(native, "threads", lambda count=count: count)
        result = np.full_like(image, np.nan)
        _scaled_means(601, image, 3.0, result, scratch=223)
        np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_python_threads_may_call_at_once():
    images = [np.full((400, 300), value, np.float32) for value in range(8)]

    def mean(image):
        result = np.empty_like(image)
        _scaled_means(400, image, 1.0, result, scratch=300)
        return result

    with ThreadPoolExecutor(4) as pool:
        for value, result in enumerate(pool.map(mean, images)):
            np.testing.assert_allclose(result, value, rtol=1e-5)


@pytest.mark.parametrize(
    "wrong", [np.zeros((4, 4)), np.zeros((4, 8), np.float32)[:, ::2], np.zeros(4, np.float32)], ids=str
)
def test_memory_that_the_code_does_not_expect_is_refused(wrong):
    with pytest.raises(TypeError, match=r"expected float32\[:, ::1\], got"):
        _scaled_means(4, wrong, 1.0, np.zeros((4, 4), np.float32), scratch=4)


def test_code_that_needs_the_runtime_of_numba_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))

    def reshapes(start, stop, image, result):  # type: ignore[no-untyped-def]
        for row in range(start, stop):
            result[row] = image[row].reshape(-1)[0]

    loop = native.RowLoop(reshapes, ("float32[:, :, ::1]", "float32[::1]"))
    with pytest.raises(RuntimeError, match="must not call numba_attempt_nocopy_reshape"):
        loop(2, np.zeros((2, 2, 2), np.float32), np.zeros(2, np.float32))
    assert not list(tmp_path.rglob("*.o"))


@pytest.fixture
def temporary(monkeypatch, tmp_path) -> Path:
    """A folder of temporary files of its own, for a user whose cache folder cannot be written."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    return tmp_path


def test_where_home_cannot_be_written_code_is_kept_among_the_temporary_files(temporary, monkeypatch):
    folder = cache.cache_folder()
    assert folder is not None and folder.parent == temporary and folder.stat().st_mode & 0o777 == 0o700
    assert cache.cache_folder() == folder

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(cache.Path, "home", no_home)
    assert cache.cache_folder() == folder


def test_a_temporary_folder_that_others_can_write_or_that_is_a_link_is_not_trusted(temporary):
    folder = cache.cache_folder()
    assert folder is not None
    folder.chmod(0o770)
    assert cache.cache_folder() is None
    folder.rmdir()
    (temporary / "theirs").mkdir(mode=0o700)
    folder.symlink_to(temporary / "theirs")
    assert cache.cache_folder() is None
    folder.unlink()
    folder.write_text("a file")
    assert cache.cache_folder() is None
