"""Public functions of local Laplacian remapping.

Sources: Paris, Hasinoff and Kautz 2011 (local Laplacian filters); Aubry et al. 2014 (fast local Laplacian filters);
LLF-LUT (NeurIPS 2023, TPAMI 2025), section on the learnable local Laplacian filter.
"""

from __future__ import annotations

from typing import Any, TypeVar

from ...dispatch import Impl, Operator, takes_numba, takes_reference, takes_triton, takes_triton_forward
from . import validation
from .curves import Curve
from .validation import FORMS

__all__ = ["FORMS", "OPERATORS", "filter", "remap"]

Array = TypeVar("Array")

OPERATORS = {
    "remap": Operator(
        __package__, "remap", {Impl.NUMBA: takes_numba, Impl.TRITON: takes_triton, Impl.REFERENCE: takes_reference}
    ),
    "filter": Operator(
        __package__,
        "filter",
        {Impl.NUMBA: takes_numba, Impl.TRITON: takes_triton_forward, Impl.REFERENCE: takes_reference},
    ),
}


def remap(
    gaussian: Array | None,
    band: Array,
    sigma: Array | float,
    strength: Array | float,
    references: int = 10,
    form: str = "released",
    *,
    impl: str | Impl = "auto",
) -> Array:
    """Apply a detail curve with per-pixel parameters to one Laplacian band.

    Parameters
    ----------
    gaussian : [batch, channels, rows, columns], the Gaussian level of the band, image units; form "in_band" does not
        read it and takes None
    band : [batch, channels, rows, columns], image units
    sigma, strength : numbers, or arrays [batch or 1, channels or 1, rows, columns] or [batch or 1, channels or 1, 1, 1]
    references : how many values r_j = j / (references - 1) the released form uses
    form : "released" (the published code, for its weights) or "in_band" (smooth, no references)
    impl : auto, reference, numba or triton

    Returns
    -------
    [batch, channels, rows, columns], of the kind and dtype of `band`; float16 and bfloat16 are computed in float32. A
    NaN makes its own sample NaN.

    Raises
    ------
    ValueError for wrong shapes or an unknown form, ImplementationError (a ValueError) for an `impl` that cannot.

    Notes
    -----
    released, as in the code of LLF-LUT++ (TPAMI 2025): for j = 0, 1, ...:
    L <- L + w_j strength (L - r_j) exp(-(L - r_j)^2 2 sigma^2), w_j = max(0, 1 - |G - r_j| (references - 1)); later j
    see the changed L, and sigma multiplies where the papers divide.
    in_band: L' = L (1 + strength exp(-L^2 / (2 sigma^2))), the curve of Aubry et al. 2014 whose reference is the local
    base up(G_{l+1}), so that i - g is the band itself. Odd in L; rises for -1 < strength < 2.24. sigma 0 leaves the
    band. Exponents stop at -80 (1.8e-35), so that no gradient is NaN.

    >>> import numpy as np
    >>> one = np.ones((1, 1, 1, 1), np.float32)
    >>> float(remap(0.5 * one, 0.05 * one, 1.0, 0.5)[0, 0, 0, 0])  # doctest: +ELLIPSIS
    -0.09632...
    """
    validation.check_remap(gaussian, band, references, form)
    spread = validation.as_parameter(sigma, band, "sigma")
    gain = validation.as_parameter(strength, band, "strength")
    guide: Any = band if gaussian is None else gaussian
    return OPERATORS["remap"](impl, [guide, band, spread, gain], references, form)


def filter(
    image: Array,
    levels: int,
    curve: Curve,
    references: int = 20,
    *,
    low: float = 0.0,
    high: float = 1.0,
    impl: str | Impl = "auto",
) -> Array:
    """Fast local Laplacian filter: edge-aware detail and tone manipulation without halos.

    Parameters
    ----------
    image : [batch, channels, rows, columns], any units (log luminance for HDR); channels are filtered on their own
    levels : bands of the pyramid; the low-pass is kept
    curve : GaussianCurve or PowerCurve, in the units of the image
    references : how many values, evenly spaced from `low` to `high`, the curve is sampled at; the error falls with the
        square of their distance, and a distance of sigma or less is usual
    low, high : range of the references in image units; local values beyond it use the nearest reference
    impl : auto, reference, numba or triton

    Returns
    -------
    [batch, channels, rows, columns], of the kind and dtype of `image`. float16 and bfloat16 are computed in float32.

    Raises
    ------
    ValueError for wrong shapes, counts or ranges, ImplementationError (a ValueError) for an `impl` that cannot.

    Notes
    -----
    L_l^out = sum_j w_j(G_l) Lap_l[r_j(I)] with hat weights w_j: Aubry et al. 2014, algorithm of the fast filter, an
    interpolation of Paris et al. 2011, algorithm 1, which `reference.brute_force` computes.
    """
    validation.check_filter(image, levels, curve, references, low, high)
    return OPERATORS["filter"](impl, [image], levels, curve, references, low, high)
