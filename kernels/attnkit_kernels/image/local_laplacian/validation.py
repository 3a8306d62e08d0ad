"""Checks of the arguments of the remapping operators, before any implementation is chosen."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...dispatch import is_tensor
from ..laplacian.validation import check_image, check_levels
from .curves import GaussianCurve, PowerCurve

FORMS = ("released", "in_band")


def check_references(references: int) -> None:
    """Raise unless there are at least two reference values."""
    if isinstance(references, bool) or not isinstance(references, int):
        raise TypeError(f"references: expected a whole number, got {references!r}")
    if references < 2:
        raise ValueError(f"references: expected 2 or more, got {references}")


def as_parameter(value: Any, band: Any, name: str) -> Any:
    """`value` as an array of the band's kind, [batch or 1, channels or 1] with all rows and columns or one of each."""
    if isinstance(value, (int, float, np.number)):
        # not in the half precision of a band: the curve is computed in float32
        if is_tensor(band):
            wide = band if band.itemsize >= 4 else band[:0].float()
            return wide.new_full((1, 1, 1, 1), float(value))
        return np.full((1, 1, 1, 1), value, np.promote_types(band.dtype, np.float32))
    if value.ndim == 0:
        value = value.reshape(1, 1, 1, 1)
    shape = tuple(value.shape)
    batch, channels, rows, columns = band.shape
    fits = len(shape) == 4 and shape[0] in (1, batch) and shape[1] in (1, channels)
    if not fits or shape[2:] not in ((rows, columns), (1, 1)):
        raise ValueError(
            f"{name}: expected a number or [{batch} or 1, {channels} or 1, {rows}, {columns}] "
            f"or [{batch} or 1, {channels} or 1, 1, 1], got shape {list(shape)}"
        )
    return value


def check_remap(gaussian: Any, band: Any, references: int, form: str) -> None:
    """Raise unless the arguments of `remap` fit together."""
    if form not in FORMS:
        raise ValueError(f"form: expected one of {', '.join(FORMS)}, got {form!r}")
    check_image(band, "band")
    check_references(references)
    if gaussian is None:
        if form == "released":
            raise ValueError("gaussian: form 'released' needs the Gaussian level of the band, got None")
    elif tuple(gaussian.shape) != tuple(band.shape):
        raise ValueError(f"gaussian: expected the shape of the band {list(band.shape)}, got {list(gaussian.shape)}")


def check_filter(image: Any, levels: int, curve: Any, references: int, low: float, high: float) -> None:
    """Raise unless the arguments of `filter` fit together."""
    check_image(image)
    check_levels(levels)
    check_references(references)
    if not isinstance(curve, GaussianCurve | PowerCurve):
        raise TypeError(f"curve: expected GaussianCurve or PowerCurve, got {type(curve).__name__}")
    if not high > low:
        raise ValueError(f"high: expected more than low {low}, got {high}")
