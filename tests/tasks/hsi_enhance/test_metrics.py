"""MPSNR, MSSIM, SAM and ERGAS against other implementations, hand-computed cases and each other."""

import math

import numpy as np
import pytest

from attnkit.tasks.hsi_enhance.metrics import (
    best_scale,
    block_numbers,
    masked_pixels,
    measures,
    per_band,
    scores,
    spectral_angles,
    sums_of,
    view_of,
)


def pair(shape=(6, 17, 14), seed=0):
    draw = np.random.default_rng(seed)
    clean = draw.uniform(0.1, 0.9, shape)
    return clean + 0.05 * draw.standard_normal(shape), clean


def test_equal_cubes():
    _, clean = pair()
    found = scores(clean, clean)
    assert found["mpsnr_db"] == 100
    assert found["mssim"] == pytest.approx(1, abs=1e-12)
    assert found["sam_degrees"] == pytest.approx(0, abs=1e-3)
    assert found["ergas"] == 0


def test_angles_know_no_brightness_and_orthogonal_spectra_are_90_degrees_apart():
    noisy, clean = pair()
    assert spectral_angles(2 * noisy, clean) == pytest.approx(spectral_angles(noisy, clean), abs=1e-6)
    first, second = np.zeros((4, 1, 1)), np.zeros((4, 1, 1))
    first[0], second[2] = 0.3, 0.7
    assert spectral_angles(first, second)[0, 0] == pytest.approx(90, abs=1e-9)
    # (1, 1) and (1, 0)
    assert spectral_angles(np.ones((2, 1, 1)), np.array([1.0, 0.0]).reshape(2, 1, 1))[0, 0] == pytest.approx(45)


def test_every_pixel_has_an_angle_unless_it_is_left_out():
    noisy, clean = pair()
    clean[:, 0, :3] = 0
    noisy[:, 0, :2] = 0
    angles = spectral_angles(noisy, clean)
    assert np.isfinite(angles).all()
    # nothing beside nothing, as the published measure has it
    assert angles[0, :2] == pytest.approx(90, abs=1e-6)
    left_out = masked_pixels(view_of(clean))
    assert np.argwhere(left_out).tolist() == [[0, 0], [0, 1], [0, 2]]
    found = scores(noisy, clean, left_out)
    assert found["sam_degrees"] == pytest.approx(angles[~left_out].mean())
    error = ((noisy - clean) ** 2)[:, ~left_out].mean(axis=1)
    assert found["mpsnr_db"] == pytest.approx(np.mean(-10 * np.log10(error)))


def test_psnr_and_ergas_of_a_known_error():
    clean = np.stack([np.full((12, 12), level) for level in (0.2, 0.5)])
    found = sums_of(view_of(clean + np.array([0.1, 0.01])[:, None, None]), view_of(clean))
    assert per_band(found)["psnr_db"] == pytest.approx([20, 40])
    assert measures(found)["mpsnr_db"][0] == pytest.approx(30)
    assert measures(found)["ergas"][0] == pytest.approx(100 * math.sqrt((0.5**2 + 0.02**2) / 2))


def test_bands_without_light_are_left_out_of_ergas():
    noisy, clean = pair()
    dark = clean.copy()
    dark[2] = 0
    kept = [0, 1, 3, 4, 5]
    assert scores(noisy, dark)["ergas"] == pytest.approx(scores(noisy[kept], clean[kept])["ergas"])


@pytest.mark.parametrize("shape", [(6, 17, 14), (3, 11, 30), (1, 12, 12)])
def test_ssim_agrees_with_scikit_image(shape):
    skimage = pytest.importorskip("skimage.metrics")
    noisy, clean = pair(shape)
    expected = []
    for first, second in zip(noisy, clean, strict=True):
        _, found = skimage.structural_similarity(
            first, second, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0, full=True
        )
        expected.append(found[5:-5, 5:-5].mean())
    assert per_band(sums_of(view_of(noisy), view_of(clean)))["ssim"] == pytest.approx(expected, abs=1e-6)


def test_ssim_needs_its_window():
    noisy, clean = pair((3, 10, 40))
    found = scores(noisy, clean)
    assert math.isnan(found["mssim"])
    assert all(math.isfinite(found[key]) for key in ("mpsnr_db", "sam_degrees", "ergas"))


def test_angles_agree_with_spectral_python():
    spectral = pytest.importorskip("spectral")
    noisy, clean = pair()
    expected = [
        [
            spectral.spectral_angles(noisy[:, row : row + 1, column].reshape(1, 1, -1), clean[:, row, column][None])
            for column in range(clean.shape[2])
        ]
        for row in range(clean.shape[1])
    ]
    assert np.radians(spectral_angles(noisy, clean)) == pytest.approx(np.squeeze(expected), abs=1e-4)


def test_angle_and_ergas_agree_with_torchmetrics():
    image = pytest.importorskip("torchmetrics.functional.image")
    torch = pytest.importorskip("torch")
    noisy, clean = pair()
    first, second = (torch.from_numpy(cube)[None] for cube in (noisy, clean))
    found = scores(noisy, clean)
    assert math.radians(found["sam_degrees"]) == pytest.approx(
        float(image.spectral_angle_mapper(first, second)), abs=1e-4
    )
    # theirs divides by the ratio of resolutions
    expected = float(image.error_relative_global_dimensionless_synthesis(first, second, ratio=1))
    assert found["ergas"] == pytest.approx(expected, rel=1e-4)


def test_measures_of_blocks_are_those_of_the_pixels_in_them():
    noisy, clean = pair((4, 24, 24))
    numbers = block_numbers(np.zeros((24, 24), bool), 4)
    assert sorted(np.unique(numbers, return_counts=True)[1]) == [144] * 4
    sums = sums_of(view_of(noisy), view_of(clean), numbers)
    whole = scores(noisy, clean)
    for key, value in measures(sums).items():
        assert value[0] == pytest.approx(whole[key])
    # one block twice and another once
    weights = np.zeros((1, 4))
    weights[0, [1, 2]] = 2, 1
    chosen = measures(sums, weights)
    inside = np.concatenate([np.flatnonzero(numbers == 1)] * 2 + [np.flatnonzero(numbers == 2)])
    error = (((noisy - clean) ** 2).reshape(4, -1))[:, inside].mean(axis=1)
    assert chosen["mpsnr_db"][0] == pytest.approx(np.mean(-10 * np.log10(error)))
    assert chosen["sam_degrees"][0] == pytest.approx(spectral_angles(noisy, clean).ravel()[inside].mean())


def test_left_out_pixels_reach_no_measure():
    noisy, clean = pair((3, 24, 20))
    left_out = np.zeros((24, 20), bool)
    left_out[4:9, 3:8] = True
    before = scores(noisy, clean, left_out)
    noisy[:, left_out], clean[:, left_out] = 7.0, np.nan
    assert scores(noisy, clean, left_out) == pytest.approx(before)
    numbers = block_numbers(left_out, 6)
    assert (numbers[left_out] == -1).all()
    assert sorted(np.unique(numbers[~left_out])) == list(range(numbers.max() + 1))


def test_samples_that_are_no_numbers_count_as_zero():
    noisy, clean = pair()
    zeroed = noisy.copy()
    zeroed[2, 3, 4] = 0
    noisy[2, 3, 4] = np.nan
    assert scores(noisy, clean) == pytest.approx(scores(zeroed, clean))


def test_best_scale_has_the_least_error():
    noisy, clean = pair()
    factor = best_scale(view_of(3 * clean), view_of(clean), np.zeros(clean.shape[1:], bool))
    assert factor == pytest.approx(1 / 3)
    factor = best_scale(view_of(noisy), view_of(clean), np.zeros(clean.shape[1:], bool))
    errors = [((noisy * trial - clean) ** 2).sum() for trial in (factor - 0.01, factor, factor + 0.01)]
    assert errors[1] == min(errors)
    assert best_scale(view_of(0 * clean), view_of(clean), np.zeros(clean.shape[1:], bool)) == 1


def test_reading_in_parts_changes_nothing(monkeypatch):
    from attnkit.tasks.hsi_enhance import metrics

    noisy, clean = pair()
    whole = scores(noisy, clean)
    monkeypatch.setattr(metrics, "PART_BYTES", 17 * 14 * 8 * 2)
    assert scores(noisy, clean) == whole


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"same shape, got \(6, 17, 14\) and \(6, 17, 13\)"):
        sums_of(view_of(pair()[0]), view_of(pair()[0][:, :, :-1]))
