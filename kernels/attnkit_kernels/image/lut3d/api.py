"""Public functions of the 3-D tables.

Source: LLF-LUT (NeurIPS 2023, TPAMI 2025), sections on the 3-D LUT, the weight fusion and the losses; trilinear lookup
after Zeng et al. TPAMI 2020 (Image-Adaptive 3DLUT), whose order of axes is kept: table[c, b, g, r], r fastest.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ...dispatch import Impl, Operator, facts_of, is_tensor, takes_numba, takes_reference, takes_triton
from . import validation
from .validation import INTERPOLATIONS

__all__ = ["INTERPOLATIONS", "OPERATORS", "fuse", "identity", "lookup", "monotonicity", "total_variation"]

Array = TypeVar("Array")

OPERATORS = {
    "lookup": Operator(
        __package__,
        "lookup",
        {Impl.NUMBA: takes_numba, Impl.TRITON: takes_triton, Impl.REFERENCE: takes_reference},
    )
}


def lookup(image: Array, table: Array, interpolation: str = "trilinear", *, impl: str | Impl = "auto") -> Array:
    """Send each pixel's colour through a 3-D table.

    Parameters
    ----------
    image : [batch, 3, rows, columns], red, green, blue; 0..1 spans the table, values outside are clamped to it
    table : [3, N, N, N] or [batch, 3, N, N, N], index [channel, blue, green, red], N from 2 to 512, any units
    interpolation : "trilinear" (8 corners) or "tetrahedral" (4 corners; keeps the grey axis free of colour)
    impl : auto, reference, numba or triton

    Returns
    -------
    [batch, 3, rows, columns], of the kind and dtype of `image`, in the table's units. float16 and bfloat16 are computed
    in float32. A NaN in one channel makes the three results of that pixel NaN; infinities are clamped.

    Raises
    ------
    ValueError for wrong shapes or an unknown interpolation, ImplementationError (a ValueError) for an `impl` that
    cannot.

    Notes
    -----
    Sample i of an axis stands for i / (N - 1). Trilinear equals torch's grid_sample(table, 2 image - 1,
    align_corners=True, padding_mode="border"). The published code neither clamps nor reaches exactly 1 (its bin is
    1.000001 / (N - 1) wide). Tetrahedral: with the fractions sorted a >= b >= c,
    (1 - a) T_000 + (a - b) T_1 + (b - c) T_2 + c T_111, where T_1 has the axis of a set and T_2 those of a and b.
    The gradient to the image is 0 outside 0..1.

    >>> import numpy as np
    >>> pixel = np.array([0.25, 0.5, 2.0], np.float32).reshape(1, 3, 1, 1)
    >>> lookup(pixel, identity(5)).ravel().tolist()
    [0.25, 0.5, 1.0]
    """
    validation.check_lookup(image, table, interpolation)
    return OPERATORS["lookup"](impl, [image, table], interpolation)


def identity(size: int) -> NDArray[np.float32]:
    """The table [3, size, size, size] that returns its input, float32; ValueError for a size below 2."""
    if size < 2:
        raise ValueError(f"size: expected 2 or more samples along an axis, got {size}")
    axis = np.linspace(0.0, 1.0, size, dtype=np.float32)
    blue, green, red = np.meshgrid(axis, axis, axis, indexing="ij")
    return np.stack([red, green, blue])


def fuse(tables: Array, weights: Array) -> Array:
    """Mix tables: one lookup in the mix equals the mix of the lookups.

    Parameters
    ----------
    tables : [K, 3, N, N, N]
    weights : [K] or [batch, K], unbounded, may be negative

    Returns
    -------
    [3, N, N, N] or [batch, 3, N, N, N]; differentiable for tensors. ValueError for wrong shapes.

    Notes
    -----
    sum_k w_k T_k: the point weights of LLF-LUT, moved from the pixels into the table.
    """
    validation.check_fuse(tables, weights)
    facts_of(tables, weights)
    mix: Any = weights @ tables.reshape(tables.shape[0], -1)  # type: ignore[attr-defined]
    return mix.reshape(*weights.shape[:-1], *tables.shape[1:])  # type: ignore[attr-defined, no-any-return]


def _steps(table: Any) -> list[tuple[Any, int]]:
    """Forward differences of [..., 3, N, N, N] along blue, green and red, with the negative axis of each."""
    return [
        (table[..., 1:, :, :] - table[..., :-1, :, :], -3),
        (table[..., 1:, :] - table[..., :-1, :], -2),
        (table[..., 1:] - table[..., :-1], -1),
    ]


def _mean(values: Any) -> Any:
    axes = (-4, -3, -2, -1)
    return values.mean(dim=axes) if is_tensor(values) else values.mean(axis=axes)


def total_variation(table: Array) -> Array:
    """Roughness of tables [..., 3, N, N, N], one number each; 0 for a constant table, in squared table units.

    Sum over the three colour axes of the mean squared forward difference, where the first and the last step of the axis
    count twice (loss section of LLF-LUT). Differentiable for tensors. ValueError for a wrong shape.

    >>> print(f"{total_variation(identity(33)):.10f}")
    0.0010375977
    """
    validation.check_table(table, leading=len(table.shape) - 4)  # type: ignore[attr-defined]
    total: Any = 0
    for step, axis in _steps(table):
        count = step.shape[axis]
        squared = step * step
        ends = [squared.swapaxes(axis, -1)[..., at] for at in (0, count - 1)]
        if count == 1:
            # a single step is both first and last, and is still counted twice
            ends = ends[:1]
        extra = sum(_mean(end[..., None]) for end in ends) / count
        total = total + _mean(squared) + extra
    return total  # type: ignore[no-any-return]


def monotonicity(table: Array) -> Array:
    """Mean decrease of tables [..., 3, N, N, N], one number each; 0 when no colour axis ever falls, in table units.

    Sum over the three colour axes of mean(max(0, T_i - T_{i+1})) (loss section of LLF-LUT). Differentiable for tensors.
    ValueError for a wrong shape.
    """
    validation.check_table(table, leading=len(table.shape) - 4)  # type: ignore[attr-defined]
    # a product with the mask has gradient 0 where the table is flat, so flat tables are not pushed
    return sum(_mean(-step * (step < 0)) for step, _ in _steps(table))  # type: ignore[return-value]
