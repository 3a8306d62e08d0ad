"""A cost model fitted on this device against maps that it has not seen: median error 15 %, worst 35 % at most.

    python tests/bench/cost_model.py [--rounds 5] [--cost FILE.json]

Fits as `attnkit bench-kernel --fit-cost` does, then times other maps of all patterns and predicts them. Run it on a
machine that does nothing else. Ends with 1 where the errors are larger than they may be.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

from attnkit.tasks.bench_kernel.fitting import DESIGN, Measured, fit_cost, one, time_maps
from attnkit.tasks.bench_kernel.measuring import clock_for

MEDIAN, WORST = 0.15, 0.35
UNSEEN: tuple[Measured, ...] = (
    one("neighborhood", (32, 64), window=(16, 16), stride=(8, 8)),
    one("neighborhood", (48, 64), 4, window=(13, 13)),
    one("neighborhood", (64, 64), window=(40, 48), stride=(8, 16)),
    one("neighborhood", (64, 96), window=(24, 16), stride=(4, 4)),
    one("neighborhood", (8, 16, 24), 3, window=(6, 8, 8), stride=(2, 8, 8)),
    one("neighborhood", (8, 16, 32), window=(5, 7, 9)),
    one("neighborhood", (16, 16, 32), window=(6, 8, 16), stride=(2, 8, 8)),
    one("neighborhood", (6000,), window=(700,), stride=(128,)),
    one("radial", (6, 16, 32), 4, decay=0.4, runs=True),
    one("radial", (16, 16, 24), decay=0.3, runs=True),
    one("radial", (16, 16, 32), 1, decay=0.8, runs=True),
    one("radial", (4, 32, 32), 3, decay=0.2, runs=True),
    one("blocked", (32, 64), 6, window=(8, 32)),
    one("blocked", (48, 96), window=(16, 16)),
    one("blocked", (64, 96), 3, window=(32, 48)),
    one("sliding", (3000,), 4, window=200),
    one("sliding", (5120,), window=640),
    one("sliding", (8192,), window=500, causal=True),
    one("sliding", (6144,), 3, window=900),
    one("random_blocks", (2560,), 4, density=0.25, seed=5),
    one("random_blocks", (4096,), 3, density=0.12, seed=6),
    one("random_blocks", (6144,), density=0.2, seed=7),
    one("random_blocks", (8192,), density=0.1, seed=8),
    one("causal", (3072,), 3),
    one("dense", (2500,), 3),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cost", type=Path, help="keep the fitted model here")
    arguments = parser.parse_args()
    assert not set(UNSEEN) & set(DESIGN)
    clock = clock_for("cpu")
    model = fit_cost("cpu", clock, rounds=arguments.rounds)
    if arguments.cost is not None:
        model.save(arguments.cost)
    print(model)
    errors = []
    for measured, (counts, seconds) in zip(UNSEEN, time_maps(UNSEEN, "cpu", clock, arguments.rounds), strict=True):
        predicted = model.predict(counts)
        errors.append(abs(predicted / seconds - 1))
        words = " ".join(f"{key}={value}" for key, value in measured.settings)
        shape = "x".join(map(str, measured.canvas))
        print(
            f"{measured.pattern:14}{shape:>10} heads {measured.heads}  {1e3 * seconds:8.2f} ms measured "
            f"{1e3 * predicted:8.2f} ms predicted {100 * (predicted / seconds - 1):+6.1f} %  {words}"
        )
    median, worst = statistics.median(errors), max(errors)
    print(f"{len(errors)} maps not used for the fit: median error {median:.1%}, worst {worst:.1%}")
    return int(median > MEDIAN or worst > WORST)


if __name__ == "__main__":
    sys.exit(main())
