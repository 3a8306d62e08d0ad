"""BiFormer's bi-level routing attention: the routing on its canvas, the scale by the full width, its two paddings."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from ...dispatch import Impl
from ...patterns.bilevel import Bilevel, region_table, table_map
from ...patterns.canvas import Canvas, check_canvas
from ...patterns.settings import broadcast
from ..api import attention
from ..blockmap import BlockMap

__all__ = ["PADDINGS", "BilevelResult", "bilevel_attention"]

PADDINGS = ("mask", "zeros")


class BilevelResult(NamedTuple):
    """output [batch, tokens, heads, dim], lse [batch, tokens, heads], table int64 [batch, regions, topk], its map."""

    output: Tensor
    lse: Tensor
    table: Tensor
    block_map: BlockMap


def bilevel_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    canvas: Canvas,
    regions: int | tuple[int, ...] = 7,
    topk: int = 4,
    padding: str = "mask",
    scale: float | None = None,
    block: int | None = None,
    impl: str | Impl = "auto",
) -> BilevelResult:
    """Each token attends to the tokens of the topk regions that its own region is routed to.

    Parameters
    ----------
    query : [batch, tokens, heads, dim]; key, value : [batch, tokens, kv_heads, dim], value may have a dim of its own
    canvas : axes of the tokens; regions : along each axis; topk : regions that a region sees
    padding : where the regions do not divide an axis. "mask": regions of ceil(axis / regions) tokens, padding hidden.
        "zeros": the published NCHW class: regions of floor(axis / regions) tokens, as many as that takes, filled up
        with zero queries, keys and values that take part in the softmax but not in the region means. (The published
        older class pads its input before projecting: pad there and give the padded canvas.)
    scale : default (heads * dim) ** -0.5, the full width, as published; a head's dim ** -0.5 is another model
    block : slots of a block, default by the size of a region

    Returns
    -------
    BilevelResult. The routing is detached: a region that is not chosen gets no gradient. The depthwise convolution of
    the values (LePE) that is added to the output belongs to the model.

    Raises
    ------
    ValueError for a topk above the number of regions, fewer tokens than regions with "zeros", an unknown padding.

    Notes
    -----
    Paper, section 3.2: A^r = q^r (k^r)^T with means over regions, I = the topk of each row of A^r, O = softmax(scale
    q k_I^T) v_I.
    """
    if padding not in PADDINGS:
        raise ValueError(f"padding: expected one of {', '.join(PADDINGS)}, got {padding!r}")
    canvas = check_canvas(canvas)
    pattern = Bilevel(regions=regions, topk=topk, block=block)  # type: ignore[arg-type]
    sides, padded = pattern.sides(canvas), canvas
    if padding == "zeros":
        counts = broadcast("regions", pattern.regions, canvas)
        sides = tuple(length // count for length, count in zip(canvas, counts, strict=True))
        if min(sides) < 1:
            raise ValueError(f"regions: zeros needs one token or more in each, got canvas {canvas} in {counts} regions")
        padded = tuple(-(-length // side) * side for length, side in zip(canvas, sides, strict=True))
    table = region_table(query, key, canvas, sides, topk)
    block_map = table_map(table, padded, sides, block)
    scale = (query.shape[2] * query.shape[3]) ** -0.5 if scale is None else scale
    query, key, value = (_filled(x, canvas, padded) for x in (query, key, value))
    output, lse = attention(query, key, value, block_map=block_map, scale=scale, impl=impl)
    return BilevelResult(_cropped(output, canvas, padded), _cropped(lse, canvas, padded), table, block_map)


def _filled(tokens: Tensor, canvas: Canvas, padded: Canvas) -> Tensor:
    if canvas == padded:
        return tokens
    ends = [size for old, new in zip(canvas, padded, strict=True) for size in (new - old, 0)]
    return pad(tokens.unflatten(1, canvas), (0, 0, 0, 0, *reversed(ends))).flatten(1, len(canvas))


def _cropped(tokens: Tensor, canvas: Canvas, padded: Canvas) -> Tensor:
    if canvas == padded:
        return tokens
    grid = tokens.unflatten(1, padded)
    for axis, length in enumerate(canvas):
        grid = torch.narrow(grid, 1 + axis, 0, length)
    return grid.flatten(1, len(canvas))
