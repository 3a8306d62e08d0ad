"""The part of a cube file that is scored, in bright units, some bands at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .calibration import settle
from .metrics import View

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .cube_source import Crop


def view_of_file(reader: Any, part: Crop, scale: float) -> View:
    """Stored values divided by `scale`; NaN where the file's ignore value stands, unless that is 0."""
    import numpy as np

    info = reader.info
    first, last = part.band_range

    def read(bands: slice) -> NDArray[np.float64]:
        start, stop, _ = bands.indices(last - first)
        stored = reader.read(slice(first + start, first + stop), slice(*part.rows), slice(*part.columns))
        values = stored.astype(np.float64) / scale
        if info.ignore_value:
            values[stored == info.ignore_value] = np.nan
        return values

    nm = info.wavelengths_nm
    return View(part.shape, read, None if nm is None else nm[first:last])


def full_scale(reader: Any, part: Crop, wanted: float | None) -> tuple[float, str]:
    """The stored value of full exposure and where it comes from: the option, or what hsi-enhance would take."""
    import numpy as np

    if wanted is not None:
        return wanted, "option"
    largest = 0.0
    for _, values in view_of_file(reader, part, 1.0).parts():
        finite = values[np.isfinite(values)]
        largest = max(largest, float(finite.max())) if finite.size else largest
    found = settle(
        scale=None,
        gain=1.0,
        white_level=0.0,
        maximum=largest,
        integer=reader.info.dtype.kind in "iu",
        header_scale=reader.info.reflectance_scale,
    )
    return found.scale, found.scale_from
