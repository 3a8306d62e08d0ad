"""From stored values to light: dark and white references, scale and gain, all reversible and stated in the record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attnkit.runtime.errors import ItemError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

# full scales of sensors and of files of 8 and 16 bits
FULL_SCALES = tuple(float(2**bits - 1) for bits in (8, 10, 12, 14, 16))
# what shares of full exposure, reflectance among them, are multiplied by in files of whole numbers
SHARE_SCALE = 10_000.0
# a bright cube has this value at its WHITE_PERCENTILE
WHITE_LEVEL, WHITE_PERCENTILE = 0.9, 99.5
LARGEST_GAIN = 1000.0
# what a scale came from
WHITE_REFERENCE, HEADER = "white reference", "reflectance scale factor"


@dataclass(frozen=True)
class Reference:
    """A dark or white reference cube, averaged over its rows: [bands, columns], or [bands, 1] for all columns."""

    values: NDArray[np.float32]

    def at(self, bands: NDArray[Any], columns: slice) -> NDArray[np.float32]:
        """Values [bands, 1, columns] for a block of the cube."""
        chosen = self.values[bands]
        return (chosen if chosen.shape[1] == 1 else chosen[:, columns])[:, None, :]


@dataclass(frozen=True)
class Correction:
    """stored - dark, divided by white - dark where there is a white reference (then the unit is reflectance)."""

    dark: Reference | None = None
    white: Reference | None = None

    @property
    def usable(self) -> bool:
        """Whether a white reference is above the dark one anywhere."""
        if self.white is None:
            return True
        return bool((self.white.values > (0 if self.dark is None else self.dark.values)).any())

    def apply(self, block: NDArray[np.float32], bands: NDArray[Any], columns: slice) -> NDArray[np.float32]:
        """Correct a block [bands, rows, columns] in place; a white that is not above the dark gives NaN."""
        import numpy as np

        dark = None if self.dark is None else self.dark.at(bands, columns)
        if dark is not None:
            block -= dark
        if self.white is not None:
            span = self.white.at(bands, columns) - (0.0 if dark is None else dark)
            with np.errstate(divide="ignore", invalid="ignore"):
                block /= np.where(span > 0, span, np.float32(np.nan))
        return block


def read_reference(
    option: str, path: Any, open_reader: Callable[[Any], Any], bands: int, columns: int
) -> Reference:
    """Mean over the rows of a reference cube. ItemError where its bands or columns are not those of the cube."""
    import numpy as np

    with open_reader(path) as reader:
        info = reader.info
        if info.bands != bands:
            raise ItemError(f"{option} {path}: has {info.bands} bands, the cube {bands}; give one of the same sensor")
        if info.columns not in (1, columns):
            raise ItemError(
                f"{option} {path}: has {info.columns} columns, expected {columns} as in the cube, or 1 for all"
            )
        total = np.zeros((bands, info.columns))
        for row in range(info.rows):
            total += reader.read(slice(None), slice(row, row + 1), slice(None))[:, 0]
    return Reference((total / info.rows).astype(np.float32))


@dataclass(frozen=True)
class Radiometry:
    """bright = corrected / scale * gain on the way in; written = bright * output_scale on the way out.

    `scale` is the corrected value of full exposure, `gain` how much brighter the result is to be.
    """

    scale: float
    gain: float
    output_scale: float
    scale_from: str
    gain_from: str

    @property
    def reflectance_scale(self) -> float | None:
        """What a header should say that reflectance was multiplied by; None where the unit is the input's."""
        known = self.scale_from in (WHITE_REFERENCE, HEADER)
        return self.output_scale if known or self.output_scale != self.scale else None

    @property
    def factor(self) -> float:
        return self.gain / self.scale

    def record(self) -> dict[str, Any]:
        """The fields of the item's record."""
        return {
            "scale": self.scale,
            "scale_from": self.scale_from,
            "gain": self.gain,
            "gain_from": self.gain_from,
            "output_scale": self.output_scale,
        }


def settle(
    *,
    scale: float | None,
    gain: float | None,
    white_level: float,
    maximum: float,
    integer: bool,
    reflectance: bool = False,
    header_scale: float | None = None,
    largest: float | None = None,
) -> Radiometry:
    """Scale and gain where the user left them open, and the unit of the values written.

    scale   1 after a white reference; else the header's reflectance scale factor; else 1 for floats of at most 1.5,
            and otherwise the smallest usual full scale (8, 10, 12, 14, 16 bits) that holds the largest value, or it
    gain    puts the WHITE_PERCENTILE of the cube, `white_level`, at WHITE_LEVEL; never below 1
    output  the unit of the input; shares of full exposure as whole numbers are times SHARE_SCALE, and full exposure
            is at most `largest`, the largest whole number of the type written (None for floats)
    """
    import math

    scale_from = "option"
    if scale is None:
        if reflectance:
            scale, scale_from = 1.0, WHITE_REFERENCE
        elif header_scale is not None and header_scale > 0:
            scale, scale_from = header_scale, HEADER
        elif not integer and maximum <= 1.5:
            scale, scale_from = 1.0, "values up to 1.5"
        else:
            fitting = [full for full in FULL_SCALES if full >= maximum]
            scale, scale_from = (fitting[0] if fitting else float(maximum)), "largest value"
    gain_from = "option"
    if gain is None:
        level = white_level / scale
        gain = min(max(WHITE_LEVEL / level, 1.0), LARGEST_GAIN) if level > 0 else 1.0
        # four digits say all that a percentile knows, and the record shows the very number
        gain = float(f"{gain:.4g}")
        gain_from = f"{WHITE_PERCENTILE:g}th percentile"
    if not (math.isfinite(scale) and scale > 0):
        raise ItemError(f"--scale: got {scale}, expected a positive number")
    output = scale
    if largest is not None:
        share = scale < FULL_SCALES[0] and (reflectance or not integer)
        output = min(SHARE_SCALE if share else scale, largest)
    return Radiometry(float(scale), float(gain), float(output), scale_from, gain_from)
