"""Operations and bytes."""

from __future__ import annotations

import pytest
from attnkit_kernels.patterns.neighborhood import Neighborhood
from attnkit_kernels.simulate import simulate, traffic


def test_dense_moves_each_tensor_once_if_a_tile_is_the_canvas() -> None:
    found = traffic(simulate((64,), Neighborhood(64), (64,), (64,)), heads=2, dim=16, dtype="float32")
    assert found.least_bytes == found.tile_bytes == 4 * 64 * 2 * 16 * 4
    assert found.flops == found.visible_flops == 4 * 64 * 64 * 16 * 2


def test_tiles_are_computed_whole_and_read_at_every_visit() -> None:
    found = traffic(simulate((9,), Neighborhood(3), (4,), (4,)), heads=1, dim=8)
    # seven visited tiles of 4 x 4, nine tokens
    assert found.flops == 4 * 7 * 16 * 8
    assert found.visible_flops == 4 * 27 * 8
    assert found.least_bytes == 4 * 9 * 8 * 2
    assert found.tile_bytes == 2 * 9 * 8 * 2 + 2 * 7 * 4 * 8 * 2


def test_unknown_dtype() -> None:
    with pytest.raises(ValueError, match=r"dtype: got 'int4', expected one of float32"):
        traffic(simulate((8,), Neighborhood(2), (2,), (2,)), dtype="int4")
