"""Several items at a time on this machine: processes that share the cores, outlive no run, and may be lost."""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from attnkit.runtime.items import Outcome
from attnkit.runtime.signals import Interrupted, stoppable
from attnkit.runtime.work import THREAD_VARIABLES, Job, Setup, run_job

STOP_SECONDS = 5.0
ATTEMPTS = 2
TERMINAL_SIGNALS = (signal.SIGINT, signal.SIGHUP)


@dataclass
class _Process:
    process: Any
    connection: Connection
    job: Job | None = None


def run_in_pool(setup: Setup, jobs: Sequence[Job], processes: int) -> Iterator[Outcome]:
    """Run `jobs` in spawned processes; outcomes come as they are ready.

    A process that dies (a kill, memory) is replaced and its item tried once more. Closing the generator stops the
    processes: each throws away the item that it is at.
    """
    waiting = deque(jobs)
    attempts: dict[int, int] = {}
    running: list[_Process] = []
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                running.append(_start(setup))
                _hand_out(running[-1], waiting)
            ready = wait([entry.connection for entry in running])
            for entry in [entry for entry in running if entry.connection in ready]:
                outcome = _receive(entry)
                if outcome is None:
                    running.remove(entry)
                    failed = _lost(entry, attempts, waiting)
                    if failed is not None:
                        yield failed
                    continue
                entry.job = None
                if waiting:
                    _hand_out(entry, waiting)
                else:
                    running.remove(entry)
                    entry.connection.close()
                    entry.process.join(STOP_SECONDS)
                yield outcome
    finally:
        _stop(running)


def _start(setup: Setup) -> _Process:
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(theirs, os.getpid(), setup.context.threads), daemon=True)
    # a Ctrl-C reaches the child too, before it can say that it does not care: it starts with these held back
    held = signal.pthread_sigmask(signal.SIG_BLOCK, TERMINAL_SIGNALS)
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
    theirs.close()
    entry = _Process(process, ours)
    _send(entry, setup)
    return entry


def _hand_out(entry: _Process, waiting: deque[Job]) -> None:
    entry.job = waiting.popleft()
    _send(entry, entry.job)


def _send(entry: _Process, message: Any) -> None:
    # where it is dead the wait will notice, and its item goes to another
    with suppress(BrokenPipeError, ConnectionError):
        entry.connection.send(message)


def _receive(entry: _Process) -> Outcome | None:
    try:
        outcome: Outcome = entry.connection.recv()
    except (EOFError, ConnectionError):
        return None
    return outcome


def _lost(entry: _Process, attempts: dict[int, int], waiting: deque[Job]) -> Outcome | None:
    entry.connection.close()
    entry.process.join(STOP_SECONDS)
    job = entry.job
    assert job is not None
    attempts[job.item.index] = attempts.get(job.item.index, 0) + 1
    if attempts[job.item.index] < ATTEMPTS:
        waiting.appendleft(job)
        return None
    code = entry.process.exitcode
    how = f"signal {-code}" if code is not None and code < 0 else f"exit {code}"
    text = f"its process died twice ({how}), most likely out of memory; use fewer --jobs or a smaller input"
    return Outcome(job.item.index, "failed", {"item": job.item.name, "status": "failed", "error": text}, error=text)


def _stop(running: list[_Process]) -> None:
    for entry in running:
        entry.connection.close()
        entry.process.terminate()
    for entry in running:
        entry.process.join(STOP_SECONDS)
        if entry.process.is_alive():
            entry.process.kill()
            entry.process.join()


def _serve(connection: Connection, parent: int, threads: int) -> None:
    # numeric libraries read these when they are first imported, which happens with the first message
    for name in THREAD_VARIABLES:
        os.environ[name] = str(threads)
    # the terminal sends its signals to everyone; the parent decides, and tells by SIGTERM
    try:
        with stoppable(ignored=("SIGINT", "SIGHUP")):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, TERMINAL_SIGNALS)
            setup: Setup = connection.recv()
            while True:
                job: Job = connection.recv()
                connection.send(_outcome(setup, job))
    except (EOFError, ConnectionError, Interrupted):
        return


def _outcome(setup: Setup, job: Job) -> Outcome:
    try:
        return run_job(setup, job)
    except Interrupted:
        raise
    except BaseException as error:
        text = f"internal error {type(error).__name__}: {error}; run again with --debug and report it"
        record = {"item": job.item.name, "status": "failed", "error": text}
        return Outcome(job.item.index, "failed", record, error=text, traceback=traceback.format_exc())
