"""Neighborhood maps and attention against NATTEN 0.21.7 on a CPU; `.ci/oracles` has the environment."""

import math

import numpy as np
import pytest
import torch
from attnkit_kernels.patterns.neighborhood import Neighborhood
from attnkit_kernels.softmax import attention

natten = pytest.importorskip("natten", reason="natten 0.21.7 is not installed: run .ci/oracles")
flex = pytest.importorskip("natten.backends.flex")
flex_attention = pytest.importorskip("torch.nn.attention.flex_attention")

# tiles of 64 slots: NATTEN's mask takes the key's offset modulo the query tile's size
TILES = {
    1: [(64,)],
    2: [(8, 8), (4, 16), (16, 4), (2, 32)],
    3: [(4, 4, 4), (2, 4, 8), (2, 8, 4), (8, 4, 2), (1, 8, 8)],
}
# most tokens of an axis of a random canvas
LONGEST = {1: 640, 2: 36, 3: 12}


def settings_for(canvas, dilation, generator):
    """A random neighborhood that NATTEN takes on this canvas (windows of 2 and more)."""
    window = tuple(int(generator.integers(2, n // t + 1)) for n, t in zip(canvas, dilation, strict=True))
    if generator.random() < 0.2:
        # all of an axis
        axis = int(generator.integers(len(canvas)))
        window = (*window[:axis], canvas[axis] // dilation[axis], *window[axis + 1 :])
    stride = tuple(int(generator.integers(1, side + 1)) for side in window)
    causal = tuple(bool(generator.random() < 0.3) for _ in canvas)
    return Neighborhood(window, stride, dilation, causal)


def random_dilation(rank, generator):
    return tuple(int(generator.integers(2, 4)) if generator.random() < 0.3 else 1 for _ in range(rank))


def block_mask(chosen, canvas, tiles=None):
    """NATTEN's BlockMask of the first dilation group (with tiles) or of the whole row-major index (without)."""
    settings = {
        "device": "cpu",
        "na_dim": len(canvas),
        "qkv_shape": canvas,
        "kernel_size": chosen.window,
        "stride": chosen.stride,
        "dilation": chosen.dilation,
        "is_causal": chosen.causal,
    }
    if tiles is None:
        return flex.get_na_flex_mask(**settings)
    longest = [-(-length // step) for length, step in zip(canvas, chosen.dilation, strict=True)]
    shapes = [tuple(-(-n // side) * side for n, side in zip(longest, tile, strict=True)) for tile in tiles]
    return flex.get_na_flex_mask(
        **settings, q_tile_shape=tiles[0], kv_tile_shape=tiles[1], q_shape=shapes[0], kv_shape=shapes[1]
    )


def listed(mask):
    """(seen, full) bool [query blocks, key blocks] of a BlockMask."""

    def table(counts, indices):
        shown = torch.zeros(mask.kv_indices.shape[-2:], dtype=torch.bool)
        for row, count in enumerate(counts[0, 0]):
            shown[row, indices[0, 0, row, :count].long()] = True
        return shown.numpy()

    full = table(mask.full_kv_num_blocks, mask.full_kv_indices)
    return table(mask.kv_num_blocks, mask.kv_indices) | full, full


def assert_lists_are(block_map, seen, full):
    np.testing.assert_array_equal(block_map.blocks()[0, 0], seen)
    ours = np.zeros_like(seen)
    ours[block_map.rows, block_map.columns] = block_map.full
    np.testing.assert_array_equal(ours, full)
    assert (block_map.visited, block_map.full_count) == (seen.sum(), full.sum())


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("seed", range(40))
def test_maps_of_tiles_in_space_have_nattens_blocks(rank, seed):
    generator = np.random.default_rng([rank, seed])
    tiles = [TILES[rank][int(generator.integers(len(TILES[rank])))] for _ in range(2)]
    dilation = random_dilation(rank, generator)
    # whole tiles in every group: NATTEN counts a tile full whatever its padding, ours are strict
    sides = [math.lcm(*pair) for pair in zip(*tiles, strict=True)]
    most = [max(1, LONGEST[rank] // (side * step)) for side, step in zip(sides, dilation, strict=True)]
    canvas = tuple(
        int(side * step * generator.integers(1, n + 1)) for side, step, n in zip(sides, dilation, most, strict=True)
    )
    chosen = settings_for(canvas, dilation, generator)
    seen, full = listed(block_mask(chosen, canvas, tiles))
    groups = np.eye(math.prod(dilation), dtype=np.bool_)
    assert_lists_are(chosen.block_map(canvas, *tiles), np.kron(groups, seen), np.kron(groups, full))


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("seed", range(30))
def test_maps_of_runs_have_nattens_blocks(rank, seed):
    generator = np.random.default_rng([rank, seed, 1])
    dilation = random_dilation(rank, generator) if rank > 1 else (1,)
    low = [2 * step for step in dilation]
    canvas = tuple(int(generator.integers(n, LONGEST[rank])) for n in low)
    chosen = settings_for(canvas, dilation, generator)
    # a run on a canvas of one axis is a tile in space, which is the same without dilation
    assert_lists_are(chosen.block_map(canvas, 64, 64), *listed(block_mask(chosen, canvas)))


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("seed", range(20))
def test_padded_tiles_and_unequal_groups_show_nattens_pairs(rank, seed):
    generator = np.random.default_rng([rank, seed, 2])
    tiles = [TILES[rank][int(generator.integers(len(TILES[rank])))] for _ in range(2)]
    dilation = random_dilation(rank, generator)
    canvas = tuple(int(generator.integers(2 * step, LONGEST[rank])) for step in dilation)
    chosen = settings_for(canvas, dilation, generator)
    mask = block_mask(chosen, canvas, tiles)
    shown = np.zeros((math.prod(canvas),) * 2, np.bool_)
    for group in range(math.prod(dilation)):
        # NATTEN's mask function in slots of the group, whose padding it does not know
        token = [tokens_of_slots(canvas, dilation, group, tile) for tile in tiles]
        pairs = mask.mask_mod(
            torch.tensor(group), torch.tensor(0), torch.arange(len(token[0]))[:, None], torch.arange(len(token[1]))
        ).numpy()
        real = [slots >= 0 for slots in token]
        shown[np.ix_(token[0][real[0]], token[1][real[1]])] = pairs[np.ix_(*real)]
    np.testing.assert_array_equal(chosen.block_map(canvas, *tiles).to_dense()[0, 0], shown)


def tokens_of_slots(canvas, dilation, group, tile):
    """Token of each slot of NATTEN's permuted group, -1 for padding."""
    place = np.unravel_index(group, dilation)
    longest = [-(-length // step) for length, step in zip(canvas, dilation, strict=True)]
    tiles = [-(-n // side) for n, side in zip(longest, tile, strict=True)]
    slot = np.indices((*tiles, *tile)).reshape(2 * len(tile), -1)
    position = [
        (slot[axis] * tile[axis] + slot[axis + len(tile)]) * dilation[axis] + place[axis] for axis in range(len(tile))
    ]
    inside = np.all([at < length for at, length in zip(position, canvas, strict=True)], axis=0)
    tokens = np.full(slot.shape[1], -1)
    tokens[inside] = np.ravel_multi_index([at[inside] for at in position], canvas)
    return tokens


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("seed", range(12))
def test_outputs_are_nattens(rank, seed):
    generator = np.random.default_rng([rank, seed, 3])
    dilation = random_dilation(rank, generator)
    canvas = tuple(int(generator.integers(2 * step, (90, 14, 8)[rank - 1])) for step in dilation)
    chosen = settings_for(canvas, dilation, generator)
    if rank == 1 and chosen.causal == (True,) and chosen.window == canvas:
        # plain causal attention, which NATTEN has no CPU form of
        chosen = Neighborhood(chosen.window, chosen.stride, chosen.dilation)
    heads, kv_heads = ((4, 4), (4, 2), (2, 1))[seed % 3]
    dim = (8, 16, 32)[seed % 3]
    normal = torch.Generator().manual_seed(seed)
    query, key, value = (torch.randn(2, *canvas, count, dim, generator=normal) for count in (heads, kv_heads, kv_heads))
    operator = (natten.na1d, natten.na2d, natten.na3d)[rank - 1]
    with torch.no_grad():
        output, lse = operator(
            query, key, value, chosen.window, stride=chosen.stride, dilation=chosen.dilation, is_causal=chosen.causal,
            backend="flex-fna", return_lse=True,
        )  # fmt: skip
    flat = [tensor.flatten(1, rank) for tensor in (query, key, value)]
    tile = TILES[rank][seed % len(TILES[rank])]
    for block_map in (chosen.block_map(canvas, tile), chosen.block_map(canvas)):
        got = attention(*flat, block_map=block_map, impl="reference")
        torch.testing.assert_close(got.output, output.flatten(1, rank), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(got.lse, lse.flatten(1, rank), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("canvas", [(40,), (9, 11), (4, 6, 5)])
def test_keys_outside_the_canvas_join_as_nattens_do(canvas):
    rank = len(canvas)
    normal = torch.Generator().manual_seed(rank)
    query, key, value = (torch.randn(2, *canvas, 2, 16, generator=normal) for _ in range(3))
    extra_key, extra_value = (torch.randn(2, 7, 2, 16, generator=normal) for _ in range(2))
    operator = (natten.na1d, natten.na2d, natten.na3d)[rank - 1]
    with torch.no_grad():
        output = operator(
            query, key, value, 3, additional_keys=extra_key, additional_values=extra_value, backend="flex-fna",
            attention_kwargs={"backend": "flex-fmha"},
        )  # fmt: skip
    got = attention(
        *(tensor.flatten(1, rank) for tensor in (query, key, value)), block_map=Neighborhood(3).block_map(canvas),
        extra_key=extra_key, extra_value=extra_value, impl="reference",
    ).output  # fmt: skip
    torch.testing.assert_close(got, output.flatten(1, rank), rtol=1e-5, atol=1e-5)
