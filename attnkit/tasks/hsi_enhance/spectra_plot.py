"""The chart of --plot: one pixel's spectrum before and after. Pillow draws it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WIDTH, HEIGHT = 1000, 560
LEFT, RIGHT, TOP, BOTTOM = 80, 30, 70, 60
INK, PALE = (40, 40, 40), (220, 220, 220)
BEFORE, AFTER = (230, 159, 0), (0, 114, 178)
TICKS = 6


def plot_spectra(
    spectra: NDArray[np.float32],
    wavelengths: Sequence[float] | None,
    pixel: tuple[int, int],
    settings: dict[str, Any],
) -> bytes:
    """PNG of spectra [2, bands] (before, after; bright units) over wavelengths in nm, or over band numbers."""
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    from attnkit.pictures import encode_picture

    across = np.arange(spectra.shape[1]) if wavelengths is None else np.asarray(wavelengths, np.float64)
    order = np.argsort(across, kind="stable")
    left, right = float(across.min()), float(across.max())
    low, high = min(0.0, float(spectra.min())), max(float(spectra.max()), 1e-6)

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + (x - left) / max(right - left, 1e-9) * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - (y - low) / (high - low) * (HEIGHT - TOP - BOTTOM),
        )

    font = ImageFont.load_default(15)
    picture = Image.new("RGB", (WIDTH, HEIGHT), (255, 255, 255))
    ink = ImageDraw.Draw(picture)
    for y in np.linspace(low, high, TICKS):
        ink.line((place(left, y), place(right, y)), PALE)
        ink.text((8, place(left, y)[1] - 8), f"{y:.3f}", INK, font)
    for x in np.linspace(left, right, TICKS):
        ink.text((place(x, low)[0] - 14, HEIGHT - BOTTOM + 8), f"{x:.0f}", INK, font)
    unit = "band" if wavelengths is None else "wavelength (nm)"
    ink.text((WIDTH // 2 - 50, HEIGHT - 26), unit, INK, font)
    ink.text((LEFT, 12), f"pixel row {pixel[0]}, column {pixel[1]}, share of full exposure", INK, font)
    for colour, word, at, spectrum in (
        (BEFORE, "before, brightened", LEFT, spectra[0]),
        (AFTER, "after", LEFT + 200, spectra[1]),
    ):
        ink.rectangle((at, 40, at + 12, 52), colour)
        ink.text((at + 18, 37), word, INK, font)
        points = [place(float(across[band]), float(spectrum[band])) for band in order]
        if len(points) > 1:
            ink.line(points, colour, 2)
        for x, y in points:
            ink.ellipse((x - 1.5, y - 1.5, x + 1.5, y + 1.5), colour)
    return encode_picture(np.asarray(picture), format="png", depth=8, settings=settings)
