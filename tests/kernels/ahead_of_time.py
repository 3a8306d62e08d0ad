"""Compile every Triton kernel of the image operators for each GPU, with every tuning choice; needs no GPU.

Run as a script with TRITON_INTERPRET unset; prints one JSON document: a row for each kernel, variant, choice and target
with registers, spills and shared memory in bytes.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import triton
from attnkit_kernels.ahead_of_time import TARGETS, compile
from attnkit_kernels.image.laplacian import triton as laplacian
from attnkit_kernels.image.local_laplacian import triton as local_laplacian
from attnkit_kernels.image.lut3d import triton as lut3d

FLOATS = {"sign", "value", "distance", "low", "high", "sigma", "shape", "beta"}

# constants of each kernel
VARIANTS: list[tuple[Any, list[dict[str, Any]]]] = [
    (laplacian.down_kernel, [{}]),
    (laplacian.up_kernel, [{"ADD": True}, {"ADD": False}]),
    (lut3d.lookup_kernel, [{"SIZE": 33, "TETRAHEDRAL": True}, {"SIZE": 33, "TETRAHEDRAL": False}]),
    (lut3d.lookup_backward_kernel, [{"SIZE": 33, "TETRAHEDRAL": True}, {"SIZE": 33, "TETRAHEDRAL": False}]),
    (local_laplacian.remap_kernel, [{"RELEASED": True}, {"RELEASED": False}]),
    (local_laplacian.remap_backward_kernel, [{"RELEASED": True}, {"RELEASED": False}]),
    (local_laplacian.curve_kernel, [{"GAUSSIAN": True}, {"GAUSSIAN": False}]),
    (local_laplacian.accumulate_kernel, [{}]),
]
# arguments of 1, which triton turns into constants: code that takes them for numbers of the device does not compile
ONES: list[tuple[Any, dict[str, Any]]] = [
    (laplacian.down_kernel, {"rows": 1, "small_rows": 1, "columns": 1, "small_columns": 1}),
    (laplacian.up_kernel, {"ADD": False, "rows": 1, "small_rows": 1, "columns": 1, "small_columns": 1}),
    (lut3d.lookup_kernel, {"SIZE": 2, "TETRAHEDRAL": False, "pixels": 1}),
    (lut3d.lookup_backward_kernel, {"SIZE": 2, "TETRAHEDRAL": True, "pixels": 1}),
    (local_laplacian.remap_kernel, {"RELEASED": True, "pixels": 1, "channels": 1, "sigma_pixel": 1}),
    (local_laplacian.remap_backward_kernel, {"RELEASED": True, "pixels": 1, "channels": 1, "strength_pixel": 1}),
    (local_laplacian.curve_kernel, {"GAUSSIAN": False, "count": 1}),
    (local_laplacian.accumulate_kernel, {"rows": 1, "small_rows": 1, "columns": 1, "small_columns": 1}),
]
HALVES = ("*bf16", "*fp16")
HALF_KERNELS = ("down_kernel", "up_kernel", "lookup_kernel", "remap_kernel")


def work() -> Iterator[tuple[Any, dict[str, Any], str, triton.Config, str]]:
    """Kernel, constants, pointer type, tuning choice and target of everything that is compiled."""
    for kernel, variants in VARIANTS:
        for constants, config, target in itertools.product(variants, kernel.configs, TARGETS):
            yield kernel, constants, "*fp32", config, target
        if kernel.fn.__name__ in HALF_KERNELS:
            # halves are widened as they are loaded and need no more than float32 does: one choice for each
            for (pointer, config), target in itertools.product(zip(HALVES, kernel.configs, strict=True), TARGETS):
                yield kernel, variants[0], pointer, config, target
    for kernel, constants in ONES:
        yield kernel, constants, "*fp32", kernel.configs[0], "sm_90"


def signature(function: Any, constants: dict[str, Any], pointer: str) -> dict[str, str]:
    """Types of the arguments that are no constants, told by their names."""
    types = {}
    for name in function.arg_names:
        if name not in constants:
            types[name] = pointer if name.startswith("p_") else "fp32" if name in FLOATS else "i32"
    return types


def main() -> None:
    """Compile all and print the rows."""
    rows = []
    for kernel, constants, pointer, config, name in work():
        types = signature(kernel.fn, {**constants, **config.kwargs}, pointer)
        used = asdict(compile(kernel, types, constants, config, name))
        row = {"kernel": kernel.fn.__name__, "constants": constants, "pointer": pointer, "target": name}
        rows.append({**row, "block": config.kwargs["BLOCK"], "warps": config.num_warps, **used})
    json.dump(rows, sys.stdout)


if __name__ == "__main__":
    main()
