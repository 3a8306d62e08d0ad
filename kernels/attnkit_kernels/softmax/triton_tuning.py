"""Tuning choices of the attention kernels: short fixed lists, by kernel, chip, size of heads and of elements.

Every choice of every list is compiled ahead of time in the tests and spills nothing; the first one is the choice of a
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
from .triton_tiles import Shape, Sizes

__all__ = ["FAMILIES", "KERNELS", "choices", "family_of", "launch"]

KERNELS = {"forward": forward_kernel, "query": query_kernel, "key": key_kernel}
# chips whose choices differ; "small" is every other one: AMD's, and NVIDIA's with less than 160 KB of shared memory
FAMILIES = ("sm_80", "sm_90", "sm_100", "small")

# (BLOCK_M, BLOCK_N, warps, stages) by kernel and padded head size
Choice = tuple[int, int, int, int]
_HALF: dict[str, dict[int, list[Choice]]] = {
    "forward": {
        64: [(128, 64, 8, 3), (64, 64, 4, 3)],
        128: [(128, 64, 8, 3), (64, 64, 4, 2)],
        256: [(64, 64, 8, 2)],
    },
    "query": {64: [(128, 64, 8, 2), (64, 64, 4, 3)], 128: [(64, 64, 8, 2)], 256: [(64, 32, 8, 2)]},
    "key": {64: [(32, 64, 4, 2), (32, 128, 8, 2)], 128: [(32, 64, 8, 2)], 256: [(16, 64, 8, 2)]},
}


def choices(name: str, family: str, shape: Shape) -> list[triton.Config]:
    """The tuning choices of kernel `name`, tiles cut to the map's blocks; the first is for calls without tuning."""
    size = max(64, shape.PADDED_DIM, shape.PADDED_WIDTH)
    found = []
    for rows, columns, warps, stages in _HALF[name][size]:
        tiles = {"BLOCK_M": _cut(rows, shape.QUERY_BLOCK), "BLOCK_N": _cut(columns, shape.KEY_BLOCK)}
        for persistent in [False, True] if name == "forward" else [None]:
            kwargs = tiles if persistent is None else {**tiles, "PERSISTENT": persistent}
            config = triton.Config(kwargs, num_warps=warps, num_stages=stages)
            if config not in found:
                found.append(config)
    return found


def _cut(tile: int, block: int) -> int:
    # matrix instructions take 16 rows or more
    return max(16, min(tile, triton.next_power_of_2(block)))


def family_of(device: torch.device) -> str:
    """Which of `FAMILIES` a device belongs to."""
    if device.type != "cuda" or torch.version.hip is not None:
        return "small"
    major, minor = torch.cuda.get_device_capability(device)
    if major in (9, 10):
        return "sm_90" if major == 9 else "sm_100"
    return "sm_80" if (major, minor) == (8, 0) else "small"


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
    KERNELS[name][grid](
        sizes=sizes, SHAPE=shape, **arguments, **config.kwargs, num_warps=config.num_warps, num_stages=config.num_stages
    )


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
