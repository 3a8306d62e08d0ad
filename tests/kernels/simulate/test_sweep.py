"""The stride sweep: what the paper found, and every stride tried one by one."""

from __future__ import annotations

import numpy as np
import pytest
from attnkit_kernels.simulate import axis_counts, sweep_axis
from brute_force import random_axes


@pytest.mark.parametrize(
    ("axis", "tiles", "useful"),
    [
        ((30, 18), (4, 2), (1, 2, 16)),
        ((48, 24), (8, 8), (1, 8)),
        ((80, 24), (8, 8), (1, 8)),
        ((30, 30), (2, 2), (1,)),
        ((48, 40), (16, 8), (1, 32)),
        ((80, 40), (8, 8), (1, 8)),
        ((44, 32), (4, 4), (1, 8)),
        ((80, 48), (8, 8), (1, 16)),
        ((44, 24), (4, 4), (1, 8)),
        ((80, 16), (8, 8), (1, 16)),
        ((256, 80), (16, 16), (1, 16)),
        ((256, 80), (16, 8), (1, 16)),
    ],
)
def test_published_sweeps(axis: tuple[int, int], tiles: tuple[int, int], useful: tuple[int, ...]) -> None:
    """The strides of the paper's tables, and no others; the last of each is the one that is fully block-sparse."""
    found = sweep_axis((*axis, 1, 1, False), *tiles)
    assert found.useful_strides == useful
    assert found.block_sparse_stride == useful[-1]


@pytest.mark.parametrize("query_tile", [128, 256])
def test_least_block_sparse_stride_of_the_manuals_line(query_tile: int) -> None:
    found = sweep_axis((32768, 2048, 1, 1, False), query_tile, 128)
    assert found.block_sparse_stride == 256


@pytest.mark.parametrize("dynamic", [False, True])
def test_every_stride_one_by_one(dynamic: bool) -> None:
    generator = np.random.default_rng(11)
    seen = {"found": 0, "none": 0}
    for _ in range(400):
        ((length, window, _, dilation, causal),) = random_axes(generator, 1, 40)
        query_tile, key_tile = (int(side) for side in generator.integers(1, 7, 2))
        useful: list[int] = []
        visited: list[int] = []
        least = None
        for stride in range(1, window + 1):
            counts = axis_counts((length, window, stride, dilation, causal), query_tile, key_tile, dynamic=dynamic)
            if not visited or counts.visited < visited[-1]:
                useful.append(stride)
                visited.append(counts.visited)
            if least is None and counts.held == counts.pairs and counts.visited * key_tile == window:
                least = stride
        found = sweep_axis((length, window, 1, dilation, causal), query_tile, key_tile, dynamic=dynamic)
        assert (found.useful_strides, found.visited) == (tuple(useful), tuple(visited))
        assert found.block_sparse_stride == least
        seen["none" if least is None else "found"] += 1
    assert min(seen.values()) > 20


def test_nearest_window_where_no_stride_helps() -> None:
    """22 is no multiple of a key tile of 8; 24 is the nearest that is, and 16 lies further away."""
    found = sweep_axis((80, 22, 1, 1, False), 8, 8)
    assert found.block_sparse_stride is None
    assert (found.nearest_window, found.nearest_stride) == (24, 8)
    # the cut tile at the end of the axis holds padding, whatever the window
    found = sweep_axis((81, 22, 1, 1, False), 8, 8)
    assert (found.block_sparse_stride, found.nearest_window, found.nearest_stride) == (None, None, None)


def test_long_axes_are_swept_whole() -> None:
    """A million tokens; the window is odd, so that no stride reaches the least number of tiles early."""
    found = sweep_axis((1 << 20, 10001, 1, 1, False), 256, 128)
    assert found.useful_strides[0] == 1
    assert found.visited[-1] == 80
    assert all(
        axis_counts((1 << 20, 10001, stride, 1, False), 256, 128).visited == visited
        for stride, visited in zip(found.useful_strides, found.visited, strict=True)
    )
