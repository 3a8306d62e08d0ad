"""Windows of one axis: the tables and rules of the definition."""

import numpy as np
import pytest
from attnkit_kernels.patterns.axes import check_axis, group_lengths, tile_ranges, window_bounds


@pytest.mark.parametrize(
    ("length", "window", "stride", "starts"),
    [
        (6, 3, 1, "001233"),
        (6, 4, 1, "000122"),
        (6, 4, 2, "001122"),
        (8, 4, 4, "00004444"),
        (9, 3, 3, "000333666"),
        (7, 3, 3, "0003334"),
    ],
)
def test_windows_start_as_in_the_tables(length, window, stride, starts):
    start, end = window_bounds(length, window, stride)
    assert "".join(map(str, start)) == starts
    assert (end - start == window).all()


@pytest.mark.parametrize(
    ("length", "window", "stride", "bounds"),
    [(6, 3, 1, "01 02 03 14 25 36"), (8, 4, 2, "01 02 03 04 25 26 47 48")],
)
def test_causal_windows_are_those_of_the_tables(length, window, stride, bounds):
    start, end = window_bounds(length, window, stride, True)
    assert " ".join(f"{a}{b}" for a, b in zip(start, end, strict=True)) == bounds


def test_a_causal_query_sees_itself_and_between_w_minus_s_plus_1_and_w_keys():
    start, end = window_bounds(64, 12, 5, True)
    query = np.arange(64)
    assert ((start <= query) & (query == end - 1)).all()
    inside = (end - start)[12:-5]
    assert inside.min() == 12 - 5 + 1 and inside.max() == 12


def test_dilation_groups_differ_by_one_at_most():
    assert group_lengths(7, 3) == [3, 2, 2]
    assert group_lengths(8, 2) == [4, 4]
    assert group_lengths(5) == [5]


@pytest.mark.parametrize("causal", [False, True])
def test_tile_ranges_are_those_of_the_mask(causal):
    generator = np.random.default_rng(3)
    for _ in range(50):
        length = int(generator.integers(1, 40))
        window = int(generator.integers(1, length + 1))
        start, end = window_bounds(length, window, int(generator.integers(1, window + 1)), causal)
        query_tile, key_tile = (int(side) for side in generator.integers(1, 12, 2))
        key = np.arange(length)
        mask = (start[:, None] <= key) & (key < end[:, None])
        mask = np.pad(mask, ((0, -length % query_tile), (0, -length % key_tile)))
        tiles = mask.reshape(len(mask) // query_tile, query_tile, -1, key_tile)
        first, stop, full_first, full_stop = (edge[:, None] for edge in tile_ranges(start, end, query_tile, key_tile))
        tile = np.arange(tiles.shape[2])
        np.testing.assert_array_equal(tiles.any((1, 3)), (first <= tile) & (tile < stop))
        np.testing.assert_array_equal(tiles.all((1, 3)), (full_first <= tile) & (tile < full_stop))


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((8, 9, 1, 1), "window 9 on an axis of 8"),
        ((8, 4, 5, 1), "stride 5 with window 4"),
        ((8, 4, 0, 1), "stride 0 with window 4"),
        ((8, 0, 1, 1), "got 0 on an axis of 8"),
        ((8, 3, 1, 3), "3 * 3 = 9 on an axis of 8"),
        ((8, 3, 1, 0), "dilation must be at least 1, got 0"),
        ((0, 1, 1, 1), "at least 1 token, got 0"),
    ],
)
def test_settings_that_do_not_fit_are_named_with_both_values(values, text):
    with pytest.raises(ValueError) as error:
        check_axis(*values)
    assert text in str(error.value)


def test_a_window_of_one_is_allowed():
    check_axis(4, 1)
    start, end = window_bounds(4, 1)
    assert (start == np.arange(4)).all() and (end == np.arange(4) + 1).all()
