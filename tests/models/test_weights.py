"""Weight files: what is written is read back, whole or not at all, and damage is named."""

from __future__ import annotations

import pickle
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from attnkit.models import weights
from attnkit.runtime.errors import ItemError
from attnkit.runtime.items import sha256_of

ARRAYS = {"b": np.arange(6, dtype=np.float32).reshape(2, 3).T, "a": np.ones((), np.float16)}


def write(path: Path) -> str:
    return weights.write_weights(path, ARRAYS, architecture="llf-lut-pp", config={"x": [1]}, provenance={"seed": 0})


def test_round_trip(tmp_path: Path) -> None:
    digest = write(tmp_path / "w.safetensors")
    assert digest == sha256_of(tmp_path / "w.safetensors")
    read = weights.read_weights(tmp_path / "w.safetensors")
    assert (read.architecture, read.config, read.provenance) == ("llf-lut-pp", {"x": [1]}, {"seed": 0})
    assert all(np.array_equal(read.arrays[name], ARRAYS[name]) for name in ARRAYS)
    assert [read.arrays[name].dtype for name in ("a", "b")] == [np.float16, np.float32]


def test_two_processes_write_the_same_bytes(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np; from attnkit.models.weights import write_weights; "
        "write_weights(sys.argv[1], {'b': np.ones(3), 'a': np.ones(2)}, architecture='x',"
        " config={'p': 1, 'o': 2, 'n': 3}, provenance={'m': 1, 'l': 2})"
    )
    paths = [tmp_path / "one", tmp_path / "two"]
    for path in paths:
        subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_reading_needs_no_torch(tmp_path: Path) -> None:
    write(tmp_path / "w.safetensors")
    code = (
        "import sys; from attnkit.models.weights import read_weights; read_weights(sys.argv[1]); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "w.safetensors")]).returncode == 0


@pytest.mark.parametrize("keep", [0, 5, 8, 40, -4])
def test_a_truncated_file_is_an_error(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "w.safetensors"
    write(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ItemError, match=r"w\.safetensors") as caught:
        weights.read_weights(path)
    assert "\n" not in str(caught.value)


def test_a_foreign_safetensors_file_is_named_as_such(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"a": np.ones(1)}, tmp_path / "w.safetensors", metadata={"format": "pt"})
    with pytest.raises(ItemError, match="names no attnkit architecture; convert it"):
        weights.read_weights(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ("{", "damaged"),
        ("[]", "damaged"),
        ('{"schema": 1}', "damaged"),
        ('{"schema": 2, "architecture": "x", "config": {}, "provenance": {}}', "schema 2, expected 1"),
    ],
)
def test_damaged_metadata(tmp_path: Path, document: str, text: str) -> None:
    from safetensors.numpy import save_file

    save_file({"a": np.ones(1)}, tmp_path / "w.safetensors", metadata={"attnkit": document})
    with pytest.raises(ItemError, match=text):
        weights.read_description(tmp_path / "w.safetensors")


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights.os, "fsync", full)
    with pytest.raises(ItemError, match="No space left on device"):
        write(path)
    assert [file.name for file in tmp_path.iterdir()] == ["w.safetensors"] and path.read_bytes() == b"old"


def test_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ItemError, match="cannot be written"):
        write(tmp_path / "nowhere" / "w.safetensors")


def test_written_files_have_ordinary_rights(tmp_path: Path) -> None:
    write(tmp_path / "w.safetensors")
    (tmp_path / "plain").touch()
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("w.safetensors", "plain")]
    assert modes[0] == modes[1]


def test_pickles_are_unwrapped_and_keep_their_names(tmp_path: Path) -> None:
    import torch

    torch.save({"params": {"x": torch.arange(3.0)}, "epoch": 4}, tmp_path / "m.pth")
    read = weights.read_pickle(tmp_path / "m.pth")
    assert list(read) == ["x"] and np.array_equal(read["x"], [0, 1, 2])


class Bomb:
    """What a hostile checkpoint holds: a call that runs while it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_pickles_run_no_code(tmp_path: Path) -> None:
    import torch

    torch.save({"x": Bomb(tmp_path / "boom")}, tmp_path / "zip.pth")
    (tmp_path / "bare.pth").write_bytes(pickle.dumps({"x": Bomb(tmp_path / "boom")}, protocol=2))
    for name in ("zip.pth", "bare.pth"):
        with pytest.raises(ItemError, match="plain tensors") as caught:
            weights.read_pickle(tmp_path / name)
        assert "it asks for" in str(caught.value)
        assert "\n" not in str(caught.value) and "weights_only" not in str(caught.value)
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize("content", [[1, 2], {}, {"x": "text"}])
def test_pickles_of_something_else(tmp_path: Path, content: object) -> None:
    import torch

    torch.save(content, tmp_path / "m.pth")
    with pytest.raises(ItemError, match="expected"):
        weights.read_pickle(tmp_path / "m.pth")


def test_pickles_that_are_none(tmp_path: Path) -> None:
    for name, data in (("empty", b""), ("text", b"hello, this is no checkpoint")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ItemError, match="which is all that is read: it is damaged"):
            weights.read_pickle(tmp_path / name)
    with pytest.raises(ItemError, match="cannot be read: No such file"):
        weights.read_pickle(tmp_path / "absent")
