"""The chart of --plot: one pixel's spectrum before and after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .chart import draw_lines

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def plot_spectra(
    spectra: NDArray[np.float32],
    wavelengths: Sequence[float] | None,
    first_band: int,
    pixel: tuple[int, int],
    settings: dict[str, Any],
) -> bytes:
    """PNG of spectra [2, bands] (before, after; bright units) over wavelengths in nm, or over band numbers."""
    return draw_lines(
        [("before, brightened", spectra[0]), ("after", spectra[1])],
        wavelengths,
        title=f"pixel row {pixel[0]}, column {pixel[1]}, share of full exposure",
        settings=settings,
        first_band=first_band,
    )
