"""Checks of the arguments of the table operators, before any implementation is chosen."""

from __future__ import annotations

from typing import Any

INTERPOLATIONS = ("trilinear", "tetrahedral")
# entries are counted in 32 bits by the compiled paths; grading tools stop at 256
LARGEST = 512


def check_table(table: Any, name: str = "table", leading: int = 0) -> None:
    """Raise ValueError unless `table` is [..., 3, N, N, N], N from 2 to LARGEST, with `leading` dimensions in front."""
    shape = list(table.shape)
    leading = max(leading, 0)
    cubic = len(shape) == 4 + leading and shape[-4] == 3 and len(set(shape[-3:])) == 1
    if not cubic or not 2 <= shape[-1] <= LARGEST:
        front = "[" + "K, " * leading
        raise ValueError(
            f"{name}: expected {front}3, N, N, N] with N from 2 to {LARGEST}, index [c, b, g, r], got shape {shape}"
        )


def check_lookup(image: Any, table: Any, interpolation: str) -> None:
    """Raise unless the arguments of `lookup` fit together."""
    shape = list(image.shape)
    if len(shape) != 4 or shape[1] != 3:
        raise ValueError(f"image: expected [batch, 3, rows, columns], got shape {shape}")
    batched = len(table.shape) == 5
    check_table(table, leading=1 if batched else 0)
    if batched and table.shape[0] not in (1, shape[0]):
        raise ValueError(f"table: expected 1 table or one for each of {shape[0]} images, got {table.shape[0]}")
    if interpolation not in INTERPOLATIONS:
        raise ValueError(f"interpolation: expected one of {', '.join(INTERPOLATIONS)}, got {interpolation!r}")


def check_fuse(tables: Any, weights: Any) -> None:
    """Raise ValueError unless `weights` is [K] or [batch, K] for K tables."""
    check_table(tables, "tables", leading=1)
    shape = list(weights.shape)
    if len(shape) not in (1, 2) or shape[-1] != tables.shape[0]:
        count = tables.shape[0]
        raise ValueError(f"weights: expected [{count}] or [batch, {count}] for {count} tables, got shape {shape}")
