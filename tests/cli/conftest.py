"""Every file command with inputs of its own, run through the real entry point."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import demo_commands
import pytest
from cli_cases import DEMO, Case, Ended, Run

from attnkit import cli


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable and no configuration file of whoever runs the tests, and an empty folder to work in."""
    for name in [name for name in os.environ if name.startswith("ATTNKIT_") and name != "ATTNKIT_SHARED"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / ".xdg"))
    monkeypatch.setattr(cli.Root, "table", demo_commands.COMMANDS)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """The folder that commands run in."""
    return tmp_path / "work"


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in this process: the entry point with its exit code and its two streams."""

    def run(case: Case | str, *arguments: object) -> Ended:
        words = [case] if isinstance(case, str) else [case.command]
        options = [] if isinstance(case, str) else list(case.options)
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main([*words, *map(str, arguments), *options])
        out, err = capfd.readouterr()
        return Ended(int(ended.value.code or 0), out, err)

    return run


@pytest.fixture
def start(work: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a command line in a process of its own."""
    started: list[subprocess.Popen[str]] = []

    def start(case: Case | str, *arguments: object, **settings: object) -> subprocess.Popen[str]:
        words = [case] if isinstance(case, str) else [case.command, *case.options]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **settings}
        command = [sys.executable, str(DEMO), *words[:1], *map(str, arguments), *words[1:]]
        process = subprocess.Popen(command, text=True, cwd=work, **pipes)  # type: ignore[call-overload]
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
