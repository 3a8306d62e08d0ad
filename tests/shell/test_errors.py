"""Every error is one line on standard error with the right exit code; --debug adds the traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from attnkit import __version__, cli


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ["no command given", "expected paint, fail, train or config", "see attnkit --help"]),
        (("--",), ["no command given"]),
        (("pant",), ["no command 'pant'", "did you mean paint?"]),
        (("zzz",), ["no command 'zzz'", "expected paint"]),
        (("--versoin",), ["no option --versoin", "did you mean --version?"]),
        (("--debug", "paint"), ["--debug", "options go after the command", "attnkit COMMAND --debug"]),
        (("--json", "paint", "a"), ["options go after the command"]),
        (("train",), ["no command given", "expected paint", "see attnkit train --help"]),
        (("train", "pant"), ["no command 'pant'", "did you mean paint?", "see attnkit train --help"]),
        (("paint",), ["INPUT...: not given", "see attnkit paint --help"]),
        (("paint", "a", "--colur", "red"), ["no option --colur", "did you mean --colour?"]),
        (("paint", "a", "-z"), ["no option -z", "see attnkit paint --help"]),
        (("paint", "a", "--colour"), ["--colour: no value given"]),
        (("paint", "a", "--overwrite=1"), ["--overwrite: got a value, expected none"]),
        (("paint", "a", "--colour", "blue"), ["--colour: got 'blue', expected red, green or 8"]),
        (("paint", "a", "--weight", "3"), ["--weight: got '3', expected a number from 0 to 2"]),
        (("paint", "a", "--weight", "nan"), ["--weight: got 'nan'"]),
        (("paint", "a", "--jobs", "0"), ["--jobs: got '0', expected a whole number of at least 1"]),
        (("paint", "a", "--limit", "x"), ["--limit: got 'x'"]),
        (("paint", "a", "--device", "gpu"), ["--device: got 'gpu', expected auto, cpu, cuda or cuda:N"]),
        (("paint", "a", "--seed", "-1"), ["--seed: got '-1'"]),
        (("paint", "a", "--engine", "spark"), ["--engine: got 'spark', expected local or dask"]),
        (("paint", "a", "--wait", "-1"), ["--wait: got '-1'"]),
        (("paint", "a", "--resume"), ["no option --resume"]),
        (("fail", "a", "b"), ["got 'b', expected no more arguments"]),
    ],
)
def test_usage(made_up: Callable, arguments: tuple[str, ...], words: list[str]) -> None:
    ended = made_up(*arguments)
    if "--debug" not in arguments:
        assert ended.err.count("\n") == 1
    assert ended.code == 2
    assert ended.out == ""
    assert ended.err.splitlines()[-1].startswith("attnkit")
    for word in words:
        assert word in ended.err


@pytest.mark.parametrize(
    ("kind", "code", "words"),
    [
        ("item", 1, "attnkit fail: a.hdr: broken in two lines"),
        ("check", 1, "attnkit fail: check failed"),
        ("memory", 1, "not enough memory; use smaller inputs"),
        ("dask", 1, "needs the package dask, which is not installed; run: pip install 'attnkit[cluster]'"),
        ("own module", 1, "unexpected ModuleNotFoundError: No module named 'attnkit.nothing'"),
        ("unexpected", 1, "unexpected ValueError: out of the blue; add --debug for the traceback"),
    ],
)
def test_failures(made_up: Callable, kind: str, code: int, words: str) -> None:
    ended = made_up("fail", kind)
    assert (ended.code, ended.out) == (code, "")
    assert words in ended.err
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize("kind", ["0", "1", "3"])
def test_codes_of_commands_come_through(made_up: Callable, kind: str) -> None:
    ended = made_up("fail", kind)
    assert (ended.code, ended.err) == (int(kind), "")


def test_interrupt(made_up: Callable) -> None:
    assert made_up("fail", "interrupt").code == 130


@pytest.mark.parametrize("kind", ["item", "unexpected"])
def test_debug_adds_the_traceback(made_up: Callable, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = made_up("fail", kind, "--debug")
    assert ended.err.startswith("Traceback")
    assert ended.err.splitlines()[-1].startswith("attnkit fail: ")
    monkeypatch.setenv("ATTNKIT_DEBUG", "1")
    assert made_up("fail", kind).err.startswith("Traceback")


def test_option_values_that_look_like_options(made_up: Callable) -> None:
    """`--exposure -2` is how people write it, and `--` ends the options."""
    assert '"out": "-"' in made_up("paint", "a", "--out", "-").out
    assert "got '-2'" in made_up("paint", "a", "--weight", "-2").err
    assert '"inputs": ["--odd"]' in made_up("paint", "--", "--odd").out


def test_options_may_stand_before_and_after_inputs(made_up: Callable) -> None:
    ended = made_up("paint", "a", "-j2", "b", "-nq")
    assert '"inputs": ["a", "b"]' in ended.out
    assert '"jobs": 2' in ended.out
    assert '"dry_run": true' in ended.out
    assert '"quiet": true' in ended.out


def test_version(attnkit: Callable) -> None:
    ended = attnkit("--version")
    assert (ended.code, ended.out, ended.err) == (0, f"attnkit {__version__}\n", "")


def test_real_entry_point_refuses_in_one_line(attnkit: Callable) -> None:
    ended = attnkit("tonmap")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == "attnkit: no command 'tonmap'; did you mean tonemap?; see attnkit --help\n"


@pytest.mark.skipif(sys.platform == "win32", reason="pipes close differently there")
def test_closed_pipe_ends_quietly(tmp_path: object) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-m", "attnkit", "--help"], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert done.stderr == ""
    assert done.returncode == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_full_disk_on_standard_output() -> None:
    with open("/dev/full", "w") as full:
        line = [sys.executable, "-m", "attnkit", "--version"]
        done = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr == "attnkit: standard output: No space left on device\n"


def test_works_without_a_home(attnkit: Callable) -> None:
    """As in cron: nothing in the environment."""
    ended = attnkit("config", "show", "doctor", env={})
    assert ended.code == 0, ended.err


def test_every_entry_names_a_function_that_exists() -> None:
    """The table of cli.py is only text until a command is called."""
    from attnkit.runtime.commandline import AttnkitCommand, Family, load

    for name, entry in cli.COMMANDS.items():
        inner = entry.commands if isinstance(entry, Family) else {name: entry}
        for verb, one in inner.items():
            command = load(verb, one)
            assert isinstance(command, AttnkitCommand)
            assert command.help, f"{name} {verb} has no docstring"
