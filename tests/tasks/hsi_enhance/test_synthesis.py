"""Cubes made of a library and a picture, and what a folder to train on gives."""

from pathlib import Path

import numpy as np
import pytest
from training_material import write_material

from attnkit.runtime.errors import UsageError
from attnkit.tasks.hsi_enhance import materials
from attnkit.tasks.hsi_enhance.synthesis import (
    HELD_OUT_MATERIALS,
    abundances,
    random_field,
    read_library,
    smooth_spectrum,
    synthesise,
)


def test_a_random_field_has_unit_deviation_and_falls_with_frequency() -> None:
    smooth, rough = (random_field(np.random.default_rng(1), 64, 64, slope) for slope in (1.6, 0.3))
    for field in (smooth, rough):
        assert field.mean() == pytest.approx(0, abs=1e-5) and field.std() == pytest.approx(1, rel=1e-4)
    steps = [np.diff(field, axis=0).std() for field in (smooth, rough)]
    assert steps[0] < 0.5 * steps[1]


def test_a_smooth_spectrum_has_unit_power_and_moves_little_between_bands() -> None:
    curve = smooth_spectrum(np.random.default_rng(2), 200)
    assert (curve**2).mean() == pytest.approx(1, rel=1e-5)
    assert np.abs(np.diff(curve)).max() < 0.5


def test_shares_of_materials_add_up_to_one_and_follow_the_picture() -> None:
    picture = np.zeros((32, 32, 3), np.float32)
    picture[:, 16:] = (0.9, 0.2, 0.1)
    shares, light = abundances(np.random.default_rng(3), picture, 4)
    np.testing.assert_allclose(shares.sum(axis=0), 1, rtol=1e-5)
    assert shares.min() >= 0 and light.min() > 0
    left, right = shares[:, :, :16].mean(axis=(1, 2)), shares[:, :, 16:].mean(axis=(1, 2))
    assert np.abs(left - right).max() > 0.1


def test_a_cube_is_bright_and_the_same_for_the_same_draw(tmp_path: Path) -> None:
    library = read_library(write_material(tmp_path) / "library.npz")
    picture = np.random.default_rng(4).uniform(0, 1, (24, 20, 3)).astype(np.float32)
    first, again = (synthesise(np.random.default_rng(5), library, picture, bands=17) for _ in range(2))
    assert first.shape == (17, 24, 20) and first.min() >= 0 and 0.3 <= first.max() <= 1
    np.testing.assert_array_equal(first, again)


def test_the_parts_of_a_library_share_no_material(tmp_path: Path) -> None:
    library = read_library(write_material(tmp_path) / "library.npz")
    train, held_out = library.part(held_out=False), library.part(held_out=True)
    assert set(held_out.materials) == {"paint", "sand"} <= set(HELD_OUT_MATERIALS)
    assert not set(train.materials) & set(held_out.materials)
    assert len(train.reflectance) + len(held_out.reflectance) == len(library.reflectance)


def test_what_is_kept_for_tests_is_not_trained_on(tmp_path: Path) -> None:
    found = materials.find_materials(write_material(tmp_path))
    # columns from 96 on hold 60000: had they been read, the brightest hundredth would make all others dark
    assert list(found.cubes) == ["indian_pines.npz"]
    assert found.cubes["indian_pines.npz"].shape == (20, 100, 96)
    assert np.median(found.cubes["indian_pines.npz"]) > 0.4
    assert [path.name for path in found.pictures] == ["1001.jpg", "1400.jpg"]
    assert not set(found.library.materials) & set(HELD_OUT_MATERIALS)


def test_a_folder_without_a_library_or_pictures_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no spectral library; expected an \.npz"):
        materials.find_materials(tmp_path)
    write_material(tmp_path)
    for path in tmp_path.rglob("*.jpg"):
        path.unlink()
    with pytest.raises(UsageError, match=r"no pictures; expected \.jpg"):
        materials.find_materials(tmp_path)
    with pytest.raises(UsageError, match="expected a folder"):
        materials.find_materials(tmp_path / "nothing")
