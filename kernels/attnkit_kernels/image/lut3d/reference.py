"""Eager torch: the definition, differentiable in image and table; float64 stays, half is computed in float32."""

from __future__ import annotations

import torch
from torch import Tensor


def _trilinear(corner, fraction):  # type: ignore[no-untyped-def]
    red, green, blue = fraction

    def along_red(b: int, g: int) -> Tensor:
        low = corner(b, g, 0)
        return low + (corner(b, g, 1) - low) * red

    def along_green(b: int) -> Tensor:
        low = along_red(b, 0)
        return low + (along_red(b, 1) - low) * green

    low = along_green(0)
    return low + (along_green(1) - low) * blue


def _tetrahedral(corner, fraction):  # type: ignore[no-untyped-def]
    red, green, blue = fraction
    # an axis is first when no other is larger; ties go to red, then green, and do not change the value
    red_first = (red >= green) & (red >= blue)
    green_first = ~red_first & (green >= blue)
    blue_first = ~red_first & ~green_first
    blue_last = (blue <= red) & (blue <= green)
    green_last = ~blue_last & (green <= red)
    red_last = ~blue_last & ~green_last
    largest, middle, smallest = fraction.sort(0, descending=True).values
    one = corner(blue_first.long(), green_first.long(), red_first.long())
    two = corner((~blue_last).long(), (~green_last).long(), (~red_last).long())
    zero, all_set = corner(0, 0, 0), corner(1, 1, 1)
    return (1 - largest) * zero + (largest - middle) * one + (middle - smallest) * two + smallest * all_set


def lookup(image: Tensor, table: Tensor, interpolation: str) -> Tensor:
    """See `api.lookup`."""
    dtype = torch.promote_types(image.dtype, table.dtype)
    dtype = dtype if dtype == torch.float64 else torch.float32
    size = table.shape[-1]
    tables = table.to(dtype).expand(image.shape[0], *table.shape[-4:])
    position = image.to(dtype).clamp(0, 1) * (size - 1)
    # the cell of a NaN is 0; its fraction stays NaN and carries it into the result
    cell = position.detach().nan_to_num(0).floor().clamp(max=size - 2)
    fraction = position - cell
    red, green, blue = cell.long().transpose(0, 1)
    # [3, batch * N^3]: the planes stay contiguous through the gather and the arithmetic after it
    entries = tables.transpose(0, 1).reshape(3, -1)
    start = torch.arange(image.shape[0], device=image.device).view(-1, 1, 1) * size**3

    def corner(b, g, r):  # type: ignore[no-untyped-def]
        index = start + ((blue + b) * size + green + g) * size + red + r
        return entries.index_select(1, index.flatten()).view(3, *index.shape)

    blend = _trilinear if interpolation == "trilinear" else _tetrahedral
    return blend(corner, fraction.transpose(0, 1)).transpose(0, 1).to(image.dtype)
