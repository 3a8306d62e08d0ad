"""Items of one process that overlap: in order, within memory, and nothing written after a stop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from attnkit_kernels import native

from attnkit.runtime import lanes, work
from attnkit.runtime.command import FileCommand
from attnkit.runtime.errors import ItemError
from attnkit.runtime.items import Context, Estimate, Item, Outcome
from attnkit.runtime.outputs import Outputs
from attnkit.runtime.work import Job, Setup


class Shouts(FileCommand):
    """Does what it is told for each item; says how many are at work at once."""

    name = "shout"
    formats = {".txt": "txt"}  # noqa: RUF012
    thread_safe = True

    def __init__(self, act: Callable[[int], None] = lambda index: None, memory: int = 0) -> None:
        self.act = act
        self.memory = memory
        self.most = 0
        self._at_work = 0
        self._lock = threading.Lock()

    def settings(self) -> dict[str, Any]:
        return {}

    def estimate(self, item: Item, format: str) -> Estimate:
        return Estimate(memory_bytes=self.memory)

    def open(self, context: Context) -> Shouts:
        return self

    def run(self, item: Item, outputs: Outputs) -> dict[str, Any]:
        with self._lock:
            self._at_work += 1
            self.most = max(self.most, self._at_work)
        try:
            self.act(item.index)
            outputs.write("main", b"loud")
        finally:
            with self._lock:
                self._at_work -= 1
        return {}


def start(command: Shouts, folder: Path, count: int) -> tuple[Setup, list[Job]]:
    setup = Setup(command, Context(threads=2, token=f"{id(command):x}"), "txt")
    jobs = []
    for index in range(count):
        source = folder / f"{index}.in"
        source.write_text("quiet")
        item = Item(name=source.name, stem=source.stem, path=source, index=index)
        jobs.append(Job(item, {"main": folder / f"{index}.txt"}))
    return setup, jobs


def test_two_items_are_at_work_at_once_and_answer_in_order(tmp_path):
    meet = threading.Barrier(2, timeout=60)

    def act(index: int) -> None:
        # the first item runs alone: it opens the worker
        if index:
            meet.wait()

    command = Shouts(act)
    setup, jobs = start(command, tmp_path, 5)
    outcomes = list(lanes.run_in_lanes(setup, jobs, 2))
    assert [(outcome.index, outcome.status) for outcome in outcomes] == [(index, "ok") for index in range(5)]
    assert command.most == 2
    assert all((tmp_path / f"{index}.txt").read_text() == "loud" for index in range(5))


@pytest.mark.parametrize(("memory", "threads"), [(1000, 1), (lanes.MEMORY_BYTES * 2 // 3, 2)])
def test_row_loops_of_items_that_share_the_cores_use_one_each(tmp_path, monkeypatch, memory, threads):
    monkeypatch.setattr(native, "_cores", lambda: 2)
    seen: list[int] = []
    command = Shouts(lambda index: seen.append(native.threads()), memory)
    setup, jobs = start(command, tmp_path, 4)
    list(lanes.run_in_lanes(setup, jobs, 2))
    # the first runs alone
    assert seen == [2, threads, threads, threads]
    assert native.threads() == 2


def test_items_too_large_to_share_the_memory_run_alone(tmp_path):
    command = Shouts(memory=lanes.MEMORY_BYTES * 2 // 3)
    setup, jobs = start(command, tmp_path, 6)
    assert len(list(lanes.run_in_lanes(setup, jobs, 2))) == 6
    assert command.most == 1


def test_what_is_under_way_at_the_end_of_a_run_writes_nothing(tmp_path):
    under_way, go_on = threading.Event(), threading.Event()

    def act(index: int) -> None:
        if index == 1:
            raise ItemError("no voice")
        if index == 2:
            under_way.set()
            assert go_on.wait(60)

    setup, jobs = start(Shouts(act), tmp_path, 3)
    outcomes = lanes.run_in_lanes(setup, jobs, 2)
    assert next(outcomes).status == "ok"
    assert next(outcomes).error == "no voice"
    assert under_way.wait(60)
    # closing waits for item 2, which may go on once the run has given it up
    given_up = work.abandon

    def abandon(token: str) -> None:
        given_up(token)
        go_on.set()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lanes, "abandon", abandon)
        outcomes.close()
    assert sorted(path.name for path in tmp_path.glob("*.txt")) == ["0.txt"]
    assert not list(tmp_path.glob(".attnkit*"))


def test_a_model_that_cannot_be_opened_ends_the_run_at_the_first_item(tmp_path):
    class Broken(Shouts):
        def open(self, context: Context) -> Shouts:
            raise ItemError("no model")

    setup, jobs = start(Broken(), tmp_path, 4)
    outcomes: list[Outcome] = list(lanes.run_in_lanes(setup, jobs, 2))
    assert [(outcome.error, outcome.fatal) for outcome in outcomes] == [("no model", True)]


@pytest.mark.parametrize(("safe", "count", "threads"), [(False, 3, 2), (True, 1, 2), (True, 3, 1)])
def test_without_gain_or_leave_there_are_no_lanes(tmp_path, safe, count, threads):
    command = Shouts()
    command.thread_safe = safe
    setup, jobs = start(command, tmp_path, count)
    assert not lanes.may_overlap(replace(setup, context=replace(setup.context, threads=threads)), jobs)
    command.thread_safe = True
    assert lanes.may_overlap(*start(command, tmp_path, 2))
