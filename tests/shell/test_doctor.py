"""What the doctor says, and when it ends with 1."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from attnkit import cli
from attnkit.commands import doctor as doctor_command
from attnkit.runtime import machine
from attnkit.runtime.commandline import Entry


def report(capfd: pytest.CaptureFixture[str], *arguments: str) -> dict:
    code = cli.run(["doctor", "--json", *arguments])
    seen = capfd.readouterr()
    assert seen.out, seen.err
    return {"code": code, "err": seen.err, **json.loads(seen.out)["result"]}


def test_quick_report(capfd: pytest.CaptureFixture[str]) -> None:
    found = report(capfd, "--quick")
    assert found["code"] == 0
    assert found["err"] == ""
    assert found["devices"] is None
    assert found["cores"] >= 1
    versions = {one["package"]: one["version"] for one in found["packages"]}
    assert versions["numpy"]
    assert versions["torch"]
    assert [one["command"] for one in found["commands"]][:1] == ["tonemap"]


def test_full_report_on_a_terminal_free_machine(attnkit: Callable) -> None:
    ended = attnkit("doctor")
    assert ended.code == 0, ended.err
    lines = [line.split() for line in ended.out.splitlines()]
    assert any(line[:2] == ["device", "cpu"] for line in lines)
    assert ["doctor", "ready"] in lines
    assert any(line[:1] == ["numpy"] and line[-1] == "ok" for line in lines)


def test_report_names_no_home(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME")
    assert report(capfd, "--quick")["configuration"]["user"] == "~/.config/attnkit/config.toml"


def test_require(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    table = {**cli.COMMANDS, "dream": Entry("x:y", "Dream", imports=("no_such_module_here",))}
    monkeypatch.setattr(cli.Root, "table", table)
    found = report(capfd, "--quick", "--require", "doctor")
    assert found["code"] == 0
    dream = next(one for one in found["commands"] if one["command"] == "dream")
    assert dream["ready"] is False
    assert dream["help"] == "pip install --force-reinstall attnkit"
    found = report(capfd, "--quick", "--require", "dream")
    assert found["code"] == 1
    assert "dream cannot run here: no_such_module_here is not installed" in found["err"]


def test_require_takes_only_commands(attnkit: Callable) -> None:
    ended = attnkit("doctor", "--require", "tonmap")
    assert ended.code == 2
    assert "--require: got 'tonmap', did you mean tonemap?" in ended.err


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "dask" else real(name))
    entry = Entry("x:y", "Dream", imports=("dask",))
    state = doctor_command.readiness("dream", entry, {"imports": {}, "models": []})
    assert state["lacks"] == ["dask is not installed"]
    assert state["help"] == "pip install 'attnkit[cluster]'"


@pytest.mark.parametrize(("state", "ready"), [("verified", True), ("damaged", False), ("absent", False)])
def test_weights_count(state: str, ready: bool) -> None:
    entry = Entry("x:y", "Dream", models=("dreamer",))
    models = [{"model": "dreamer", "state": state}]
    assert doctor_command.readiness("dream", entry, {"imports": {}, "models": models})["ready"] is ready


def test_probe_survives_a_module_that_kills_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deadly_module.py").write_text("import os; os._exit(7)")
    (tmp_path / "broken_module.py").write_text("raise OSError('libGL.so.1 is missing')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path) + os.pathsep + os.environ.get("PYTHONPATH", ""))
    modules = ["json", "broken_module", "deadly_module", "csv"]
    found = machine.finish_probe(machine.start_probe(modules), modules)["modules"]
    assert found["json"]["error"] is None
    assert found["broken_module"]["error"] == "OSError: libGL.so.1 is missing"
    assert "stopped the process, which ended with 7" in found["deadly_module"]["error"]
    assert "csv" not in found


def test_cores_and_memory_are_plausible() -> None:
    assert 1 <= machine.usable_cores() <= (os.cpu_count() or 1)
    memory = machine.memory_gb()
    assert memory is None or memory > 0.1
