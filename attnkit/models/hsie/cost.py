"""Operations of the networks, counted from their configs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# widths of the first convolutions, and channels of the curve that the detail passes
SCALES = (3, 5, 7)
MASK_WIDTH = 16


def count_flops(config: Mapping[str, Any], rows: int, columns: int) -> int:
    """Floating-point operations of the convolutions for one band with its neighbours; a multiply-add counts as two."""
    channels = 3 * config["features"]
    growth, convs, blocks, width = (config[key] for key in ("growth", "convs", "blocks", "width"))
    taps = sum(size * size for size in SCALES)
    low = (1 + config["neighbours"]) * config["features"] * taps + 9 * 2 * channels * channels
    dense = sum(9 * (channels + growth * i) * growth for i in range(convs))
    low += blocks * (dense + (channels + growth * convs) * channels)
    low += blocks * channels * channels + 9 * channels
    high = 9 * 3 * width + config["residual_blocks"] * 2 * 9 * width * width + 9 * width + 2 * MASK_WIDTH
    if config["last_conv"]:
        high += 9
    half_rows, half_columns = (rows + 1) // 2, (columns + 1) // 2
    return 2 * half_rows * half_columns * (low + 4 * high)


def count_subspace_flops(config: Mapping[str, Any], rows: int, columns: int) -> int:
    """Floating-point operations of the convolutions of `HsieSubspace` for one eigen-image with its context."""
    names = ("neighbours", "features", "growth", "convs", "blocks", "width", "handed")
    context, features, growth, convs, blocks, width, handed = (config[key] for key in names)
    dense = sum(9 * (features + growth * i) * growth for i in range(convs))
    low = 9 * (4 + 2 * context) * features + blocks * (dense + (features + growth * convs) * features)
    low += blocks * features * features + 9 * features + features * handed
    high = 9 * (4 + context + handed) * width + config["residual_blocks"] * 2 * 9 * width * width + 9 * 2 * width
    half_rows, half_columns = (rows + 1) // 2, (columns + 1) // 2
    return 2 * half_rows * half_columns * (low + 4 * high)
