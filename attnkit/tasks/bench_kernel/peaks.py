"""The roof of this device, measured in the same run: how fast it multiplies matrices and moves memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .timing import Clock

# a side is doubled only while a product stays below this, so that slow types take no minutes
SLOW_SECONDS = 0.15
SIDES = (256, 512, 1024, 2048, 4096, 8192)
COPIED_BYTES = {"cpu": 256 * 2**20, "cuda": 2**30}
TRIES = 5


@dataclass(frozen=True)
class Peaks:
    """flops: operations a second of the fastest square product tried; bandwidth: bytes a second, read plus written."""

    flops: float
    bandwidth: float
    side: int

    def best(self, other: Peaks) -> Peaks:
        """The higher of both peaks each: what slows a machine down for a while lowers what is measured then."""
        faster = self if self.flops >= other.flops else other
        return Peaks(faster.flops, max(self.bandwidth, other.bandwidth), faster.side)

    @property
    def ridge(self) -> float:
        """Operations per byte from which on the products are the limit."""
        return self.flops / self.bandwidth

    def seconds(self, flops: float, moved: float) -> float:
        """The least time that the device could take for this work."""
        return max(flops / self.flops, moved / self.bandwidth)

    def bound(self, flops: float, moved: float) -> str:
        """Which of the two limits the work: "compute" or "memory"."""
        return "compute" if flops / self.flops >= moved / self.bandwidth else "memory"


def measure(device: str, dtype: str, clock: Clock) -> Peaks:
    """Best of five runs each: square products of growing size in `dtype`, and a copy of a large array."""
    import torch

    kind: Any = getattr(torch, dtype)
    flops, best_side = 0.0, SIDES[0]
    for side in SIDES:
        left, right = (torch.ones(side, side, dtype=kind, device=device) for _ in range(2))
        taken = _best(clock, lambda left=left, right=right: left @ right)  # type: ignore[misc]
        if 2 * side**3 / taken > flops:
            flops, best_side = 2 * side**3 / taken, side
        if taken > SLOW_SECONDS / 8:
            break
    count = COPIED_BYTES[device.partition(":")[0]] // 4
    source, target = (torch.zeros(count, dtype=torch.float32, device=device) for _ in range(2))
    bandwidth = 2 * 4 * count / _best(clock, lambda: target.copy_(source))
    return Peaks(flops, bandwidth, best_side)


def _best(clock: Clock, run: Callable[[], Any]) -> float:
    run()
    return min(clock(run) for _ in range(TRIES))
