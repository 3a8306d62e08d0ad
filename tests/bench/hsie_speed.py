"""The fast path of the published HSIE network, and the small default, beside a straight band-by-band forward.

    python tests/bench/hsie_speed.py [--bands 64] [--rows 128] [--columns 128] [--repeats 3] [--threads 2] [--json]

All go through the same cube from the reading of its bands to the values of its result. The parts of a cube are timed
in turns, a few bands of the one, then the same bands of the other, so that a busy machine hurts both alike; the default
which takes the whole cube has its turn after each. Printed are the medians over the repeats of the seconds for a
whole cube, their ratios, and the largest difference of the paths of equal weights. Preparing the weights is not
counted. Asked: a ratio of at least 1.3, a difference of at most 1e-5, and of the default at least 10.
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
from attnkit.tasks.hsi_enhance.methods import run
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


def noisy_cube(bands: int, rows: int, columns: int) -> np.ndarray:
    """Six smooth spectra with blocky shares and noise [bands, rows, columns]: about 0..1, and not without structure."""
    draw = np.random.default_rng(0)
    shares = draw.random((6, -(-rows // 8), -(-columns // 8))).repeat(8, axis=1).repeat(8, axis=2)[:, :rows, :columns]
    phases = np.linspace(0, 3, bands)[:, None] * draw.uniform(0.5, 3, 6) + draw.uniform(0, 6, 6)
    cube = np.einsum("bk,krc->brc", 0.1 + 0.06 * np.sin(phases), shares)
    return (cube + 0.04 * draw.standard_normal(cube.shape)).astype(np.float32)


def measure(bands: int, rows: int, columns: int, repeats: int, memory: int) -> dict[str, Any]:
    model = network()
    fast = FastHsie(model)
    cube = noisy_cube(bands, rows, columns)
    windows, _ = band_window(bands, model.neighbours)
    planes = torch.from_numpy(cube)[None]
    seconds: dict[str, list[float]] = {"straight": [], "fast": [], "default": []}
    difference, largest = 0.0, 0.0
    for turn in range(repeats + 1):
        total = dict.fromkeys(seconds, 0.0)
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
        start = time.perf_counter()
        for _ in run("hsie", ArraySource(cube), settings={}, memory=memory, facts={}):
            pass
        total["default"] = time.perf_counter() - start
        if turn:
            for name, value in total.items():
                seconds[name].append(value)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "bands": bands, "rows": rows, "columns": columns, "threads": torch.get_num_threads(), "repeats": repeats,
        "straight_s": round(median["straight"], 2), "fast_s": round(median["fast"], 2),
        "default_s": round(median["default"], 3),
        "ratio": round(median["straight"] / median["fast"], 2),
        "ratios": [round(one / other, 2) for one, other in zip(seconds["straight"], seconds["fast"], strict=True)],
        "ratio_of_default": round(median["straight"] / median["default"], 1),
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
