"""The embedded tone mapper: its torch-free runtime against the torch definition, and its limits."""

import numpy as np
import pytest

from attnkit.models.llf_lut_fast import (
    LUMA,
    FastConfig,
    FastToneMapper,
    anchor_of,
    depth_for,
    srgb_decode,
    srgb_encode,
)


@pytest.fixture(scope="module")
def mapper():
    """A mapper of random weights, large enough that every part of it changes the picture."""
    mapper = FastToneMapper.fresh(FastConfig(table_size=9, widths=(4, 6, 8, 8)))
    arrays = mapper.arrays()
    arrays["predictor.maps.weight"] = arrays["predictor.maps.weight"] * 20
    mapper.load_arrays(arrays)
    return mapper


def scene(rows, columns, seed=0):
    """Smooth random light over about 12 stops."""
    import cv2

    random = np.random.default_rng(seed)
    noise = random.standard_normal((rows, columns, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.0) if min(rows, columns) > 4 else noise
    return np.exp(8 * smooth).astype(np.float32)


@pytest.mark.parametrize("size", [(96, 128), (97, 130), (131, 64), (12, 40), (3, 5), (1, 1), (1, 300), (8, 700)])
@pytest.mark.parametrize("interpolation", ["trilinear"])
def test_runtime_equals_the_torch_definition(mapper, size, interpolation):
    import torch

    from attnkit.models.llf_lut_fast_torch import FastLlfLut

    model = FastLlfLut(mapper.sizes)
    model.load_state_dict({name: torch.from_numpy(values) for name, values in mapper.arrays().items()})
    pixels = scene(*size)
    encoded = mapper.sizes.encode(pixels, anchor_of(pixels @ np.array(LUMA, np.float32)))
    with torch.no_grad():
        expected = model(torch.from_numpy(encoded).permute(2, 0, 1)[None]).display[0].permute(1, 2, 0).numpy()
    assert np.abs(mapper.render(pixels, interpolation=interpolation) - expected).max() < 5e-6
    assert expected.min() >= 0 and expected.max() <= 1


def test_strength_zero_is_the_pictures_own_table(mapper):
    from attnkit_kernels.image import lut3d

    pixels = scene(96, 128)
    parameters = mapper.parameters(pixels)
    encoded = mapper.sizes.encode(pixels, parameters["anchor"])
    table = mapper.cube(parameters)
    inside = np.clip(lut3d.lookup(encoded.transpose(2, 0, 1)[None], table, impl="numba")[0].transpose(1, 2, 0), 0, 1)
    rendered = mapper.render(pixels, parameters, strength=0.0)
    luma = inside @ np.array(LUMA, np.float32)
    # where the table leaves the gamut or is almost black, the recolouring steps in
    plain = (inside.max(2) < 1) & (inside.min(2) > 0) & (luma > 2e-3)
    assert plain.mean() > 0.3
    assert np.abs(rendered - inside)[plain].max() < 1e-4


@pytest.mark.parametrize("factor", [1e-4, 0.5, 3.0, 1e5])
def test_exposure_of_the_input_does_not_matter(mapper, factor):
    pixels = scene(96, 128)
    assert np.abs(mapper.render(pixels * np.float32(factor)) - mapper.render(pixels)).max() < 2e-3


def test_tetrahedral_and_trilinear_are_close_but_not_the_same(mapper):
    pixels = scene(96, 128)
    difference = np.abs(mapper.render(pixels, interpolation="tetrahedral") - mapper.render(pixels))
    assert 0 < difference.mean() < 0.02


@pytest.mark.parametrize("value", [0.0, 1e-30, 0.18, 65504.0])
def test_constant_pictures_stay_constant_and_finite(mapper, value):
    result = mapper.render(np.full((70, 90, 3), value, np.float32))
    assert np.isfinite(result).all()
    # on a constant picture there is no band to remap and only the maps at the bottom could vary
    assert np.ptp(result, axis=(0, 1)).max() < 2e-3


def test_averaged_parameters_render_between(mapper):
    first, second = scene(96, 128), scene(96, 128, seed=1)
    a, b = mapper.parameters(first), mapper.parameters(second)
    middle = {name: (np.asarray(a[name]) + np.asarray(b[name])) / 2 for name in a}
    result = mapper.render(first, middle)
    assert np.isfinite(result).all() and not np.array_equal(result, mapper.render(first, a))


def test_remap_is_monotone_up_to_its_bound():
    band = np.linspace(-1, 1, 4001)
    for strength in (-1.0, 2.2):
        curve = band * (1 + strength * np.exp(-(band**2) / (2 * 0.1**2)))
        assert np.diff(curve).min() > -1e-9


def test_initial_tables_keep_hue_and_rise_on_the_grey_axis():
    config = FastConfig()
    tables = config.initial_tables()
    grey = np.arange(config.table_size)
    for table in tables:
        axis = table[:, grey, grey, grey]
        assert np.ptp(axis, axis=0).max() < 1e-6
        assert np.diff(axis[0]).min() >= 0
        # a cell inside the gamut: what is red before is red after, in the same order of channels
        red, green, blue = table[:, 14, 16, 18]
        assert red > green > blue


@pytest.mark.parametrize(
    ("size", "depth"), [((480, 640), 3), ((2160, 3840), 6), ((768, 1024), 4), ((7, 4000), 0), ((1, 1), 0)]
)
def test_depth_leaves_a_thumbnail_of_about_64(size, depth):
    assert depth_for(*size) == depth


def test_encoding_is_undone_and_srgb_is_the_standard():
    config = FastConfig()
    light = np.array([0, 1e-3, 0.18, 1.0, 900.0])
    assert np.allclose(config.decode(config.encode(light, 1.0)), light, rtol=2e-5, atol=1e-6)
    # 0.5 encoded is 0.21404 linear (IEC 61966-2-1)
    assert srgb_decode(np.array(0.5)) == pytest.approx(0.2140411, abs=1e-6)
    assert srgb_encode(srgb_decode(np.linspace(0, 1, 11))) == pytest.approx(np.linspace(0, 1, 11), abs=1e-6)
