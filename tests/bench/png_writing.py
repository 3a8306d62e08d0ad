"""Writing a PNG: ours beside OpenCV at its fastest settings for photographs, and beside Pillow at its default.

    python tests/bench/png_writing.py FILE... [--rounds 7] [--depth 8|16]

FILE is a picture that OpenCV reads, or a folder of PNGs. All encoders run on one
thread, interleaved; medians of milliseconds, and bytes as a share of OpenCV's.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from attnkit.pictures.png import encode


def opencv(values: np.ndarray) -> bytes:
    deep = values.dtype == np.uint16
    options = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
    options += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_SUB if deep else cv2.IMWRITE_PNG_FILTER_AVG]
    return cv2.imencode(".png", cv2.cvtColor(values, cv2.COLOR_RGB2BGR), options)[1].tobytes()


def pillow(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "PNG")
    return stream.getvalue()


def ours(values: np.ndarray) -> bytes:
    return encode(values, None, space="srgb", exif=None, settings=None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--depth", type=int, choices=(8, 16), default=8)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    encoders: dict[str, Callable[[np.ndarray], bytes]] = {"opencv": opencv, "attnkit": ours}
    if options.depth == 8:
        # Pillow writes no colour of 16 bits
        encoders["pillow"] = pillow
    print(f"{'file':24} {'size':>11}  " + "  ".join(f"{name:>15}" for name in encoders))
    files = [file for given in options.files for file in (sorted(given.glob("*.png")) if given.is_dir() else [given])]
    for file in files:
        read = cv2.imread(str(file), cv2.IMREAD_COLOR | (cv2.IMREAD_ANYDEPTH if options.depth == 16 else 0))
        values = cv2.cvtColor(read, cv2.COLOR_BGR2RGB)
        seconds: dict[str, list[float]] = {name: [] for name in encoders}
        sizes: dict[str, int] = {}
        for _ in range(options.rounds):
            for name, encoder in encoders.items():
                start = time.perf_counter()
                sizes[name] = len(encoder(values))
                seconds[name].append(time.perf_counter() - start)
        medians = {name: 1e3 * statistics.median(times) for name, times in seconds.items()}
        line = (f"{medians[name]:8.1f} ms {sizes[name] / sizes['opencv']:4.0%}" for name in encoders)
        print(f"{file.name[:24]:24} {values.shape[1]:>5}x{values.shape[0]:<5}  " + "  ".join(line))


if __name__ == "__main__":
    main()
