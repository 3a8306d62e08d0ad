"""The few spectra that a cube is made of, told from its noise: whitened, rotated, and cut where noise begins.

Bands are divided by the standard deviation of their noise; the eigenvectors of the covariance of what results are
ordered by signal to noise. This is the minimum noise fraction of Green et al. (1988) with a diagonal noise covariance,
and the subspace of HyRes (Rasti et al. 2017) and FastHyDe (Zhuang and Bioucas-Dias 2018).

Where the pixels are not many times the bands, eigenvectors are fitted to noise as well. How many stand out, and how
much noise is in each eigen-image, is told by the spiked covariance model (Baik and Silverstein 2006; Benaych-Georges
and Nadakuditi 2012) of `Subspace.noise_variance`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attnkit.runtime.errors import ItemError

from .source import Source
from .statistics import BLOCK_BYTES, Statistics, boxes, gather

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# noise of the bands is known to a few per cent, so that eigenvalues of pure noise reach this far above their edge
MARGIN = 1.02
# standard deviations of the largest eigenvalue of pure noise above its edge (Johnstone 2001)
DEVIATIONS = 2.0


@dataclass(frozen=True)
class Subspace:
    """A signal subspace. Eigen-images are (spectrum - mean) / noise . basis, [rank, rows, columns].

    mean         of the bands [bands]
    noise        standard deviation of each band's noise [bands]
    basis        orthonormal [bands, rank], most signal first, the largest number of each column positive
    eigenvalues  variances of the eigen-images, of which pure noise is `noise_variance` [rank]
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

    @property
    def noise_variance(self) -> NDArray[np.float64]:
        """Variance of the noise in each eigen-image [rank], 1 and more.

        A spike of strength s above noise of variance 1 is seen as the eigenvalue (1 + s)(1 + g / s), g the bands over
        the pixels, and its eigenvector has the squared cosine c = (1 - g / s^2) / (1 + g / s) with the true one. So
        s c of the eigenvalue is signal. The rest is noise, that which the eigenvector was fitted to included.
        """
        import numpy as np

        share = len(self.mean) / self.pixels
        values = self.eigenvalues
        above = values - 1 - share
        # below the edge nothing can be told from noise
        found = (above > 0) & (above**2 > 4 * share)
        spike = np.where(found, (above + np.sqrt(np.maximum(above**2 - 4 * share, 0))) / 2, 1.0)
        cosine = (1 - share / spike**2) / (1 + share / spike)
        return np.maximum(np.where(found, values - spike * cosine, values), 1.0)

    def forward(self, bright: NDArray[np.float32]) -> NDArray[np.float32]:
        """Eigen-images [rank, rows, columns] of bright values [bands, rows, columns]."""
        import numpy as np

        centred = bright.reshape(len(bright), -1) - self.mean.astype(np.float32)[:, None]
        planes = (self.basis / self.noise[:, None]).T.astype(np.float32) @ centred
        return planes.reshape(self.rank, *bright.shape[1:])

    def rebuild(self, planes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Bright values [bands, rows, columns] of eigen-images [rank, rows, columns]."""
        import numpy as np

        # eigen-images may lie in a file, in which a band's part is not contiguous
        flat = np.ascontiguousarray(planes, np.float32).reshape(self.rank, planes[0].size if self.rank else -1)
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
    for its fluctuation (Johnstone 2001) and for noise that is known to a few per cent."""
    from math import sqrt

    roots = sqrt(pixels) + sqrt(bands)
    width = roots * (1 / sqrt(pixels) + 1 / sqrt(bands)) ** (1 / 3)
    return MARGIN * (roots**2 + DEVIATIONS * width) / pixels


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
            return np.memmap(file, np.float32, "r+", shape=tuple(shape))
    except OSError as error:
        raise ItemError(
            f"{tempfile.gettempdir()}: no room for {size} bytes of eigen-images ({error.strerror}); give more --memory, "
            "or set TMPDIR to a folder with room"
        ) from error
