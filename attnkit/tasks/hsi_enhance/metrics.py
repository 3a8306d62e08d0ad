"""How near a bright cube is to its reference: MPSNR, MSSIM, SAM and ERGAS, from sums over blocks of pixels.

Cubes are [bands, rows, columns] with full exposure = 1; everything is computed in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# of equal bands
PERFECT_DB = 100.0
# in the place of zeros, and beside the product of norms, as in the published measure
TINY = 2.2e-16
PART_BYTES = 64_000_000


@dataclass(frozen=True)
class View:
    """A cube that is read some bands at a time.

    shape        (bands, rows, columns)
    read         a slice of bands -> bright values [bands, rows, columns]; what is no number is NaN or infinite
    wavelengths  in nm, one a band, where they are known
    """

    shape: tuple[int, int, int]
    read: Callable[[slice], NDArray[Any]]
    wavelengths: Sequence[float] | None = None

    def parts(self) -> Iterator[tuple[slice, NDArray[np.float64]]]:
        """All bands, in runs of at most PART_BYTES."""
        import numpy as np

        bands, rows, columns = self.shape
        step = max(1, PART_BYTES // (rows * columns * 8))
        for start in range(0, bands, step):
            run = slice(start, min(bands, start + step))
            yield run, np.asarray(self.read(run), dtype=np.float64)


def view_of(cube: NDArray[Any], wavelengths: Sequence[float] | None = None) -> View:
    """A cube in memory."""
    return View(cube.shape, lambda bands: cube[bands], wavelengths)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Sums:
    """What the measures are made of, per block of pixels: any choice of blocks has its own measures.

    squares      [blocks, bands] squared errors
    light        [blocks, bands] values of the reference
    similarity   [blocks, bands] structural similarity, each window at its middle pixel
    windows      [blocks] of structural similarity; none where a side of the cube is below 11
    angles       [blocks] degrees
    pixels       [blocks]
    """

    squares: NDArray[np.float64]
    light: NDArray[np.float64]
    similarity: NDArray[np.float64]
    windows: NDArray[np.float64]
    angles: NDArray[np.float64]
    pixels: NDArray[np.float64]


def sums_of(prediction: View, reference: View, blocks: NDArray[np.int64] | None = None, scale: float = 1.0) -> Sums:
    """One pass over both cubes.

    blocks   [rows, columns] number of each pixel's block, below 0 for pixels that are left out; None is one block
    scale    factor on the prediction

    Samples of the prediction that are no numbers count as 0. Left-out pixels are equal in both cubes where they reach
    into a window of structural similarity, and no such window has its middle there. ValueError for unequal shapes.
    """
    import numpy as np

    from attnkit.scoring.similarity import WINDOW, similarity_map

    if prediction.shape != reference.shape:
        raise ValueError(
            f"prediction and reference must have the same shape, got {prediction.shape} and {reference.shape}"
        )
    bands, rows, columns = reference.shape
    blocks = np.zeros((rows, columns), np.int64) if blocks is None else blocks
    count = int(blocks.max()) + 1
    kept = blocks >= 0
    edge = WINDOW // 2
    middles = blocks[edge:-edge, edge:-edge] if min(rows, columns) >= WINDOW else blocks[:0, :0]
    squares, light, similarity = (np.zeros((count, bands)) for _ in range(3))
    angle = _Angle((rows, columns))
    for run, values in prediction.parts():
        truth = np.asarray(reference.read(run), dtype=np.float64)
        values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0) * scale
        for band, found, expected in zip(range(run.start, run.stop), values, truth, strict=True):
            found, expected = np.where(kept, found, 0.0), np.where(kept, expected, 0.0)
            squares[:, band] = _by_block((found - expected) ** 2, blocks, count)
            light[:, band] = _by_block(expected, blocks, count)
            if middles.size:
                similarity[:, band] = _by_block(similarity_map(found, expected, 1.0), middles, count)
            angle.add(found, expected)
    return Sums(
        squares,
        light,
        similarity,
        windows=_by_block(np.ones(middles.shape), middles, count),
        angles=_by_block(angle.degrees(), blocks, count),
        pixels=_by_block(np.ones(blocks.shape), blocks, count),
    )


def measures(sums: Sums, weights: NDArray[Any] | None = None) -> dict[str, NDArray[np.float64]]:
    """The four measures of the pixels of all blocks together, or of several choices of blocks.

    weights   [choices, blocks] how often each block was chosen
    returns   [choices] each, by the key of the record:
              mpsnr_db       mean over bands of 20 log10(1 / RMSE), 100 for a band without error; not clipped
              mssim          mean over bands of SSIM; NaN for cubes below 11 rows or columns
              sam_degrees    mean over pixels of the angle between spectra
              ergas          100 sqrt(mean over bands of (RMSE / mean of the reference)^2): resolution ratio 1; bands
                             whose reference is 0 on average are left out

    Notes:
        ERGAS: Wald, "Data Fusion: Definitions and Architectures", 2002, equation for h/l = 1.
    """
    import numpy as np

    weights = np.ones((1, len(sums.pixels))) if weights is None else np.asarray(weights, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        pixels = (weights @ sums.pixels)[:, None]
        error = weights @ sums.squares / pixels
        level = weights @ sums.light / pixels
        relative = np.where(level != 0, error / level**2, np.nan)
        lit = (~np.isnan(relative)).sum(axis=1)
        return {
            "mpsnr_db": _decibel(error).mean(axis=1),
            "mssim": (weights @ sums.similarity / (weights @ sums.windows)[:, None]).mean(axis=1),
            "sam_degrees": weights @ sums.angles / pixels[:, 0],
            "ergas": 100 * np.sqrt(np.nansum(relative, axis=1) / lit),
        }


def per_band(sums: Sums) -> dict[str, NDArray[np.float64]]:
    """PSNR in dB and SSIM of each band, [bands] each, over the pixels of all blocks."""
    import numpy as np

    with np.errstate(invalid="ignore"):
        return {
            "psnr_db": _decibel(sums.squares.sum(axis=0) / sums.pixels.sum()),
            "ssim": sums.similarity.sum(axis=0) / sums.windows.sum(),
        }


def scores(
    prediction: NDArray[Any], reference: NDArray[Any], left_out: NDArray[np.bool_] | None = None
) -> dict[str, float]:
    """The four measures of `measures` for two cubes in memory; left_out [rows, columns] marks pixels to do without."""
    import numpy as np

    blocks = None if left_out is None else np.where(left_out, -1, 0)
    found = measures(sums_of(view_of(prediction), view_of(reference), blocks))
    return {key: float(value[0]) for key, value in found.items()}


def spectral_angles(prediction: NDArray[Any], reference: NDArray[Any]) -> NDArray[np.float64]:
    """Angle between the two spectra of each pixel in degrees, [rows, columns].

    arccos(sum p g / (|p| |g| + 2.2e-16)) with 2.2e-16 in the place of every zero. So no pixel is without an angle, and
    none is dropped: two spectra of nothing but zeros are 90 degrees apart, and beside another a zero spectrum stands
    for a faint grey one. Leave out such pixels where they are outside of the scene.
    """
    angle = _Angle(reference.shape[1:])
    for found, expected in zip(prediction, reference, strict=True):
        angle.add(found.astype("float64"), expected.astype("float64"))
    return angle.degrees()


def masked_pixels(reference: View) -> NDArray[np.bool_]:
    """Pixels [rows, columns] outside of the scene: zero in every band of the reference, or no number in one."""
    import numpy as np

    zero = np.ones(reference.shape[1:], bool)
    broken = np.zeros(reference.shape[1:], bool)
    for _, values in reference.parts():
        zero &= (values == 0).all(axis=0)
        broken |= ~np.isfinite(values).all(axis=0)
    return zero | broken


def best_scale(prediction: View, reference: View, left_out: NDArray[np.bool_]) -> float:
    """The factor on the prediction that has the least squared error; 1 for a prediction of zeros."""
    import numpy as np

    kept = ~left_out
    own = cross = 0.0
    for run, values in prediction.parts():
        found = np.nan_to_num(values[:, kept], nan=0.0, posinf=0.0, neginf=0.0)
        own += float((found * found).sum())
        cross += float((found * np.asarray(reference.read(run), dtype=np.float64)[:, kept]).sum())
    return cross / own if own > 0 else 1.0


def block_numbers(left_out: NDArray[np.bool_], count: int) -> NDArray[np.int64]:
    """Blocks of about the same, nearly square size: [rows, columns] numbers from 0, -1 for pixels that are left out.

    About `count` of them: as many as rows and columns of blocks give. Blocks without any pixel have no number.
    """
    import math

    import numpy as np

    rows, columns = left_out.shape
    down = min(rows, max(1, round(math.sqrt(count * rows / columns))))
    across = min(columns, max(1, round(count / down)))
    numbers = (np.arange(rows) * down // rows)[:, None] * across + np.arange(columns) * across // columns
    numbers[left_out] = -1
    present, inverse = np.unique(numbers, return_inverse=True)
    return inverse.reshape(numbers.shape) - int(present[0] < 0)


class _Angle:
    """The angle of `spectral_angles`, band by band."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        import numpy as np

        self._dot, self._first, self._second = (np.zeros(shape) for _ in range(3))

    def add(self, first: NDArray[np.float64], second: NDArray[np.float64]) -> None:
        import numpy as np

        first, second = np.where(first == 0, TINY, first), np.where(second == 0, TINY, second)
        self._dot += first * second
        self._first += first * first
        self._second += second * second

    def degrees(self) -> NDArray[np.float64]:
        import numpy as np

        norms = np.sqrt(self._first) * np.sqrt(self._second)
        # rounding may carry the cosine of equal spectra past 1
        return np.degrees(np.arccos(np.clip(self._dot / (norms + TINY), -1.0, 1.0)))


def _by_block(plane: NDArray[np.float64], blocks: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    import numpy as np

    # one place more, in front, for what is left out
    found = np.bincount(blocks.ravel() + 1, weights=plane.ravel(), minlength=count + 1)
    return np.asarray(found[1:], dtype=np.float64)


def _decibel(error: NDArray[np.float64]) -> NDArray[np.float64]:
    import numpy as np

    with np.errstate(divide="ignore"):
        return np.where(error > 0, -10 * np.log10(error), np.where(error == 0, PERFECT_DB, np.nan))
