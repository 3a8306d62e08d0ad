"""The examples of every help text run as they stand, in a folder that has the files they speak of."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from attnkit.runtime import manual

EXAMPLES = manual.CHECKOUT / "examples"
# what a test cannot have: hours, a checkpoint of somebody else, a cluster
OUT_OF_REACH = {
    "attnkit train": "a training takes minutes and a folder of panoramas",
    "attnkit models import": "a published checkpoint is not ours to give away",
    "--scheduler": "there is no cluster here; tests/runtime starts one",
}
COMMANDS = [command for page in manual.pages() for command in page.example_commands]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """room.hdr, room.exr, photos/ and examples/, all of them real pictures."""
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    (tmp_path / "photos").mkdir()
    shutil.copy(EXAMPLES / "hdr/interior_view.hdr", tmp_path / "room.hdr")
    shutil.copy(EXAMPLES / "hdr/city.exr", tmp_path / "room.exr")
    for name in ("courtyard_view.hdr", "sunset_view.hdr"):
        shutil.copy(EXAMPLES / "hdr" / name, tmp_path / "photos")
    return tmp_path


def test_there_are_examples() -> None:
    assert sum(command.startswith("attnkit tonemap ") for command in COMMANDS) >= 3
    assert all(command.startswith("attnkit ") for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_example(command: str, folder: Path) -> None:
    for part, reason in OUT_OF_REACH.items():
        if part in command:
            pytest.skip(reason)
    environment = {**os.environ, "NUMBA_NUM_THREADS": "2"}
    line = [sys.executable, "-m", *shlex.split(command)]
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_readme_pictures_are_free_to_give_away() -> None:
    licence = (EXAMPLES / "hdr/LICENSE.txt").read_text()
    pictures = [path.name for path in (EXAMPLES / "hdr").iterdir() if path.suffix in (".hdr", ".exr")]
    assert len(pictures) >= 3
    assert all(name in licence for name in pictures)
    assert "CC0 1.0" in licence
