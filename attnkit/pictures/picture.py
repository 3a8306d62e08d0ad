"""What a picture is once it is read, and what its header says before."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

Chromaticities = tuple[float, float, float, float, float, float, float, float]


@dataclass
class Picture:
    """One picture in linear light, upright.

    pixels          (rows, columns, 3) float32, linear Rec.709 primaries, D65 white, no negative, NaN or Inf; not
                    multiplied by alpha
    alpha           (rows, columns) float32 in 0..1, or None
    kind            "radiance", "exr", "pfm", "tiff", "png" or "jpeg", by content
    grey            the file has one colour channel (pixels then hold it three times)
    hdr             the file holds floating-point samples
    source_space    primaries of the file: a name of spaces.PRIMARIES, "xyz" or "custom"
    space_source    where that is known from: "file", "assumed" or "option"
    transfer        curve that was undone: "linear", "srgb", "gamma" or "icc"
    exif, icc       the file's own, as bytes, or None (orientation in exif is as in the file; pixels are upright)
    layer           the EXR layer that was read, or None
    repaired        pixels with a "nan", "inf" or "negative" sample, as found in the file
    outside_gamut   pixels clipped because Rec.709 cannot hold them (only where the primaries were converted)
    """

    pixels: np.ndarray
    alpha: np.ndarray | None
    kind: str
    grey: bool
    hdr: bool
    source_space: str
    space_source: str
    transfer: str = "linear"
    exif: bytes | None = None
    icc: bytes | None = None
    layer: str | None = None
    repaired: dict[str, int] = field(default_factory=lambda: {"nan": 0, "inf": 0, "negative": 0})
    outside_gamut: int = 0


@dataclass(frozen=True)
class PictureInfo:
    """What the header alone tells; rows and columns are those of the upright picture."""

    kind: str
    rows: int
    columns: int
    hdr: bool
    layers: tuple[str, ...] = ()


@dataclass
class Samples:
    """What a format's reader hands on: stored values, not yet decoded, turned or repaired.

    values          (rows, columns) or (rows, columns, 3), uint8, uint16 or float32, RGB order
    alpha           (rows, columns) of the same type or float32, or None
    space           a name of spaces.PRIMARIES, "xyz", a tuple of chromaticities, or None where the file says nothing
    transfer        "linear", "srgb", "gamma:EXPONENT" or None where the file says nothing (an ICC profile then decides)
    """

    values: np.ndarray
    alpha: np.ndarray | None = None
    premultiplied: bool = False
    space: str | Chromaticities | None = None
    transfer: str | None = None
    exif: bytes | None = None
    icc: bytes | None = None
    orientation: int = 1
    layer: str | None = None
