"""The rules of the command line over every file command: exit codes, errors, streams, tables, help, JSON, records."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_cases import DEMO, TONEMAP, WORDS, Case, Run, every, finish, light, place, rows, tree

# exit


@every
def test_exit_codes(case: Case, run: Run, work: Path) -> None:
    good, bad = case.good(work / "good"), case.bad(work / "bad")
    (work / "empty").mkdir()
    assert run(case, good, "--out", place(case, "a")).code == 0
    assert run(case, good, "--out", place(case, "a"), "--skip-existing").code == 0
    assert run(case, bad, "--out", place(case, "b")).code == 1
    assert run(case, "empty", "--out", place(case, "c")).code == 1
    assert run(case, "*.nothing", "--out", place(case, "c")).code == 1
    assert run(case, "missing", "--out", place(case, "c")).code == 2
    assert run(case, good, "missing", "--out", place(case, "c")).code == 2
    assert run(case, good, bad, "--out", place(case, "d")).code == 3
    assert run(case, good, "--jobs", "0").code == 2
    assert not (work / place(case, "c")).exists()


@every
def test_exit_fail_fast(case: Case, run: Run, work: Path) -> None:
    bad, good, later = case.bad(work / "1"), case.good(work / "2"), case.good(work / "3")
    assert run(case, bad, good, "--fail-fast", "--out", place(case, "a")).code == 1
    assert run(case, good, bad, later, "--fail-fast", "--out", place(case, "b")).code == 3
    ended = run(case, good, bad, later, "--fail-fast", "--out", place(case, "c"), "--json")
    assert json.loads(ended.out)["summary"]["not_run"] == 1


# errors


@every
def test_errors_are_one_line(case: Case, run: Run, work: Path) -> None:
    bad = case.bad(work / "bad")
    ended = run(case, bad, "--out", place(case))
    assert ended.line.startswith(f"attnkit {case.command}: ") and str(bad) in ended.line
    ended = run(case, bad, "--out", place(case, "p"), "--debug")
    assert "Traceback" in ended.err


def test_errors_nobody_foresaw_are_one_line_too(run: Run, work: Path) -> None:
    (work / "a.txt").write_text("TEXT break")
    ended = run(WORDS, "a.txt", "--out", "o.jsonl")
    assert ended.code == 1 and "RuntimeError: first line second line" in ended.line and "--debug" in ended.line


# --dry-run


@every
def test_dry_run_tells_all_and_writes_nothing(case: Case, run: Run, work: Path) -> None:
    source = case.good(work / "a")
    before = tree(work.parent)
    ended = run(case, source, "--dry-run", "--out", place(case), "--record", "r.jsonl", "--log-file", "log.txt")
    assert ended.code == 0 and "free" in ended.out and "device cpu" in ended.out and "write" in ended.out
    ended = run(case, source, "--dry-run", "--out", place(case), "--json")
    document = json.loads(ended.out)
    assert document["items"][0]["action"] == "write"
    assert {"free_bytes", "output_bytes", "method", "device", "seconds"} <= document["summary"].keys()
    assert tree(work.parent) == before and not (work / "o").exists()


@every
def test_dry_run_shows_the_refusal(case: Case, run: Run, work: Path) -> None:
    source = case.good(work / "a")
    run(case, source, "--out", place(case))
    ended = run(case, source, "--out", place(case), "--dry-run")
    assert ended.code == 2 and "refuse" in ended.out and "--overwrite" in ended.line


# streams


@every
def test_streams_quiet_says_nothing(case: Case, run: Run, work: Path) -> None:
    sources = [case.good(work / "a"), case.good(work / "b")]
    ended = run(case, *sources, "--out", place(case), "--quiet")
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    ended = run(case, case.bad(work / "c"), "--out", place(case, "p"), "--quiet")
    assert ended.code == 1 and "c" in ended.line


@every
def test_streams_talk_goes_to_stderr_and_to_the_log(case: Case, run: Run, work: Path) -> None:
    ended = run(case, case.good(work / "a"), case.good(work / "b"), "--out", place(case), "-v", "--log-file", "log")
    assert "2 done" in ended.err and "a" + case.suffix in ended.err
    # the table of scores is an answer; a command without one has nothing on standard output
    assert case is WORDS or ended.out == ""
    logged = (work / "log").read_text()
    assert all(line[4] == "-" and line.partition(" ")[2] in ended.err for line in logged.splitlines())
    run(case, work / f"a{case.suffix}", "--out", place(case, "p"), "--log-file", "log")
    assert (work / "log").read_text().startswith(logged)


@light
def test_streams_closed_pipe_ends_quietly(case: Case, start, work: Path) -> None:
    for at in range(4):
        case.good(work / "d" / f"a{at}")
    read, write = os.pipe()
    os.close(read)
    process = start(case, "d", "--out", place(case), "--jsonl", stdout=write)
    os.close(write)
    ended = finish(process)
    assert ended.err == "" and ended.code == 1
    assert not [name for name in tree(work) if ".attnkit" in name]
    # what was done before anyone could notice counts as done
    for flag in ("--json", "--jsonl"):
        read, write = os.pipe()
        os.close(read)
        process = start(case, f"d/a0{case.suffix}", "--out", place(case, flag[2:]), flag, stdout=write)
        os.close(write)
        ended = finish(process)
        assert ended.code == 0 and "Traceback" not in ended.err and "Broken" not in ended.err


# tables


def test_tables_piped_are_plain_and_never_cut(run: Run, work: Path) -> None:
    source = TONEMAP.good(work / ("long" * 30))
    ended = run(TONEMAP, source, "--out", "o/", "--score")
    head, line = ended.out.splitlines()
    assert head.split() == ["item", "TMQI", "S", "N"] and str(source) in line and "\x1b" not in ended.out


def test_tables_state_the_unit(run: Run, work: Path) -> None:
    source = TONEMAP.good(work / "a")
    assert run(TONEMAP, source, "--out", "r/a.png").code == 0
    ended = run(TONEMAP, source, "--out", "o/", "--reference", "r")
    assert "PSNR (dB)" in ended.out.splitlines()[0]
    ended = run(TONEMAP, source, "--out", "p/", "--reference", "r", "--json", "--exposure", "-1")
    assert 10 < json.loads(ended.out)["items"][0]["psnr_db"] < 60
    # a comparison that cannot be made costs no picture
    ended = run(TONEMAP, source, "--out", "q/", "--reference", "r", "--resize", "8")
    assert ended.code == 0 and "4x3, expected 8x6" in ended.err and (work / "q" / "a.png").exists()


# help


@every
def test_help_is_plain_when_piped(case: Case, run: Run) -> None:
    ended = run(case.command, "--help")
    assert ended.code == 0 and "--overwrite" in ended.out and "\x1b" not in ended.out and "╭" not in ended.out


# --json, --jsonl


@every
def test_json_document_and_lines(case: Case, run: Run, work: Path) -> None:
    good, bad = case.good(work / "good"), case.bad(work / "bad")
    ended = run(case, good, bad, "--out", place(case), "--json")
    assert ended.code == 3
    document = json.loads(ended.out, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert list(document) == ["schema", "version", "command", "options", "items", "summary"]
    assert document["command"] == case.command and isinstance(document["schema"], int)
    assert [item["status"] for item in document["items"]] == ["ok", "failed"]
    ended = run(case, good, bad, "--out", place(case, "p"), "--jsonl")
    lines = [json.loads(line) for line in ended.out.splitlines()]
    assert {line["item"]: line["status"] for line in lines} == {str(good): "ok", str(bad): "failed"}


@every
def test_json_is_printed_for_exit_1_and_not_for_2(case: Case, run: Run, work: Path) -> None:
    (work / "empty").mkdir()
    ended = run(case, "empty", "--json", "--out", place(case))
    assert ended.code == 1 and json.loads(ended.out)["items"] == []
    ended = run(case, "missing", "--json", "--out", place(case))
    assert ended.code == 2 and ended.out == ""


def test_json_has_null_for_nan(run: Run, work: Path) -> None:
    ended = run(WORDS, WORDS.good(work / "a"), "--out", "o.jsonl", "--json")
    assert json.loads(ended.out)["items"][0]["share"] is None
    assert rows(work / "o.jsonl")[0]["share"] is None


# --record


@every
def test_record_appends_items_and_runs(case: Case, run: Run, work: Path) -> None:
    good, bad = case.good(work / "good"), case.bad(work / "bad")
    run(case, good, bad, "--out", place(case), "--record", "r.jsonl", "--seed", "7")
    run(case, good, "--out", place(case), "--record", "r.jsonl", "--skip-existing")
    found = rows(work / "r.jsonl")
    assert [(line["record"], line["status"]) for line in found] == [
        ("item", "ok"),
        ("item", "failed"),
        ("run", "failed"),
        ("item", "skipped"),
        ("run", "ok"),
    ]
    first = found[0]
    assert first["time"].endswith("+00:00") and len(first["input_sha256"]) == 64
    assert first["device"] == "cpu" and first["seed"] == 7 and first["seconds"] >= 0


@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", ">&-", "2>&-"])
def test_streams_that_are_closed_before_the_start_change_nothing(closed: str, work: Path) -> None:
    sources = [str(TONEMAP.good(work / name, seed)) for seed, name in enumerate("ab", start=1)]
    command = [sys.executable, str(DEMO), TONEMAP.command, *sources, "--out", "o/", *TONEMAP.options]
    done = subprocess.run(["sh", "-c", f'"$@" {closed}', "sh", *command], cwd=work, capture_output=True, text=True)
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert sorted(path.name for path in (work / "o").iterdir()) == ["a.png", "b.png"]


def test_a_file_does_not_get_the_number_of_a_closed_stream(work: Path) -> None:
    script = "import sys; from attnkit import cli; cli.occupy_descriptors(); sys.exit(open('kept', 'w').fileno())"
    done = subprocess.run(["sh", "-c", '"$@" <&- >&- 2>&-', "sh", sys.executable, "-c", script], cwd=work)
    assert done.returncode == 3


def test_record_survives_a_torn_line(run: Run, work: Path) -> None:
    (work / "r.jsonl").write_text('{"torn')
    run(WORDS, WORDS.good(work / "a"), "--out", "o.jsonl", "--record", "r.jsonl")
    lines = (work / "r.jsonl").read_text().splitlines()
    assert lines[0] == '{"torn' and json.loads(lines[1])["status"] == "ok"
