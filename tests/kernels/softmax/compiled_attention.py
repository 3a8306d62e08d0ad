"""The Triton kernels of attention compiled for GPUs that are not there, with every tuning choice.

Run as a script, without TRITON_INTERPRET; prints one JSON document: a row for each compiled kernel. Heads of 64 and 128
in float32 and bfloat16 with a map of boxes; with --all every kind of map, block, bias and size (some 10 minutes).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict

from attnkit_kernels.ahead_of_time import TARGETS
from attnkit_kernels.softmax.triton_variants import NAMES, Variant, compiled


def usual() -> Iterator[Variant]:
    for name in NAMES:
        for dtype in ("float32", "bfloat16"):
            for dim in (64, 128):
                yield Variant(name, dim, dtype)


def others() -> Iterator[Variant]:
    for name in NAMES:
        for dtype, dims in (("bfloat16", (64, 128, 256)), ("float32", (64, 128))):
            for dim in dims:
                odd = dim - 24
                if dim == 256:
                    yield Variant(name, dim, dtype)
                yield Variant(name, dim, dtype, "none")
                yield Variant(name, dim, dtype, "boxes", 3, ordered=True)
                yield Variant(name, dim, dtype, "tiles", ordered=True)
                yield Variant(name, odd, dtype, "boxes", 3, ordered=True, blocks=(100, 100))
                yield Variant(name, dim, dtype, "boxes", 2, "indexed", ordered=True)
                yield Variant(name, odd, dtype, "tiles", 1, "dense", ordered=True, blocks=(100, 100))
            # small heads and blocks, and values wider than keys
            yield Variant(name, 16, dtype, "boxes", 2, ordered=True, blocks=(16, 16))
            yield Variant(name, 64, dtype, "boxes", 2, ordered=True, blocks=(64, 64))
            yield Variant(name, 64, dtype, "tiles", ordered=True, width=128)
        yield Variant(name, 64, "float16")


def main() -> None:
    rows = []
    for variant in [*usual(), *(others() if "--all" in sys.argv else ())]:
        for target in TARGETS:
            for config, used in compiled(variant, target):
                choice = {**config.kwargs, "warps": config.num_warps, "stages": config.num_stages}
                rows.append({**asdict(variant), "target": target, "choice": choice, **asdict(used)})
                if "--watch" in sys.argv and (used.spilled or not used.matrix):
                    print(rows[-1], file=sys.stderr, flush=True)
    json.dump(rows, sys.stdout)


if __name__ == "__main__":
    main()
