"""Method lowrank: eigen-images of a noise-whitened cube, each with its noise taken out by wavelets.

The idea of HyRes: Rasti, Ulfarsson and Ghamisi, "Automatic hyperspectral image restoration using sparse and low-rank
modeling" (2017): a low-rank model with wavelets in space, thresholds and rank by Stein's unbiased
risk estimate, no parameter to set. Ours differs: noise is estimated in space and spectrum together
(`statistics.gather`), the noise that eigenvectors were fitted to is counted (`Subspace.inflation`), thresholds are
chosen for each sub-band, and the results for four shifts are averaged. Weights for bright and dark pixels (Keenan and
Kotula 2004), tried with the true variance of every sample, gained at most 0.04 dB at 1/15 exposure and are left out.
HyRes takes spectra as they are found; setting `smooth` shrinks them too (`spectra.smoothed`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..source import Region, Source
from .regions import row_regions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def run_lowrank(
    source: Source,
    *,
    settings: Mapping[str, Any],
    memory: int,
    done: Collection[Region],
    facts: dict[str, Any],
    tell: Callable[[float], None],
) -> Iterator[tuple[Region, NDArray[np.float32]]]:
    """Regions of all bands and whole rows; see `methods.run`."""
    from ..subspace import fit_subspace
    from .shrinkage import shrink
    from .spectra import smoothed

    todo = [region for region in row_regions(source.shape) if region not in done]
    if not todo:
        return
    subspace = fit_subspace(source, memory, settings["rank"])
    planes = subspace.project(source, memory)
    used = 0
    for number, plane in enumerate(planes, 1):
        plane[...] = shrink(plane, settings["wavelet"], settings["levels"])
        used += bool(plane.any())
        tell(number / len(planes))
    facts.update(rank=used, noise=float(f"{subspace.noise.mean():.4g}"), wavelet=settings["wavelet"])
    spectra = smoothed(subspace) if settings["smooth"] else subspace
    for region in todo:
        yield region, spectra.rebuild(planes[:, region.top : region.bottom])
