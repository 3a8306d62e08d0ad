"""Peak memory and time of `attnkit hsi-enhance` on a large cube file, whole process.

    python tests/bench/hsi_scale.py [--size 2000] [--bands 200] [--method hsie] [--folder DIR] [--json]

Writes a float32 ENVI cube (bip) of `size` x `size` x `bands`: five smooth spectra with smooth shares, and noise; the
result takes as much room again. Asked: below 1.5 GB resident, pages of the mapped files counted.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

SPECTRA = 5


def write_cube(folder: Path, size: int, bands: int) -> Path:
    header = folder / "large.hdr"
    header.write_text(
        f"ENVI\nsamples = {size}\nlines = {size}\nbands = {bands}\nheader offset = 0\nfile type = ENVI Standard\n"
        "data type = 4\ninterleave = bip\nbyte order = 0\n"
    )
    draw = np.random.default_rng(0)
    position = np.linspace(0, 1, bands)
    spectra = 0.02 + 0.01 * np.sin(position * draw.uniform(2, 9, (SPECTRA, 1)) + draw.uniform(0, 6, (SPECTRA, 1)))
    columns = np.arange(size) / 50
    with header.with_suffix(".dat").open("wb") as data:
        for row in range(size):
            shares = np.stack([1 + np.sin(columns * (k + 1) / 3 + row / (20 + 9 * k)) for k in range(SPECTRA)], axis=1)
            line = shares / SPECTRA @ spectra
            line += 0.003 * draw.standard_normal(line.shape)
            data.write(line.astype("<f4").tobytes())
    return header


def measure(size: int, bands: int, method: str, folder: Path) -> dict[str, Any]:
    cube = write_cube(folder, size, bands)
    command = [sys.executable, "-m", "attnkit", "hsi-enhance", str(cube), "--out", str(folder / "result.hdr")]
    started = time.perf_counter()
    subprocess.run([*command, "--method", method, "--scale", "1", "--gain", "15", "--quiet"], check=True)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    gigabytes = size * size * bands * 4 / 1e9
    return {
        "size": f"{size}x{size}", "bands": bands, "method": method, "cube_gb": gigabytes, "seconds": round(seconds, 1),
        "peak_resident_gb": round(peak / 1e9, 3), "seconds_per_megasample": round(seconds * 1e6 / size**2 / bands, 4),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=2000)
    parser.add_argument("--bands", type=int, default=200)
    parser.add_argument("--method", default="hsie")
    parser.add_argument("--folder", type=Path, help="where the cubes lie; a temporary folder when not given")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=given.folder))
    try:
        found = measure(given.size, given.bands, given.method, folder)
    finally:
        shutil.rmtree(folder)
    if given.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:24} {value}")


if __name__ == "__main__":
    main()
