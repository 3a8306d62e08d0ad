"""Peak memory of block-sparse attention on the CPU by the number of tokens, each in a fresh process.

    python tests/bench/softmax_memory.py [--tokens 16384,65536] [--heads 8] [--dim 64] [--block 128] [--json]

Radial forward in float32; asked: 65536 tokens fit in 4 GB, everything of the process counted. Scores of all pairs
alone would take heads x tokens^2 x 4 bytes.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any


def child(tokens: int, heads: int, dim: int, block: int) -> dict[str, Any]:
    import torch
    from attnkit_kernels.patterns import pattern
    from attnkit_kernels.softmax import attention

    loaded = peak()
    start = time.perf_counter()
    block_map = pattern("radial", decay=0.2).block_map((tokens // 128, 128), block, block)
    built = time.perf_counter()
    query, key, value = torch.randn(3, 1, tokens, heads, dim, generator=torch.Generator().manual_seed(0))
    held = time.perf_counter()
    with torch.no_grad():
        output = attention(query, key, value, block_map=block_map, impl="torch").output
    done = time.perf_counter()
    assert bool(torch.isfinite(output).all())
    return {
        "tokens": tokens, "p": round(block_map.density, 4), "imports_gb": loaded, "peak_gb": peak(),
        "tensors_gb": round(4 * query.numel() * 4 / 1e9, 2), "all_scores_gb": round(heads * tokens**2 * 4 / 1e9, 1),
        "map_building_s": round(built - start, 2), "forward_s": round(done - held, 2),
    }  # fmt: skip


def peak() -> float:
    """Greatest resident size of this process so far, GB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", default="16384,65536")
    for name, default in (("heads", 8), ("dim", 64), ("block", 128)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sizes = (arguments.heads, arguments.dim, arguments.block)
    if arguments.child:
        print(json.dumps(child(int(arguments.tokens), *sizes)))
        return
    rows = []
    for tokens in arguments.tokens.split(","):
        given = [f"--{name}={size}" for name, size in zip(("heads", "dim", "block"), sizes, strict=True)]
        command = [sys.executable, __file__, "--child", "--tokens", tokens, *given]
        rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    if arguments.json:
        print(json.dumps(rows, indent=1))
        return
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))


if __name__ == "__main__":
    main()
