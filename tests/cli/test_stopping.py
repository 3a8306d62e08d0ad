"""How runs end early: signals, kills, lost processes, locks, full disks. Whole files only, and nothing left over."""

from __future__ import annotations

import json
import os
import resource
import signal
from pathlib import Path

import pytest
from cli_cases import CUBES, PAIRS, TONEMAP, WORDS, Case, Run, finish, place, tree

from attnkit.runtime.lock import FolderLock

BOTH = pytest.mark.parametrize("case", [pytest.param(PAIRS, id="demo-pairs"), pytest.param(WORDS, id="demo-words")])


def order(case: Case, work: Path, name: str, text: str) -> Path:
    """A good input that holds an order (see demo_commands)."""
    path = case.good(work / name)
    if case is PAIRS:
        path.with_suffix(".body").write_text(text)
    else:
        path.write_text(f"TEXT {text}")
    return path


class Gate:
    """A place where an item waits: `reached` returns when it is there, `open` lets it go on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        self._end: int | None = None

    def reached(self) -> None:
        self._end = os.open(self.path, os.O_WRONLY)

    def open(self) -> None:
        assert self._end is not None
        os.close(self._end)


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


def left_over(work: Path) -> list[str]:
    return [name for name in tree(work) if ".attnkit" in name]


@BOTH
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_signal_stops_between_files_and_the_run_resumes(case, name, jobs, start, run: Run, work: Path, gate) -> None:
    case.good(work / "d" / "1")
    order(case, work, "d/2", f"hold {gate.path}")
    case.good(work / "d" / "3", 3)
    process = start(case, "d", "--out", place(case), "--jobs", jobs, "--record", "r.jsonl")
    gate.reached()
    process.send_signal(getattr(signal, name))
    ended = finish(process)
    assert ended.code == 130 and name in ended.line and "--skip-existing" in ended.line
    assert left_over(work) == []
    last = json.loads((work / "r.jsonl").read_text().splitlines()[-1])
    assert last["status"] == "interrupted" and last["signal"] == name
    made = tree(work)
    assert case.table or "o/2.head" not in made
    order(case, work, "d/2", "two")
    assert run(case, "d", "--out", place(case), "--skip-existing").code == 0
    assert run(case, "d", "--out", "whole" + place(case)[1:]).code == 0
    after = tree(work)
    whole = {key.replace("whole", "o", 1): value for key, value in after.items() if key.startswith("whole")}
    assert {key: value for key, value in after.items() if key.startswith("o")} == whole


def test_a_signal_to_the_whole_group_is_one_stop(start, work: Path, gate: Gate) -> None:
    order(PAIRS, work, "d/1", f"hold {gate.path}")
    PAIRS.good(work / "d" / "2")
    process = start(PAIRS, "d", "--out", "o/", "--jobs", 2, start_new_session=True)
    gate.reached()
    os.killpg(process.pid, signal.SIGINT)
    ended = finish(process)
    assert ended.code == 130 and "stopped by SIGINT" in ended.line
    assert left_over(work) == []


@BOTH
def test_a_killed_run_frees_its_lock_and_its_rubbish_is_swept(case, start, run: Run, work: Path, gate: Gate) -> None:
    case.good(work / "d" / "1")
    # the pair's second line is read when its body lies half done under a temporary name
    order(case, work, "d/2", f"\nhold {gate.path}" if case is PAIRS else f"hold {gate.path}")
    process = start(case, "d", "--out", place(case))
    gate.reached()
    process.kill()
    finish(process)
    assert ".attnkit.lock" in {Path(name).name for name in left_over(work)}
    assert case.table or len(left_over(work)) == 2
    order(case, work, "d/2", "two")
    assert run(case, "d", "--out", place(case), "--skip-existing").code == 0
    assert left_over(work) == []


@BOTH
def test_a_second_run_on_the_folder_ends_with_1_or_waits(case, start, run: Run, work: Path, gate: Gate) -> None:
    order(case, work, "1", f"hold {gate.path}")
    other = case.good(work / "2")
    process = start(case, f"1{case.suffix}", "--out", "o/1.head" if case is PAIRS else "o/1.jsonl")
    gate.reached()
    out = "o/2.head" if case is PAIRS else "o/2.jsonl"
    ended = run(case, other, "--out", out, "--record", "r.jsonl")
    assert ended.code == 1 and f"pid {process.pid}" in ended.line and "since" in ended.line
    assert os.uname().nodename in ended.line
    assert json.loads((work / "r.jsonl").read_text())["status"] == "locked"
    assert run(case, other, "--out", out, "--wait", "0.2").code == 1
    # a dry run takes no lock
    assert run(case, other, "--out", out, "--dry-run").code == 0
    waiting = start(case, other, "--out", out, "--wait", "60", "--log-file", "waiting.log")
    gate.open()
    assert finish(process).code == 0 and finish(waiting).code == 0
    assert left_over(work) == []


def test_what_came_up_while_waiting_for_the_lock_is_not_overwritten(start, work: Path, gate: Gate) -> None:
    order(PAIRS, work, "1", f"hold {gate.path}")
    first = start(PAIRS, "1.head", "--out", "o/1.head")
    gate.reached()
    second = start(PAIRS, "1.head", "--out", "o/1.head", "--wait", "60", stdin=None)
    gate.open()
    assert finish(first).code == 0
    made = tree(work / "o")
    # it may have been planned before or after the first one's end: refused either way
    assert finish(second).code == 2 and tree(work / "o") == made


def test_a_process_that_dies_is_replaced_and_its_item_tried_again(run: Run, work: Path) -> None:
    order(PAIRS, work, "d/1", f"crash-once {work.parent / 'crashed'}")
    # the second line is read when the body lies under its temporary name
    order(PAIRS, work, "d/2", "\ncrash")
    PAIRS.good(work / "d" / "3")
    ended = run(PAIRS, "d", "--out", "o/", "--jobs", 2, "--json")
    assert ended.code == 3 and "d/2.head" in ended.err and "signal 9" in ended.err
    assert [item["status"] for item in json.loads(ended.out)["items"]] == ["ok", "failed", "ok"]
    assert left_over(work) == []


@BOTH
def test_dask_loses_a_worker_and_no_item(case: Case, run: Run, work: Path) -> None:
    for at in range(5):
        case.good(work / "d" / f"{at}", at + 1)
    lost = order(
        case, work, "d/2", f"\ncrash-once {work.parent / 'c'}" if case is PAIRS else f"crash-once {work.parent / 'c'}"
    )
    before = dict(os.environ)
    ended = run(case, "d", "--out", place(case), "--engine", "dask", "--jobs", 2, "--json")
    assert (work.parent / "c").exists() and os.environ == before
    assert (ended.code, ended.err.splitlines()) == (0, ["attnkit " + case.command + ": 5 done, 0 left out, 0 failed"])
    assert [item["status"] for item in json.loads(ended.out)["items"]] == ["ok"] * 5
    assert left_over(work) == []
    local = "local.jsonl" if case.table else "local/"
    assert run(case, "d", "--out", local).code == 0 and lost.exists()
    if case.table:
        assert (work / "o.jsonl").read_bytes() == (work / "local.jsonl").read_bytes()
    else:
        assert tree(work / "o") == tree(work / "local")


def test_processes_of_a_killed_run_write_nothing_more(start, work: Path, gate: Gate) -> None:
    order(PAIRS, work, "d/1", f"\nhold {gate.path}")
    PAIRS.good(work / "d" / "2")
    process = start(PAIRS, "d", "--out", "o/", "--jobs", 2)
    gate.reached()
    process.kill()
    process.wait()
    gate.open()
    # ends when the last process that holds the streams has gone
    finish(process)
    assert not [name for name in tree(work / "o") if "1" in Path(name).stem.partition("-")[0] or "-0-" in name]


def test_what_came_up_between_plan_and_lock_is_not_overwritten(run: Run, work: Path, monkeypatch) -> None:
    source = PAIRS.good(work / "a")
    acquire = FolderLock.acquire

    def late(lock: FolderLock, wait: float = 0.0) -> bool:
        (work / "o" / "a.head").write_text("of another run")
        return acquire(lock, wait)

    monkeypatch.setattr(FolderLock, "acquire", late)
    ended = run(PAIRS, source, "--out", "o/")
    assert ended.code == 2 and "o/a.head" in ended.line
    assert tree(work / "o") == {"a.head": b"of another run"}


def test_rubbish_is_not_swept_under_a_run_that_holds_the_folder_above(run: Run, work: Path) -> None:
    PAIRS.good(work / "in" / "sub" / "a")
    other = work / "in" / "sub" / ".attnkit-0123abcd-0-main.head"
    other.touch()
    lock = FolderLock(work / "in")
    lock.acquire()
    assert run(PAIRS, "in/sub").code == 0 and other.exists()
    lock.release()
    assert run(PAIRS, "in/sub", "--overwrite").code == 0 and not other.exists()


def test_answers_on_standard_output_keep_the_order_of_the_items(start, work: Path, tmp_path: Path) -> None:
    slow, quick = Gate(tmp_path / "slow"), Gate(tmp_path / "quick")
    order(WORDS, work, "1", f"hold {slow.path}")
    order(WORDS, work, "2", f"hold {quick.path}")
    process = start(WORDS, "1.txt", "2.txt", "--jobs", 2)
    slow.reached()
    quick.reached()
    quick.open()
    slow.open()
    assert [json.loads(line)["item"] for line in finish(process).out.splitlines()] == ["1.txt", "2.txt"]


def test_dask_scheduler_that_is_not_there(run: Run, work: Path, monkeypatch) -> None:
    monkeypatch.setattr("attnkit.runtime.cluster.CONNECT_SECONDS", 1)
    ended = run(PAIRS, PAIRS.good(work / "a"), "--engine", "dask", "--scheduler", "tcp://127.0.0.1:1", "--out", "o/")
    assert ended.code == 1 and "tcp://127.0.0.1:1" in ended.line


@pytest.mark.parametrize("case", [TONEMAP, CUBES, PAIRS], ids=lambda case: case.command)
def test_a_full_disk_fails_the_item_and_leaves_no_half_file(case: Case, start, run: Run, work: Path) -> None:
    case.good(work / "d" / "a")
    case.good(work / "d" / "b")

    def tiny() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60, 60))

    ended = finish(start(case, "d", "--out", "o/", preexec_fn=tiny))
    assert ended.code == 1 and len([line for line in ended.err.splitlines() if "cannot write" in line]) == 2
    assert not (work / "o").exists() and left_over(work) == []
    assert run(case, "d", "--out", "o/").code == 0


def test_a_disk_without_space_is_said_so(run: Run, work: Path, monkeypatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    source = TONEMAP.good(work / "a")
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        ended = run(TONEMAP, source, "--out", "o/")
    assert ended.code == 1 and "no space left" in ended.line and "o" in ended.line
    assert not (work / "o").exists()


def test_progress_is_on_a_terminal_only(start, work: Path) -> None:
    sources = [WORDS.good(work / name) for name in "ab"]
    ours, theirs = os.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    process = start(WORDS, *sources, "--out", "o.jsonl", stderr=theirs, env=environment)
    os.close(theirs)
    seen = b""
    while True:
        # a terminal whose other side is closed gives an error instead of an end
        try:
            piece = os.read(ours, 65536)
        except OSError:
            break
        if not piece:
            break
        seen += piece
    os.close(ours)
    assert finish(process).code == 0
    assert b"attnkit demo-words" in seen and b"2/2" in seen and b"\x1b[" in seen
    piped = finish(start(WORDS, *sources, "--out", "p.jsonl", env=environment))
    assert "\x1b" not in piped.err and "2/2" not in piped.err
