"""Method gain: the source as it is, brightened and no more."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..source import Region, Source
from .regions import row_regions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def run_gain(
    source: Source, *, settings: Mapping[str, Any], memory: int, done: Collection[Region], facts: dict[str, Any]
) -> Iterator[tuple[Region, NDArray[np.float32]]]:
    """Regions of all bands and whole rows; see `methods.run`."""
    for region in row_regions(source.shape):
        if region not in done:
            yield region, source.read(*region.slices)
