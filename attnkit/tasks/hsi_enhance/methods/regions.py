"""How methods cut a cube into the regions that they hand back."""

from __future__ import annotations

from collections.abc import Iterator

from ..source import Region

# not a share of --memory: a cube that is resumed with another bound still has the same regions
ROW_REGION_SAMPLES = 2_000_000
# what method clahe takes: a band as it is read, in codes, equalised, and as a result
BAND_BYTES_A_SAMPLE = 20


def row_regions(shape: tuple[int, int, int]) -> Iterator[Region]:
    """Regions of all bands and columns, top to bottom, of about ROW_REGION_SAMPLES and at least one row."""
    bands, rows, columns = shape
    height = max(1, ROW_REGION_SAMPLES // (bands * columns))
    for top in range(0, rows, height):
        yield Region(0, bands, top, min(top + height, rows), 0, columns)


def band_regions(shape: tuple[int, int, int], memory: int) -> Iterator[Region]:
    """Regions of a few whole bands, as many as `memory` holds."""
    bands, rows, columns = shape
    count = max(1, memory // (rows * columns * BAND_BYTES_A_SAMPLE))
    for first in range(0, bands, count):
        yield Region(first, min(first + count, bands), 0, rows, 0, columns)
