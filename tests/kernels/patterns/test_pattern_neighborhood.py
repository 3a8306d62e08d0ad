"""Generalized neighborhood attention: every map against its mask, limits, permutation laws, published sparsities."""

import time
from itertools import product

import numpy as np
import pytest
import torch
from attnkit_kernels.patterns import pattern
from attnkit_kernels.patterns.neighborhood import Neighborhood
from attnkit_kernels.softmax import attention, from_boxes
from pattern_checks import assert_attends_as, assert_map_shows, qkv


def axis_mask(length, window, stride, dilation, causal):
    """Section 2 of the definition, one query at a time."""
    mask = np.zeros((length, length), np.bool_)
    for position in range(length):
        group, query = position % dilation, position // dilation
        members = -(-(length - group) // dilation)
        if causal:
            leader = min(query // stride * stride + stride - 1, members - 1)
            keys = range(max(leader - window + 1, 0), min(query + 1, members))
        else:
            leader = min(query // stride * stride + stride // 2, members - 1)
            start = min(max(leader - window // 2, 0), members - window)
            keys = range(start, start + window)
        for key in keys:
            mask[position, group + dilation * key] = True
    return mask


def canvas_mask(pattern, canvas):
    mask = np.ones((1, 1), np.bool_)
    for axis in pattern.axes(canvas):
        mask = np.kron(mask, axis_mask(*axis))
    return mask


def random_case(generator, rank, causal_share=0.3):
    canvas = tuple(int(length) for length in generator.integers(2, (50, 13, 7)[rank - 1], rank))
    dilation = tuple(int(generator.integers(1, max(2, length // 2))) for length in canvas)
    window = tuple(int(generator.integers(1, n // t + 1)) for n, t in zip(canvas, dilation, strict=True))
    stride = tuple(int(generator.integers(1, side + 1)) for side in window)
    causal = tuple(bool(generator.random() < causal_share) for _ in canvas)
    return canvas, Neighborhood(window, stride, dilation, causal)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("tiling", ["space", "runs"])
def test_maps_show_the_mask_of_the_definition(rank, tiling):
    generator = np.random.default_rng(rank)
    for _ in range(40):
        canvas, chosen = random_case(generator, rank)
        if tiling == "space":
            tiles = [tuple(int(side) for side in generator.integers(1, 6, rank)) for _ in range(2)]
        else:
            tiles = [int(side) for side in generator.integers(1, 30, 2)]
        assert_map_shows(chosen.block_map(canvas, *tiles), canvas_mask(chosen, canvas))


def test_four_axes_work_as_three_do():
    chosen = Neighborhood((2, 3, 2, 3), (1, 2, 2, 3), (2, 1, 1, 1))
    for tile in ((2, 2, 1, 3), 7):
        assert_map_shows(chosen.block_map((4, 4, 3, 5), tile), canvas_mask(chosen, (4, 4, 3, 5)))


@pytest.mark.parametrize(
    ("canvas", "chosen", "tile"),
    [
        ((37,), Neighborhood(8, 3), (4,)),
        ((9, 10), Neighborhood((3, 4), (1, 2), (3, 2), (False, True)), (2, 3)),
        ((4, 5, 6), Neighborhood((2, 3, 5), causal=(True, False, False)), (2, 2, 4)),
        ((4, 5, 6), Neighborhood((2, 3, 5), causal=(True, False, False)), 16),
    ],
)
def test_attention_over_the_map_is_masked_attention(canvas, chosen, tile):
    assert_attends_as(chosen.block_map(canvas, tile), canvas_mask(chosen, canvas))


def test_a_window_of_the_axis_is_dense_and_needs_no_rule():
    block_map = Neighborhood((4, 6)).block_map((4, 6), (2, 2))
    assert block_map.rule is None and block_map.full_count == block_map.total
    # other windows leave such an axis out of the rule
    assert len(Neighborhood((4, 3)).block_map((4, 6), (2, 2)).rule.low) == 1


def test_stride_of_the_window_is_blocked_attention_where_it_divides_the_axis():
    left = Neighborhood((4, 3), (4, 3)).block_map((8, 9), (4, 3))
    assert left.visited == left.full_count == 6
    np.testing.assert_array_equal(left.to_dense(), pattern("blocked", window=(4, 3)).block_map((8, 9)).to_dense())


def test_row_and_column_sums():
    chosen = Neighborhood((3, 5))
    mask = chosen.block_map((7, 9), (4, 4)).to_dense()[0, 0]
    assert (mask.sum(1) == 15).all()
    # a key is used by the queries whose windows hold it: more of them next to a border than in the middle
    uses = [axis_mask(n, w, 1, 1, False).sum(0) for n, w in ((7, 3), (9, 5))]
    np.testing.assert_array_equal(mask.sum(0), np.outer(*uses).ravel())
    assert Neighborhood((4, 3), (4, 3)).block_map((8, 9), (2, 2)).visible_pairs() == 8 * 9 * 12


def test_swapped_axes_permute_the_result():
    query, key, value = qkv(8 * 6)
    upright = attention(query, key, value, block_map=Neighborhood((3, 4), (2, 1)).block_map((8, 6)), impl="reference")

    def swap(tensor, first, second):
        return tensor.unflatten(1, (first, second)).transpose(1, 2).flatten(1, 2)

    lying = attention(
        *(swap(tensor, 8, 6) for tensor in (query, key, value)),
        block_map=Neighborhood((4, 3), (1, 2)).block_map((6, 8)),
        impl="reference",
    )
    torch.testing.assert_close(swap(lying.output, 6, 8), upright.output, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(swap(lying.lse, 6, 8), upright.lse, rtol=1e-12, atol=1e-12)


def test_dilation_equals_reshape():
    query, key, value = qkv(24)
    dilated = attention(query, key, value, block_map=Neighborhood(5, dilation=3).block_map((24,), 4), impl="reference")
    # position 3 i + group: the groups are samples of a batch
    groups = [tensor.unflatten(1, (8, 3)).transpose(1, 2).flatten(0, 1) for tensor in (query, key, value)]
    plain = attention(*groups, block_map=Neighborhood(5).block_map((8,), 4), impl="reference").output
    torch.testing.assert_close(
        plain.unflatten(0, (1, 3)).transpose(1, 2).flatten(1, 2), dilated.output, rtol=1e-12, atol=1e-12
    )


def test_shifts_by_one_token_inside():
    query, key, value = qkv(20)
    block_map = Neighborhood(5).block_map((20,), 8)
    still = attention(query, key, value, block_map=block_map, impl="reference").output
    moved = attention(*(t.roll(1, 1) for t in (query, key, value)), block_map=block_map, impl="reference").output
    torch.testing.assert_close(moved[:, 4:-3], still.roll(1, 1)[:, 4:-3], rtol=1e-12, atol=1e-12)
    assert (moved - still.roll(1, 1))[:, 0].abs().max() > 1e-3


@pytest.mark.parametrize(
    ("window", "stride", "dilation", "ratio"),
    [
        ((4, 16), (1, 1), (11, 5), 55.0),
        ((12, 16), (4, 1), (1, 5), 18.33),
        ((12, 24), (4, 8), (1, 1), 12.22),
        ((20, 40), (4, 8), (1, 1), 4.40),
        ((28, 56), (4, 8), (1, 1), 2.24),
    ],
)
def test_layers_of_cosmos_predict2_are_perfectly_block_sparse(window, stride, dilation, ratio):
    chosen = Neighborhood((16, *window), (1, *stride), (1, *dilation))
    block_map = chosen.block_map((16, 44, 80), (8, 4, 8), (4, 4, 8))
    # no key but the window's is fetched, where tiles have no padding
    assert block_map.query_tokens / (16 * np.prod(window)) == pytest.approx(ratio, abs=5e-3)
    assert block_map.partial_count == 0
    assert block_map.visible_pairs() == block_map.query_tokens * 16 * np.prod(window)


@pytest.mark.parametrize(("query_tile", "smallest"), [(256, 256), (128, 256)])
def test_the_smallest_perfect_stride_of_the_manual(query_tile, smallest):
    strides = [2**power for power in range(12)]
    perfect = [s for s in strides if Neighborhood(2048, s).block_map((32768,), query_tile, 128).partial_count == 0]
    assert perfect[0] == smallest


def test_runs_visit_more_than_tiles_in_space():
    # the paper's FLUX case: 6.10x with tiles in space, 3.20x with runs, of the worst row
    chosen = Neighborhood((80, 80))
    space = chosen.block_map((256, 256), (16, 16), (16, 8))
    runs = chosen.block_map((256, 256), 256, 128)
    assert (np.diff(space.starts).max(), np.diff(runs.starts).max(), runs.key_blocks) == (84, 160, 512)


def test_runs_agree_with_the_engines_general_builder():
    chosen = Neighborhood((3, 4, 6), (1, 2, 3), causal=(True, False, False))
    ours = chosen.block_map((6, 8, 10), 32, 16)
    general = from_boxes(ours.rule, 32, 16)
    for name in ("starts", "columns", "full"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(general, name))


def test_default_tiles_have_128_slots():
    for canvas, sides in [((4096,), (128,)), ((64, 64), (8, 16)), ((16, 32, 32), (4, 4, 8)), ((2, 64, 64), (2, 8, 8))]:
        block_map = Neighborhood(2).block_map(canvas)
        assert block_map.query_block == block_map.key_block == np.prod(sides) == 128
        first = np.stack(np.unravel_index(block_map.query_slots()[:128], canvas))
        assert tuple(first.max(1) + 1) == sides


@pytest.mark.parametrize(("tile", "key_tile"), [((4, 4, 8), None), ((4, 4, 8), (2, 8, 8)), (128, 128)])
def test_64k_tokens_are_mapped_in_no_time(tile, key_tile):
    started = time.process_time()
    block_map = Neighborhood((8, 16, 16)).block_map((16, 64, 64), tile, key_tile)
    assert block_map.query_tokens == 65536
    # 5 to 200 ms of this process; the limit leaves room for slow machines, and an N x N mask would not pass it
    assert time.process_time() - started < 3


@pytest.mark.parametrize(
    ("settings", "canvas", "tiles", "text"),
    [
        ({"window": (3, 3)}, (4, 4, 4), (), "2 values (3, 3) for a canvas of 3 axes (4, 4, 4)"),
        ({"window": 9}, (16, 8), (), "axis 1 of canvas (16, 8): window must not be larger than its axis, got window 9"),
        ({"window": 3, "stride": 4}, (8,), (), "stride 4 with window 3"),
        ({"window": 3}, (8, 8), ((2, 2, 2),), "2 positive sides for canvas (8, 8), or one number, got (2, 2, 2)"),
        ({"window": 3}, (8, 8), ((2, 2), 4), "got (2, 2) and 4"),
        ({"window": 3}, (8, 0), (), "got (8, 0)"),
        ({"window": ()}, (8,), (), "got none"),
    ],
)
def test_what_does_not_fit_is_refused_with_both_values(settings, canvas, tiles, text):
    with pytest.raises(ValueError) as error:
        Neighborhood(**settings).block_map(canvas, *tiles)
    assert text in str(error.value)


def test_groups_of_unequal_length_have_blocks_of_their_own():
    block_map = Neighborhood(2, dilation=3).block_map((7,), (2,), (2,))
    np.testing.assert_array_equal(block_map.query_slots().reshape(-1, 2), [[0, 3], [6, -1], [1, 4], [2, 5]])
    # group 0 holds three tokens: windows 0..1 and, pushed back, 1..2
    assert [block_map.row(0, 0, row)[0].tolist() for row in range(4)] == [[0], [0, 1], [2], [3]]


def test_every_small_setting_of_one_axis():
    for length, dilation in product(range(1, 9), range(1, 4)):
        for window in range(1, length // dilation + 1):
            for stride, causal in product(range(1, window + 1), (False, True)):
                chosen = Neighborhood(window, stride, dilation, causal)
                assert_map_shows(chosen.block_map((length,), (3,), (2,)), canvas_mask(chosen, (length,)))
