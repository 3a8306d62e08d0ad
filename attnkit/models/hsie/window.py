"""Which bands stand beside a band: the spectral context of the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from attnkit.runtime.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def band_window(
    bands: int, neighbours: int, wavelengths: Sequence[float] | None = None
) -> tuple[NDArray[np.int64], int]:
    """Numbers of the neighbours of every band, [bands, neighbours], and how many of them a row had to be filled with.

    As published: half of the neighbours on either side without the band itself; towards the ends the window stays
    whole and stands still, so there it holds the band itself. With fewer than ``neighbours`` + 1 bands the places of
    a window around the band are reflected at the first and last band until they fall on one; the second value is how
    many neighbours that makes up for, 0 otherwise. With ``wavelengths`` (nm, one a band) the nearest bands in nm are
    taken instead, the band itself left out, in the order of the bands.

    Raises UsageError for no bands, an odd number of neighbours, and wavelengths of another number.
    """
    import numpy as np

    if bands < 1 or neighbours < 2 or neighbours % 2:
        raise UsageError(f"band window: got {bands} bands and {neighbours} neighbours, expected 1 or more, even")
    half = neighbours // 2
    around = np.concatenate([np.arange(-half, 0), np.arange(1, half + 1)])
    own = np.arange(bands)[:, None]
    filled = max(0, neighbours + 1 - bands)
    if filled:
        turn = max(1, 2 * bands - 2)
        places = (own + around) % turn
        return np.minimum(places, turn - places) if bands > 1 else np.zeros((1, neighbours), np.int64), filled
    if wavelengths is not None:
        return _nearest(np.asarray(wavelengths, np.float64), bands, neighbours), 0
    inside = own + around
    first, last = np.arange(neighbours), np.arange(bands - neighbours, bands)
    return np.where(own < half, first, np.where(own < bands - half, inside, last)), 0


def _nearest(nm: NDArray[np.float64], bands: int, neighbours: int) -> NDArray[np.int64]:
    import numpy as np

    if nm.shape != (bands,) or not np.isfinite(nm).all():
        raise UsageError(f"band window: got {nm.size} wavelengths, expected {bands} finite ones, in nm")
    distance = np.abs(nm[:, None] - nm)
    np.fill_diagonal(distance, np.inf)
    # stable: of two at the same distance the first band
    return np.sort(np.argsort(distance, axis=1, kind="stable")[:, :neighbours], axis=1)
