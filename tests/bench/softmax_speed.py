"""Block-sparse attention on the CPU beside dense scaled_dot_product_attention, in one interleaved run.

    python tests/bench/softmax_speed.py [--tokens 16384] [--heads 8] [--dim 64] [--repeats 5] [--block 256] [--json]

For each pattern: p = visited blocks of all (partial counted whole), the speed-up over dense SDPA forward and
forward + backward (medians), and what was asked: 0.8 / p (radial, GNA with stride = tile, blocked), 0.75 / p (random
blocks), 0.6 / p forward + backward, 0.9 at density 100 %. Building the map and bringing the tokens into its order
stand in columns of their own: `kernel_of_bound` is without them, `forward_of_bound` with the order. Random blocks are
of 128 whatever --block says.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from attnkit_kernels.patterns import pattern
from attnkit_kernels.softmax import attention

from attnkit.tasks.bench_kernel.kernels import permutation

FORWARD = {"dense": 0.9, "random_blocks": 0.75, "neighborhood, stride 1": None}


def cases(tokens: int, block: int) -> dict[str, tuple[Any, tuple[int, ...], Any]]:
    """Name -> pattern, canvas, tile; canvases of 1024 positions a frame, about a tenth of the blocks visited."""
    frames, side = tokens // 1024, 32
    canvas = (frames, side, side)
    tile = (block // 64, 8, 8)
    window = (max(tile[0], frames // 2 // tile[0] * tile[0]), 16, 16)
    # every visited tile of the interior is full: three tiles of 8 in a window, stride 8
    wide, aligned = (max(1, tokens // 4096), 64, 64), (max(1, tokens // 4096), 24, 24)
    flat = (min(tile[0], wide[0]), 8, 8 * tile[0] // min(tile[0], wide[0]))
    steps = (flat[0], 8, 8)
    return {
        "dense": (pattern("dense"), (tokens,), block),
        # frames of 128 positions: with larger ones this many tokens are too few frames to be sparse
        "radial": (pattern("radial", decay=0.2), (tokens // 128, 128), block),
        "neighborhood, stride = tile": (pattern("neighborhood", window=aligned, stride=steps), wide, flat),
        "neighborhood, stride 1": (pattern("neighborhood", window=aligned), wide, flat),
        "blocked": (pattern("blocked", window=window), canvas, tile),
        "random_blocks": (pattern("random_blocks", density=0.1), (tokens,), min(block, 128)),
    }


def clock(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def medians(works: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    for work in works.values():
        work()
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            seconds[name].append(clock(work))
    return {name: statistics.median(values) for name, values in seconds.items()}


def measure(tokens: int, heads: int, dim: int, block: int, repeats: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    query, key, value, upstream = (torch.randn(1, tokens, heads, dim, generator=generator) for _ in range(4))
    maps, building = {}, {}
    for name, (made, canvas, tile) in cases(tokens, block).items():
        start = time.perf_counter()
        maps[name] = made.block_map(canvas, tile, tile)
        building[name] = time.perf_counter() - start

    def sdpa(*tensors: torch.Tensor) -> torch.Tensor:
        found = torch.nn.functional.scaled_dot_product_attention(*(x.transpose(1, 2) for x in tensors))
        return found.transpose(1, 2)

    def with_gradients(run: Callable[..., torch.Tensor]) -> Callable[[], Any]:
        def work() -> Any:
            tensors = [x.detach().requires_grad_() for x in (query, key, value)]
            return torch.autograd.grad(run(*tensors), tensors, upstream)

        return work

    runs = {name: (lambda *x, m=m: attention(*x, block_map=m, impl="torch").output) for name, m in maps.items()}
    works: dict[str, Callable[[], Any]] = {"sdpa": lambda: sdpa(query, key, value)}
    works |= {name: (lambda run=run: run(query, key, value)) for name, run in runs.items()}
    with torch.no_grad():
        forward = medians(works, repeats)
    both = medians(
        {"sdpa": with_gradients(sdpa)} | {n: with_gradients(r) for n, r in runs.items()}, max(1, repeats // 2)
    )
    rows = []
    for name, block_map in maps.items():
        p = block_map.density
        order = permutation((query, key, value), block_map)
        permuting = 0.0 if order is None else statistics.median(clock(order) for _ in range(5))
        share = FORWARD.get(name, 0.8)
        rows.append(
            {
                "pattern": name,
                "p": round(p, 4),
                "partial_share": round(block_map.partial_count / max(block_map.visited, 1), 3),
                "forward_s": round(forward[name], 4),
                "forward_speedup": round(forward["sdpa"] / forward[name], 2),
                "kernel_of_bound": round(forward["sdpa"] / (forward[name] - permuting) * p, 3),
                "forward_of_bound": round(forward["sdpa"] / forward[name] * p, 3),
                "asked_of_bound": share,
                "fwdbwd_speedup": round(both["sdpa"] / both[name], 2),
                "fwdbwd_of_bound": round(both["sdpa"] / both[name] * p, 3),
                "map_building_s": round(building[name], 4),
                "permutation_s": round(permuting, 4),
                "total_s": round(building[name] + forward[name], 4),
            }
        )
    return {
        "tokens": tokens, "heads": heads, "dim": dim, "block": block, "threads": torch.get_num_threads(),
        "sdpa_forward_s": round(forward["sdpa"], 4), "sdpa_fwdbwd_s": round(both["sdpa"], 4), "rows": rows,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("tokens", 16384), ("heads", 8), ("dim", 64), ("block", 256), ("repeats", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = measure(arguments.tokens, arguments.heads, arguments.dim, arguments.block, arguments.repeats)
    if arguments.json:
        print(json.dumps(found, indent=1))
        return
    print(f"dense SDPA: forward {found['sdpa_forward_s']} s, forward + backward {found['sdpa_fwdbwd_s']} s")
    names = list(found["rows"][0])
    print("  ".join(names))
    for row in found["rows"]:
        print("  ".join(str(row[name]).ljust(len(name)) for name in names))


if __name__ == "__main__":
    main()
