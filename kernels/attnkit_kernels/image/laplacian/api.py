"""Public functions of the Laplacian pyramid.

Source: LLF-LUT (NeurIPS 2023, TPAMI 2025), section on the Laplacian pyramid decomposition; the pyramid itself is Burt
and Adelson 1983. Kernel outer([1,4,6,4,1], [1,4,6,4,1]) / 256, border reflected without repeating the edge sample.
"""

from __future__ import annotations

from typing import TypeVar

from ...dispatch import Check, Impl, Operator, takes_numba, takes_reference, takes_triton_forward
from . import validation

Array = TypeVar("Array")

_CHECKS: dict[Impl, Check] = {
    Impl.NUMBA: takes_numba,
    Impl.TRITON: takes_triton_forward,
    Impl.REFERENCE: takes_reference,
}
OPERATORS = {
    name: Operator(__package__, name, _CHECKS) for name in ("down", "up", "gaussian", "decompose", "reconstruct")
}


def down(image: Array, *, impl: str | Impl = "auto") -> Array:
    """Blur and keep every second sample: the next coarser Gaussian level.

    Parameters
    ----------
    image : [batch, channels, rows, columns], torch tensor or numpy array, any units
    impl : auto, reference, numba or triton

    Returns
    -------
    [batch, channels, ceil(rows / 2), ceil(columns / 2)], of the kind and dtype that came in. float16 and bfloat16 are
    computed in float32. A NaN spreads over the 5 x 5 samples around it.

    Raises
    ------
    ValueError for a wrong shape, ImplementationError (a ValueError) for an `impl` that cannot take the image.

    Notes
    -----
    G_{l+1} = (k * G_l)[::2, ::2]. Any size works; below three samples the reflection repeats.

    >>> import numpy as np
    >>> down(np.ones((1, 1, 5, 4), np.float32)).shape
    (1, 1, 3, 2)
    """
    validation.check_image(image)
    return OPERATORS["down"](impl, [image])


def up(image: Array, size: tuple[int, int] | None = None, *, impl: str | Impl = "auto") -> Array:
    """Double a level: zeros between the samples, then four times the kernel, reflecting the stuffed image.

    Parameters
    ----------
    image : [batch, channels, rows, columns]
    size : (rows, columns) of the result, each twice the image's or one less; twice when not given. The odd size drops
        the last sample, which is what nearest resizing by one sample does.

    Returns
    -------
    [batch, channels, *size]. Raises as `down`, and ValueError for a size that does not halve to the image's.
    """
    validation.check_image(image)
    return OPERATORS["up"](impl, [image], validation.check_size(image, size))


def gaussian(image: Array, levels: int, *, impl: str | Impl = "auto") -> list[Array]:
    """Gaussian pyramid [G_0 = image, ..., G_levels]; shapes and errors as `down`. G_0 may share the image's memory."""
    validation.check_image(image)
    validation.check_levels(levels)
    return OPERATORS["gaussian"](impl, [image], levels)


def decompose(image: Array, levels: int, *, impl: str | Impl = "auto") -> list[Array]:
    """Laplacian pyramid: `levels` bands, finest first, then the low-pass.

    Parameters
    ----------
    image : [batch, channels, rows, columns]
    levels : whole number from 0; more levels than the size can halve are allowed and give bands of one sample

    Returns
    -------
    list of levels + 1 arrays; entry l has ceil(rows / 2^l) x ceil(columns / 2^l) samples. Raises as `down`.

    Notes
    -----
    L_l = G_l - up(G_{l+1}), L_levels = G_levels. `reconstruct` undoes it to rounding for every size.
    """
    validation.check_image(image)
    validation.check_levels(levels)
    return OPERATORS["decompose"](impl, [image], levels)


def reconstruct(bands: list[Array], *, impl: str | Impl = "auto") -> Array:
    """Image of a Laplacian pyramid: x_l = up(x_{l+1}) + L_l from the low-pass (the last entry) upwards.

    Raises ValueError when the shapes are no pyramid, TypeError for mixed dtypes.
    """
    validation.check_bands(bands)
    return OPERATORS["reconstruct"](impl, list(bands))
