"""Tuning choices of the attention kernels: short fixed lists, by kernel, chip, size of heads and of elements.

Every choice is compiled ahead of time in the tests, for maps and biases of all kinds; the first one is the choice of a
call that does not tune.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import triton
from torch import Tensor

from ..dispatch import interpreted
from .triton_backward import key_kernel, query_kernel
from .triton_forward import forward_kernel
from .triton_tiles import BOXES, DENSE_BIAS, INDEXED_BIAS, NO_RULE, Shape, Sizes

__all__ = ["FAMILIES", "KERNELS", "choices", "family_of", "launch"]

KERNELS = {"forward": forward_kernel, "query": query_kernel, "key": key_kernel}
# chips whose choices differ; sm_80 stands for NVIDIA's others too: its choices fit the 99 KB of shared memory of those
FAMILIES = ("sm_80", "sm_90", "sm_100", "amd")

# BLOCK_M, BLOCK_N, warps, stages and the most registers of a thread (None leaves them to the assembler, which spills
# a few to fit one more program on a processor); by kernel and padded head size
Choice = tuple[int, int, int, int, int | None]
Table = dict[str, dict[int, list[Choice]]]

_HALF: dict[str, Table] = {
    "sm_80": {
        "forward": {64: [(128, 64, 8, 2, 255)], 128: [(64, 32, 8, 2, 255)], 256: [(32, 32, 8, 1, 255)]},
        "query": {
            64: [(64, 32, 4, 2, 255), (32, 32, 4, 2, 255)],
            128: [(64, 32, 8, 2, 255), (64, 32, 4, 2, 255)],
            256: [(16, 16, 8, 1, 255)],
        },
        "key": {64: [(32, 32, 4, 2, 255)], 128: [(32, 32, 8, 1, None)], 256: [(16, 32, 8, 1, 255)]},
    },
    "sm_90": {
        "forward": {
            64: [(128, 64, 8, 3, 255), (64, 64, 4, 3, 255)],
            128: [(64, 64, 8, 2, 255)],
            256: [(64, 32, 8, 2, None)],
        },
        "query": {
            64: [(128, 64, 8, 2, None), (64, 64, 4, 2, None)],
            128: [(64, 32, 4, 2, None)],
            256: [(16, 16, 8, 1, 255)],
        },
        "key": {
            64: [(64, 64, 8, 2, 255), (32, 64, 4, 2, 255)],
            128: [(32, 64, 8, 2, None)],
            256: [(16, 32, 8, 1, None)],
        },
    },
    "sm_100": {
        "forward": {
            64: [(128, 64, 8, 2, None)],
            128: [(64, 64, 8, 2, 255)],
            256: [(64, 32, 8, 1, None)],
        },
        "query": {
            64: [(128, 64, 8, 2, None), (64, 64, 4, 2, None)],
            128: [(64, 64, 8, 2, 255)],
            256: [(64, 32, 8, 1, None)],
        },
        "key": {
            64: [(64, 64, 8, 2, None), (32, 64, 4, 1, 255)],
            128: [(32, 64, 8, 2, None)],
            256: [(16, 32, 8, 1, None)],
        },
    },
}
# of products in three passes, which hold each number twice
_FLOAT: Table = {
    "forward": {64: [(32, 32, 8, 1, 255)], 128: [(16, 32, 8, 1, 255)]},
    "query": {64: [(32, 32, 8, 1, None)], 128: [(16, 16, 8, 1, 255)]},
    "key": {64: [(32, 16, 8, 1, 255)], 128: [(16, 16, 8, 1, 255)]},
}
_HALF_BIASED: Table = {
    "forward": {64: [(32, 32, 4, 1, 255)], 128: [(32, 32, 4, 1, 255)], 256: [(16, 32, 8, 1, 255)]},
    "query": {64: [(32, 32, 8, 1, 255)], 128: [(32, 32, 8, 1, 255)], 256: [(16, 16, 8, 1, 255)]},
    "key": {64: [(32, 32, 4, 1, 255)], 128: [(32, 32, 8, 1, 255)], 256: [(16, 16, 8, 1, 255)]},
}
_FLOAT_BIASED: Table = {
    "forward": {64: [(16, 32, 8, 1, 255)], 128: [(16, 32, 8, 1, 255)]},
    "query": {64: [(16, 16, 8, 1, 255)], 128: [(16, 16, 8, 3, 255)]},
    "key": {64: [(32, 16, 8, 1, 255)], 128: [(16, 16, 8, 1, None)]},
}
# AMD's kernels have 512 registers a thread at 4 warps; every kernel is the same
_AMD: dict[int, dict[int, Choice]] = {
    2: {64: (32, 32, 4, 1, None), 128: (16, 32, 4, 1, None), 256: (16, 16, 4, 1, None)},
    4: {64: (32, 16, 4, 1, None), 128: (16, 16, 4, 1, None)},
}
# forward, halves of 128: what is left of the registers where nothing but boxes is masked
_WHOLE: dict[str, Choice] = {
    "sm_80": (128, 32, 8, 2, None),
    "sm_90": (128, 64, 8, 3, 255),
    "sm_100": (128, 64, 8, 3, 255),
}
# where a kernel that stays on its processor finds the registers for its outer loop
_PERSISTENT = {("sm_80", 64), ("sm_90", 64), ("sm_100", 64)}


def choices(name: str, family: str, shape: Shape) -> list[triton.Config]:
    """The tuning choices of kernel `name`, tiles cut to the map's blocks; the first is for calls without tuning."""
    size = max(64, shape.PADDED_DIM, shape.PADDED_WIDTH)
    half, biased = shape.BYTES == 2, shape.BIAS in (DENSE_BIAS.value, INDEXED_BIAS.value)
    persistent = [False]
    if family == "amd":
        listed = [_AMD[shape.BYTES][size]]
    elif not half:
        listed = (_FLOAT_BIASED if biased else _FLOAT)[name][size]
    elif biased:
        listed = _HALF_BIASED[name][size]
    else:
        listed = _HALF[family][name][size]
        if name == "forward" and _whole(shape):
            listed = ([_WHOLE[family]] if size == 128 else []) + listed
            persistent = [False, True] if (family, size) in _PERSISTENT else [False]
    found = []
    for rows, columns, warps, stages, registers in listed:
        tiles = {"BLOCK_M": _cut(rows, shape.QUERY_BLOCK), "BLOCK_N": _cut(columns, shape.KEY_BLOCK)}
        for kept in persistent:
            kwargs = {**tiles, "PERSISTENT": kept} if name == "forward" else tiles
            config = triton.Config(kwargs, num_warps=warps, num_stages=stages, maxnreg=registers)
            if config not in found:
                found.append(config)
    return found


def _whole(shape: Shape) -> bool:
    """Whether heads fill their padded size, tiles of 128 or 64 fill the map's blocks, and no mask is stored."""
    heads = shape.PADDED_DIM == shape.DIM and shape.PADDED_WIDTH == shape.WIDTH
    filled = shape.QUERY_BLOCK % 128 == 0 and shape.KEY_BLOCK % 64 == 0
    return heads and filled and shape.RULE in (NO_RULE.value, BOXES.value)


def _cut(tile: int, block: int) -> int:
    # matrix instructions take 16 rows or more
    return max(16, min(tile, triton.next_power_of_2(block)))


def family_of(device: torch.device) -> str:
    """Which of `FAMILIES` a device belongs to."""
    if torch.version.hip is not None:
        return "amd"
    major = torch.cuda.get_device_capability(device)[0] if device.type == "cuda" else 8
    return {9: "sm_90", 10: "sm_100"}.get(major, "sm_80")


def _fitting(name: str, configs: Any, arguments: dict[str, Any], **named: Any) -> list[triton.Config]:
    return choices(name, family_of({**arguments, **named}["query"].start.device), named["SHAPE"])


def _start_anew(arguments: dict[str, Any], reset_only: bool = False) -> None:
    # gradients of a bias are added up, so a measured run must not leave its own behind
    if arguments.get("p_to_bias") is not None:
        arguments["p_to_bias"].zero_()


_TUNED = {
    name: triton.autotune(
        # placeholders: the list depends on the call
        configs=[triton.Config({}, num_warps=warps) for warps in (4, 8)],
        key=["SHAPE"],
        prune_configs_by={"early_config_prune": partial(_fitting, name)},
        pre_hook=_start_anew,
    )(kernel)
    for name, kernel in KERNELS.items()
}


def launch(name: str, shape: Shape, sizes: Sizes, tune: bool, **arguments: Any) -> None:
    """Start kernel `name`; `tune` measures its choices at the first call of a shape."""
    query: Tensor = arguments["query"].start
    grid = partial(_grid, name, shape, sizes, query.device)
    if tune and not interpreted():
        _TUNED[name][grid](sizes=sizes, SHAPE=shape, **arguments)
        return
    config = choices(name, family_of(query.device), shape)[0]
    start(name, config, shape, sizes, **arguments)


def start(name: str, config: triton.Config, shape: Shape, sizes: Sizes, **arguments: Any) -> None:
    """Start kernel `name` with one choice."""
    grid = partial(_grid, name, shape, sizes, arguments["query"].start.device)
    KERNELS[name][grid](sizes=sizes, SHAPE=shape, **arguments, **config.all_kwargs())


def _grid(name: str, shape: Shape, sizes: Sizes, device: torch.device, meta: dict[str, Any]) -> tuple[int]:
    if name == "key":
        parts = triton.cdiv(shape.KEY_BLOCK, meta["BLOCK_N"])
        return (sizes.batch * (sizes.heads // sizes.group) * sizes.key_blocks * parts,)
    items = sizes.batch * sizes.heads * sizes.query_blocks * triton.cdiv(shape.QUERY_BLOCK, meta["BLOCK_M"])
    if meta.get("PERSISTENT"):
        return (min(items, 2 * processors(device)),)
    return (items,)


def processors(device: torch.device) -> int:
    """Multiprocessors of a device."""
    return int(torch.cuda.get_device_properties(device).multi_processor_count) if device.type == "cuda" else 1
