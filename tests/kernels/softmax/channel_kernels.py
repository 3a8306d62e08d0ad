"""The Triton kernels of channel attention: beside the reference with TRITON_INTERPRET=1, else compiled for each GPU.

Run as a script; prints one JSON document. triton reads the variable when it is imported, so a test process cannot
switch.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import torch
from attnkit_kernels.dispatch import ImplementationError, interpreted
from attnkit_kernels.softmax.variants.channel import channel_attention
from attnkit_kernels.softmax.variants.channel import triton as kernels
from torch import Tensor

GENERATOR = torch.Generator().manual_seed(0)
# batch, tokens, groups, dim
SHAPES = [(2, 37, 3, 32), (1, 1, 1, 1), (2, 70, 1, 5), (1, 200, 2, 16), (1, 64, 1, 33), (1, 0, 2, 8)]
# padded dim and pointer; the widest are compiled with every choice, the others with one each
WIDEST = [(64, "*fp32"), (64, "*fp16")]
NARROW = [(32, "*fp32"), (32, "*bf16")]


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=GENERATOR)


def run(impl: str, form: str, tensors: list[Tensor], up: Tensor) -> list[Tensor]:
    inputs = [x.detach().clone().requires_grad_() for x in tensors]
    output = channel_attention(*inputs, form=form, impl=impl)
    return [output.detach(), *torch.autograd.grad(output, inputs, up)]


def gap(form: str, tensors: list[Tensor]) -> float:
    """Largest difference of output and gradients, as a share of the largest number of each."""
    up = normal(*tensors[0].shape).to(tensors[0].dtype)
    worst = 0.0
    for one, other in zip(run("triton", form, tensors, up), run("reference", form, tensors, up), strict=True):
        if one.dtype != other.dtype or one.shape != other.shape:
            return float("inf")
        if one.numel():
            size = max(1.0, float(other.abs().max()))
            worst = max(worst, float((one.double() - other.double()).abs().max()) / size)
    return worst


def beside() -> dict[str, Any]:
    gaps = {}
    for form, shape in itertools.product(("v1", "v2"), SHAPES):
        gaps[f"{form} {shape}"] = gap(form, [normal(*shape) for _ in range(3)])
    turned = [normal(2, 3, 40, 16).half().transpose(1, 2) for _ in range(3)]
    for form in ("v1", "v2"):
        gaps[f"{form} float16 turned"] = gap(form, turned)
    try:
        channel_attention(*(torch.zeros(1, 1, 1, 65) for _ in range(3)), impl="triton")
    except ImplementationError as error:
        refused = str(error)
    return {"gaps": gaps, "refused": refused}


def work() -> Iterator[tuple[Any, str, dict[str, Any], Any, str]]:
    """Kernel, pointer type, constants, tuning choice and target of everything that is compiled."""
    from attnkit_kernels.ahead_of_time import TARGETS, is_hip

    for kernel in (kernels.gram_kernel, kernels.mix_kernel):
        choices = [*itertools.product(WIDEST, kernel.configs), *zip(NARROW, kernel.configs, strict=True)]
        for ((dim, pointer), config), target in itertools.product(choices, TARGETS):
            sizes = {"DIM": dim, "PADDED": dim, "PRECISION": kernels.precision(pointer != "*fp32", is_hip(target))}
            yield kernel, pointer, sizes, config, target
        # arguments of 1, which triton turns into constants
        ones = {name: 1 for name in ("tokens", "groups", "parts") if name in kernel.fn.arg_names}
        sizes = {"DIM": 1, "PADDED": 16, "PRECISION": "tf32"}
        yield kernel, "*bf16", {**sizes, **ones}, kernel.configs[0], "sm_90"


def compiled() -> list[dict[str, Any]]:
    from attnkit_kernels.ahead_of_time import compile

    rows = []
    for kernel, pointer, constants, config, target in work():
        exact = ("p_partial", "p_weights")
        types = {
            name: "*fp32" if name in exact else pointer if name.startswith("p_") else "i32"
            for name in kernel.fn.arg_names
            if name not in constants
        }
        used = asdict(compile(kernel, types, constants, config, target))
        row = {"kernel": kernel.fn.__name__, "constants": constants, "pointer": pointer, "target": target}
        rows.append({**row, **config.kwargs, "warps": config.num_warps, **used})
    return rows


if __name__ == "__main__":
    json.dump(beside() if interpreted() else compiled(), sys.stdout)
