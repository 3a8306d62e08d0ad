"""Cost models of two GPUs, fitted to times that others have published; nothing here was measured by attnkit.

`python -m attnkit_kernels.simulate.published FOLDER` fits them anew; the files in `costs/` are what it writes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..patterns.neighborhood import Neighborhood
from .cost import CostModel, Counts
from .neighborhood import simulate
from .tiles import TilePair

__all__ = ["fit_published", "published_samples"]

DIM = 128

# canvas, window, heads. The one-dimensional case is timed for one head: with it dense attention runs at the 700 TFLOP/s
# of the others
_FLUX = ((256, 256), (80, 80), 24)
_HUNYUAN = ((30, 48, 80), (18, 24, 24), 24)
_LINE = ((32768,), (2048,), 1)
# stride (None is dense attention) -> milliseconds, forward, half precision: profiler samples of NATTEN's manual
_H100: Sequence[tuple[tuple, TilePair, dict[tuple[int, ...] | None, float]]] = (
    (_FLUX, ((16, 8), (16, 8)), {None: 97.4, (1, 1): 16.2, (16, 16): 7.9}),
    (_HUNYUAN, ((2, 8, 8), (2, 8, 8)), {None: 283.3, (1, 1, 1): 79.0, (16, 8, 8): 23.4}),
    (_LINE, ((128,), (128,)), {None: 0.787, (1,): 0.0948, (256,): 0.0627, (2048,): 0.0593}),
)
_B200: Sequence[tuple[tuple, TilePair, dict[tuple[int, ...] | None, float]]] = (
    (_FLUX, ((16, 16), (16, 8)), {None: 43.3, (1, 1): 8.7, (16, 16): 4.1}),
    (_HUNYUAN, ((4, 8, 8), (2, 8, 8)), {None: 135.3, (1, 1, 1): 42.2, (16, 8, 8): 13.0}),
)
_TIMES = {"gna-h100": ("NVIDIA H100", _H100), "gna-b200": ("NVIDIA B200", _B200)}
_SOURCE = (
    "not measured by attnkit: fitted to the profiler samples of the NATTEN manual (Generalized Neighborhood Attention, "
    "arXiv 2504.16922) for FLUX.1-dev 256x256 and HunyuanVideo 30x48x80 (24 heads) {more}at head dimension 128, by "
    "python -m attnkit_kernels.simulate.published; the tiles are attnkit's assumption"
)


def published_samples(name: str) -> list[tuple[Counts, float]]:
    """(counts, seconds) of every published time of a device."""
    samples = []
    for (canvas, window, heads), tiles, times in _TIMES[name][1]:
        for stride, milliseconds in times.items():
            simulation = simulate(canvas, Neighborhood(window, stride or (1,)), *tiles)
            work = simulation.dense_work if stride is None else simulation.work
            samples.append((work(heads, DIM), milliseconds * 1e-3))
    return samples


def fit_published(name: str) -> CostModel:
    """The cost model of a device, from its published times. `name` is gna-h100 or gna-b200."""
    device, times = _TIMES[name]
    more = "and a line of 32768 tokens (1 head) " if len(times) > 2 else ""
    about = {"device": device, "dtype": "half", "impl": "NATTEN's fused kernel", "source": _SOURCE.format(more=more)}
    model = CostModel.fit(published_samples(name), **about)
    # what is beyond six digits is noise of the solver, and differs between machines
    rounded = {
        field: float(f"{getattr(model, field):.6g}")
        for field in ("launch_ns", "row_ns", "full_ns", "partial_ns", "median_error", "worst_error")
    }
    return replace(model, **rounded)  # type: ignore[arg-type]


def main(folder: str) -> None:
    for name in _TIMES:
        path = Path(folder) / f"{name}.json"
        model = fit_published(name)
        model.save(path)
        print(f"{path}: median error {model.median_error:.1%}, worst {model.worst_error:.1%}")


if __name__ == "__main__":
    main(*sys.argv[1:])
