"""HaloNet's attention: naive loops, hand case, border, dead rows, reach, the link to neighborhood attention."""

import numpy as np
import pytest
import torch
from attnkit_kernels.patterns import Maps
from attnkit_kernels.patterns.halo import Halo
from attnkit_kernels.patterns.neighborhood import Neighborhood
from attnkit_kernels.softmax import attention
from attnkit_kernels.softmax.variants.halo import halo_attention
from pattern_checks import assert_attends_as, assert_map_shows, qkv


def naive(query, key, value, canvas, block, halo, tables=None, relative_scale=1.0, pad="zero", stride=1):
    """Section 2 of the definition for one sample in float64: each pixel, each key of its block's window."""
    (rows, columns), dim, heads = canvas, query.shape[-1], query.shape[2]
    own, window = block // stride, block + 2 * halo
    output = torch.zeros(query.shape[1], heads, value.shape[-1], dtype=torch.float64)
    for at, (row, column) in enumerate(np.ndindex(rows // stride, columns // stride)):
        top, left = row // own * block - halo, column // own * block - halo
        for head in range(heads):
            q = query[0, at, head]
            scores, values = [], []
            for y, x in np.ndindex(window, window):
                inside = 0 <= top + y < rows and 0 <= left + x < columns
                if not inside and pad == "mask":
                    continue
                token = (top + y) * columns + left + x
                score = q @ key[0, token, head] * dim**-0.5 if inside else q.new_zeros(())
                if tables is not None:
                    height, width = (
                        table[window - 1 + place - mine % own]
                        for table, place, mine in zip(tables, (y, x), (row, column), strict=True)
                    )
                    score = score + relative_scale * (q @ height + q @ width)
                scores.append(score)
                values.append(value[0, token, head] if inside else value.new_zeros(value.shape[-1]))
            output[at, head] = torch.stack(scores).softmax(0) @ torch.stack(values)
    return output[None]


def tables(block, halo, dim=8, seed=3):
    generator = torch.Generator().manual_seed(seed)
    shape = 2 * (block + 2 * halo) - 1, dim
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2)]


@pytest.mark.parametrize("pad", ["zero", "mask"])
@pytest.mark.parametrize(
    ("canvas", "block", "halo", "relative", "stride"),
    [
        ((4, 8), 4, 2, 1.0, 1),
        ((6, 9), 3, 1, 8**-0.5, 1),
        ((4, 4), 2, 3, None, 1),
        ((8, 8), 4, 1, 1.0, 2),
        ((4, 6), 2, 0, 1.0, 1),
    ],
)
def test_it_is_the_naive_loops(pad, canvas, block, halo, relative, stride):
    query, key, value = qkv(canvas[0] * canvas[1] // stride**2, canvas[0] * canvas[1])
    value = torch.cat([value, value.flip(-1)], -1)
    both = None if relative is None else tables(block, halo)
    named = {} if relative is None else dict(zip(("height_table", "width_table"), both, strict=True))
    got = halo_attention(
        query, key, value, canvas=canvas, block=block, halo=halo, pad=pad, stride=stride,
        relative_scale=1.0 if relative is None else relative, impl="reference", **named,
    ).output  # fmt: skip
    expected = naive(query, key, value, canvas, block, halo, both, relative or 1.0, pad, stride)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_the_hand_case_of_the_border():
    value = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1, 1)
    for pad, expected in (("zero", 10 / 9), ("mask", 10 / 4)):
        got = halo_attention(
            torch.zeros_like(value), value, value, canvas=(2, 2), block=1, halo=1, pad=pad, impl="reference"
        ).output
        torch.testing.assert_close(got, torch.full_like(value, expected))


def test_borders_differ_and_the_inside_does_not():
    query, key, value = qkv(12 * 12)
    height, width = tables(4, 2)
    zero, mask = (
        halo_attention(
            query, key, value, canvas=(12, 12), block=4, halo=2, height_table=height, width_table=width, pad=pad,
            impl="reference",
        ).output.unflatten(1, (12, 12))
        for pad in ("zero", "mask")
    )  # fmt: skip
    torch.testing.assert_close(zero[:, 4:8, 4:8], mask[:, 4:8, 4:8], rtol=1e-12, atol=1e-12)
    assert (zero - mask)[:, :4].abs().max() > 0.1


@pytest.mark.parametrize("with_tables", [False, True])
def test_one_block_without_halo_is_dense(with_tables):
    query, key, value = qkv(16)
    named = {}
    bias = None
    if with_tables:
        named = dict(zip(("height_table", "width_table"), tables(4, 0), strict=True))
        row, column = np.indices((4, 4)).reshape(2, -1)
        terms = (query.transpose(1, 2) @ named["height_table"].T, query.transpose(1, 2) @ named["width_table"].T)
        index = [torch.from_numpy(place - place[:, None] + 3).expand(1, 2, 16, 16) for place in (row, column)]
        bias = sum(term.gather(-1, where) for term, where in zip(terms, index, strict=True))
    got = halo_attention(query, key, value, canvas=(4, 4), block=4, halo=0, impl="reference", **named).output
    expected = torch.nn.functional.scaled_dot_product_attention(
        *(tensor.transpose(1, 2) for tensor in (query, key, value)), attn_mask=bias
    ).transpose(1, 2)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_rolls_by_a_block_commute_away_from_the_border():
    query, key, value = qkv(4 * 24)
    named = dict(zip(("height_table", "width_table"), tables(4, 2), strict=True))

    def run(by):
        moved = (tensor.unflatten(1, (4, 24)).roll(by, 2).flatten(1, 2) for tensor in (query, key, value))
        got = halo_attention(*moved, canvas=(4, 24), block=4, halo=2, impl="reference", **named).output
        return got.unflatten(1, (4, 24)).roll(-by, 2)[:, :, 4:-8]

    torch.testing.assert_close(run(4), run(0), rtol=1e-12, atol=1e-12)
    assert (run(1) - run(0)).abs().max() > 0.1


def test_the_first_rows_of_the_tables_are_never_read():
    query, key, value = qkv(8 * 8)
    both = [table.requires_grad_() for table in tables(4, 2)]
    output = halo_attention(
        query, key, value, canvas=(8, 8), block=4, halo=2, height_table=both[0], width_table=both[1], impl="reference"
    ).output
    for gradient in torch.autograd.grad((output * value).sum(), both):
        assert gradient.shape == (15, 8)
        assert (gradient[:4] == 0).all() and (gradient[4:].abs().max(1).values > 1e-6).all()


@pytest.mark.parametrize("pad", ["zero", "mask"])
def test_a_pixel_reaches_its_blocks_window_and_no_further(pad):
    canvas, block, halo = (12, 16), 4, 2
    query, key, value = (tensor.requires_grad_() for tensor in qkv(12 * 16))
    output = halo_attention(query, key, value, canvas=canvas, block=block, halo=halo, pad=pad, impl="reference").output
    for y, x in ((0, 0), (5, 6), (11, 3)):
        gradient = torch.autograd.grad(output[:, y * 16 + x].sum(), value, retain_graph=True)[0]
        reached = gradient.abs().sum((0, 2, 3)).reshape(canvas) > 0
        expected = torch.zeros(canvas, dtype=torch.bool)
        top, left = y // block * block - halo, x // block * block - halo
        expected[max(top, 0) : top + block + 2 * halo, max(left, 0) : left + block + 2 * halo] = True
        assert torch.equal(reached, expected)


def test_inside_it_is_neighborhood_attention_with_stride_block():
    query, key, value = qkv(20 * 24)
    halo_map = Halo(4, 2).block_map((20, 24))
    near_map = Neighborhood(8, 4).block_map((20, 24))
    ours, theirs = (
        attention(query, key, value, block_map=one, impl="reference").output.unflatten(1, (20, 24))
        for one in (halo_map, near_map)
    )
    torch.testing.assert_close(ours[:, 4:-4, 4:-4], theirs[:, 4:-4, 4:-4], rtol=1e-12, atol=1e-12)
    assert (ours - theirs)[:, :4].abs().max() > 1e-2


@pytest.mark.parametrize("pad", ["zero", "mask"])
@pytest.mark.parametrize(
    ("canvas", "block", "halo", "stride", "tiles"),
    [
        ((6, 9), 3, 2, 1, (None, None)),
        ((6, 9), 3, 2, 1, ((2, 4), (3, 5))),
        ((8, 4), (4, 2), (1, 3), (2, 1), ((2, 2), (4, 4))),
        ((10,), 5, 1, 1, (3, 4)),
        ((2, 4, 4), 2, 1, 1, (None, (2, 2, 2))),
    ],
)
def test_maps_show_the_windows(pad, canvas, block, halo, stride, tiles):
    chosen = Halo(block, halo, pad, stride)
    mask = np.ones((1, 1), np.bool_)
    for length, side, more, step in zip(canvas, *chosen.sides(canvas), strict=True):
        key = np.arange(-more, length + more) if pad == "zero" else np.arange(length)
        first = np.arange(length // step)[:, None] // (side // step) * side
        mask = np.kron(mask, (first - more <= key) & (key < first + side + more))
    block_map = chosen.block_map(canvas, *tiles)
    assert_map_shows(block_map, mask)
    assert chosen.visible_pairs(canvas) == mask.sum()
    if pad == "zero":
        assert (mask.sum(1) == np.prod([s + 2 * h for s, h in zip(*chosen.sides(canvas)[:2], strict=True)])).all()
    assert_attends_as(block_map, mask)


def test_a_halo_that_tiles_divide_is_block_sparse():
    block_map = Halo(8, 4, "zero").block_map((32, 32), (8, 8), (4, 4))
    assert block_map.partial_count == 0 and block_map.visited == 16 * 16


def test_maps_are_kept_where_the_caller_wants():
    query, key, value = qkv(16)
    maps = Maps()
    for _ in range(2):
        halo_attention(query, key, value, canvas=(4, 4), block=2, halo=1, maps=maps, impl="reference")
    assert len(maps) == 1


def test_grouped_heads_and_gradients():
    query = qkv(16, heads=4, dim=4)[0].requires_grad_()
    _, key, value = (tensor.requires_grad_() for tensor in qkv(16, heads=2, dim=4))
    both = [table.requires_grad_() for table in tables(2, 1, dim=4)]

    def run(*tensors):
        return halo_attention(
            *tensors[:3], canvas=(4, 4), block=2, halo=1, height_table=tensors[3], width_table=tensors[4],
            impl="reference",
        ).output  # fmt: skip

    assert torch.autograd.gradcheck(run, (query, key, value, *both), fast_mode=True)


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"block": 3}, "must be divisible by its block, got 4 tokens and block 3"),
        ({"canvas": (4, 8)}, "canvas (4, 8) has 32 tokens, got 16 keys"),
        ({"pad": "wrap"}, "pad must be one of mask, zero, got 'wrap'"),
        ({"halo": -1}, "halo must be at least 0, got (-1,)"),
        ({"height_table": torch.zeros(7, 8)}, "go together, got no width_table"),
        (
            {"height_table": torch.zeros(7, 8), "width_table": torch.zeros(5, 8)},
            "width_table: expected [7, 8], got [5, 8]",
        ),
        ({"stride": 3}, "got block 2 and stride 3"),
    ],
)
def test_what_does_not_fit_is_refused_with_both_values(changed, text):
    with pytest.raises(ValueError) as error:
        halo_attention(*qkv(16), **{"canvas": (4, 4), "block": 2, "halo": 1, "impl": "reference"} | changed)
    assert text in str(error.value)


def test_halo_tiles_are_tiles_in_space():
    with pytest.raises(ValueError, match="tiles of 2 sides, got 16 and None"):
        Halo(2, 1).block_map((4, 4), 16)
