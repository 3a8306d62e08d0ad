"""Runs of several kernels in turns, so that what slows the machine down for a while slows all of them down."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

# rounds when no number is asked for: enough for an interval, and no longer than the seconds of a kernel
LEAST_ROUNDS = 7
MOST_ROUNDS = 50
SECONDS_EACH = 1.5
# larger than the last cache of any GPU at hand
FLUSHED_BYTES = 256 * 2**20

Run = Callable[[], Any]


class Clock(Protocol):
    """Measures one call in seconds."""

    def __call__(self, run: Run) -> float: ...


class HostClock:
    """Wall time of a call that has finished when it returns."""

    def __call__(self, run: Run) -> float:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start


class DeviceClock:
    """Time between two events on a GPU's stream, after its last cache was emptied."""

    def __init__(self, device: Any) -> None:
        import torch

        self.device = device
        self._flushed = torch.empty(FLUSHED_BYTES // 4, dtype=torch.int32, device=device)

    def __call__(self, run: Run) -> float:
        import torch

        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        # the host prepares the launch while the device is still emptying its cache
        self._flushed.zero_()
        start.record()
        run()
        end.record()
        torch.cuda.synchronize(self.device)
        return float(start.elapsed_time(end)) / 1e3


@dataclass
class Times:
    """Seconds of each kernel by round, and what stopped those that failed."""

    rounds: dict[str, list[float]] = field(default_factory=dict)
    failed: dict[str, Exception] = field(default_factory=dict)


def in_turns(
    kernels: Mapping[str, Run], clock: Clock, repeats: int | None = None, seconds: float = SECONDS_EACH
) -> Times:
    """Time every kernel once a round; the order turns from round to round.

    repeats : rounds, or None for as many as take about `seconds` a kernel (7 to 50).
    A kernel that raises is left out from then on; its error is kept. One call of each before the first round shows what
    a round costs; it is in no round, since it fills caches.
    """
    times = Times()

    def once(name: str, into: list[float]) -> None:
        try:
            into.append(clock(kernels[name]))
        except Exception as error:
            times.failed[name] = error
            times.rounds.pop(name, None)

    costs: list[float] = []
    for name in kernels:
        once(name, costs)
    times.rounds = {name: [] for name in kernels if name not in times.failed}
    for at in range(repeats or rounds_for(costs, seconds)):
        names = [name for name in kernels if name in times.rounds]
        turn = at % max(len(names), 1)
        for name in (*names[turn:], *names[:turn]):
            once(name, times.rounds[name])
    return times


def rounds_for(costs: list[float], seconds: float) -> int:
    """Rounds that take about `seconds` for each kernel, within LEAST_ROUNDS and MOST_ROUNDS."""
    total = sum(costs)
    wanted = round(seconds * len(costs) / total) if total else MOST_ROUNDS
    return min(max(wanted, LEAST_ROUNDS), MOST_ROUNDS)
