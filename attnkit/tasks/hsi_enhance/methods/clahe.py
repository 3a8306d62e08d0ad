"""Method clahe: each band by itself through contrast-limited adaptive histogram equalisation (Zuiderveld 1994).

A baseline that knows pictures and not spectra. Each band's range is mapped to 16 bits and back:
bright = low + code / 65535 * (high - low), with the ranges in the facts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..source import Region, Source
from ..statistics import boxes
from .regions import BAND_BYTES_A_SAMPLE, band_regions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CODES = 65535
# histograms of a tile are coarse enough for so many pixels a bin: else each pixel has its own and nothing is limited
PIXELS_A_BIN, FEWEST_BITS, MOST_BITS = 16, 8, 16


def run_clahe(
    source: Source, *, settings: Mapping[str, Any], memory: int, done: Collection[Region], facts: dict[str, Any]
) -> Iterator[tuple[Region, NDArray[np.float32]]]:
    """Regions of a few whole bands, as many as `memory` holds; see `methods.run`."""
    import cv2
    import numpy as np

    _, rows, columns = source.shape
    todo = [region for region in band_regions(source.shape, memory) if region not in done]
    if not todo:
        return
    low, high = band_ranges(source, memory)
    tiles = (min(settings["tiles"], columns), min(settings["tiles"], rows))
    bits = histogram_bits(-(-rows // tiles[1]) * -(-columns // tiles[0]))
    facts.update(
        # nine digits tell a float32 from all others
        band_low=[float(f"{value:.9g}") for value in low],
        band_high=[float(f"{value:.9g}") for value in high],
        histogram_levels=2**bits,
    )
    equaliser = cv2.createCLAHE(settings["clip"], tiles)
    equaliser.setBitShift(16 - bits)
    # a code stands for the middle of its bin
    middle = (2 ** (16 - bits) - 1) / 2
    for region in todo:
        block = source.read(*region.slices)
        for plane, least, most in zip(block, low[region.slices[0]], high[region.slices[0]], strict=True):
            if most > least:
                codes = np.rint((plane - least) * (CODES / (most - least))).clip(0, CODES).astype(np.uint16)
                plane[...] = least + (equaliser.apply(codes) + middle) * ((most - least) / CODES)
        yield region, block


def band_ranges(source: Source, memory: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Least and largest value of each band [bands], read in whole rows, which is quick in any interleave."""
    import numpy as np

    low = np.full(source.shape[0], np.inf)
    high = -low
    for place in boxes(source.shape, memory, BAND_BYTES_A_SAMPLE):
        block = source.read(slice(None), *place)
        np.minimum(low, block.min(axis=(1, 2)), out=low)
        np.maximum(high, block.max(axis=(1, 2)), out=high)
    return low, high


def histogram_bits(pixels: int) -> int:
    """Bits of the histogram of a tile of so many pixels."""
    return min(max((pixels // PIXELS_A_BIN).bit_length() - 1, FEWEST_BITS), MOST_BITS)
