"""Several small items at a time in one process: while one is compressed and written, the next is read and computed."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from attnkit.runtime.errors import AttnkitError
from attnkit.runtime.items import Outcome
from attnkit.runtime.work import Job, Setup, abandon, run_job, worker_of

# what items that overlap may take together; a larger one runs alone, and then its own loops use all cores
MEMORY_BYTES = 600_000_000


def may_overlap(setup: Setup, jobs: Sequence[Job]) -> bool:
    """Whether a run gains from lanes: a command that allows them, more than one item, more than one core."""
    return setup.command.thread_safe and len(jobs) > 1 and setup.context.threads > 1


def run_in_lanes(setup: Setup, jobs: Sequence[Job], lanes: int) -> Generator[Outcome]:
    """Run `jobs` by `lanes` threads; outcomes come in the order of the items.

    Closing the generator lets the items that are under way come to their end and throws their outputs away.
    """
    waiting = deque(jobs)
    running: deque[tuple[Future[Outcome], int]] = deque()
    # the first item opens the worker; a model that cannot be loaded is said by it alone
    first = run_job(setup, waiting.popleft())
    yield first
    if first.fatal:
        return
    worker_of(setup)
    pool = ThreadPoolExecutor(lanes, thread_name_prefix="lane")
    try:
        while waiting or running:
            while waiting and len(running) <= lanes:
                need = _memory(setup, waiting[0])
                if running and sum(taken for _, taken in running) + need > MEMORY_BYTES:
                    break
                # an item that leaves no room for others has the cores to itself
                threads = 1 if need * lanes <= MEMORY_BYTES else lanes
                running.append((pool.submit(_run_with, threads, setup, waiting.popleft()), need))
            if not running[0][0].done():
                # a wait with an end, so that a stop signal is seen
                wait([running[0][0]], timeout=0.2, return_when=FIRST_COMPLETED)
                continue
            yield running.popleft()[0].result()
    finally:
        if running:
            abandon(setup.context.token)
        pool.shutdown(wait=True, cancel_futures=True)


def _run_with(threads: int, setup: Setup, job: Job) -> Outcome:
    from attnkit_kernels.native import limit_threads

    limit_threads(threads)
    return run_job(setup, job)


def _memory(setup: Setup, job: Job) -> int:
    try:
        return setup.command.estimate(job.item, setup.format).memory_bytes or 0
    except (AttnkitError, OSError):
        # its own turn will say what is wrong with it
        return 0
