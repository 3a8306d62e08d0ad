"""Every static pattern through an implementation of the engine, forward and backward, beside the reference.

As a script: `TRITON_INTERPRET=1 python pattern_engines.py triton` prints the largest difference of each case as JSON.
"""

import json
import sys

import torch
from attnkit_kernels.patterns import pattern
from attnkit_kernels.softmax import attention
from attnkit_kernels.softmax.variants.halo import halo_attention

FLAT, VIDEO = (2, 6, 8), (6, 4, 4)
# name -> pattern, settings, canvas, tile
CASES = {
    "dense": ("dense", {}, FLAT, 64),
    "causal": ("causal", {}, FLAT, 64),
    "sliding": ("sliding", {"window": 40}, FLAT, 32),
    "sliding with sink": ("sliding", {"window": 20, "sink": 5, "causal": False}, FLAT, 32),
    "streaming": ("streaming", {"sink": 10, "window": 30, "last": 3}, FLAT, 32),
    "neighborhood": ("neighborhood", {"window": (2, 3, 5), "causal": (True, False, False)}, FLAT, (2, 4, 4)),
    "neighborhood with stride": ("neighborhood", {"window": (2, 3, 4), "stride": (2, 3, 4)}, FLAT, (2, 2, 4)),
    "neighborhood with dilation": ("neighborhood", {"window": 2, "dilation": (1, 3, 2)}, FLAT, (2, 2, 4)),
    "neighborhood in runs": ("neighborhood", {"window": (2, 3, 5)}, FLAT, 32),
    "radial": ("radial", {"decay": 0.2}, VIDEO, 16),
    "radial of the paper": ("radial", {"rule": "paper"}, VIDEO, 16),
    "radial with text": ("radial", {"model": "hunyuan", "text": 7}, VIDEO, 32),
    "blocked": ("blocked", {"window": (2, 3, 4)}, FLAT, None),
    "grid": ("grid", {"grid": (2, 3, 4)}, FLAT, None),
    "halo": ("halo", {"block": (2, 3, 8), "halo": 1}, FLAT, None),
    "halo of zeros": ("halo", {"block": (2, 3, 8), "halo": (0, 1, 2), "pad": "zero"}, FLAT, None),
    "random blocks": ("random_blocks", {"density": 0.4, "heads": 2}, FLAT, 32),
}


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def results(run, tensors):
    """Output, lse, and gradients of a fixed weighting of the output."""
    output, lse = run()
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(9))
    return [output.detach(), lse.detach(), *torch.autograd.grad((output * weights).sum(), tensors)]


def difference(run, impl, tensors) -> float:
    pairs = zip(results(lambda: run(impl), tensors), results(lambda: run("reference"), tensors), strict=True)
    return max(float((got - expected).nan_to_num(0, 0, 0).abs().max()) for got, expected in pairs)


def case(name: str, heads: int = 2):
    """(block map, [query, key, value]) with `heads` heads, or those of the map, over one of keys."""
    kind, settings, canvas, tile = CASES[name]
    block_map = pattern(kind, **settings).block_map(canvas, tile)
    heads = max(heads, block_map.heads)
    queries, keys = block_map.query_tokens + block_map.tail_queries, block_map.key_tokens + block_map.tail_keys
    return block_map, [normal(1, queries, heads, 16, seed=1), *(normal(1, keys, 1, 16, seed=seed) for seed in (2, 3))]


def pattern_difference(name: str, impl: str) -> float:
    # what is interpreted costs by the head, and groups of heads are tests/kernels/softmax/test_triton.py's
    block_map, tensors = case(name, 1 if impl == "triton" else 2)
    return difference(lambda chosen: attention(*tensors, block_map=block_map, impl=chosen), impl, tensors)


def relative_halo_difference(impl: str) -> float:
    """HaloNet's attention with its relative terms, in the zero border too."""
    tensors = [normal(1, 32, 2, 16, seed=seed) for seed in (1, 2, 3)] + [normal(11, 16, seed=4), normal(11, 16, seed=5)]

    def run(chosen):
        query, key, value, height, width = tensors
        return halo_attention(
            query, key, value, canvas=(4, 8), block=4, halo=1, height_table=height, width_table=width, impl=chosen
        )

    return difference(run, impl, tensors)


if __name__ == "__main__":
    torch.set_num_threads(1)
    found = {name: pattern_difference(name, sys.argv[1]) for name in CASES}
    print(json.dumps(found | {"relative halo": relative_halo_difference(sys.argv[1])}))
