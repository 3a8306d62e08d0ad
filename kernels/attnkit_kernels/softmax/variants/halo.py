"""HaloNet's attention: the halo pattern, its relative terms as a bias, and zero keys around the border."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad as pad_tensor

from ...dispatch import Impl
from ...patterns import Maps
from ...patterns.halo import Halo
from ..api import attention
from ..bias import TermsBias
from ..result import AttentionResult

__all__ = ["halo_attention"]


def halo_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    canvas: tuple[int, int],
    block: int | tuple[int, int] = 8,
    halo: int | tuple[int, int] = 3,
    height_table: Tensor | None = None,
    width_table: Tensor | None = None,
    relative_scale: float = 1.0,
    scale: float | None = None,
    pad: str = "zero",
    stride: int | tuple[int, int] = 1,
    maps: Maps | None = None,
    impl: str | Impl = "auto",
) -> AttentionResult:
    """Attention where the queries of a block share one window of keys, `halo` wider than the block on every side.

    Parameters
    ----------
    query : [batch, rows / stride * columns / stride, heads, dim]
    key, value : [batch, rows * columns, kv_heads, dim], value may have a dim of its own
    canvas : (rows, columns) of the keys; divisible by the block
    block, halo : side of a block and width of the halo, in tokens, one number or (rows, columns)
    height_table, width_table : [2 window - 1, dim], window = block + 2 halo along that axis; both or none. All heads
        share them
    relative_scale : factor of the relative terms: 1 as in timm's default, dim ** -0.5 as in other implementations
    scale : factor of query . key, default dim ** -0.5
    pad : "zero": keys and values beyond the border are zeros that take part in the softmax, with their relative terms
        (the published networks' numbers); "mask": they are hidden
    stride : queries on a grid coarser by this factor; their places in a block count in steps of that grid
    maps : where block maps are kept between calls; without it the map is built anew
    impl : as for `attention`

    Returns
    -------
    AttentionResult(output [batch, queries, heads, value dim], lse [batch, queries, heads]).

    Raises
    ------
    ValueError for sizes that do not fit together, with both values.

    Notes
    -----
    "Scaling Local Self-Attention for Parameter Efficient Visual Backbones", arXiv 2103.12731. Score of query i and
    key j: scale q_i . k_j + relative_scale q_i . (E_h[window - 1 + y_j - y_i] + E_w[window - 1 + x_j - x_i]), y_i
    counted in the block and y_j in the window, so the first 2 halo rows of the tables are never read.
    """
    pattern = Halo(block, halo, pad, stride)  # type: ignore[arg-type]
    sides, around, _ = pattern.sides(canvas)
    rows, columns = canvas
    if key.shape[1] != rows * columns:
        raise ValueError(f"canvas {tuple(canvas)} has {rows * columns} tokens, got {key.shape[1]} keys")
    block_map = (Maps(1) if maps is None else maps).block_map(pattern, tuple(canvas))
    if pad == "zero":
        key, value = (_padded(tensor, canvas, around) for tensor in (key, value))
    bias = None
    if (height_table is None) != (width_table is None):
        missing = "height_table" if height_table is None else "width_table"
        raise ValueError(f"height_table and width_table go together, got no {missing}")
    if height_table is not None and width_table is not None:
        tables = (height_table, width_table)
        windows = [side + 2 * more for side, more in zip(sides, around, strict=True)]
        for name, table, window in zip(("height_table", "width_table"), tables, windows, strict=True):
            expected = [2 * window - 1, query.shape[-1]]
            if list(table.shape) != expected:
                raise ValueError(f"{name}: expected {expected}, got {list(table.shape)}")
        bias = TermsBias(
            tuple((query * relative_scale) @ table.T for table in tables),
            _query_index(pattern, canvas).to(query.device),
            _key_index(pattern, canvas).to(query.device),
            tuple(window - 1 + more for window, more in zip(windows, around, strict=True)),
        )
    return attention(query, key, value, block_map=block_map, scale=scale, bias=bias, impl=impl)


def _padded(tensor: Tensor, canvas: tuple[int, int], around: tuple[int, ...]) -> Tensor:
    """The tokens of the canvas in the wider one, zeros around them."""
    wide = pad_tensor(tensor.unflatten(1, canvas), (0, 0, 0, 0, around[1], around[1], around[0], around[0]))
    return wide.flatten(1, 2)


def _query_index(pattern: Halo, canvas: tuple[int, int]) -> Tensor:
    """First key of the query's block, plus its place in the block: int32 [2, queries]."""
    sides, _, steps = pattern.sides(canvas)
    axes = []
    for length, side, step in zip(pattern.query_canvas(canvas), sides, steps, strict=True):
        block, place = np.divmod(np.arange(length), side // step)
        axes.append(block * side + place)
    return _places(axes)


def _key_index(pattern: Halo, canvas: tuple[int, int]) -> Tensor:
    """Position of the key on the canvas, negative or beyond it in the border of zeros: int32 [2, keys]."""
    return _places(
        [np.arange(wide) - (wide - own) // 2 for wide, own in zip(pattern.key_canvas(canvas), canvas, strict=True)]
    )


def _places(axes: list[np.ndarray]) -> Tensor:
    """int32 [2, tokens] of row-major tokens, from a number per row and per column."""
    return torch.from_numpy(np.stack([grid.ravel() for grid in np.meshgrid(*axes, indexing="ij")]).astype(np.int32))
