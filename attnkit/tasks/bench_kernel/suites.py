"""Sets of measurements with a name: what `--suite` runs. Flags that are given go before a suite's values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from attnkit.runtime.errors import UsageError
from attnkit.runtime.values import one_of


@dataclass(frozen=True)
class Part:
    """Operators with the sweeps and the shape that they are measured at."""

    names: tuple[str, ...]
    sweeps: tuple[str, ...]
    values: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Suite:
    """Parts that run one after the other, and the baselines of all of them."""

    summary: str
    parts: tuple[Part, ...]
    baselines: tuple[str, ...] = ("sdpa",)


LONG = ("dense", "causal", "sliding", "streaming", "neighborhood", "radial", "blocked", "grid", "halo", "random_blocks")
ROUTED = ("bilevel", "sla", "headwise", "sla-linear", "kmeans")
PICTURES = ("lut3d", "local-laplacian")
FEW = ("dense", "neighborhood", "radial", "blocked", "random_blocks")
_GPU = {"heads": "24", "dim": "128", "dtype": "bfloat16"}

SUITES: dict[str, Suite] = {
    "quick": Suite(
        "under half a minute: five patterns at 1024 tokens, forward",
        (Part(FEW, ("tokens=1024",), {"heads": "4"}),),
    ),
    "cpu": Suite(
        "minutes on a CPU: every pattern at 2048 to 8192 tokens forward, five of them backward",
        (
            Part(LONG, ("tokens=2048,4096,8192",)),
            Part(ROUTED, ("tokens=4096",)),
            Part(PICTURES, ("canvas=512x512",)),
            Part(FEW, ("tokens=4096",), {"direction": "fwdbwd"}),
        ),
    ),
    "gpu": Suite(
        "a GPU: every pattern at 4096 to 65536 tokens, 24 heads of 128, bfloat16, forward and backward",
        (
            Part(LONG, ("tokens=4096,16384,65536",), _GPU),
            Part(ROUTED, ("tokens=16384",), _GPU),
            Part(PICTURES, ("canvas=2048x2048",)),
            Part(FEW, ("tokens=16384", "direction=bwd,fwdbwd"), _GPU),
        ),
        ("sdpa", "sdpa-flash", "sdpa-cudnn", "flex", "natten", "flash-attn", "fla"),
    ),
}


def suite_named(name: str) -> Suite:
    """The suite of that name. UsageError for an unknown one."""
    if name not in SUITES:
        raise UsageError(f"--suite: got {name!r}, expected {one_of(SUITES)}")
    return SUITES[name]
