"""Windows along one axis: the rules of generalized neighborhood attention, one axis at a time.

A query sees a key when it does on every axis, so a rule of a whole canvas is the product of what stands here. Both
the map of the pattern and the simulator are built from these functions. "Generalized Neighborhood Attention" (arXiv
2504.16922); with stride 1 "Faster Neighborhood Attention" (arXiv 2403.04690).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def check_axis(length: int, window: int, stride: int = 1, dilation: int = 1, causal: bool = False) -> None:
    """ValueError with both values unless 1 <= stride <= window, 1 <= dilation, dilation * window <= length.

    A window of 1 is allowed here (a query sees itself), NATTEN refuses it. `causal` allows the same values.
    """
    if length < 1:
        raise ValueError(f"an axis must hold at least 1 token, got {length}")
    if window < 1:
        raise ValueError(f"window must be at least 1, got {window} on an axis of {length}")
    if not 1 <= stride <= window:
        raise ValueError(f"stride must be between 1 and the window, got stride {stride} with window {window}")
    if dilation < 1:
        raise ValueError(f"dilation must be at least 1, got {dilation} on an axis of {length}")
    if window > length:
        raise ValueError(f"window must not be larger than its axis, got window {window} on an axis of {length}")
    if dilation * window > length:
        raise ValueError(
            f"dilation * window must not be larger than the axis, got {dilation} * {window} = {dilation * window} "
            f"on an axis of {length}"
        )


def group_lengths(length: int, dilation: int = 1) -> list[int]:
    """Tokens in each of the `dilation` groups of an axis; x is number x // dilation of group x mod dilation."""
    return [(length - group + dilation - 1) // dilation for group in range(dilation)]


def window_bounds(length: int, window: int, stride: int = 1, causal: bool = False) -> tuple[Ints, Ints]:
    """First key [length] and one past the last key [length] of each query of one dilation group of `length` tokens.

    Groups of `stride` queries share the window of their leader: the middle query (the right one of two) when not
    causal, the last one when causal. At the borders a window is pushed back inside, never cut; an even window holds
    one more key on the left. Causal: a query sees the part of its group's window that ends at itself.
    """
    return bounds_at(np.arange(length, dtype=np.int64), length, window, stride, causal)


def bounds_at(query: Ints, length: int, window: int, stride: int | Ints = 1, causal: bool = False) -> tuple[Ints, Ints]:
    """`window_bounds` at some queries only; `query` and `stride` are broadcast against each other."""
    first = query // stride * stride
    if causal:
        leader = np.minimum(first + stride - 1, length - 1)
        return np.maximum(leader - window + 1, 0), np.broadcast_to(query + 1, leader.shape)
    leader = np.minimum(first + stride // 2, length - 1)
    start = np.clip(leader - window // 2, 0, max(length - window, 0))
    return start, np.minimum(start + window, length)


def tile_ranges(start: Ints, end: Ints, query_tile: int, key_tile: int) -> tuple[Ints, Ints, Ints, Ints]:
    """Key tiles of each query tile along one axis: seen by any query, [first, stop), and full, [first, stop).

    `start`, `end` are the bounds of `window_bounds`. Tiles are cut from position 0. A key tile is full when every
    query of the tile sees all of it and neither tile holds padding; an empty full range has first == stop.
    """
    length = len(start)
    edges = np.arange(0, length, query_tile)
    first = np.minimum.reduceat(start, edges) // key_tile
    stop = -(-np.maximum.reduceat(end, edges) // key_tile)
    # the last, cut key tile is never full: its last padding slot lies past the end of every window
    full_first = -(-np.maximum.reduceat(start, edges) // key_tile)
    full_stop = np.minimum.reduceat(end, edges) // key_tile
    full_stop[edges + query_tile > length] = 0
    full_stop = np.maximum(full_first, full_stop)
    return first, stop, full_first, full_stop
