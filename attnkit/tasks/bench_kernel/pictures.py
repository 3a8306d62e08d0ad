"""The image operators as kernels: pictures [batch, 3, rows, columns] instead of queries and keys."""

from __future__ import annotations

from collections.abc import Callable

import torch
from attnkit_kernels.image import resolve_impl
from torch import Tensor

from .kernels import Kernel, Work
from .operators import OPERATORS
from .plan import Case

# operations of a pixel: eight corners of three channels, and their weights
LOOKUP_FLOPS = 8 * 3 * 2 + 14
# of a sample and level: five taps down along both axes and up again, where only every second is computed or not zero
PYRAMID_FLOPS = 15.0
CURVE_FLOPS = 10.0
_OPERATION = {"lut3d": "lut3d.lookup", "local-laplacian": "local_laplacian.filter"}


def check_picture(case: Case, device: str) -> None:
    """ValueError where a picture cannot be measured like this."""
    if len(case.canvas) != 2:
        raise ValueError(f"{case.operator} takes a canvas of rows and columns, got {list(case.canvas)}")
    if case.direction != "fwd":
        raise ValueError(f"{case.operator} is measured forward, got direction {case.direction}")
    tiny = torch.zeros(1, 3, 4, 4, dtype=getattr(torch, case.dtype), device=device)
    _resolved(case, tiny)


def prepare_picture(case: Case, device: str, seed: int) -> Kernel:
    """The kernel of an image operator on noise between 0 and 1."""
    check_picture(case, device)
    generator = torch.Generator(device).manual_seed(seed)
    image = torch.rand(case.batch, 3, *case.canvas, generator=generator, device=device)
    return _PREPARE[case.operator](case, image.to(getattr(torch, case.dtype)), generator)


def _resolved(case: Case, image: Tensor) -> str:
    table = [torch.zeros(3, 2, 2, 2, dtype=image.dtype, device=image.device)] if case.operator == "lut3d" else []
    return resolve_impl(_OPERATION[case.operator], image, *table, impl=case.impl)


def _settings(case: Case) -> dict[str, int]:
    return {key: one.default for key, one in OPERATORS[case.operator].settings().items()} | dict(case.settings)


def _lut3d(case: Case, image: Tensor, generator: torch.Generator) -> Kernel:
    from attnkit_kernels.image.lut3d import lookup

    size = _settings(case)["size"]
    if size < 2:
        raise ValueError(f"lut3d.size: expected 2 or more samples along an axis, got {size}")
    table = torch.rand(3, size, size, size, generator=generator, device=image.device).to(image.dtype)
    impl = _resolved(case, image)
    moved = float((2 * image.numel() + table.numel()) * image.element_size())
    return Kernel(
        lambda picture, colours: lookup(picture, colours, impl=impl),
        (image, table),
        Work(float(LOOKUP_FLOPS * image.numel() // 3), None, moved),
        lambda inputs, rows: lookup(inputs[0], inputs[1], impl="reference"),
        0,
        case.batch,
        impl,
    )


def _local_laplacian(case: Case, image: Tensor, generator: torch.Generator) -> Kernel:
    from attnkit_kernels.image.local_laplacian import GaussianCurve
    from attnkit_kernels.image.local_laplacian import filter as filtered

    settings = _settings(case)
    levels, references = settings["levels"], settings["references"]
    curve = GaussianCurve(0.1, 1.0)
    impl = _resolved(case, image)
    # a pyramid has 4/3 of the samples; each reference is one, and so are the guide and the way back
    work = image.numel() * 4 / 3 * (references * (CURVE_FLOPS + PYRAMID_FLOPS) + 2 * PYRAMID_FLOPS)
    return Kernel(
        lambda picture: filtered(picture, levels, curve, references, impl=impl),
        (image,),
        Work(work, None, float(2 * image.numel() * image.element_size())),
        lambda inputs, rows: filtered(inputs[0], levels, curve, references, impl="reference"),
        0,
        case.batch,
        impl,
    )


_PREPARE: dict[str, Callable[[Case, Tensor, torch.Generator], Kernel]] = {
    "lut3d": _lut3d,
    "local-laplacian": _local_laplacian,
}
