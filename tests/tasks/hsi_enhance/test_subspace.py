"""Statistics, noise and signal subspace of cubes whose truth is known."""

import numpy as np
import pytest
from low_rank_cubes import low_rank_cube, noisy

from attnkit.runtime.errors import ItemError
from attnkit.tasks.hsi_enhance import subspace as module
from attnkit.tasks.hsi_enhance.source import ArraySource
from attnkit.tasks.hsi_enhance.statistics import (
    BLOCK_BYTES,
    DETAIL_PIXELS,
    Statistics,
    boxes,
    gather,
    residual_variance,
)
from attnkit.tasks.hsi_enhance.subspace import empty, find_subspace, fit_subspace

PLENTY = 10**9


def statistics_of(cube, memory=PLENTY):
    return gather(ArraySource(cube.astype(np.float32)), memory)


@pytest.mark.parametrize("shape", [(5, 7, 9), (3, 1, 20), (4, 20, 1), (1, 6, 6), (2, 1, 1)])
def test_boxes_cover_a_cube_once(shape):
    bands, rows, columns = shape
    for memory in (1, 100, 1000, PLENTY):
        seen = np.zeros((rows, columns), int)
        for place in boxes(shape, memory, BLOCK_BYTES):
            seen[place] += 1
            height, width = seen[place].shape
            assert height * width == 1 or height * width * bands * BLOCK_BYTES <= memory
        assert (seen == 1).all()


def test_mean_and_covariance_are_numpys():
    cube = noisy(low_rank_cube(3, (6, 11, 13)), 0.05) + 100
    found = statistics_of(cube)
    flat = cube.astype(np.float64).reshape(6, -1)
    np.testing.assert_allclose(found.mean, flat.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(flat, bias=True), rtol=1e-9)
    assert found.pixels == 143


@pytest.mark.parametrize("shape", [(8, 23, 19), (1, 23, 19), (40, 5, 4), (8, 1, 300), (8, 300, 1)])
def test_the_memory_bound_changes_nothing(shape):
    cube = noisy(low_rank_cube(2, shape), 0.05)
    whole = statistics_of(cube)
    # from single pixels over single rows to a few rows at once
    for pixels in (1, 7, shape[2], 3 * shape[2]):
        cut = statistics_of(cube, pixels * shape[0] * BLOCK_BYTES)
        np.testing.assert_allclose(cut.covariance, whole.covariance, rtol=1e-10, atol=1e-14)
        np.testing.assert_allclose(cut.noise, whole.noise, rtol=1e-10)


def test_rows_that_are_thinned_out_are_the_same_ones_in_every_box(monkeypatch):
    cube = noisy(low_rank_cube(2, (5, 50, 20)), 0.05)
    every = statistics_of(cube)
    monkeypatch.setattr("attnkit.tasks.hsi_enhance.statistics.DETAIL_PIXELS", 300)
    thin = statistics_of(cube)
    for pixels in (1, 20, 80):
        cut = statistics_of(cube, pixels * 5 * BLOCK_BYTES)
        np.testing.assert_allclose(cut.noise, thin.noise, rtol=1e-10)
    assert not np.allclose(thin.noise, every.noise)
    np.testing.assert_allclose(thin.noise, 0.05, rtol=0.2)
    assert DETAIL_PIXELS > 300


@pytest.mark.parametrize(
    ("shape", "tolerance"), [((31, 64, 64), 0.08), ((120, 40, 40), 0.25), ((200, 14, 11), 0.5), ((1, 64, 64), 0.08)]
)
def test_noise_of_each_band_is_found(shape, tolerance):
    truth = 0.05 + 0.04 * np.sin(np.arange(shape[0]) / 3)
    found = statistics_of(noisy(low_rank_cube(4, shape), truth)).noise
    np.testing.assert_allclose(found, truth, rtol=tolerance)
    assert abs(np.log(found / truth).mean()) < 0.05


def test_texture_that_bands_share_is_not_noise():
    draw = np.random.default_rng(0)
    texture = draw.uniform(0, 1, (1, 40, 40)) * draw.uniform(0.2, 1, (20, 1, 1))
    np.testing.assert_allclose(statistics_of(noisy(texture, 0.02)).noise, 0.02, rtol=0.1)
    # alone, a band cannot know
    assert statistics_of(noisy(texture[:1], 0.02)).noise > 0.03


def test_stripes_are_not_noise():
    cube = noisy(low_rank_cube(3, (12, 40, 30)), 0.03)
    draw = np.random.default_rng(0)
    columns, rows = draw.standard_normal((12, 1, 30)), draw.standard_normal((12, 40, 1))
    np.testing.assert_allclose(statistics_of(cube + columns + rows).noise, statistics_of(cube).noise, rtol=1e-3)


def test_noise_scales_with_its_band_and_does_not_see_direction_or_offset():
    cube = noisy(low_rank_cube(3, (12, 30, 30)), 0.03)
    noise = statistics_of(cube).noise
    factors = np.linspace(0.01, 100, 12)
    np.testing.assert_allclose(statistics_of(cube * factors[:, None, None]).noise, noise * factors, rtol=1e-5)
    np.testing.assert_allclose(statistics_of(cube[:, ::-1]).noise, noise, rtol=1e-9)
    np.testing.assert_allclose(statistics_of(cube[:, :, ::-1]).noise, noise, rtol=1e-9)
    np.testing.assert_allclose(statistics_of(cube + 3).noise, noise, rtol=1e-4)


def test_residual_variance_is_that_of_least_squares():
    values = np.random.default_rng(0).standard_normal((9, 200)).cumsum(axis=0)
    found = residual_variance(values @ values.T / 200, 4)
    for band, others in ((0, [1, 2, 3, 4]), (4, [2, 3, 5, 6]), (8, [4, 5, 6, 7])):
        left = np.linalg.lstsq(values[others].T, values[band])[1]
        assert found[band] == pytest.approx(float(left[0]) / 200, rel=1e-9)


@pytest.mark.parametrize("shape", [(30, 48, 40), (60, 30, 25), (120, 12, 14)])
@pytest.mark.parametrize("rank", [1, 2, 5])
def test_rank_is_the_true_one(shape, rank):
    assert fit_subspace(ArraySource(noisy(low_rank_cube(rank, shape), 0.005)), PLENTY).rank == rank


@pytest.mark.parametrize("shape", [(30, 48, 40), (120, 12, 14), (1, 40, 40), (200, 64, 64)])
def test_pure_noise_has_rank_zero(shape):
    for seed in range(3):
        found = fit_subspace(ArraySource(noisy(np.full(shape, 0.5, np.float32), 0.1, seed)), PLENTY)
        assert found.rank == 0
        planes = found.project(ArraySource(np.ones(shape, np.float32)), PLENTY)
        assert planes.shape == (0, *shape[1:])
        assert found.rebuild(planes).shape == shape


def test_a_cube_without_noise_has_its_rank_and_comes_back():
    cube = low_rank_cube(4, (40, 30, 20))
    found = fit_subspace(ArraySource(cube), PLENTY)
    assert found.rank == 4
    np.testing.assert_allclose(found.rebuild(found.project(ArraySource(cube), PLENTY)), cube, atol=3e-6)


def test_eigen_images_have_their_eigenvalues_and_no_correlation():
    cube = noisy(low_rank_cube(3, (20, 30, 30)), 0.02)
    found = fit_subspace(ArraySource(cube), PLENTY, 6)
    planes = found.project(ArraySource(cube), PLENTY).reshape(6, -1).astype(np.float64)
    planes *= found.inflation[:, None]
    np.testing.assert_allclose(
        planes @ planes.T / 900, np.diag(found.eigenvalues), atol=1e-5 * found.eigenvalues[0], rtol=1e-4
    )
    np.testing.assert_allclose(found.basis.T @ found.basis, np.eye(6), atol=1e-12)
    assert (np.take_along_axis(found.basis, np.abs(found.basis).argmax(axis=0)[None], 0) > 0).all()


def test_noise_in_eigen_images_has_variance_one_where_eigenvectors_are_fitted_to_noise():
    # one weak component and fewer pixels than bands, the noise known
    bands, rows, columns = 300, 16, 15
    pixels = rows * columns
    plain, found_noise, scale = [], [], []
    for seed in range(12):
        draw = np.random.default_rng(seed)
        spectrum, picture = draw.standard_normal(bands), draw.standard_normal(pixels)
        spectrum, picture = spectrum / np.linalg.norm(spectrum), picture - picture.mean()
        picture *= np.sqrt(3 * pixels) / np.linalg.norm(picture)
        cube = np.outer(spectrum, picture) + draw.standard_normal((bands, pixels))
        mean = cube.mean(axis=1)
        statistics = Statistics(pixels, mean, np.cov(cube, bias=True), np.ones(bands))
        found = find_subspace(statistics, 1)
        plane = found.forward(cube.reshape(bands, rows, columns).astype(np.float32)).ravel()
        slope = plane @ picture / (picture @ picture)
        found_noise.append(((plane - slope * picture) ** 2).mean())
        plain.append(found_noise[-1] * found.inflation[0] ** 2)
        # what least squares would multiply the true picture with, to rebuild the true cube by this eigenvector
        scale.append(slope / (found.basis[:, 0] @ spectrum))
    assert np.mean(plain) > 1.5
    assert np.mean(found_noise) == pytest.approx(1, abs=0.06)
    assert np.mean(scale) == pytest.approx(1, abs=0.06)


def test_eigen_images_above_the_bound_lie_in_a_file_without_a_name(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    cube = noisy(low_rank_cube(2, (6, 20, 20)), 0.02)
    found = fit_subspace(ArraySource(cube), PLENTY)
    held = found.project(ArraySource(cube), PLENTY)
    filed = found.project(ArraySource(cube), 2 * held.nbytes - 1)
    assert isinstance(filed.base, np.memmap) and not isinstance(held.base, np.memmap)
    assert not list(tmp_path.iterdir())
    np.testing.assert_allclose(filed, held, rtol=1e-5, atol=1e-4)


def test_a_full_folder_for_temporary_files_is_one_line(monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full, raising=False)
    with pytest.raises(ItemError, match=r"no room for 400 bytes of eigen-images \(No space left on device\)"):
        empty((1, 10, 10), 10)


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 1, 1), (5, 1, 2), (1, 9, 9), (6, 3, 2), (3, 8, 8)])
@pytest.mark.parametrize("value", [0.0, 0.3])
def test_constant_cubes_of_any_size_come_back(shape, value):
    cube = np.full(shape, value, np.float32)
    found = fit_subspace(ArraySource(cube), PLENTY)
    assert found.rank == 0 and np.isfinite(found.noise).all()
    np.testing.assert_allclose(found.rebuild(found.project(ArraySource(cube), PLENTY)), cube, rtol=1e-6)


def test_a_rank_above_what_there_is_is_all_there_is():
    cube = np.random.default_rng(0).uniform(0, 1, (9, 2, 2)).astype(np.float32)
    assert fit_subspace(ArraySource(cube), PLENTY, 100).rank == 4
    assert module.noise_edge(9, 4) > module.noise_edge(9, 400) > 1
