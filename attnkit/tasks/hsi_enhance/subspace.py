"""The few spectra that a cube is made of, told from its noise: whitened, rotated, and cut where noise begins.

Bands are divided by the standard deviation of their noise; the eigenvectors of the covariance of what results are
ordered by signal to noise. This is the minimum noise fraction of Green et al. (1988) with a diagonal noise covariance,
and the subspace of HyRes (Rasti et al. 2017) and FastHyDe (Zhuang and Bioucas-Dias 2018).

Where the pixels are not many times the bands, eigenvectors are fitted to noise as well. How many stand out, and how
much noise is in each eigen-image, is told by the spiked covariance model: Baik and Silverstein, "Eigenvalues of large
sample covariance matrices of spiked population models" (2006), Benaych-Georges and Nadakuditi, "The singular values
and vectors of low rank perturbations of large rectangular random matrices" (2012).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from attnkit.runtime.errors import ItemError

from .source import Source
from .statistics import BLOCK_BYTES, Statistics, boxes, gather

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# the variance of the noise is not known exactly: a part is lasting, the other falls with the root of the samples
LASTING_ERROR, SAMPLE_ERROR = 0.02, 6.0
# standard deviations of the largest eigenvalue of pure noise above its edge (Johnstone 2001)
DEVIATIONS = 2.0


@dataclass(frozen=True)
class Subspace:
    """A signal subspace. Eigen-images are (spectrum - mean) / noise . basis / inflation, [rank, rows, columns].

    mean         of the bands [bands]
    noise        standard deviation of each band's noise [bands]
    basis        orthonormal [bands, rank], most signal first, the largest number of each column positive
    eigenvalues  of the whitened covariance, where pure noise has 1 [rank]
    pixels       that the subspace was fitted to
    """

    mean: NDArray[np.float64]
    noise: NDArray[np.float64]
    basis: NDArray[np.float64]
    eigenvalues: NDArray[np.float64]
    pixels: int

    @property
    def rank(self) -> int:
        return self.basis.shape[1]

    @cached_property
    def inflation(self) -> NDArray[np.float64]:
        """How much larger noise and signal are in a projection than the noise of variance 1 and the true signal
        [rank]: 1 with many pixels a band, more for weak components of a small cube.

        With g bands a pixel, a component of variance s above the noise is seen as the eigenvalue (1 + s)(1 + g / s).
        Its eigenvector is turned towards the noise of the very pixels that it was fitted to, so that in the projection
        noise has the variance (1 + g / s)^2, and what is along the true picture is 1 + g / s times too much. A division
        by that puts both right.
        """
        import numpy as np

        share = len(self.mean) / self.pixels
        above = self.eigenvalues - 1 - share
        # weaker than the square root of g, nothing can be told from noise
        least = np.sqrt(share)
        spike = np.maximum((above + np.sqrt(np.maximum(above**2 - 4 * share, 0))) / 2, least)
        return 1 + share / spike

    def forward(self, bright: NDArray[np.float32]) -> NDArray[np.float32]:
        """Eigen-images [rank, rows, columns], with noise of variance 1, of bright values [bands, rows, columns]."""
        import numpy as np

        centred = bright.reshape(len(bright), -1) - self.mean.astype(np.float32)[:, None]
        weights = self.basis / self.noise[:, None] / self.inflation
        planes = weights.T.astype(np.float32) @ centred
        return planes.reshape(self.rank, *bright.shape[1:])

    def rebuild(self, planes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Bright values [bands, rows, columns] of eigen-images [rank, rows, columns]."""
        from math import prod

        import numpy as np

        flat = np.ascontiguousarray(planes, np.float32).reshape(self.rank, prod(planes.shape[1:]))
        bright = (self.basis * self.noise[:, None]).astype(np.float32) @ flat
        bright += self.mean.astype(np.float32)[:, None]
        return bright.reshape(len(self.mean), *planes.shape[1:])

    def project(self, source: Source, memory: int) -> NDArray[np.float32]:
        """Eigen-images [rank, rows, columns] of a whole cube: in memory if half of it holds them, else in a file
        without a name, which is gone with the array."""
        _, rows, columns = source.shape
        planes = empty((self.rank, rows, columns), memory // 2)
        for place in boxes(source.shape, memory // 2, BLOCK_BYTES):
            planes[:, place[0], place[1]] = self.forward(source.read(slice(None), *place))
        return planes


def find_subspace(statistics: Statistics, rank: int = 0) -> Subspace:
    """The subspace of `rank` dimensions, at most as many as there are bands and pixels; 0: those above the noise."""
    import numpy as np

    noise = statistics.noise
    values, vectors = np.linalg.eigh(statistics.covariance / noise / noise[:, None])
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
    bands = len(noise)
    most = min(bands, statistics.pixels)
    chosen = min(rank, most) if rank else int((values[:most] > noise_edge(bands, statistics.pixels)).sum())
    basis = vectors[:, :chosen]
    largest = np.abs(basis).argmax(axis=0)
    basis = basis * np.where(basis[largest, np.arange(chosen)] < 0, -1.0, 1.0)
    return Subspace(statistics.mean, noise, basis, values[:chosen], statistics.pixels)


def fit_subspace(source: Source, memory: int, rank: int = 0) -> Subspace:
    """The subspace of a cube, in one pass over it."""
    return find_subspace(gather(source, memory), rank)


def noise_edge(bands: int, pixels: int) -> float:
    """What the largest eigenvalue of white noise of variance 1 stays below: Marchenko and Pastur's edge, with room
    for its fluctuation (Johnstone 2001) and for noise that is estimated."""
    from math import sqrt

    roots = sqrt(pixels) + sqrt(bands)
    width = roots * (1 / sqrt(pixels) + 1 / sqrt(bands)) ** (1 / 3)
    uncertain = 1 + LASTING_ERROR + SAMPLE_ERROR / sqrt(bands * pixels)
    return uncertain * (roots**2 + DEVIATIONS * width) / pixels


def empty(shape: Sequence[int], memory: int) -> NDArray[Any]:
    """An array of float32, in memory up to so many bytes, else mapped to a file that has no name.

    Raises ItemError where the folder for temporary files has no room for it.
    """
    import os
    import tempfile
    from math import prod

    import numpy as np

    size = prod(shape) * 4
    if size <= memory:
        return np.empty(shape, np.float32)
    try:
        with tempfile.TemporaryFile(prefix="attnkit-") as file:
            # a full disk would otherwise end the process at the first write into the mapping
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
                mode: Literal["r+", "w+"] = "r+"
            else:
                mode = "w+"
            return np.asarray(np.memmap(file, np.float32, mode, shape=tuple(shape)))
    except OSError as error:
        raise ItemError(
            f"{tempfile.gettempdir()}: no room for {size} bytes of eigen-images ({error.strerror}); give more --memory "
            "or set TMPDIR to a folder that has it"
        ) from error
