"""The command line in a process of its own, and made-up commands in this one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from attnkit import cli
from attnkit.runtime.commandline import Entry, Family

MADE_UP = {
    "paint": Entry("shell_commands:paint", "Paint files"),
    "fail": Entry("shell_commands:fail", "End as it is told to"),
    "train": Family("Train things", {"paint": Entry("shell_commands:train_paint", "Train paint")}),
    "config": cli.COMMANDS["config"],
}


@dataclass
class Ended:
    """How a command line ended."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No variable and no configuration file of whoever runs the tests; returns where the user's file would be."""
    for name in [name for name in os.environ if name.startswith("ATTNKIT_") and name != "ATTNKIT_SHARED"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    return tmp_path / "xdg" / "attnkit" / "config.toml"


@pytest.fixture
def attnkit() -> Callable[..., Ended]:
    """Runs the real entry point in a process of its own."""

    def run(*arguments: str, **settings: object) -> Ended:
        done = subprocess.run([sys.executable, "-m", "attnkit", *arguments], capture_output=True, text=True, **settings)
        return Ended(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Runs a command line of made-up commands (shell_commands.py) in this process."""
    monkeypatch.setattr(cli.Root, "table", MADE_UP)

    def run(*arguments: str) -> Ended:
        code = cli.run(arguments)
        seen = capfd.readouterr()
        return Ended(code, seen.out, seen.err)

    return run
