"""MaxViT's two partitions: hand case, dense attention of each window, rolls, tiles."""

import numpy as np
import pytest
import torch
from attnkit_kernels.patterns.blocked import Blocked, Grid
from attnkit_kernels.patterns.canvas import divisor_tile
from attnkit_kernels.softmax import attention, relative_table
from pattern_checks import assert_attends_as, assert_map_shows, qkv

PARTITIONS = {"block": lambda side: Blocked(side), "grid": lambda side: Grid(side)}


def expected_mask(rows, columns, side, kind):
    members = window_members(rows, columns, side, kind)
    mask = np.zeros((rows * columns,) * 2, np.bool_)
    for window in members:
        mask[np.ix_(window, window)] = True
    return mask


def window_members(rows, columns, side, kind):
    token = np.arange(rows * columns).reshape(rows, columns)
    if kind == "block":
        return [
            token[r : r + side, c : c + side].ravel() for r in range(0, rows, side) for c in range(0, columns, side)
        ]
    down, across = rows // side, columns // side
    return [token[r::down, c::across].ravel() for r in range(down) for c in range(across)]


def test_the_hand_case():
    block = Blocked(4).block_map((8, 8)).query_slots().reshape(4, 4, 4)
    grid = Grid(4).block_map((8, 8)).query_slots().reshape(4, 4, 4)
    assert block[0].tolist() == [[0, 1, 2, 3], [8, 9, 10, 11], [16, 17, 18, 19], [24, 25, 26, 27]]
    assert grid[0].tolist() == [[0, 2, 4, 6], [16, 18, 20, 22], [32, 34, 36, 38], [48, 50, 52, 54]]


@pytest.mark.parametrize("kind", PARTITIONS)
@pytest.mark.parametrize("canvas", [(8, 12), (4, 4)])
def test_it_is_dense_attention_of_each_window(kind, canvas):
    block_map = PARTITIONS[kind](4).block_map(canvas)
    assert block_map.visited == block_map.full_count == canvas[0] * canvas[1] // 16
    mask = expected_mask(*canvas, 4, kind)
    assert_map_shows(block_map, mask)
    assert mask.sum() == canvas[0] * canvas[1] * 16 and (mask.sum(0) == 16).all()
    assert_attends_as(block_map, mask)
    query, key, value = qkv(canvas[0] * canvas[1])
    whole = attention(query, key, value, block_map=block_map, impl="reference").output[0]
    for window in window_members(*canvas, 4, kind):
        alone = attention(*(tensor[:, window] for tensor in (query, key, value)), impl="reference").output[0]
        torch.testing.assert_close(whole[window], alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", PARTITIONS)
@pytest.mark.parametrize("tiles", [((2, 3), (4, 2)), (8, 16)])
def test_other_tiles_show_the_same(kind, tiles):
    assert_map_shows(PARTITIONS[kind](4).block_map((8, 12), *tiles), expected_mask(8, 12, 4, kind))


def test_one_window_of_the_whole_canvas_is_dense_in_both():
    for chosen in (Blocked(6), Grid(6)):
        block_map = chosen.block_map((6, 6))
        assert block_map.visited == block_map.full_count == block_map.total == 1


def test_rolls_commute_as_the_windows_do():
    query, key, value = qkv(8 * 12)

    def rolled(tensor, by):
        return tensor.unflatten(1, (8, 12)).roll((by, by), (1, 2)).flatten(1, 2)

    def difference(chosen, by):
        block_map = chosen.block_map((8, 12))
        still = attention(query, key, value, block_map=block_map, impl="reference").output
        moved = attention(*(rolled(t, by) for t in (query, key, value)), block_map=block_map, impl="reference").output
        return (moved - rolled(still, by)).abs().max()

    assert difference(Blocked(4), 4) < 1e-13 and difference(Blocked(4), 1) > 0.1
    assert all(difference(Grid(4), by) < 1e-13 for by in (1, 2, 4))


def test_the_bias_of_a_window_is_read_by_key_minus_query():
    table = torch.randn(2, 7, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    query, key, value = qkv(8 * 12)
    got = attention(
        query,
        key,
        value,
        block_map=Blocked(4).block_map((8, 12)),
        bias=relative_table(table, (8, 12)),
        impl="reference",
    ).output[0]
    row, column = np.indices((4, 4)).reshape(2, -1)
    bias = table[:, row - row[:, None] + 3, column - column[:, None] + 3]
    for window in window_members(8, 12, 4, "block"):
        expected = torch.nn.functional.scaled_dot_product_attention(
            *(tensor[0, window].transpose(0, 1) for tensor in (query, key, value)), attn_mask=bias
        ).transpose(0, 1)
        torch.testing.assert_close(got[window], expected, rtol=1e-12, atol=1e-12)


def test_default_tiles_divide_the_window():
    assert divisor_tile((7, 7)) == (7, 7)
    assert divisor_tile((32, 32)) == (8, 16)
    assert divisor_tile((12, 12)) == (6, 12)
    block_map = Blocked(32).block_map((64, 64))
    assert block_map.query_block == 128 and block_map.partial_count == 0 and block_map.density == 0.25


def test_windows_that_do_not_fit_are_refused_with_both_values():
    for chosen, name in ((Blocked(7), "window"), (Grid((8, 7)), "grid")):
        with pytest.raises(ValueError, match=f"must be divisible by its {name}, got 64 tokens and {name} 7"):
            chosen.block_map((64, 64))
