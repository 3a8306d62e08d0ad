"""The camera that makes dark cubes of bright ones: its noise has the size that physics says."""

import numpy as np
import pytest

from attnkit.runtime.errors import UsageError
from attnkit.tasks.hsi_enhance.darkening import DarkModel, darken

QUIET = DarkModel(exposure=1.0, full_well=1e12, read_noise=0.0, stripe_offset=0.0, stripe_gain=0.0, bits=24)


def only(**changed: float) -> DarkModel:
    return DarkModel(**{**QUIET.__dict__, **changed})


def level(value: float, rows: int = 200, columns: int = 200, bands: int = 2) -> np.ndarray:
    return np.full((bands, rows, columns), value, np.float32)


def test_without_noise_the_cube_is_only_darker() -> None:
    bright = np.linspace(0, 1, 600, dtype=np.float32).reshape(2, 10, 30)
    np.testing.assert_allclose(darken(bright, seed=0, model=only(exposure=0.25)), bright / 4, atol=5e-6)


@pytest.mark.parametrize("value", [0.1, 0.8])
def test_shot_noise_is_the_root_of_the_electrons(value: float) -> None:
    model = only(exposure=1 / 15, full_well=4000.0)
    dark = darken(level(value), seed=1, model=model)
    electrons = value * 4000 / 15
    assert dark.mean() * 4000 == pytest.approx(electrons, rel=0.005)
    assert (dark.astype(np.float64) * 4000).var() == pytest.approx(electrons, rel=0.02)


def test_read_noise_and_steps_add_up() -> None:
    assert darken(level(0.5), seed=2, model=only(read_noise=0.01)).std() == pytest.approx(0.01, rel=0.01)
    codes = (darken(level(0.5), seed=3, model=only(read_noise=0.01, bits=8)) + QUIET.pedestal) * 255
    np.testing.assert_allclose(codes, np.rint(codes), atol=1e-3)


def test_stripes_are_the_same_in_every_row_and_differ_between_bands() -> None:
    dark = darken(level(0.5), seed=4, model=only(stripe_offset=0.02, stripe_gain=0.02))
    assert np.ptp(dark, axis=1).max() < 1e-3
    assert dark[0, 0].std() == pytest.approx(np.hypot(0.02, 0.01), rel=0.2)
    assert abs(np.corrcoef(dark[0, 0], dark[1, 0])[0, 1]) < 0.3


def test_noise_below_zero_survives_and_saturation_does_not() -> None:
    dark = darken(level(0.0), seed=5, model=only(read_noise=0.005))
    assert dark.min() < -0.01 and abs(dark.mean()) < 1e-4
    assert darken(level(3.0), seed=5, model=QUIET).max() <= 1.0


def test_a_seed_gives_the_same_cube_and_another_seed_another() -> None:
    first, again, other = (darken(level(0.3), seed=seed) for seed in (6, 6, 7))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.5


def test_an_exposure_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match=r"exposure 0, .* expected an exposure above 0"):
        DarkModel(exposure=0)
