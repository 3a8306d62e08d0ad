"""Neighborhood masks query by query, and tiles counted in them: slow, and sharing nothing with the package."""

from __future__ import annotations

import itertools
import math

import numpy as np


def axis_mask(length: int, window: int, stride: int, dilation: int, causal: bool) -> np.ndarray:
    """bool [queries, keys] of one axis, as gna.md section 2 says it."""
    mask = np.zeros((length, length), bool)
    for x in range(length):
        own = [y for y in range(length) if y % dilation == x % dilation]
        q, size = own.index(x), len(own)
        if causal:
            leader = min((q // stride) * stride + stride - 1, size - 1)
            start, end = max(leader - window + 1, 0), min(q + 1, size)
        else:
            leader = min((q // stride) * stride + stride // 2, size - 1)
            start = min(max(leader - window // 2, 0), size - window)
            end = start + window
        for y in own[start:end]:
            mask[x, y] = True
    return mask


def canvas_mask(axes: list[tuple[int, int, int, int, bool]]) -> np.ndarray:
    """bool [queries, keys] of row-major tokens."""
    mask = np.ones((1, 1), bool)
    for axis in axes:
        mask = np.kron(mask, axis_mask(*axis))
    return mask


def spatial_tiles(canvas: tuple[int, ...], dilation: tuple[int, ...], tile: tuple[int, ...]) -> list[list[int]]:
    """Tokens of each tile: dilation groups one after the other, each cut from its own start."""
    tiles = []
    for group in itertools.product(*(range(step) for step in dilation)):
        cells: dict[tuple[int, ...], list[int]] = {}
        for token, place in enumerate(itertools.product(*(range(length) for length in canvas))):
            if tuple(x % t for x, t in zip(place, dilation, strict=True)) == group:
                at = tuple(x // t // side for x, t, side in zip(place, dilation, tile, strict=True))
                cells.setdefault(at, []).append(token)
        tiles += [cells[at] for at in sorted(cells)]
    return tiles


def count_tiles(mask: np.ndarray, queries: list[list[int]], keys: list[list[int]], sizes: tuple[int, int]) -> dict:
    """visited, full (no padding, nothing hidden), total, and the most that one query tile visits."""
    visited = full = worst = 0
    for query in queries:
        own = 0
        for key in keys:
            seen = int(mask[np.ix_(query, key)].sum())
            own += seen > 0
            full += seen == math.prod(sizes)
        visited += own
        worst = max(worst, own)
    return {"visited": visited, "full": full, "total": len(queries) * len(keys), "worst": worst}


def random_axes(generator: np.random.Generator, rank: int, most: int) -> list[tuple[int, int, int, int, bool]]:
    """(length, window, stride, dilation, causal) of each axis, all of them allowed."""
    axes = []
    for _ in range(rank):
        length = int(generator.integers(1, most + 1))
        dilation = int(generator.integers(1, min(length, 3) + 1))
        window = int(generator.integers(1, length // dilation + 1))
        stride = int(generator.integers(1, window + 1))
        axes.append((length, window, stride, dilation, bool(generator.integers(0, 2))))
    return axes
