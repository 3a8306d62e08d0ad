"""Bright cubes of materials that no training cube holds, for `attnkit eval hsi-enhance`.

    python tests/bench/hsi_held_out.py DATA OUT [--cubes 6]
    attnkit eval hsi-enhance OUT/*.npy --scale 1 --methods hsie,lowrank,mnf,gain

DATA holds the spectral library and the photographs of the training (see docs/commands.md, train hsi-enhance). The
materials are `HELD_OUT_MATERIALS`, the photographs those after the last one that is trained on; seeds are fixed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from attnkit.tasks.hsi_enhance.materials import LAST_TRAINING_PHOTOGRAPH
from attnkit.tasks.hsi_enhance.synthesis import read_library, synthesise

SIDE = 128
BANDS = (60, 100, 120, 150, 180, 200)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--cubes", type=int, default=6)
    given = parser.parse_args()
    library = read_library(next(given.data.rglob("*spectra.npz"))).part(held_out=True)
    photographs = sorted(
        path
        for path in given.data.rglob("*.jpg")
        if path.stem.isdigit() and int(path.stem) > LAST_TRAINING_PHOTOGRAPH + 50
    )
    given.out.mkdir(parents=True, exist_ok=True)
    for number in range(given.cubes):
        photograph = cv2.imread(str(photographs[number]), cv2.IMREAD_COLOR)[:, :, ::-1]
        small = cv2.resize(photograph, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
        top, left = (small.shape[0] - SIDE) // 2, (small.shape[1] - SIDE) // 2
        piece = small[top : top + SIDE, left : left + SIDE].astype(np.float32) / 255
        cube = synthesise(np.random.default_rng(9000 + number), library, piece, BANDS[number % len(BANDS)])
        path = given.out / f"held_out_{number}.npy"
        np.save(path, np.ascontiguousarray(cube.transpose(1, 2, 0)))
        print(path, cube.shape)


if __name__ == "__main__":
    main()
