"""3-D tables: lookups against brute force and torch's grid_sample, mixing, and the regularisers of the paper sheet."""

import itertools

import numpy as np
import pytest
import torch
from attnkit_kernels.image import lut3d
from attnkit_kernels.image.lut3d.numba import lookup_pixels

torch.set_num_threads(1)
CPU = ("reference", "numba")
both = pytest.mark.parametrize("impl", CPU)
modes = pytest.mark.parametrize("mode", lut3d.INTERPOLATIONS)


def colours(*shape, seed=0, dtype=np.float32, margin=0.0):
    return (np.random.default_rng(seed).random(shape) * (1 + 2 * margin) - margin).astype(dtype)


def by_hand(colour, table, mode):
    """One colour through a table, from the definitions, in float64."""
    size = table.shape[-1]
    place = np.clip(np.asarray(colour, np.float64), 0, 1) * (size - 1)
    cell = np.minimum(place.astype(int), size - 2)
    fraction = place - cell

    def corner(offsets):
        red, green, blue = cell + offsets
        return table[:, blue, green, red].astype(np.float64)

    if mode == "trilinear":
        total = np.zeros(3)
        for offsets in itertools.product((0, 1), repeat=3):
            weight = np.prod([f if offset else 1 - f for f, offset in zip(fraction, offsets, strict=True)])
            total += weight * corner(np.array(offsets))
        return total
    # walk from the near to the far corner along the axes, the largest fraction first
    at = np.zeros(3, int)
    total = corner(at)
    for axis in np.argsort(-fraction, kind="stable"):
        before = corner(at)
        at[axis] = 1
        total = total + fraction[axis] * (corner(at) - before)
    return total


@both
@modes
@pytest.mark.parametrize("size", [2, 3, 9, 33])
def test_the_identity_returns_its_input(impl, mode, size):
    image = colours(2, 3, 7, 5)
    assert np.abs(lut3d.lookup(image, lut3d.identity(size), mode, impl=impl) - image).max() < 1e-6


@both
@modes
def test_lookup_is_the_definition_pixel_by_pixel(impl, mode):
    table = colours(3, 4, 4, 4, seed=1, dtype=np.float64)
    image = colours(1, 3, 9, 7, margin=0.3, dtype=np.float64)
    result = lut3d.lookup(image, table, mode, impl=impl)
    for row, column in np.ndindex(9, 7):
        assert np.allclose(result[0, :, row, column], by_hand(image[0, :, row, column], table, mode), atol=1e-14)


@both
@modes
def test_ties_and_lattice_points_are_on_the_definition(impl, mode):
    table = colours(3, 5, 5, 5, seed=2)
    steps = np.array(list(itertools.product(np.arange(9) / 8, repeat=3)), np.float32)
    image = np.ascontiguousarray(steps.T.reshape(1, 3, 27, 27))
    result = lut3d.lookup(image, table, mode, impl=impl)
    expected = np.array([by_hand(colour, table, mode) for colour in steps]).T.reshape(3, 27, 27)
    assert np.abs(result[0] - expected).max() < 1e-6
    corner = np.ones((1, 3, 1, 1), np.float32)
    far, near = (lut3d.lookup(value * corner, table, mode, impl=impl)[0, :, 0, 0] for value in (1, 0))
    assert np.allclose(far, table[:, 4, 4, 4], rtol=0, atol=1e-7)
    assert np.array_equal(near, table[:, 0, 0, 0])


@both
def test_trilinear_is_grid_sample(impl):
    image, table = colours(1, 3, 11, 6, margin=0.2), colours(3, 17, 17, 17, seed=3)
    grid = 2 * torch.from_numpy(image).permute(0, 2, 3, 1)[:, None] - 1
    expected = torch.nn.functional.grid_sample(
        torch.from_numpy(table)[None], grid, mode="bilinear", padding_mode="border", align_corners=True
    )[:, :, 0]
    assert np.abs(lut3d.lookup(image, table, impl=impl) - expected.numpy()).max() < 2e-6


@both
def test_tetrahedral_keeps_greys_of_a_table_that_does(impl):
    table = colours(3, 6, 6, 6, seed=4)
    for at in range(6):
        table[:, at, at, at] = at / 5
    greys = np.repeat(np.linspace(0, 1, 50, dtype=np.float32).reshape(1, 1, 5, 10), 3, axis=1)
    assert np.abs(lut3d.lookup(greys, table, "tetrahedral", impl=impl) - greys).max() < 1e-6
    assert np.abs(lut3d.lookup(greys, table, "trilinear", impl=impl) - greys).max() > 1e-2


@both
@modes
def test_values_outside_are_clamped_infinities_too(impl, mode):
    table = colours(3, 5, 5, 5, seed=5)
    outside = np.array([[-3.0, 0.4, 7.0], [np.inf, -np.inf, 0.2]], np.float32).T.reshape(1, 3, 1, 2)
    result = lut3d.lookup(outside, table, mode, impl=impl)
    assert np.array_equal(result, lut3d.lookup(np.clip(outside, 0, 1), table, mode, impl=impl))
    assert np.isfinite(result).all()


@both
@modes
def test_a_nan_poisons_its_own_pixel_only(impl, mode):
    table = colours(3, 5, 5, 5, seed=5)
    image = colours(1, 3, 4, 40)
    clean = lut3d.lookup(image, table, mode, impl=impl)
    for channel in range(3):
        image[0, channel, 1, 3 + channel] = np.nan
    result = lut3d.lookup(image, table, mode, impl=impl)
    hit = np.zeros((4, 40), bool)
    hit[1, 3:6] = True
    assert np.isnan(result[0][:, hit]).all()
    assert np.array_equal(result[0][:, ~hit], clean[0][:, ~hit])


@both
@modes
def test_batches_and_tables_of_their_own(impl, mode):
    image, tables = colours(2, 3, 5, 6), colours(2, 3, 4, 4, 4, seed=6)
    result = lut3d.lookup(image, tables, mode, impl=impl)
    for sample in range(2):
        alone = lut3d.lookup(image[sample : sample + 1], tables[sample], mode, impl=impl)
        assert np.array_equal(alone[0], result[sample])
    shared = lut3d.lookup(image, tables[:1], mode, impl=impl)
    assert np.array_equal(shared, lut3d.lookup(image, tables[0], mode, impl=impl))
    assert lut3d.lookup(image[:0], tables[0], mode, impl=impl).shape == (0, 3, 5, 6)
    assert lut3d.lookup(image[:, :, :0], tables[0], mode, impl=impl).shape == (2, 3, 0, 6)


@both
@modes
def test_half_precision_is_computed_in_float32(impl, mode):
    image, table = colours(1, 3, 6, 7, dtype=np.float16), colours(3, 9, 9, 9, seed=7)
    result = lut3d.lookup(image, table, mode, impl=impl)
    assert result.dtype == np.float16
    assert np.array_equal(result, lut3d.lookup(image.astype(np.float32), table, mode, impl=impl).astype(np.float16))


@modes
def test_implementations_agree(mode):
    table = colours(3, 33, 33, 33, seed=8)
    image = colours(1, 3, 31, 45, margin=0.1)
    reference, compiled = (lut3d.lookup(image, table, mode, impl=impl) for impl in CPU)
    assert np.abs(reference - compiled).max() < 5e-7


@modes
def test_the_reference_has_the_right_gradients(mode):
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, 2, 3, dtype=torch.float64, generator=generator).requires_grad_()
    table = torch.rand(3, 3, 3, 3, dtype=torch.float64, generator=generator).requires_grad_()
    assert torch.autograd.gradcheck(lambda i, t: lut3d.lookup(i, t, mode), (image, table))
    outside = torch.tensor([-0.5, 1.5, 2.0]).view(1, 3, 1, 1).requires_grad_()
    lut3d.lookup(outside, table.float(), mode).sum().backward()
    assert outside.grad.abs().max() == 0


@modes
def test_pictures_in_the_layout_of_files(mode):
    pixels, table = colours(8, 9, 3), colours(3, 9, 9, 9, seed=9)
    expected = np.moveaxis(lut3d.lookup(np.moveaxis(pixels, 2, 0)[None], table, mode)[0], 0, 2)
    assert np.array_equal(lookup_pixels(pixels, table, mode), expected)
    assert lookup_pixels(pixels, table, mode, out=pixels) is pixels
    assert np.array_equal(pixels, expected)
    with pytest.raises(ValueError, match=r"pixels: expected \[rows, columns, 3\], got shape \[8, 9\]"):
        lookup_pixels(pixels[..., 0], table, mode)
    with pytest.raises(ValueError, match=r"out: expected \[8, 9, 3\] float32, got \[8, 9, 3\] float64"):
        lookup_pixels(pixels, table, mode, out=np.zeros((8, 9, 3)))


@modes
def test_a_mix_of_tables_is_the_mix_of_lookups(mode):
    image, tables = colours(1, 3, 5, 5), colours(3, 3, 5, 5, 5, seed=10)
    weights = np.array([1.9, -3.7, -1.3], np.float32)
    mixed = sum(w * lut3d.lookup(image, table, mode) for w, table in zip(weights, tables, strict=True))
    assert np.abs(lut3d.lookup(image, lut3d.fuse(tables, weights), mode) - mixed).max() < 2e-6
    batched = lut3d.fuse(torch.from_numpy(tables), torch.from_numpy(np.stack([weights, -weights])))
    assert batched.shape == (2, 3, 5, 5, 5)
    assert torch.allclose(batched[0], -batched[1])


def test_mixing_has_the_right_gradient():
    generator = torch.Generator().manual_seed(1)
    tables = torch.rand(2, 3, 2, 2, 2, dtype=torch.float64, generator=generator).requires_grad_()
    weights = torch.rand(3, 2, dtype=torch.float64, generator=generator).requires_grad_()
    assert torch.autograd.gradcheck(lut3d.fuse, (tables, weights))


def test_regularisers_of_the_identity():
    """Numbers of the paper sheet: sum over 3 axes of (1/32)^2 (32 + 2)/32 / 3, and 3 axes of 1/32 / 3."""
    identity = torch.from_numpy(lut3d.identity(33)).double()
    assert float(lut3d.total_variation(identity)) == pytest.approx(1.03759765625e-3, rel=1e-6)
    assert float(lut3d.monotonicity(identity)) == 0
    assert float(lut3d.monotonicity(-identity)) == pytest.approx(0.03125, rel=1e-6)
    assert float(lut3d.total_variation(lut3d.identity(33))) == pytest.approx(1.03759765625e-3, rel=1e-5)


def test_regularisers_by_hand():
    table = np.zeros((3, 4, 4, 4), np.float64)
    # one step along red in channel 1: up by 3 then down by 2, for one green and one blue
    table[1, 2, 1, :] = [0, 3, 1, 1]
    # along red 9 (first: twice) + 4; along green and blue the line stands alone: up and down in the middle or at an end
    along_red = (2 * 9 + 4) / 144
    along_green = (2 * (9 + 1 + 1) + (9 + 1 + 1)) / 144
    along_blue = ((9 + 1 + 1) + 2 * (9 + 1 + 1)) / 144
    assert lut3d.total_variation(table) == pytest.approx(along_red + along_green + along_blue)
    assert lut3d.monotonicity(table) == pytest.approx((2 + 5 + 5) / 144)
    assert lut3d.total_variation(np.stack([table, 2 * table]))[1] == pytest.approx(4 * lut3d.total_variation(table))


def test_regularisers_leave_flat_tables_alone_and_have_the_right_gradient():
    flat = torch.zeros(3, 3, 3, 3, requires_grad=True)
    lut3d.monotonicity(flat).backward()
    assert flat.grad.abs().max() == 0
    table = torch.rand(2, 3, 3, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    assert torch.autograd.gradcheck(lut3d.total_variation, table)
    assert torch.autograd.gradcheck(lut3d.monotonicity, table)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda i, t: lut3d.lookup(i[:, :2], t),
            r"image: expected \[batch, 3, rows, columns\], got shape \[2, 2, 4, 4\]",
        ),
        (lambda i, t: lut3d.lookup(i, t[:, :2]), r"table: expected \[3, N, N, N\] .* got shape \[3, 2, 3, 3\]"),
        (lambda i, t: lut3d.lookup(i, np.stack([t, t, t])), "1 table or one for each of 2 images, got 3"),
        (
            lambda i, t: lut3d.lookup(i, t, "cubic"),
            "interpolation: expected one of trilinear, tetrahedral, got 'cubic'",
        ),
        (lambda i, t: lut3d.identity(1), "size: expected 2 or more samples along an axis, got 1"),
        (lambda i, t: lut3d.fuse(t, np.ones(3)), r"tables: expected \[K, 3, N, N, N\]"),
        (
            lambda i, t: lut3d.fuse(t[None], np.ones(2)),
            r"weights: expected \[1\] or \[batch, 1\] for 1 tables, got shape",
        ),
        (lambda i, t: lut3d.total_variation(t[:, 0]), r"table: expected .* got shape \[3, 3, 3\]"),
    ],
)
def test_wrong_arguments_name_the_rule_and_the_value(call, message):
    with pytest.raises(ValueError, match=message):
        call(colours(2, 3, 4, 4), lut3d.identity(3))
