"""Whole processes, file to file: `attnkit tonemap` beside pfstools on 1024x768 Radiance files.

    python tests/bench/tonemap_process.py [--rounds 3] [--files 20] [--operators mai11,reinhard02] [--json]

One file: each program from its start to the written PNG, interleaved, medians. A folder of --files such files: seconds
per file in one process of ours, and in one pfstools pipeline over a frame pattern. The aims: one file at most 0.5 s
behind pfstools' fastest operator (limit 1.5 s), a folder at least 3 times faster per file.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

# operators that need gamma correction afterwards, by their manual pages
GAMMA = {"drago03", "reinhard02", "reinhard05", "durand02"}
DEFAULT_OPERATORS = "mai11,drago03,reinhard02,mantiuk08"


def make_file(path: Path, seed: int) -> None:
    """A 1024x768 Radiance file over sixteen stops, by formula, with texture."""
    y, x = np.mgrid[:768, :1024].astype(np.float32)
    stops = 5 * np.sin(x / 117 + seed) * np.cos(y / 91) + 3 * np.sin((x + 2 * y) / 47)
    stops += 0.3 * np.random.default_rng(seed).standard_normal(stops.shape, dtype=np.float32)
    cv2.imwrite(str(path), np.exp2(stops)[..., None] * np.array([0.55, 0.8, 1.0], np.float32))


def pfstools(operator: str, source: str, target: str, frames: int | None = None) -> str:
    pattern = f" --frames 0:{frames - 1}" if frames else ""
    gamma = " | pfsgamma -g 2.2" if operator in GAMMA else ""
    return f"pfsin {source}{pattern} | pfstmo_{operator}{gamma} | pfsout {target}{pattern}"


def attnkit(source: Path, target: Path) -> list[str]:
    return [sys.executable, "-m", "attnkit", "tonemap", str(source), "--out", f"{target}", "--overwrite", "--quiet"]


def timed(command: list[str] | str) -> float:
    start = time.perf_counter()
    subprocess.run(
        command, shell=isinstance(command, str), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return time.perf_counter() - start


def measure(folder: Path, files: int, rounds: int, operators: list[str]) -> dict[str, object]:
    scenes, ours, theirs = folder / "scenes", folder / "ours", folder / "theirs"
    for part in (scenes, ours, theirs):
        part.mkdir()
    for at in range(files):
        make_file(scenes / f"f{at:03d}.hdr", at)
    one = scenes / "f000.hdr"
    commands: dict[str, list[str] | str] = {"attnkit": attnkit(one, ours / "one.png")}
    for operator in operators:
        commands[operator] = pfstools(operator, str(one), str(theirs / f"{operator}.png"))
    first = timed(commands["attnkit"])
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            seconds[name].append(timed(command))
    single = {name: statistics.median(values) for name, values in seconds.items()}
    fastest = min(operators, key=lambda name: single[name], default=None)
    # the same frames a second time, so that neither side meets a cold disk
    batch = {"attnkit": statistics.median(timed(attnkit(scenes, ours)) for _ in range(2)) / files}
    for operator in operators[:1] if fastest is None else [fastest]:
        command = pfstools(operator, str(scenes / "f%03d.hdr"), str(theirs / "f%03d.png"), files)
        batch[operator] = statistics.median(timed(command) for _ in range(2)) / files
    return {
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "one_file_seconds": single,
        "first_run_seconds": first,
        "fastest_pfstools": fastest,
        "folder_files": files,
        "folder_seconds_per_file": batch,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=20)
    parser.add_argument("--operators", default=DEFAULT_OPERATORS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    operators = [name for name in options.operators.split(",") if shutil.which(f"pfstmo_{name}")]
    with tempfile.TemporaryDirectory(prefix="attnkit-bench-") as folder:
        result = measure(Path(folder), options.files, options.rounds, operators)
    if options.json:
        print(json.dumps(result, indent=1))
        return
    single: dict[str, float] = result["one_file_seconds"]  # type: ignore[assignment]
    batch: dict[str, float] = result["folder_seconds_per_file"]  # type: ignore[assignment]
    print(f"{result['cores']} cores, load {result['load']:.1f}")
    print(f"one 1024x768 file, start to PNG, median of {options.rounds}")
    for name, value in single.items():
        print(f"  {name:12} {value:6.2f} s")
    print(f"  {'first run':12} {result['first_run_seconds']:6.2f} s")
    fastest = result["fastest_pfstools"]
    if fastest is None:
        print("pfstools is not installed: nothing to compare with")
    else:
        gap = single["attnkit"] - single[str(fastest)]
        print(f"  behind the fastest of pfstools: {gap:+.2f} s (limit +1.5, aim +0.5)")
    print(f"{options.files} files, seconds per file")
    for name, value in batch.items():
        print(f"  {name:12} {value:6.3f} s  ours is {value / batch['attnkit']:.1f} times as fast")


if __name__ == "__main__":
    main()
