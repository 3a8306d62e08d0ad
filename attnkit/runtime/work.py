"""One item in one process: what runs here, in a pool of processes, and on the workers of a cluster alike."""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnkit.runtime.errors import AttnkitError, ItemError
from attnkit.runtime.items import Context, Item, Outcome
from attnkit.runtime.outputs import Outputs

if TYPE_CHECKING:
    from attnkit.runtime.command import FileCommand, Worker

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "OPENCV_FOR_THREADS_NUM",
)


@dataclass(frozen=True)
class Setup:
    """What all items of a run share; picklable."""

    command: FileCommand
    context: Context
    format: str


@dataclass(frozen=True)
class Job:
    """One item with its places; picklable."""

    item: Item
    paths: dict[str, Path | None]
    keep: frozenset[str] = frozenset()
    fingerprint: str | None = None


_lock = threading.RLock()
_opened: dict[str, Worker] = {}
_abandoned: set[str] = set()


def worker_of(setup: Setup) -> Worker:
    """The worker of this run in this process, opened on first use; one run's model at a time stays in memory."""
    with _lock:
        worker = _opened.get(setup.context.token)
        if worker is None:
            hush_libraries()
            _opened.clear()
            worker = _opened[setup.context.token] = setup.command.open(setup.context)
        return worker


def hush_libraries() -> None:
    """Keep warnings of libraries off standard error: what a person has to know comes as a line of ours.

    And keep numpy's linear algebra to one thread: its products are small here, and its waiting threads would take the
    cores from those that work.
    """
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def forget(token: str) -> None:
    """Let go of a run's worker."""
    with _lock:
        _opened.pop(token, None)


def stored_settings(command: FileCommand, fingerprint: str) -> dict[str, Any]:
    """What every output carries: the options that made it and the hash of its input; no time, path, user or host."""
    from attnkit import __version__

    return {
        "attnkit": __version__,
        "command": command.name,
        "options": command.settings(),
        "input_sha256": fingerprint,
    }


def abandon(token: str) -> None:
    """Items of this run that are still under way commit nothing any more."""
    _abandoned.add(token)


def _wanted(context: Context) -> bool:
    gone = context.parent and os.getppid() != context.parent
    return not gone and context.token not in _abandoned


def run_job(setup: Setup, job: Job, inside: Callable[[float], None] | None = None) -> Outcome:
    """Run one item to its committed outputs. A failure is an outcome too; only a stop is raised.

    inside    is told how much of the item is done, 0 to 1, by tasks that know
    """
    if setup.command.thread_safe:
        return _run_job(setup, job, inside)
    with _lock:
        return _run_job(setup, job, inside)


def _run_job(setup: Setup, job: Job, inside: Callable[[float], None] | None) -> Outcome:
    started = datetime.now(UTC)
    clock = time.perf_counter()
    record: dict[str, Any] = {"item": job.item.name, "status": "ok"}
    outcome = Outcome(job.item.index, "ok", record)
    outputs: Outputs | None = None
    try:
        if job.item.problem is not None:
            raise ItemError(job.item.problem)
        fingerprint = job.fingerprint or _fingerprint(job.item)
        settings = outcome.settings = stored_settings(setup.command, fingerprint)
        record["input_sha256"] = fingerprint
        outputs = Outputs(job.paths, setup.format, settings, setup.context.token, job.item.index, job.keep, inside)
        outcome.fatal = True
        worker = worker_of(setup)
        outcome.fatal = False
        fields = worker.run(job.item, outputs)
        outputs.commit(lambda: _wanted(setup.context))
        record.update(fields)
        record["output_sha256"] = outputs.hashes
        outcome.rows = outputs.rows
        outcome.standard_output = outputs.standard_output
    except (Exception, SystemExit) as error:
        outcome.status = record["status"] = "failed"
        outcome.error = record["error"] = error_line(error)
        outcome.traceback = traceback.format_exc()
    finally:
        if outputs is not None:
            outputs.discard()
    outcome.seconds = record["seconds"] = round(time.perf_counter() - clock, 4)
    record["started"] = started.isoformat(timespec="milliseconds")
    return outcome


def _fingerprint(item: Item) -> str:
    try:
        return item.fingerprint()
    except OSError as error:
        raise ItemError(f"cannot read it ({error.strerror}); check that it exists and may be read") from error


def error_line(error: BaseException) -> str:
    """An exception as one line for people."""
    if isinstance(error, AttnkitError):
        return " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return "not enough memory; use fewer --jobs or a smaller input"
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}"
    text = " ".join(str(error).split())
    return f"internal error {type(error).__name__}: {text[:300]}; run again with --debug and report it"


def share_threads(jobs: int) -> int:
    """How many threads each of `jobs` processes should use: the cores, divided."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:
        cores = os.cpu_count() or 1
    return max(1, cores // jobs)
