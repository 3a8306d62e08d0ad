"""Method hsie: learned. The model decides what it works on: eigen-images (the default) or bands (as published)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..source import Region, Source
from .regions import row_regions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from attnkit.models.hsie.subspace import HsieSubspace

    from ..subspace import Subspace

DEFAULT_MODEL = "hsie"
# the first estimate that the default model was trained to correct
WAVELET = "sym4"


def opened(model: str | None, device: str, offline: bool) -> Any:
    """The model of --model, or the default."""
    from attnkit.models.identity import kept_model

    return kept_model(model or DEFAULT_MODEL, "hsi-enhance", device, offline)


def run_hsie(
    source: Source,
    *,
    settings: Mapping[str, Any],
    memory: int,
    done: Collection[Region],
    facts: dict[str, Any],
    device: str,
    model: str | None,
    offline: bool,
    tell: Callable[[float], None],
) -> Iterator[tuple[Region, NDArray[np.float32]]]:
    """Regions of the cube; see `methods.run`."""
    network = opened(model, device, offline)
    from attnkit.models.hsie.fast import FastHsie

    if isinstance(network, FastHsie):
        from .bandwise import run_bandwise

        yield from run_bandwise(
            source, network, memory=memory, done=done, facts=facts, by_wavelength=settings["window"] == "nm"
        )
        return
    todo = [region for region in row_regions(source.shape) if region not in done]
    if todo:
        yield from run_subspace(source, network, todo, settings, memory, facts, tell)


def fitted(source: Source, memory: int, rank: int = 0, most: int | None = None) -> Subspace:
    """The subspace that the network works in: of `rank` dimensions, or those above the noise and at least one."""
    from ..statistics import gather
    from ..subspace import find_subspace

    statistics = gather(source, memory)
    wanted = rank or max(1, find_subspace(statistics).rank)
    return find_subspace(statistics, wanted if most is None else min(wanted, most))


def first_estimate(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """An eigen-image without most of its noise, for the network to correct."""
    from .shrinkage import shrink

    return shrink(plane, WAVELET)


def run_subspace(
    source: Source,
    network: HsieSubspace,
    todo: list[Region],
    settings: Mapping[str, Any],
    memory: int,
    facts: dict[str, Any],
    tell: Callable[[float], None],
) -> Iterator[tuple[Region, NDArray[np.float32]]]:
    """Project, shrink, correct, rebuild from smoothed spectra.

    Arrays: the eigen-images, their estimates, and a tile of activations.
    """
    from attnkit.models.hsie.subspace import correct

    from ..subspace import empty
    from .spectra import smoothed

    subspace = fitted(source, memory, settings["rank"])
    planes = subspace.project(source, memory // 2)
    estimates = empty(planes.shape, memory // 4)
    for number, (plane, estimate) in enumerate(zip(planes, estimates, strict=True), 1):
        estimate[...] = first_estimate(plane)
        tell(number / len(planes) / 2)
    for first, better in correct(network, planes, estimates, memory // 4):
        planes[first : first + len(better)] = better
        tell(0.5 + (first + len(better)) / len(planes) / 2)
    facts.update(rank=subspace.rank, noise=float(f"{subspace.noise.mean():.4g}"))
    spectra = smoothed(subspace) if settings["smooth"] else subspace
    for region in todo:
        yield region, spectra.rebuild(planes[:, region.top : region.bottom])
