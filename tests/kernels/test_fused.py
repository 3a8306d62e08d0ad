"""The fused passes against the operators that they join."""

import numpy as np
import pytest
from attnkit_kernels.image import fused, laplacian, lut3d


def random_picture(rows, columns, seed=0):
    return np.exp(2 * np.random.default_rng(seed).standard_normal((rows, columns, 3))).astype(np.float32)


@pytest.mark.parametrize("interpolation", ["trilinear", "tetrahedral"])
def test_encode_lookup_is_encoding_then_lookup_then_luma(interpolation):
    pixels = random_picture(33, 47)
    pixels[0, 0] = (0.0, 1e-9, 1e9)
    table = lut3d.identity(9) ** 2
    full, luma = fused.encode_lookup(pixels, table, anchor=0.7, toe=8.0, head=10.0, interpolation=interpolation)
    encoded = np.clip((np.log2(pixels.astype(np.float64) / 0.7 + 2**-8) + 8) / 18, 0, 1).astype(np.float32)
    expected = lut3d.lookup(encoded.transpose(2, 0, 1)[None], table, interpolation, impl="numba")[0].transpose(1, 2, 0)
    assert np.abs(full - expected).max() < 3e-6
    assert np.abs(luma - expected @ np.array(fused.LUMA, np.float32)).max() < 3e-6


def test_encode_lookup_refuses_unknown_interpolations():
    with pytest.raises(ValueError, match=r"trilinear, tetrahedral, got 'cubic'"):
        fused.encode_lookup(random_picture(2, 2), lut3d.identity(3), anchor=1, toe=8, head=8, interpolation="cubic")


@pytest.mark.parametrize("size", [(16, 24), (17, 25), (2, 3), (5, 1), (1, 9)])
def test_remap_level_without_strength_reconstructs(size):
    guide = np.random.default_rng(0).random(size, np.float32)
    coarse = laplacian.down(guide[None, None], impl="numba")[0, 0]
    maps = np.zeros((5, 3, 4), np.float32)
    maps[-1] = 0.1
    assert np.abs(fused.remap_level(guide, coarse, coarse, maps) - guide).max() < 1e-6


def test_remap_level_is_the_formula():
    random = np.random.default_rng(1)
    guide = random.random((21, 30), np.float32)
    coarse = laplacian.down(guide[None, None], impl="numba")[0, 0]
    below = random.random(coarse.shape, np.float32)
    # one value a reference all over the picture: what is left is the mixing by the guide and the curve
    strengths, sigma = np.array([-0.5, 0.3, 1.0, 2.0], np.float32), 0.2
    maps = np.concatenate([np.tile(strengths[:, None, None], (1, 2, 3)), np.full((1, 2, 3), sigma, np.float32)])
    band = guide - laplacian.up(coarse[None, None], guide.shape, impl="numba")[0, 0]
    mixed = np.interp(guide, np.linspace(0, 1, 4), strengths)
    expected = laplacian.up(below[None, None], guide.shape, impl="numba")[0, 0]
    expected = expected + band * (1 + mixed * np.exp(-(band**2) / (2 * sigma**2)))
    assert np.abs(fused.remap_level(guide, coarse, below, np.ascontiguousarray(maps)) - expected).max() < 2e-6


def test_maps_are_spread_with_corners_on_corners():
    guide = np.random.default_rng(2).random((9, 13), np.float32)
    coarse = laplacian.down(guide[None, None], impl="numba")[0, 0]
    band = guide - laplacian.up(coarse[None, None], guide.shape, impl="numba")[0, 0]
    maps = np.zeros((3, 3, 4), np.float32)
    maps[:2] = np.arange(12, dtype=np.float32).reshape(3, 4) / 12
    maps[-1] = 1e3
    gain = (fused.remap_level(guide, coarse, np.zeros_like(coarse), maps) - band) / band
    rows, columns = np.mgrid[0:9, 0:13]
    assert np.abs(gain - (4 * rows / 4 + columns / 4) / 12).max() < 1e-3


def test_recolour_keeps_ratios_inside_and_luma_at_the_gamuts_edge():
    full = np.array([[[0.2, 0.1, 0.05], [0.9, 0.1, 0.1]]], np.float32)
    weights = np.array(fused.LUMA, np.float32)
    luma = full @ weights
    result = fused.recolour(full.copy(), luma, np.array([[0.3, 0.8]], np.float32))
    assert np.allclose(result[0, 0] / full[0, 0], result[0, 0, 0] / full[0, 0, 0], rtol=1e-5)
    assert np.allclose(result @ weights, [[0.3, 0.8]], atol=1e-5)
    assert result.max() == pytest.approx(1.0, abs=1e-5)
