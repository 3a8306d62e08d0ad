"""Operations of LLF-LUT++ for a config and a picture size, counted without building anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

HEADS = (2, 4, 8, 16)
TABLES = 3


def halved(size: int, times: int) -> int:
    """Samples of an axis that was halved, rounding up, a number of times."""
    for _ in range(times):
        size = (size + 1) // 2
    return size


def ceil_to(size: int, multiple: int) -> int:
    """The next multiple at or above a size."""
    return -(-size // multiple) * multiple


def count_parameters(config: Mapping[str, Any]) -> int:
    """Numbers that training may change; those of layers that the published code never runs do not exist here."""
    width, stages, size = config["width"], config["stages"], config["table_size"]
    coarse, fine = config["coarse_width"], config["fine_width"]
    linear = width * width + width
    mlp = 4 * width * width + 3 * width
    blocks = 0
    for heads in HEADS[:stages]:
        bias = 49 * heads
        blocks += bias + 4 * linear + mlp + 4 * width
        blocks += 2 * (bias + 4 * linear) + mlp + 8 * width
    between = (stages - 1) * (20 * width * width + 2 * width)
    ends = 28 * width + TABLES * (64 * width + 1)
    maps = 18 * width * width + 2 * width + 9 * TABLES * 6 * width + 3 * TABLES
    gate = coarse // 2
    block = 2 * coarse + coarse * (10 * coarse + 2) + gate * (gate + 1) + coarse * (gate + 1) + coarse
    head = 11 * coarse + block + 2 * coarse + 2
    heads_fine = (config["depth"] - 1) * (10 * fine + 10 * fine + 2 * fine + 2)
    return blocks + between + ends + maps + head + heads_fine + TABLES * 3 * size**3


def count_network_flops(config: Mapping[str, Any], rows: int, columns: int) -> int:
    """Convolutions, linear layers and attention products of one pass, a multiply and an add counted as two.

    Normalisation, softmax, the transform over 16 tokens and activations are left out.
    """
    return 2 * (_predictor(config, rows, columns) + _heads(config, rows, columns))


def count_flops(config: Mapping[str, Any], rows: int, columns: int) -> int:
    """`count_network_flops` and the work per pixel of tables, pyramids and remapping.

    Per lookup 7 linear steps of 2 operations and 3 channels; per pyramid step 5 + 5 taps; two references of the curve
    at any pixel, 12 operations each (an exponential counted as one).
    """
    lookup, pyramid, remap = 7 * 2 * 3, 2 * 3 * 10, 2 * 12 * 3
    depth = config["depth"]
    levels = [halved(rows, level) * halved(columns, level) for level in range(depth + 1)]
    # the picture's own way down, then down and up of the looked-up picture, and the collapse
    image = levels[0] * lookup + TABLES * levels[depth] * lookup
    image += 4 * pyramid * sum(levels[:depth]) + remap * sum(levels[:depth])
    return count_network_flops(config, rows, columns) + image


def _predictor(config: Mapping[str, Any], rows: int, columns: int) -> int:
    """Multiply-adds of the window transformer."""
    width, stages, window, tokens = config["width"], config["stages"], 4, 16
    spectral_tokens = tokens + 2
    rows, columns = (halved(size, config["depth"]) for size in (rows, columns))
    # in and out of the network at the thumbnail's own size, between them on multiples of the strides
    total = rows * columns * (27 * width + 9 * (2 * width * width + 2 * width * 3 * TABLES)) + 64 * width * TABLES
    rows, columns = (ceil_to(size, 2 ** (stages - 1)) for size in (rows, columns))
    for stage in range(stages):
        high, wide = rows >> stage, columns >> stage
        padded = ceil_to(high, window) * ceil_to(wide, window)
        windows = padded // tokens
        square, mlp = width * width, 4 * width * width
        encoder = windows * (3 * square * (tokens + spectral_tokens) + 2 * width * (tokens**2 + spectral_tokens**2))
        encoder += padded * square + high * wide * mlp
        decoder = 2 * windows * (4 * square * tokens + 2 * width * tokens**2) + high * wide * mlp
        total += encoder + decoder
        if stage < stages - 1:
            total += (high // 2) * (wide // 2) * 16 * square + high * wide * square
    return total


def _heads(config: Mapping[str, Any], rows: int, columns: int) -> int:
    """Multiply-adds of the heads over all bands."""
    depth, coarse, fine = config["depth"], config["coarse_width"], config["fine_width"]
    gate = coarse // 2
    samples = halved(rows, depth - 1) * halved(columns, depth - 1)
    # the entrance runs twice: once for the channel attention's mean, once for the result
    total = samples * (2 * 10 * coarse + 10 * coarse * coarse + gate * coarse + 2 * coarse) + gate * gate
    for level in range(depth - 1):
        total += halved(rows, level) * halved(columns, level) * (9 * fine + 9 * fine + 2 * fine)
    return total
