"""Colour: primaries, conversion matrices and the sRGB curve.

Sources: ITU-R BT.709-6, BT.2020-2; SMPTE RP 431-2 / EG 432-1 with D65 (Display P3); SMPTE ST 2065-1 and AMPAS
S-2014-004 (ACES); IEC 61966-2-1 (sRGB); Bradford adaptation as in ICC.1:2022 annex E. Matrices are worked out from
the chromaticities in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from attnkit.pictures.picture import Chromaticities
from attnkit.runtime.errors import UsageError

D65 = (0.3127, 0.3290)
ACES_WHITE = (0.32168, 0.33767)
# the ICC connection space's white as XYZ, exactly as profiles store it
D50_XYZ = (0.9642, 1.0, 0.8249)

# red x y, green x y, blue x y, white x y
PRIMARIES: dict[str, Chromaticities] = {
    "rec709": (0.640, 0.330, 0.300, 0.600, 0.150, 0.060, *D65),
    "display-p3": (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, *D65),
    "rec2020": (0.708, 0.292, 0.170, 0.797, 0.131, 0.046, *D65),
    "acescg": (0.713, 0.293, 0.165, 0.830, 0.128, 0.044, *ACES_WHITE),
    "aces2065": (0.7347, 0.2653, 0.0, 1.0, 0.0001, -0.077, *ACES_WHITE),
}
INPUT_SPACES = ("auto", "rec709", "acescg", "aces2065", "rec2020", "xyz")
OUTPUT_SPACES = ("srgb", "display-p3")
# how OpenEXR marks files that hold XYZ itself
_XYZ_CHROMATICITIES: Chromaticities = (1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1 / 3, 1 / 3)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])

Space = str | Chromaticities


def _xyz_of(x: float, y: float) -> np.ndarray:
    return np.array([x / y, 1.0, (1 - x - y) / y])


@lru_cache(maxsize=64)
def to_xyz(space: Space) -> np.ndarray:
    """Matrix [3, 3] float64 from linear RGB of a space to XYZ relative to the space's own white (white has Y = 1).

    space is a name of PRIMARIES, "xyz" (the identity) or eight chromaticities; UsageError for another name, ValueError
    for chromaticities that span no colour space.
    """
    if isinstance(space, str):
        if space == "xyz":
            return np.eye(3)
        if space not in PRIMARIES:
            raise UsageError(f"unknown colour space {space!r}; expected one of {', '.join([*PRIMARIES, 'xyz'])}")
        space = PRIMARIES[space]
    red, green, blue, white = (space[0:2], space[2:4], space[4:6], space[6:8])
    # columns are x, y, z of the primaries: no division, because ACES blue and XYZ's own primaries come near or reach
    # y = 0
    columns = np.array([[x, y, 1 - x - y] for x, y in (red, green, blue)]).T
    if abs(np.linalg.det(columns)) < 1e-6 or white[1] <= 0:
        raise ValueError(f"chromaticities {tuple(round(value, 4) for value in space)} span no colour space")
    return columns * np.linalg.solve(columns, _xyz_of(*white))


@lru_cache(maxsize=64)
def adaptation(source: tuple[float, float, float], target: tuple[float, float, float]) -> np.ndarray:
    """Bradford matrix [3, 3] float64 that takes XYZ seen under one white (as XYZ) to another."""
    scale = (_BRADFORD @ np.array(target)) / (_BRADFORD @ np.array(source))
    return np.linalg.inv(_BRADFORD) @ np.diag(scale) @ _BRADFORD


def _white(space: Space) -> tuple[float, float, float]:
    chromaticities = PRIMARIES.get(space) if isinstance(space, str) else space
    x, y = chromaticities[6:8] if chromaticities is not None else D65
    return (x / y, 1.0, (1 - x - y) / y)


@lru_cache(maxsize=64)
def matrix(source: Space, target: Space) -> np.ndarray:
    """Matrix [3, 3] float64 between two linear spaces: white goes to white (Bradford); XYZ is taken to be relative to
    D65."""
    if source == target:
        return np.eye(3)
    first, last = to_xyz(source), to_xyz(target)
    return np.linalg.inv(last) @ adaptation(_white(source), _white(target)) @ first


def name_of(chromaticities: Sequence[float], tolerance: float = 1e-3) -> str:
    """Name of the space that has these chromaticities, or "custom"."""
    for name, known in (*PRIMARIES.items(), ("xyz", _XYZ_CHROMATICITIES)):
        if max(abs(a - b) for a, b in zip(chromaticities, known, strict=True)) <= tolerance:
            return name
    return "custom"


def name_of_matrix(to_rec709: np.ndarray, tolerance: float = 4e-3) -> str:
    """Name of the space whose matrix to Rec.709 this is, or "custom"."""
    for name in PRIMARIES:
        if np.abs(matrix(name, "rec709") - to_rec709).max() <= tolerance:
            return name
    return "custom"


def apply_matrix(pixels: np.ndarray, conversion: np.ndarray) -> np.ndarray:
    """(rows, columns, 3) float32 times a matrix [3, 3]."""
    import cv2

    return cv2.transform(np.ascontiguousarray(pixels, np.float32), conversion)


def convert(pixels: np.ndarray, source: Space, target: Space) -> np.ndarray:
    """(rows, columns, 3) float32 linear light from one space's primaries to another's; may go negative outside the
    gamut."""
    if source == target:
        return pixels
    return apply_matrix(pixels, matrix(source, target))


def srgb_encode(linear: np.ndarray) -> np.ndarray:
    """Linear light to sRGB (and Display P3) encoding, float32; negative values give 0, values above 1 go on along the
    curve."""
    import cv2

    flat = np.maximum(_rows(linear), np.float32(0))
    encoded = cv2.pow(flat, 1 / 2.4)
    encoded *= np.float32(1.055)
    encoded -= np.float32(0.055)
    np.copyto(encoded, flat * np.float32(12.92), where=flat <= 0.0031308)
    return encoded.reshape(np.shape(linear))


def srgb_decode(encoded: np.ndarray) -> np.ndarray:
    """sRGB encoding to linear light, float32; integers are taken as 0..255 or 0..65535."""
    import cv2

    if encoded.dtype.kind == "u":
        return np.take(decode_table(encoded.dtype.itemsize), encoded)
    flat = _rows(encoded)
    decoded = cv2.pow(np.maximum(flat * np.float32(1 / 1.055) + np.float32(0.055 / 1.055), 0), 2.4)
    np.copyto(decoded, flat * np.float32(1 / 12.92), where=flat <= 0.04045)
    return decoded.reshape(np.shape(encoded))


def _rows(values: np.ndarray) -> np.ndarray:
    """The same numbers as a two-dimensional float32 array, which is how OpenCV takes any shape."""
    whole = np.ascontiguousarray(values, np.float32)
    return whole.reshape(whole.shape[0] if whole.ndim > 1 else 1, -1)


@lru_cache(maxsize=2)
def decode_table(width: int) -> np.ndarray:
    """sRGB decoding of all 8-bit (width 1) or 16-bit (width 2) values, float32."""
    return srgb_decode(np.linspace(0, 1, 256**width)).astype(np.float32)
