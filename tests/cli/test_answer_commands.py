"""The rules of the command line for commands that take numbers and answer: no input files, no items."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from cli_cases import Run, tree

from attnkit import cli


@dataclass(frozen=True)
class Answer:
    """One command: a line with a quick answer and a word of it, one that is refused with its two values, an option."""

    command: str
    quick: tuple[str, ...]
    word: str
    refused: tuple[str, ...]
    values: tuple[str, ...]
    misspelt: tuple[str, str]


SIM_GNA = Answer(
    "sim-gna", ("-i", "16,16", "-w", "8,8"), "block-sparse", ("-i", "16,16", "-w", "17,8"), ("17", "16"),
    ("--canvs", "--canvas"),
)  # fmt: skip
BENCH_KERNEL = Answer(
    "bench-kernel", ("--list",), "radial", ("neighborhood", "-i", "16,16", "-w", "17,8"), ("17", "16"),
    ("--headz", "--heads"),
)  # fmt: skip
every = pytest.mark.parametrize("case", [pytest.param(one, id=one.command) for one in (SIM_GNA, BENCH_KERNEL)])


@pytest.fixture(autouse=True)
def real_table(clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli.Root, "table", cli.COMMANDS)


@every
def test_neither_help_nor_a_quick_answer_imports_torch(case: Answer, work: Path) -> None:
    code = "import sys; from attnkit import cli; code = cli.run(sys.argv[1:]); print(code, *sys.modules)"
    for arguments in (("--help",), case.quick):
        line = [sys.executable, "-c", code, case.command, *arguments]
        done = subprocess.run(line, capture_output=True, text=True, cwd=work, check=True)
        ended, *modules = done.stdout.splitlines()[-1].split()
        assert ended == "0" and "typer" in modules and not {"torch", "triton", "scipy", "numba"} & set(modules)


@every
def test_help_is_plain_when_piped(case: Answer, run: Run) -> None:
    ended = run(case.command, "--help")
    assert ended.code == 0 and "--canvas" in ended.out and "\x1b" not in ended.out and "╭" not in ended.out


@every
def test_tables_piped_are_plain_and_never_cut(case: Answer, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    ended = run(case.command, *case.quick)
    assert ended.code == 0 and case.word in ended.out and "\x1b" not in ended.out and "…" not in ended.out


@every
def test_json_is_one_document(case: Answer, run: Run) -> None:
    ended = run(case.command, *case.quick, "--json")
    assert (ended.code, ended.err) == (0, "")
    document = json.loads(ended.out, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert list(document) == ["schema", "version", "command", "options", "result", "summary"]
    assert document["command"] == case.command and isinstance(document["schema"], int)


@every
def test_a_refusal_is_one_line_with_both_values_and_no_json(case: Answer, run: Run, work: Path) -> None:
    ended = run(case.command, *case.refused, "--json")
    assert (ended.code, ended.out) == (2, "")
    assert ended.line.startswith(f"attnkit {case.command}: ") and all(value in ended.line for value in case.values)
    assert tree(work) == {}


@every
def test_an_unknown_option_is_refused_with_the_nearest(case: Answer, run: Run) -> None:
    wrong, right = case.misspelt
    ended = run(case.command, *case.quick, wrong, "1")
    assert ended.code == 2 and f"did you mean {right}?" in ended.line


@every
def test_debug_adds_the_traceback(case: Answer, run: Run) -> None:
    ended = run(case.command, *case.refused, "--debug")
    assert ended.code == 2 and "Traceback" in ended.err


@every
def test_defaults_come_from_the_environment_and_files(case: Answer, run: Run, work: Path, monkeypatch) -> None:
    (work / "my.toml").write_text(f"[{case.command}]\njson = true\n")
    with_file = (*case.quick, "--config", "my.toml")
    assert json.loads(run(case.command, *with_file).out)["command"] == case.command
    word = f"ATTNKIT_{case.command.upper().replace('-', '_')}_JSON"
    monkeypatch.setenv(word, "false")
    assert case.word in run(case.command, *with_file).out
    (work / "my.toml").write_text(f"[{case.command}]\nhaeds = 7\n")
    ended = run(case.command, *with_file)
    assert ended.code == 2 and "haeds" in ended.line and "did you mean heads" in ended.line


@every
def test_config_show_and_doctor_know_the_command(case: Answer, run: Run) -> None:
    ended = run("config", "show", case.command)
    assert ended.code == 0 and "heads" in ended.out
    assert run("doctor", "--quick", "--require", case.command, "--json").code == 0


@every
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_one_line(case: Answer, work: Path) -> None:
    line = [sys.executable, "-m", "attnkit", case.command, *case.quick, "--json"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True, cwd=work)
    assert done.returncode == 1
    assert done.stderr == f"attnkit {case.command}: standard output: No space left on device\n"


@every
def test_a_closed_pipe_ends_quietly(case: Answer, work: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    line = [sys.executable, "-m", "attnkit", case.command, *case.quick]
    done = subprocess.run(line, stdout=writer, stderr=subprocess.PIPE, text=True, cwd=work)
    os.close(writer)
    assert done.stderr == ""
