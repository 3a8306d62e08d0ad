"""Dark cubes made of bright ones by a physical model of the camera, for training and for tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from attnkit.runtime.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class DarkModel:
    """How a push-broom camera sees a scene in too short an exposure.

    exposure       share of the exposure that would have filled the scale
    full_well      electrons of a sample at full scale: shot noise is Poisson
    read_noise     standard deviation, as a share of full scale
    stripe_offset  standard deviation over band and column of an offset that all rows share, as a share of full scale
    stripe_gain    standard deviation over band and column of a factor around 1
    bits           of the converter
    pedestal       added before conversion and subtracted after it, as a share of full scale, as sensors do: noise below
                   zero is not cut off
    """

    exposure: float = 1 / 15
    full_well: float = 4000.0
    read_noise: float = 0.002
    stripe_offset: float = 0.0004
    stripe_gain: float = 0.005
    bits: int = 12
    pedestal: float = 0.02

    def __post_init__(self) -> None:
        if not (0 < self.exposure <= 1 and self.full_well > 0 and self.bits >= 1):
            raise UsageError(
                f"exposure {self.exposure}, full well {self.full_well}, {self.bits} bits: expected an exposure above 0 "
                "and up to 1, electrons above 0, at least 1 bit"
            )


def darken(clean: NDArray[np.float32], *, seed: int, model: DarkModel | None = None) -> NDArray[np.float32]:
    """The dark, noisy twin of a bright cube.

    clean    [bands, rows, columns], full scale = 1; values below 0 count as 0
    returns  float32 of the same shape in the same scale: about clean times the exposure, quantised
    """
    import numpy as np

    model = model or DarkModel()
    draw = np.random.default_rng(seed)
    bands, _, columns = clean.shape
    light = np.maximum(clean, 0.0).astype(np.float64) * (model.exposure * model.full_well)
    dark = draw.poisson(light) / model.full_well
    dark *= 1 + model.stripe_gain * draw.standard_normal((bands, 1, columns))
    dark += model.stripe_offset * draw.standard_normal((bands, 1, columns))
    dark += model.read_noise * draw.standard_normal(clean.shape)
    steps = 2**model.bits - 1
    code = np.rint((dark + model.pedestal) * steps)
    return (np.clip(code, 0, steps) / steps - model.pedestal).astype(np.float32)
