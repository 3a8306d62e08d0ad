"""Compile Triton kernels for GPUs on a machine that has none, and read what the finished binaries use.

For tests and `bench-kernel --compile-only`. The process must run without TRITON_INTERPRET.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from .dispatch import interpreted

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
# shared memory of one program, bytes: what each target lets a kernel ask for
SHARED_LIMITS = {"sm_80": 166912, "sm_90": 232448, "sm_100": 232448, "gfx942": 65536}
# columns of the tensor memory of one processor of sm_100
TENSOR_MEMORY_LIMIT = 512
# a thread has at most 255 registers on NVIDIA's chips and 512 on AMD's, where both kinds of vector register count
REGISTER_LIMITS = {"sm_80": 255, "sm_90": 255, "sm_100": 255, "gfx942": 512}

_MATRIX = {
    "wgmma": r"wgmma\.mma_async",
    "tcgen05": r"tcgen05\.mma",
    "mma": r"\bmma\.sync",
    "mfma": r"v_mfma_",
}


@dataclass(frozen=True)
class Used:
    """What one compiled kernel uses.

    registers a thread; spilled, what a thread keeps in memory for want of registers, and shared memory, in bytes (what
    AMD's compiler keeps of scalar registers in vector registers counts there); tensor memory in columns (sm_100 only);
    matrix, the family of its matrix instructions ("wgmma", "tcgen05", "mma", "mfma", or "" for none) and how many there
    are; seconds of compilation.
    """

    registers: int
    spilled: int
    shared: int
    tensor_memory: int
    matrix: str
    matrix_count: int
    seconds: float


def is_hip(target: str) -> bool:
    """Whether a name of `TARGETS` is an AMD chip; ValueError for a name that is none of them."""
    if target not in TARGETS:
        raise ValueError(f"target: expected one of {', '.join(TARGETS)}, got {target!r}")
    return bool(TARGETS[target].backend == "hip")


def compile(
    kernel: Any, signature: Mapping[str, Any], constants: Mapping[str, Any], config: triton.Config, target: str
) -> Used:
    """Compile `kernel` for `target` with one tuning choice.

    kernel : a function decorated with triton.jit, or an autotuner around one
    signature : type of each argument that is no constant: "*bf16", "i32", "fp32"; ":16" at its end says divisible by
        16 (pointers are, without saying); None is an absent pointer, and an integer a number that is a constant, as
        triton makes one of 1; a tuple of all these is a tuple of arguments
    constants : value of each constexpr argument that the config does not set
    config : its kwargs, warps, stages and maxnreg; target : name in `TARGETS`

    Raises
    ------
    ValueError for an unknown target, or where kernels are interpreted in this process.
    """
    hip = is_hip(target)
    if interpreted():
        raise ValueError("compile: TRITON_INTERPRET is set in this process; expected a process without it")
    while not hasattr(kernel, "cache_key"):
        kernel = kernel.fn
    described = _source(kernel, signature, {**constants, **config.kwargs})
    options = {"num_warps": config.num_warps, "num_stages": config.num_stages}
    if config.maxnreg is not None:
        options["maxnreg"] = config.maxnreg
    started = time.perf_counter()
    compiled = triton.compile(described, target=TARGETS[target], options=options)
    seconds = time.perf_counter() - started
    registers, spilled = _used_by_hip(compiled) if hip else _used_by_cuda(compiled)
    matrix, count = _matrix(compiled.asm["amdgcn" if hip else "ptx"])
    memory = int(getattr(compiled.metadata, "tmem_size", 0) or 0)
    return Used(registers, spilled, compiled.metadata.shared, memory, matrix, count, seconds)


def _leaves(path: tuple[int, ...], kind: Any) -> Iterator[tuple[tuple[int, ...], Any]]:
    if isinstance(kind, tuple):
        for position, part in enumerate(kind):
            yield from _leaves((*path, position), part)
    else:
        yield path, kind


def _plain(kind: Any) -> Any:
    if isinstance(kind, tuple):
        parts = [_plain(part) for part in kind]
        # kernels read the fields of a named tuple by name
        return type(kind)(*parts) if hasattr(kind, "_fields") else tuple(parts)
    return kind.removesuffix(":16") if isinstance(kind, str) else "constexpr"


def _source(function: Any, signature: Mapping[str, Any], constants: Mapping[str, Any]) -> ASTSource:
    types: dict[str, Any] = {}
    values: dict[tuple[int, ...], Any] = {}
    attributes = {}
    for position, name in enumerate(function.arg_names):
        if name in constants:
            types[name] = "constexpr"
            values[position,] = constants[name]
            continue
        types[name] = _plain(signature[name])
        for path, kind in _leaves((position,), signature[name]):
            if not isinstance(kind, str):
                values[path] = kind
            elif kind.startswith("*") or kind.endswith(":16"):
                attributes[path] = [["tt.divisibility", 16]]
    return ASTSource(fn=function, signature=types, constexprs=values, attrs=attributes)


def _used_by_cuda(compiled: Any) -> tuple[int, int]:
    """Registers and spilled bytes as the assembler of NVIDIA reports them for the finished binary."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as binary:
        binary.write(compiled.asm["cubin"])
        binary.flush()
        command = [str(tool), "--dump-resource-usage", binary.name]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    counts = {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", report)}
    return counts["REG"], counts["STACK"] + counts["LOCAL"]


def _used_by_hip(compiled: Any) -> tuple[int, int]:
    """Vector registers and bytes of scratch memory from the metadata in the assembly for AMD."""
    text = compiled.asm["amdgcn"]

    def count(key: str) -> int:
        found = re.search(rf"\.{key}:\s+(\d+)", text)
        if found is None:
            raise RuntimeError(f"the assembly for AMD names no {key}")
        return int(found.group(1))

    # counts of spilled registers are of no use here: some go to other registers, and what does not is in this segment
    return count("vgpr_count"), count("private_segment_fixed_size")


def _matrix(text: str) -> tuple[str, int]:
    for name, pattern in _MATRIX.items():
        count = len(re.findall(pattern, text))
        if count:
            return name, count
    return "", 0
