"""The default method beside OpenCV's operators on one large frame, in one run on this machine.

    python tests/bench/tonemap_speed.py [--size 3840x2160] [--rounds 5] [--json]

Rounds are interleaved, so that a busy machine hurts all alike; medians and their ratios are printed. Peak memory is
that of a fresh process while it renders the frame, the frame included. What the first call costs more than the later
ones (loading compiled code; compiling where the cache is empty) is shown apart. The aims are 1.0 of Reinhard and 0.25
of Mantiuk, the limits 1.5 and 0.35, and 1.5 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

METHOD = "attnkit llf-lut"
LIMITS = {"opencv reinhard": 1.5, "opencv mantiuk": 0.35}
MEMORY_GB = 1.5


def frame(columns: int, rows: int) -> np.ndarray:
    """Linear light (rows, columns, 3) float32 over sixteen stops, by formula, with texture."""
    y, x = np.mgrid[:rows, :columns].astype(np.float32)
    stops = 5 * np.sin(x / 317) * np.cos(y / 211) + 3 * np.sin((x + 2 * y) / 97)
    del x, y
    stops += 0.3 * np.random.default_rng(0).standard_normal((rows, columns), dtype=np.float32)
    light = np.exp2(stops)
    del stops
    return light[..., None] * np.array([1.0, 0.8, 0.55], np.float32)


def ours(pixels: np.ndarray) -> np.ndarray:
    from attnkit.tasks.tonemap.task import TonemapRequest, tonemap

    return tonemap(TonemapRequest(pixels)).display


def contestants() -> dict[str, Callable[[np.ndarray], Any]]:
    import cv2

    operators = {
        "opencv reinhard": cv2.createTonemapReinhard(2.2),
        "opencv mantiuk": cv2.createTonemapMantiuk(2.2),
        "opencv drago": cv2.createTonemapDrago(2.2),
    }
    return {METHOD: ours, **{name: operator.process for name, operator in operators.items()}}


def measure(pixels: np.ndarray, rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """Median seconds of each, and those of its first call."""
    first: dict[str, float] = {}
    seconds: dict[str, list[float]] = {}
    runs = contestants()
    for turn in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run(pixels)
            spent = time.perf_counter() - start
            if turn:
                seconds.setdefault(name, []).append(spent)
            else:
                first[name] = spent
    return {name: statistics.median(values) for name, values in seconds.items()}, first


def peak_gigabytes(columns: int, rows: int) -> float:
    """Peak resident memory of a fresh process while it renders the frame."""
    arguments = [sys.executable, __file__, "--size", f"{columns}x{rows}", "--child"]
    return float(subprocess.run(arguments, check=True, capture_output=True, text=True).stdout)


def child(columns: int, rows: int) -> None:
    pixels = frame(columns, rows)
    # what making the frame took at its peak must not count as what rendering takes; Linux alone can forget it
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5")
    ours(pixels)
    if clear.exists():
        status = Path("/proc/self/status").read_text().splitlines()
        print(next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM")) / 1e9)
    else:
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="3840x2160", metavar="WIDTHxHEIGHT")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    columns, rows = (int(part) for part in options.size.split("x"))
    if options.child:
        child(columns, rows)
        return
    memory = peak_gigabytes(columns, rows)
    medians, first = measure(frame(columns, rows), options.rounds)
    result = {
        "size": options.size,
        "rounds": options.rounds,
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "seconds": medians,
        "first_call_extra_seconds": first[METHOD] - medians[METHOD],
        "ratios": {name: medians[METHOD] / medians[name] for name in medians if name != METHOD},
        "peak_gb": memory,
    }
    if options.json:
        print(json.dumps(result, indent=1))
        return
    print(f"{options.size}, {result['cores']} cores, load {result['load']:.1f}, medians of {options.rounds}")
    for name, value in medians.items():
        limit = f" (limit {LIMITS[name]})" if name in LIMITS else ""
        print(f"{name:18} {value:7.3f} s  ours is {medians[METHOD] / value:5.2f} of it{limit}")
    print(f"first call: {result['first_call_extra_seconds']:.2f} s more (loading compiled code, or compiling it)")
    print(f"peak memory of a fresh process with this frame: {memory:.2f} GB (limit {MEMORY_GB})")


if __name__ == "__main__":
    main()
