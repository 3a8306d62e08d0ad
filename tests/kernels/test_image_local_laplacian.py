"""Remapping of bands and the fast local Laplacian filter: paper sheet numbers, definitions, limits, brute force."""

import math
from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch
from attnkit_kernels.image import laplacian, local_laplacian
from attnkit_kernels.image.local_laplacian import GaussianCurve, PowerCurve
from attnkit_kernels.image.local_laplacian.reference import apply_curve, brute_force

torch.set_num_threads(1)
CPU = ("reference", "numba")
both = pytest.mark.parametrize("impl", CPU)
forms = pytest.mark.parametrize("form", local_laplacian.FORMS)
SHAPE = (2, 3, 7, 9)


def levels_of(seed=0, dtype=np.float32):
    """A Gaussian level that leaves 0..1 on both sides, and a band."""
    random = np.random.default_rng(seed)
    return (random.random(SHAPE) * 1.8 - 0.4).astype(dtype), (random.standard_normal(SHAPE) * 0.3).astype(dtype)


def parameters(shape, seed=1, dtype=np.float32):
    random = np.random.default_rng(seed)
    return (random.random(shape) * 3).astype(dtype), (random.random(shape) * 2 - 0.8).astype(dtype)


def by_hand(guide, value, sigma, strength, references, form):
    if form == "in_band":
        return value * (1 + strength * math.exp(-(value**2) / (2 * sigma**2)))
    for j in range(references):
        reference = j / (references - 1)
        weight = max(0.0, 1 - abs(guide - reference) * (references - 1))
        detail = value - reference
        value += weight * strength * detail * math.exp(-(detail**2) * 2 * sigma**2)
    return value


@both
@pytest.mark.parametrize(
    ("values", "expected"),
    [((0.5, 0.05, 1.0, 0.5), -0.0963275), ((0.5, 0.05, 0.0, 0.5), -0.1996528), ((1 / 9, 0.02, 3.0, -0.2), 0.0356931)],
)
def test_released_form_gives_the_numbers_of_the_paper_sheet(impl, values, expected):
    for dtype, tolerance in ((np.float64, 1e-7), (np.float32, 3e-7)):
        guide, band, sigma, strength = (np.full((1, 1, 1, 1), value, dtype) for value in values)
        result = local_laplacian.remap(guide, band, sigma, strength, 10, "released", impl=impl)
        assert abs(float(result[0, 0, 0, 0]) - expected) < tolerance


@both
@forms
@pytest.mark.parametrize("references", [2, 3, 10])
def test_remap_is_the_definition_sample_by_sample(impl, form, references):
    guide, band = levels_of(dtype=np.float64)
    sigma, strength = parameters(SHAPE, dtype=np.float64)
    # lattice points: a hat of 1 and its neighbours of 0; and the reach of the outermost hats
    guide[0, 0, 0, :6] = [0, 1, 1 / 9, -1 / (references - 1), 1 + 1 / (references - 1), 5]
    result = local_laplacian.remap(guide, band, sigma, strength, references, form, impl=impl)
    for at in np.ndindex(SHAPE):
        expected = by_hand(guide[at], band[at], sigma[at], strength[at], references, form)
        assert result[at] == pytest.approx(expected, abs=1e-14)


@both
@forms
@pytest.mark.parametrize("shape", [SHAPE, (2, 1, 7, 9), (1, 3, 1, 1), (1, 1, 1, 1), (2, 3, 1, 1)])
def test_parameters_are_repeated_where_their_size_is_one(impl, form, shape):
    guide, band = levels_of()
    sigma, strength = parameters(shape)
    result = local_laplacian.remap(guide, band, sigma, strength, form=form, impl=impl)
    whole = [np.ascontiguousarray(np.broadcast_to(value, SHAPE)) for value in (sigma, strength)]
    assert np.array_equal(result, local_laplacian.remap(guide, band, *whole, form=form, impl=impl))
    if shape == (1, 1, 1, 1):
        numbers = float(sigma[0, 0, 0, 0]), float(strength[0, 0, 0, 0])
        assert np.array_equal(result, local_laplacian.remap(guide, band, *numbers, form=form, impl=impl))
        tensors = [torch.from_numpy(value) for value in (guide, band, sigma.reshape(()), strength.reshape(()))]
        assert np.array_equal(result, local_laplacian.remap(*tensors, form=form, impl=impl).numpy())


@both
@forms
def test_no_strength_changes_nothing(impl, form):
    guide, band = levels_of()
    assert np.array_equal(local_laplacian.remap(guide, band, 0.3, 0.0, form=form, impl=impl), band)


@both
def test_in_band_is_odd_monotone_and_keeps_a_band_without_width(impl):
    band = np.linspace(-1, 1, 4001).reshape(1, 1, 1, -1)
    for strength in (-0.99, 2.23):
        result = local_laplacian.remap(None, band, 0.2, strength, form="in_band", impl=impl)
        assert (np.diff(result) > 0).all()
        assert np.allclose(result, -result[..., ::-1], atol=1e-15)
    assert (np.diff(local_laplacian.remap(None, band, 0.2, 2.3, form="in_band", impl=impl)) < 0).any()
    assert np.array_equal(local_laplacian.remap(None, band, 0.0, 2.0, form="in_band", impl=impl), band)
    wide = local_laplacian.remap(None, band, 1e6, 0.5, form="in_band", impl=impl)
    assert np.allclose(wide, 1.5 * band)


@forms
def test_implementations_agree(form):
    guide, band = levels_of(seed=3)
    sigma, strength = parameters((2, 1, 7, 9))
    reference, compiled = (local_laplacian.remap(guide, band, sigma, strength, form=form, impl=impl) for impl in CPU)
    assert np.abs(reference - compiled).max() < 1e-6


def test_the_compiled_exponential_is_within_float32():
    """strength 1 and sigma sqrt(1/2) make band (1 + exp(-band^2)) of the in-band form."""
    band = np.sqrt(np.linspace(0, 79, 20001)).astype(np.float32).reshape(1, 1, 1, -1)
    squared = np.float64(band) ** 2
    found = local_laplacian.remap(None, band, math.sqrt(0.5), 1e30, form="in_band", impl="numba") / 1e30
    expected = band * np.exp(-squared)
    relevant = (expected > 1e-20) & (band > 0)
    # the argument of the exponential is rounded too, so the error grows with it
    error = np.abs(found / np.where(relevant, expected, 1) - 1) / (1 + squared)
    assert error[relevant].max() < 3e-7


@both
@forms
def test_half_precision_is_computed_in_float32(impl, form):
    guide, band = (array.astype(np.float16) for array in levels_of())
    sigma, strength = parameters((1, 1, 1, 1))
    result = local_laplacian.remap(guide, band, sigma, strength, form=form, impl=impl)
    wide = local_laplacian.remap(*(a.astype(np.float32) for a in (guide, band)), sigma, strength, form=form, impl=impl)
    assert result.dtype == np.float16
    assert np.array_equal(result, wide.astype(np.float16))


@both
@forms
def test_a_nan_stays_where_it_is(impl, form):
    guide, band = levels_of()
    sigma, strength = parameters(SHAPE)
    clean = local_laplacian.remap(guide, band, sigma, strength, form=form, impl=impl)
    poisoned = [band, sigma, strength] if form == "in_band" else [band, sigma, strength, guide]
    hit = np.zeros(SHAPE, bool)
    for at, array in enumerate(poisoned):
        # the guide at a place where a hat applies, or sigma would not be looked at
        array[1, 2, 5, 2 * at] = np.nan
        hit[1, 2, 5, 2 * at] = True
    if form == "released":
        guide[1, 2, 5, [0, 2, 4]] = 0.5
    result = local_laplacian.remap(guide, band, sigma, strength, form=form, impl=impl)
    assert np.isnan(result[hit]).all()
    assert np.array_equal(result[~hit], clean[~hit])


@both
@forms
def test_huge_values_do_not_overflow_into_nan(impl, form):
    band = np.array([1e30, -1e30, 1e-30, 0], np.float32).reshape(1, 1, 1, 4)
    # in the band a width of 0 is the extreme; as released, sigma 0 asks for infinity times 0
    sigma = 0.0 if form == "in_band" else 0.1
    result = local_laplacian.remap(np.full_like(band, 0.5), band, sigma, 0.5, form=form, impl=impl)
    assert not np.isnan(result).any()
    assert local_laplacian.remap(band[:0], band[:0], 1.0, 1.0, form=form, impl=impl).shape == (0, 1, 1, 4)


@forms
def test_the_reference_has_the_right_gradients(form):
    guide, band = (torch.from_numpy(a[:1, :, :2, :2].copy()).requires_grad_() for a in levels_of(dtype=np.float64))
    sigma, strength = (torch.from_numpy(a).requires_grad_() for a in parameters((1, 1, 2, 2), dtype=np.float64))
    assert torch.autograd.gradcheck(
        lambda g, b, s, f: local_laplacian.remap(g, b, s, f, 4, form), (guide, band, sigma, strength)
    )


@forms
def test_gradients_at_sigma_zero_are_finite(form):
    guide, band = (torch.from_numpy(a).requires_grad_() for a in levels_of())
    sigma = torch.zeros(1, 1, 1, 1, requires_grad=True)
    local_laplacian.remap(guide, band, sigma, 0.5, form=form).square().sum().backward()
    assert torch.isfinite(band.grad).all()
    assert torch.isfinite(sigma.grad).all()


def smooth_picture():
    picture = cv2.GaussianBlur(np.random.default_rng(0).random((32, 32)), (0, 0), 1.5)
    return ((picture - picture.min()) / np.ptp(picture))[None, None]


@both
@pytest.mark.parametrize("curve", [GaussianCurve(0.1, 1.5), PowerCurve(0.2, 1.0, 0.3)], ids=["gaussian", "power"])
def test_the_fast_filter_closes_in_on_brute_force(impl, curve):
    picture = smooth_picture()
    exact = brute_force(torch.from_numpy(picture), 3, curve).numpy()
    errors = [
        np.abs(local_laplacian.filter(picture, 3, curve, n, impl=impl) - exact).max() for n in (5, 10, 20, 40, 80)
    ]
    assert errors[0] < 0.15
    # the square of the distance between references, until the kinks of the power curve show
    assert all(fine < 0.5 * coarse for coarse, fine in pairwise(errors))
    assert errors[-1] < 1e-3 < np.abs(picture - exact).max()


def test_brute_force_is_the_algorithm_of_the_paper():
    """For each coefficient: remap the whole image around its local value, then take that one coefficient."""
    picture = torch.from_numpy(smooth_picture()[..., :9, :11].copy())
    curve = PowerCurve(0.2, 0.6, 0.4)
    guides = laplacian.gaussian(picture, 2)
    built = [torch.zeros_like(guide) for guide in guides[:2]] + guides[2:]
    for level in range(2):
        for at in np.ndindex(*guides[level].shape):
            remapped = apply_curve(picture, guides[level][at], curve)
            built[level][at] = laplacian.decompose(remapped, 2)[level][at]
    assert torch.allclose(laplacian.reconstruct(built), brute_force(picture, 2, curve), atol=1e-14)


@both
@pytest.mark.parametrize("curve", [GaussianCurve(0.1, 0.0), PowerCurve(0.2, 1.0, 1.0)], ids=["gaussian", "power"])
def test_a_straight_curve_returns_the_image(impl, curve):
    picture = smooth_picture()
    assert np.abs(local_laplacian.filter(picture, 3, curve, 7, impl=impl) - picture).max() < 1e-14
    assert np.array_equal(local_laplacian.filter(picture, 0, curve, 7, impl=impl), picture)


@pytest.mark.parametrize(
    "curve", [GaussianCurve(0.2, -0.7), PowerCurve(0.3, 1.0, 0.2), PowerCurve(0.3, 0.5, 2.0)], ids=["g", "p1", "p2"]
)
def test_filter_implementations_agree_on_odd_sizes_and_batches(curve):
    images = np.random.default_rng(4).random((2, 2, 13, 18)).astype(np.float32) * 3 - 1
    reference, compiled = (local_laplacian.filter(images, 3, curve, 6, low=-1.0, high=2.0, impl=impl) for impl in CPU)
    assert np.abs(reference - compiled).max() < 5e-6
    alone = local_laplacian.filter(images[1:, 1:], 3, curve, 6, low=-1.0, high=2.0)
    assert np.array_equal(alone[0, 0], compiled[1, 1])


@both
def test_the_filter_follows_shifts_and_scales_of_its_units(impl):
    picture = smooth_picture()
    plain = local_laplacian.filter(picture, 2, PowerCurve(0.2, 0.7, 0.5), 9, impl=impl)
    moved = local_laplacian.filter(4 * picture - 3, 2, PowerCurve(0.8, 0.7, 0.5), 9, low=-3.0, high=1.0, impl=impl)
    assert np.abs(4 * plain - 3 - moved).max() < 1e-12


@both
def test_values_beyond_the_range_use_the_nearest_reference(impl):
    picture = np.float32([[[[0.9, 1.3], [1.2, 1.1]]]])
    result = local_laplacian.filter(picture, 1, GaussianCurve(10.0, 1.0), 3, impl=impl)
    # so wide a curve doubles all detail, if the weights still sum to one
    low_pass = laplacian.up(laplacian.down(picture), (2, 2))
    assert np.allclose(result, low_pass + 2 * (picture - low_pass), atol=0.02)


def test_the_reference_filter_has_the_right_gradient():
    picture = torch.from_numpy(smooth_picture()[..., :5, :4].copy()).requires_grad_()
    for curve in (GaussianCurve(0.3, 0.5), PowerCurve(0.4, 0.8, 0.5)):
        assert torch.autograd.gradcheck(lambda x, c=curve: local_laplacian.filter(x, 1, c, 4), picture)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda b: local_laplacian.remap(b, b, 1.0, 1.0, form="canonical"),
            "form: expected one of released, in_band, got",
        ),
        (
            lambda b: local_laplacian.remap(None, b, 1.0, 1.0),
            "'released' needs the Gaussian level of the band, got None",
        ),
        (
            lambda b: local_laplacian.remap(b[:, :, :2], b, 1.0, 1.0),
            r"the shape of the band \[1, 2, 4, 4\], got \[1, 2, 2, 4\]",
        ),
        (
            lambda b: local_laplacian.remap(b, b, b[:, :, :1], 1.0),
            r"sigma: expected a number or .* got shape \[1, 2, 1, 4\]",
        ),
        (lambda b: local_laplacian.remap(b, b, 1.0, 1.0, 1), "references: expected 2 or more, got 1"),
        (
            lambda b: local_laplacian.filter(b, 1, GaussianCurve(1, 1), low=1.0),
            r"high: expected more than low 1\.0, got 1\.0",
        ),
        (lambda b: GaussianCurve(0.0, 1.0), r"sigma: expected more than 0, got 0\.0"),
        (lambda b: PowerCurve(1.0, 0.0), r"alpha: expected more than 0, got 0\.0"),
        (lambda b: PowerCurve(1.0, 1.0, -1.0), r"beta: expected 0 or more, got -1\.0"),
        (lambda b: PowerCurve(-1.0), r"sigma: expected more than 0, got -1\.0"),
    ],
)
def test_wrong_arguments_name_the_rule_and_the_value(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.zeros((1, 2, 4, 4), np.float32))


def test_wrong_types_are_type_errors():
    band = np.zeros((1, 1, 4, 4), np.float32)
    with pytest.raises(TypeError, match="curve: expected GaussianCurve or PowerCurve, got float"):
        local_laplacian.filter(band, 1, 0.5)
    with pytest.raises(TypeError, match="references: expected a whole number, got True"):
        local_laplacian.remap(band, band, 1.0, 1.0, True)
