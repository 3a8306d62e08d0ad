"""The same items on a Dask cluster: a running scheduler, or processes of this machine."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from attnkit.runtime.errors import AttnkitError
from attnkit.runtime.items import Item, Outcome
from attnkit.runtime.work import THREAD_VARIABLES, Job, Setup, run_job

CONNECT_SECONDS = 15


def run_on_cluster(setup: Setup, jobs: Sequence[Job], scheduler: str | None, processes: int) -> Iterator[Outcome]:
    """Run `jobs` on the cluster at `scheduler`, or on a local one of `processes`; outcomes as they are ready.

    The workers need the same files under the same absolute paths and the same attnkit. An item whose worker is lost
    runs again on another (Dask's allowed-failures says how often). Raises AttnkitError where Dask is not installed
    or no scheduler answers.
    """
    try:
        import dask
        from distributed import as_completed
    except ImportError as error:
        from attnkit.runtime.extras import install_line

        raise AttnkitError(f"--engine dask: {error.name} is not installed; {install_line('distributed')}") from error
    # a lost worker is this module's business: Dask's own words about it stay off standard error
    quiet = {"distributed.logging": dict.fromkeys(("distributed", "distributed.nanny"), "critical")}
    threads = {name: str(setup.context.threads) for name in THREAD_VARIABLES}
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with (
        _same_environment(),
        dask.config.set({**quiet, "distributed.nanny.pre-spawn-environ": threads}),
        _client(scheduler, processes) as client,
    ):
        futures = {client.submit(run_job, setup, _absolute(job), pure=False): job for job in jobs}
        try:
            for future in as_completed(list(futures)):
                yield _outcome(future, futures[future])
                # a result that was passed on need not stay in the cluster's memory
                future.release()
        finally:
            client.cancel(list(futures))


@contextmanager
def _same_environment() -> Iterator[None]:
    """Dask sets variables of its workers in this process while it starts one; of two at once it leaves them set."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)


def _client(scheduler: str | None, processes: int) -> Any:
    from distributed import Client, LocalCluster

    if scheduler is None:
        cluster = LocalCluster(
            n_workers=processes,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            silence_logs=logging.CRITICAL,
        )
        return _LocalClient(cluster)
    try:
        return Client(scheduler, timeout=CONNECT_SECONDS)
    except (OSError, TimeoutError, ValueError) as error:
        text = " ".join(str(error).split())
        raise AttnkitError(
            f"--scheduler {scheduler}: no Dask scheduler answers there ({text}); start one or check it"
        ) from error


class _LocalClient:
    """A client and the cluster that was started for it, ended together."""

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster

    def __enter__(self) -> Any:
        from distributed import Client

        self._client = Client(self._cluster)
        return self._client

    def __exit__(self, *ignored: object) -> None:
        self._client.close()
        self._cluster.close()


def _absolute(job: Job) -> Job:
    item = job.item
    if item.path is not None:
        companions = tuple(path.absolute() for path in item.companions)
        item = replace(item, path=item.path.absolute(), companions=companions)
    paths = {name: None if path is None else path.absolute() for name, path in job.paths.items()}
    return replace(job, item=item, paths=paths)


def _outcome(future: Any, job: Job) -> Outcome:
    try:
        outcome: Outcome = future.result()
    except Exception as error:
        text = _reason(error, job.item)
        return Outcome(job.item.index, "failed", {"item": job.item.name, "status": "failed", "error": text}, error=text)
    return outcome


def _reason(error: Exception, item: Item) -> str:
    if type(error).__name__ == "KilledWorker":
        return (
            "every worker that took it was lost, most likely out of memory; give workers more memory or a smaller input"
        )
    return f"the cluster could not run it: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
