"""The attention kernels compiled ahead of time for GPUs that are not there: what variants there are, what each uses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import triton

from ..ahead_of_time import Used, compile, is_hip
from .triton_prepare import prepare_kernel
from .triton_tiles import (
    BOXES,
    DENSE_BIAS,
    INDEXED_BIAS,
    NO_BIAS,
    NO_RULE,
    TILES,
    Entries,
    Lists,
    Rows,
    Rule,
    Shape,
    Sizes,
    shape_of,
)
from .triton_tuning import KERNELS, choices

__all__ = ["BIASES", "DTYPES", "NAMES", "RULES", "Variant", "compile_variant", "compiled", "tuning_of"]

# "forward", "query" and "key" have tuning choices; "prepare" multiplies no matrices and has none
NAMES = (*KERNELS, "prepare")
DTYPES = {"float32": ("*fp32", 4), "float16": ("*fp16", 2), "bfloat16": ("*bf16", 2)}
RULES = {"none": NO_RULE.value, "boxes": BOXES.value, "tiles": TILES.value}
BIASES = {"none": NO_BIAS.value, "dense": DENSE_BIAS.value, "indexed": INDEXED_BIAS.value}


@dataclass(frozen=True)
class Variant:
    """What a kernel is compiled for.

    name : of `NAMES`; dtype, rule, bias : keys of `DTYPES`, `RULES`, `BIASES`; axes : of boxes and of an indexed bias;
    ordered : the map has its own order of slots; blocks : slots of the map's blocks of queries and keys
    """

    name: str
    dim: int = 64
    dtype: str = "bfloat16"
    rule: str = "boxes"
    axes: int = 1
    bias: str = "none"
    ordered: bool = False
    width: int | None = None
    blocks: tuple[int, int] = (128, 128)

    def shape(self, target: str) -> Shape:
        """Constants of the kernel on a target."""
        return shape_of(
            self.dim,
            self.width or self.dim,
            *self.blocks,
            rule=RULES[self.rule],
            axes=self.axes if self.rule == "boxes" else 0,
            bias=BIASES[self.bias],
            bias_axes=self.axes if self.bias == "indexed" else 0,
            bias_wide=False,
            bytes=DTYPES[self.dtype][1],
            hip=is_hip(target),
        )


def tuning_of(variant: Variant, target: str) -> list[triton.Config]:
    """The tuning choices of a variant on a target."""
    if variant.name == "prepare":
        return [triton.Config({"BLOCK_M": 32}, num_warps=4)]
    return choices(variant.name, "amd" if is_hip(target) else target, variant.shape(target))


def compiled(variant: Variant, target: str) -> Iterator[tuple[triton.Config, Used]]:
    """What each tuning choice of a variant uses on a target of `ahead_of_time.TARGETS`."""
    for config in tuning_of(variant, target):
        yield config, compile_variant(variant, config, target)


def compile_variant(variant: Variant, config: triton.Config, target: str) -> Used:
    """Compile a variant with one choice. ValueError for an unknown target, or where kernels are interpreted."""
    kernel = KERNELS.get(variant.name, prepare_kernel)
    types = _types(variant)
    signature = {name: types[name] for name in kernel.arg_names if name in types}
    return compile(kernel, signature, {"SHAPE": variant.shape(target)}, config, target)


def _types(variant: Variant) -> dict[str, Any]:
    """Types of all arguments that the kernels have: strides and pointers aligned, numbers of any size."""
    pointer = DTYPES[variant.dtype][0]
    rows = Rows(pointer, *["i32:16"] * 3)
    # [batch, heads, tokens] in memory
    numbers = Rows("*fp32", "i32", 1, "i32")
    order = "*i32" if variant.ordered else None
    arrays: dict[str, tuple[str | None, ...]] = {
        "none": (None, None, None, None),
        "boxes": ("*i32", "*i32", "*i32", None),
        "tiles": (None, None, None, "*u8"),
    }
    return {
        **dict.fromkeys(("query", "key", "value", "output", "gradient", "to_query", "to_key", "to_value"), rows),
        **dict.fromkeys(("lse", "lse_gradient"), numbers),
        **dict.fromkeys(("p_peaks", "p_deltas"), "*fp32"),
        "p_order": order,
        "lists": Lists("*i32", "*i32", "*i32", "*i32", "*i32", "i32", "i32"),
        "rule": Rule(order, order, *arrays[variant.rule]),
        "bias": _bias_types(variant, pointer),
        "p_to_bias": None if variant.bias == "none" else "*fp32",
        "sizes": Sizes(*["i32"] * 7),
        "scale": "fp32",
        "to_scale": "fp32",
    }


def _bias_types(variant: Variant, pointer: str) -> Entries:
    axis = ("i32", "i32", "i32")
    if variant.bias == "none":
        return Entries(None, "i32", "i32", "i32", "i32", None, None, (axis,))
    index = "*i32" if variant.bias == "indexed" else None
    return Entries(pointer, "i32", "i32", "i32", "i32", index, index, (axis,) * variant.axes)
