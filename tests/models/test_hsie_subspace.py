"""The default network of hsi-enhance: what it does untrained, tiling, context, gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attnkit_kernels.image import laplacian

from attnkit.models import registry
from attnkit.models.hsie import subspace
from attnkit.models.hsie.subspace import HsieSubspace, context_windows, correct, tiles_of


def network(seed: int = 0, **changes: int) -> HsieSubspace:
    """A small one with weights large enough that a mistake shows."""
    config = {**registry.find("hsie")[0].tiny, **changes}
    torch.manual_seed(seed)
    model = HsieSubspace(**config).eval()
    with torch.no_grad():
        for layer in (model.relight, model.mask_leave):
            layer.weight.normal_(std=0.2)
    return model


def planes(rank: int, rows: int, columns: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    estimate = draw.standard_normal((rank, rows, columns)) * np.linspace(30, 0.5, rank)[:, None, None]
    # one bright corner: what a tile sees of it must not decide its attention
    estimate[:, : rows // 4, : columns // 4] += 40
    noisy = estimate + draw.standard_normal(estimate.shape)
    return noisy.astype(np.float32), estimate.astype(np.float32)


def corrected(model: HsieSubspace, noisy: np.ndarray, estimate: np.ndarray, memory: int) -> np.ndarray:
    result = np.full_like(noisy, np.nan)
    for first, better in correct(model, noisy, estimate, memory):
        result[first : first + len(better)] = better
    return result


@pytest.mark.parametrize(("rows", "columns"), [(203, 20), (160, 31)])
def test_strips_give_the_result_of_the_whole(rows: int, columns: int) -> None:
    model = network()
    noisy, estimate = planes(6, rows, columns)
    with torch.inference_mode():
        whole = model(torch.from_numpy(noisy), torch.from_numpy(estimate)).numpy()
    strips = corrected(model, noisy, estimate, subspace.PIXEL_BYTES * columns * (2 * model.reach + 52))
    assert np.abs(whole - estimate).max() > 1
    np.testing.assert_allclose(strips, whole, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(corrected(model, noisy, estimate, 10**9), whole, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("rows", "columns"), [(95, 203), (203, 130), (3, 3010)])
def test_squares_give_the_result_of_the_whole(rows: int, columns: int) -> None:
    model = network()
    noisy, estimate = planes(4, rows, columns)
    memory = subspace.PIXEL_BYTES * (2 * model.reach + 24) ** 2
    tiles = list(tiles_of(rows, columns, model.reach, memory))
    covered = np.zeros((rows, columns), int)
    for tile in tiles:
        covered[tile.slices] += 1
        outer = tile.grown(model.reach, rows, columns)
        assert outer.size * subspace.PIXEL_BYTES <= memory
    assert (covered == 1).all() and len({tile.left for tile in tiles}) > 1
    with torch.inference_mode():
        whole = model(torch.from_numpy(noisy), torch.from_numpy(estimate)).numpy()
    np.testing.assert_allclose(corrected(model, noisy, estimate, memory), whole, rtol=1e-5, atol=1e-4)


def test_rows_are_whole_where_that_loses_less() -> None:
    wide = {columns: next(tiles_of(columns, columns, 40, 275_000_000)) for columns in (145, 600, 2000, 20_000)}
    assert [tile.right == columns for columns, tile in wide.items()] == [True, True, False, False]


def test_a_strip_reaches_no_further_than_it_says() -> None:
    model = network()
    noisy, estimate = planes(3, 240, 12)
    attention = [torch.full((3, model.config["features"]), 0.5) for _ in model.blocks]

    def result(changed: np.ndarray) -> np.ndarray:
        view = subspace.View(torch.from_numpy(changed), torch.from_numpy(estimate), torch.ones(3), model.neighbours)
        with torch.inference_mode():
            return model.corrected(view, range(3), attention).numpy()

    elsewhere = noisy.copy()
    elsewhere[:, 120] += 100
    moved = np.abs(result(elsewhere) - result(noisy)).max(axis=(0, 2))
    assert moved[120] > 1
    assert not moved[: 120 - model.reach].any() and not moved[121 + model.reach :].any()


def test_a_network_that_corrects_nothing_hands_the_estimate_back() -> None:
    model = network()
    with torch.no_grad():
        for layer in (model.relight, model.mask_leave):
            layer.weight.zero_()
    noisy, estimate = planes(5, 40, 32)
    np.testing.assert_array_equal(corrected(model, noisy, estimate, 10**9), estimate)


def test_a_mask_of_one_gives_the_detail_of_the_noisy_eigen_images_back() -> None:
    model = network()
    with torch.no_grad():
        for layer in (model.relight, model.mask_leave):
            layer.weight.zero_()
        model.mask_leave.bias[0] = 1.0
    noisy, estimate = planes(3, 17, 24)
    detail = laplacian.decompose((noisy - estimate)[:, None], 1)[0][:, 0]
    np.testing.assert_allclose(corrected(model, noisy, estimate, 10**9), estimate + detail, atol=1e-4)


@pytest.mark.parametrize(("rank", "rows", "columns"), [(1, 9, 7), (2, 1, 5), (3, 6, 1), (1, 1, 1)])
def test_few_eigen_images_and_few_pixels_work(rank: int, rows: int, columns: int) -> None:
    noisy, estimate = planes(rank, rows, columns)
    result = corrected(network(), noisy, estimate, 10**9)
    assert result.shape == noisy.shape and np.isfinite(result).all()


def test_the_context_is_the_strongest_others() -> None:
    assert context_windows(6, 3) == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2], [0, 1, 2], [0, 1, 2]]
    assert context_windows(2, 3) == [[1, 1, 1], [0, 0, 0]]
    assert context_windows(1, 2) == [[0, 0]]


def test_gradients_are_those_of_the_function() -> None:
    model = network(features=3, growth=2, blocks=1, convs=1, width=3).double()
    noisy, estimate = (torch.from_numpy(part).double() for part in planes(2, 9, 8))
    parameters = [model.relight.weight, model.mask_enter.weight, model.blocks[0].attention.mix.weight]

    def error(*values: torch.Tensor) -> torch.Tensor:
        names = ("relight.weight", "mask_enter.weight", "blocks.0.attention.mix.weight")
        replaced = dict(zip(names, values, strict=True))
        return torch.func.functional_call(model, replaced, (noisy, estimate)).square().mean()

    inputs = tuple(parameter.detach().clone().requires_grad_() for parameter in parameters)
    assert torch.autograd.gradcheck(error, inputs, atol=1e-6)
