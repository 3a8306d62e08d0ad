"""Lines over wavelengths or band numbers as a picture. Pillow draws it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

WIDTH, HEIGHT = 1000, 560
LEFT, RIGHT, TOP, BOTTOM = 80, 30, 70, 60
INK, PALE = (40, 40, 40), (220, 220, 220)
# told apart by people who see red and green alike (Okabe and Ito)
COLOURS = ((230, 159, 0), (0, 114, 178), (0, 158, 115), (213, 94, 0), (204, 121, 167), (86, 180, 233), (90, 90, 90))
TICKS = 6
# of the legend, whose rows push the lines down
LINE_HEIGHT, SQUARE = 22, 12


def draw_lines(
    lines: Sequence[tuple[str, NDArray[Any]]],
    wavelengths: Sequence[float] | None,
    *,
    title: str,
    settings: dict[str, Any],
    first_band: int = 0,
    from_zero: bool = True,
    digits: int = 3,
) -> bytes:
    """PNG of named lines [bands] over wavelengths in nm, or over band numbers; values that are no numbers are gaps.

    first_band  number of the first band in its file
    from_zero   whether 0 is in sight
    digits      of the numbers beside the vertical axis
    """
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    from attnkit.pictures import encode_picture

    across = np.asarray(wavelengths, np.float64) if wavelengths else first_band + np.arange(len(lines[0][1]))
    order = np.argsort(across, kind="stable")
    left, right = float(across.min()), float(across.max())
    finite = np.concatenate([values[np.isfinite(values)] for _, values in lines])
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    low, high = (min(0.0, low), max(high, 1e-6)) if from_zero else (low, max(high, low + 1e-6))
    font = ImageFont.load_default(15)
    places, legend_rows = _legend([name for name, _ in lines], font)
    top = TOP + (legend_rows - 1) * LINE_HEIGHT

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + (x - left) / max(right - left, 1e-9) * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - (y - low) / (high - low) * (HEIGHT - top - BOTTOM),
        )

    picture = Image.new("RGB", (WIDTH, HEIGHT), (255, 255, 255))
    ink = ImageDraw.Draw(picture)
    for y in np.linspace(low, high, TICKS):
        ink.line((place(left, y), place(right, y)), PALE)
        ink.text((8, place(left, y)[1] - 8), f"{y:.{digits}f}", INK, font)
    for x in np.linspace(left, right, TICKS):
        ink.text((place(x, low)[0] - 14, HEIGHT - BOTTOM + 8), f"{x:.0f}", INK, font)
    ink.text((WIDTH // 2 - 50, HEIGHT - 26), "wavelength (nm)" if wavelengths else "band", INK, font)
    ink.text((LEFT, 12), title, INK, font)
    for at, ((name, values), (x, y)) in enumerate(zip(lines, places, strict=True)):
        colour = COLOURS[at % len(COLOURS)]
        ink.rectangle((x, y, x + SQUARE, y + SQUARE), colour)
        ink.text((x + SQUARE + 6, y - 3), name, INK, font)
        for run in _runs(values[order]):
            points = [place(float(across[band]), float(values[band])) for band in order[run]]
            if len(points) > 1:
                ink.line(points, colour, 2)
            for middle in points:
                ink.ellipse((middle[0] - 1.5, middle[1] - 1.5, middle[0] + 1.5, middle[1] + 1.5), colour)
    return encode_picture(np.asarray(picture), format="png", depth=8, settings=settings)


def _legend(names: Sequence[str], font: Any) -> tuple[list[tuple[int, int]], int]:
    """Where each entry begins, and how many rows they take."""
    x, row, places = LEFT, 0, []
    for name in names:
        wide = SQUARE + 30 + int(font.getlength(name))
        if x > LEFT and x + wide > WIDTH - RIGHT:
            x, row = LEFT, row + 1
        places.append((x, 40 + row * LINE_HEIGHT))
        x += wide
    return places, row + 1


def _runs(values: NDArray[Any]) -> list[slice]:
    """The stretches of numbers between gaps."""
    import numpy as np

    good = np.concatenate([[False], np.isfinite(values), [False]])
    edges = np.flatnonzero(good[1:] != good[:-1])
    return [slice(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]
