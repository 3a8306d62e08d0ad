"""Compile every Triton kernel of the image operators for each GPU, with every tuning choice; needs no GPU.

Run as a script with TRITON_INTERPRET unset; prints one JSON document: a row for each kernel, variant, choice and target
with registers, spills and shared memory in bytes.
"""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import triton
from attnkit_kernels.image.laplacian import triton as laplacian
from attnkit_kernels.image.local_laplacian import triton as local_laplacian
from attnkit_kernels.image.lut3d import triton as lut3d
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
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
HALF_KERNELS = ("down_kernel", "up_kernel", "lookup_kernel", "remap_kernel")


def work() -> Iterator[tuple[Any, dict[str, Any], str, triton.Config, str]]:
    """Kernel, constants, pointer type, tuning choice and target of everything that is compiled."""
    for kernel, variants in VARIANTS:
        half = ["*bf16", "*fp16"] if kernel.fn.__name__ in HALF_KERNELS else []
        for constants, config, target in itertools.product(variants, kernel.configs, TARGETS):
            for pointer in ["*fp32", *(half if constants is variants[0] else [])]:
                yield kernel, constants, pointer, config, target
    for kernel, constants in ONES:
        yield kernel, constants, "*fp32", kernel.configs[0], "sm_90"


def source(function: Any, constants: dict[str, Any], pointer: str) -> ASTSource:
    """The kernel with types for its arguments, pointers aligned as torch aligns them."""
    types = {}
    for name in function.arg_names:
        if name in constants:
            types[name] = "constexpr"
        elif name.startswith("p_"):
            types[name] = pointer
        else:
            types[name] = "fp32" if name in FLOATS else "i32"
    aligned = {
        (position,): [["tt.divisibility", 16]]
        for position, name in enumerate(function.arg_names)
        if types[name].startswith("*")
    }
    return ASTSource(fn=function, signature=types, constexprs=constants, attrs=aligned)


def used_by_cuda(compiled: Any) -> dict[str, int]:
    """Registers, spilled bytes and shared memory as the assembler of NVIDIA reports them for the finished binary."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as binary:
        binary.write(compiled.asm["cubin"])
        binary.flush()
        command = [str(tool), "--dump-resource-usage", binary.name]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    counts = {key: int(value) for key, value in re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", report)}
    return {"registers": counts["REG"], "spilled": counts["STACK"] + counts["LOCAL"], "shared": counts["SHARED"]}


def used_by_hip(compiled: Any) -> dict[str, int]:
    """Registers, spills and shared memory from the metadata in the assembly for AMD."""
    text = compiled.asm["amdgcn"]

    def count(key: str) -> int:
        found = re.search(rf"\.{key}:\s+(\d+)", text)
        assert found is not None, f"no {key} in the assembly"
        return int(found.group(1))

    spilled = count("vgpr_spill_count") + count("sgpr_spill_count") + count("private_segment_fixed_size")
    return {"registers": count("vgpr_count"), "spilled": spilled, "shared": count("group_segment_fixed_size")}


def main() -> None:
    """Compile all and print the rows."""
    rows = []
    for kernel, constants, pointer, config, name in work():
        target = TARGETS[name]
        described = source(kernel.fn, {**constants, **config.kwargs}, pointer)
        compiled = triton.compile(described, target=target, options={"num_warps": config.num_warps})
        used = used_by_hip(compiled) if target.backend == "hip" else used_by_cuda(compiled)
        row = {"kernel": kernel.fn.__name__, "constants": constants, "pointer": pointer, "target": name}
        rows.append({**row, "block": config.kwargs["BLOCK"], "warps": config.num_warps, **used})
    json.dump(rows, sys.stdout)


if __name__ == "__main__":
    main()
