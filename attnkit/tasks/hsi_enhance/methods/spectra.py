"""The spectra of a subspace without the noise that they were fitted to.

An eigenvector of a sample is turned away from the true one by noise that is white over the whitened bands, and whose
size the spiked covariance model tells (Benaych-Georges and Nadakuditi 2012). Spectra of matter are smooth or have few
edges, so wavelet shrinkage along the bands, with thresholds by Stein's unbiased risk estimate, takes much of it away:
the more, the fewer pixels there are for each band.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from .shrinkage import sure_threshold

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..subspace import Subspace

WAVELET = "sym4"
MOST_LEVELS = 5
# positions of the wavelets' grid whose results are averaged
SHIFTS = 8
# a spectrum of fewer bands has no coarse and fine
FEWEST_BANDS = 16


def smoothed(subspace: Subspace) -> Subspace:
    """The subspace with smoother spectra and mean, for `rebuild`; the eigen-images stay those of the first one."""
    import numpy as np

    bands = len(subspace.mean)
    if bands < FEWEST_BANDS:
        return subspace
    share = bands / subspace.pixels
    basis = subspace.basis.copy()
    for column, noise in enumerate(np.sqrt((1 - squared_cosines(subspace.inflation, share)) / bands)):
        basis[:, column] = shrink_spectrum(basis[:, column], float(noise))
    mean = subspace.noise * shrink_spectrum(subspace.mean / subspace.noise, subspace.pixels**-0.5)
    return replace(subspace, basis=basis, mean=mean)


def squared_cosines(inflation: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Squared cosines [rank] between the eigenvectors of a sample and the true ones.

    share       bands over pixels, g
    inflation   1 + g / s of a component whose variance is s above the noise (see `Subspace.inflation`)
    """
    import numpy as np

    spike = share / np.maximum(inflation - 1, 1e-12)
    return np.clip((1 - share / spike**2) / inflation, 0.0, 1.0)


def shrink_spectrum(curve: NDArray[np.float64], noise: float) -> NDArray[np.float64]:
    """A curve [bands] without white noise of a standard deviation; mirrored at its ends, averaged over SHIFTS."""
    import numpy as np
    import pywt

    if noise <= 0:
        return curve
    bands = len(curve)
    mirrored = np.concatenate([curve, curve[::-1]]) / noise
    wavelet = pywt.Wavelet(WAVELET)
    levels = min(MOST_LEVELS, max(1, pywt.dwt_max_level(2 * bands, wavelet) - 1))
    total = np.zeros(2 * bands)
    for shift in range(SHIFTS):
        coarse, *details = pywt.wavedec(np.roll(mirrored, shift), wavelet, mode="periodization", level=levels)
        kept = [np.sign(part) * np.maximum(np.abs(part) - sure_threshold(part)[0], 0) for part in details]
        smooth = pywt.waverec([coarse, *kept], wavelet, mode="periodization")[: 2 * bands]
        total += np.roll(smooth, -shift)
    return total[:bands] * (noise / SHIFTS)
