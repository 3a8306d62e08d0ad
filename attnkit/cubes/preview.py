"""Three bands of a cube as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .cube import CubeError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# red, green and blue of a true-colour picture
TRUE_COLOUR_NM = (640.0, 550.0, 460.0)
# a sensor that begins above the one or ends below the other does not see colours
BLUE_NM, RED_NM = 490.0, 620.0
STRETCH_PERCENTILES = (1.0, 99.0)
# values that a percentile is taken from
MOST_SAMPLES = 2_000_000


def preview_bands(
    bands: int, wavelengths_nm: Sequence[float] | None = None, wanted: Sequence[int] | None = None
) -> tuple[int, int, int]:
    """Numbers of the bands shown as red, green and blue.

    The wanted ones; else those nearest to TRUE_COLOUR_NM where the sensor sees them; else three spread over the bands,
    the longest wavelength as red. Raises CubeError for a wanted band that the cube does not have.
    """
    if wanted is not None:
        if max(wanted) >= bands or min(wanted) < 0:
            said = ",".join(map(str, wanted))
            raise CubeError(f"--preview-bands: got {said}, the cube has bands 0 to {bands - 1}")
        red, green, blue = wanted
        return red, green, blue
    order = range(bands)
    if wavelengths_nm is not None:
        if min(wavelengths_nm) <= BLUE_NM and max(wavelengths_nm) >= RED_NM:
            red, green, blue = (
                min(order, key=lambda band: abs(wavelengths_nm[band] - nm))
                for nm in TRUE_COLOUR_NM
            )
            return red, green, blue
        order = sorted(order, key=lambda band: wavelengths_nm[band])  # type: ignore[assignment]
    red, green, blue = (order[min(bands - 1, bands * sixth // 6)] for sixth in (5, 3, 1))
    return red, green, blue


def stretch(picture: NDArray[Any]) -> NDArray[np.uint8]:
    """Values [rows, columns, 3] as 8 bit: the same straight line for all channels, between two percentiles.

    What is no number becomes black, and so does a picture of one value only.
    """
    import numpy as np

    values = picture.astype(np.float32)
    finite = values[np.isfinite(values)]
    if not finite.size:
        return np.zeros(picture.shape, np.uint8)
    low, high = np.percentile(finite[:: max(1, finite.size // MOST_SAMPLES)], STRETCH_PERCENTILES)
    if not high > low:
        low, high = finite.min(), finite.max()
    if not high > low:
        return np.zeros(picture.shape, np.uint8)
    scaled = (values - np.float32(low)) * np.float32(255 / (high - low))
    scaled = np.nan_to_num(scaled, nan=0.0, posinf=255.0, neginf=0.0)
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
