"""Peak memory and time of the published HSIE network on large bands, in a fresh process.

    python tests/bench/hsie_memory.py [--size 2000] [--bands 200] [--run 2] [--memory 1.1e9] [--threads 2] [--json]

A float32 cube of `bands` x `size` x `size` lies in a sparse temporary file that is mapped, as a cube file is; the first
bands that are enhanced stand in the middle of it, where the window moves. Asked: at most 1.1 GB beyond what imports
take, counting pages of the mapped file too. The time for the whole cube is extrapolated from `run` bands. Weights are
random; they change neither.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np


def resident(key: str = "VmHWM") -> float:
    """Resident memory of this process, now (VmRSS) or at its peak (VmHWM), GB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024 / 1e9


class MappedSource:
    """A raw float32 file [bands, rows, columns] as a source; values are made on the way, so the file stays sparse."""

    wavelengths = None

    def __init__(self, path: str, shape: tuple[int, int, int]) -> None:
        self.path = path
        self.shape = shape

    def read(self, bands: Any, rows: slice, columns: slice) -> np.ndarray:
        # mapped anew each time, so that pages that were read do not stay resident
        mapped = np.memmap(self.path, np.float32, "r", shape=self.shape)
        block = np.array(mapped[bands, rows, columns])
        numbers = np.arange(self.shape[0])[bands]
        down, across = np.arange(self.shape[1])[rows], np.arange(self.shape[2])[columns]
        wave = (np.sin(0.01 * down)[:, None] * np.cos(0.013 * across)).astype(np.float32)
        for place, number in enumerate(numbers):
            block[place] += 0.3
            block[place] += wave * np.float32(0.1 + 0.0005 * number)
        return block


def child(size: int, bands: int, run: int, memory: int, threads: int) -> dict[str, Any]:
    import torch

    from attnkit.models.hsie.fast import FastHsie
    from attnkit.models.hsie.model import HsieLptn
    from attnkit.tasks.hsi_enhance.methods.bandwise import plan, run_bandwise
    from attnkit.tasks.hsi_enhance.source import ArraySource, Region

    torch.set_num_threads(threads)
    network = FastHsie(HsieLptn())
    # compiles what is compiled, which is counted as imports
    list(run_bandwise(ArraySource(np.zeros((1, 64, 64), np.float32)), network, memory=10**9, done=(), facts={}))
    loaded = resident("VmRSS")
    shape = (bands, size, size)
    how = plan(network, shape, memory)
    first = max(0, bands // 2 - run)
    wanted = range(first, min(first + run, bands))
    tops = range(0, size, how.rows)
    done = frozenset(
        Region(band, band + 1, top, min(top + how.rows, size), 0, size)
        for band in range(bands)
        if band not in wanted
        for top in tops
    )
    finished = []
    with tempfile.NamedTemporaryFile() as file:
        file.truncate(4 * bands * size * size)
        start = time.perf_counter()
        parts = run_bandwise(MappedSource(file.name, shape), network, memory=memory, done=done, facts={})
        for region, values in parts:
            assert np.isfinite(values).all()
            if region.bottom == size:
                finished.append(time.perf_counter() - start)
    # the first band reads all of its window
    each = (finished[-1] - finished[0]) / (len(finished) - 1) if len(finished) > 1 else finished[0]
    return {
        "size": size, "bands": bands, "run": len(finished), "threads": threads, "plan": how.mode, "tile": 2 * how.side,
        "memory_gb": memory / 1e9, "imports_gb": round(loaded, 3), "peak_gb": round(resident(), 3),
        "arrays_gb": round(resident() - loaded, 3), "first_band_s": round(finished[0], 1), "band_s": round(each, 1),
        "cube_hours": round((finished[0] + each * (bands - 1)) / 3600, 2),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("size", 2000), ("bands", 200), ("run", 2), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--memory", type=float, default=1.1e9)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(child(given.size, given.bands, given.run, int(given.memory), given.threads)))
        return
    command = [sys.executable, __file__, "--child", *(part for part in sys.argv[1:] if part != "--json")]
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    if given.json:
        print(found, end="")
        return
    for name, value in json.loads(found).items():
        print(f"{name:14} {value}")


if __name__ == "__main__":
    main()
