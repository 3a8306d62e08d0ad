"""The fast path of the published HSIE network beside a straight band-by-band forward of the same weights, in one run.

    python tests/bench/hsie_speed.py [--bands 64] [--rows 128] [--columns 128] [--repeats 3] [--threads 2] [--json]

Both go through the same cube from the reading of its bands to the values of its result. The parts of a cube are timed
in turns, a few bands of the one, then the same bands of the other, so that a busy machine hurts both alike; printed are
the medians over the repeats of the seconds for a whole cube, their ratio, and the largest difference. Preparing the
weights is not counted. Asked: a ratio of at least 1.3, a difference of at most 1e-5.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import numpy as np
import torch

from attnkit.models.hsie.fast import FastHsie
from attnkit.models.hsie.model import HsieLptn
from attnkit.models.hsie.window import band_window
from attnkit.tasks.hsi_enhance.methods.bandwise import run_bandwise
from attnkit.tasks.hsi_enhance.source import ArraySource


def network(seed: int = 0) -> HsieLptn:
    """The published network with seeded weights, halved so that results stay near 1."""
    torch.manual_seed(seed)
    model = HsieLptn().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5)
    return model


def measure(bands: int, rows: int, columns: int, repeats: int, memory: int) -> dict[str, Any]:
    model = network()
    fast = FastHsie(model)
    cube = np.random.default_rng(0).random((bands, rows, columns), np.float32)
    windows, _ = band_window(bands, model.neighbours)
    planes = torch.from_numpy(cube)[None]
    seconds: dict[str, list[float]] = {"straight": [], "fast": []}
    difference, largest = 0.0, 0.0
    for turn in range(repeats + 1):
        total = {"straight": 0.0, "fast": 0.0}
        parts = run_bandwise(ArraySource(cube), fast, memory=memory, done=frozenset(), facts={})
        while True:
            start = time.perf_counter()
            part = next(parts, None)
            total["fast"] += time.perf_counter() - start
            if part is None:
                break
            region, values = part
            start = time.perf_counter()
            with torch.inference_mode():
                expected = [
                    model(planes[:, band : band + 1], planes[:, list(windows[band])])[0].numpy()
                    for band in range(region.first_band, region.last_band)
                ]
            total["straight"] += time.perf_counter() - start
            difference = max(difference, float(np.abs(np.concatenate(expected) - values).max()))
            largest = max(largest, float(np.abs(values).max()))
            if not turn:
                # the first turn warms up, for which a part is enough
                break
        if turn:
            for name, value in total.items():
                seconds[name].append(value)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "bands": bands, "rows": rows, "columns": columns, "threads": torch.get_num_threads(), "repeats": repeats,
        "straight_s": round(median["straight"], 2), "fast_s": round(median["fast"], 2),
        "ratio": round(median["straight"] / median["fast"], 2),
        "ratios": [round(one / other, 2) for one, other in zip(*seconds.values(), strict=True)],
        "largest_difference": difference, "largest_value": round(largest, 3),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("bands", 64), ("rows", 128), ("columns", 128), ("repeats", 3), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--memory", type=float, default=1.1e9, help="bytes for arrays of the fast path")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    found = measure(arguments.bands, arguments.rows, arguments.columns, arguments.repeats, int(arguments.memory))
    if arguments.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:20} {value}")


if __name__ == "__main__":
    main()
