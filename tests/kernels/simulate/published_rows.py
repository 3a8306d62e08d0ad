"""The analytical tables of "Generalized Neighborhood Attention" (arXiv 2504.16922), Tables 2 to 5, row by row."""

from __future__ import annotations

from typing import NamedTuple


class Case(NamedTuple):
    """A workload: canvas, tiles, attention's share of the run time, steps, and steps kept dense."""

    canvas: tuple[int, ...]
    query_tile: tuple[int, ...]
    key_tile: tuple[int, ...]
    share: float
    steps: int
    dense_steps: int


class Row(NamedTuple):
    """What the paper prints: two decimals, one for the speed-ups of the operation; None where it prints nothing."""

    case: Case
    window: tuple[int, ...]
    stride: tuple[int, ...]
    visited: int
    simulated: float
    e2e_flop: str
    e2e_simulated: str
    dense_flop: str | None
    dense_simulated: str | None
    block_sparse: bool = False


FLUX = Case((256, 256), (16, 16), (16, 8), 0.518, 28, 9)
COSMOS = Case((16, 44, 80), (8, 4, 8), (4, 4, 8), 0.587, 35, 12)
# attention takes 65.4 % of a run, and self attention 92.8 % of that
HUNYUAN_58 = Case((30, 48, 80), (2, 16, 8), (2, 8, 8), 0.654 * 0.928, 50, 15)
HUNYUAN_91 = Case((30, 48, 80), (4, 8, 8), (2, 8, 8), 0.654 * 0.928, 50, 15)
FLOP = {FLUX: {(80, 80): 10.24}, COSMOS: {(16, 32, 48): 2.29, (16, 24, 16): 9.17}}
FLOP |= {HUNYUAN_58: {(30, 40, 40): 2.40}, HUNYUAN_91: {(18, 24, 24): 11.11}}

ROWS = [
    Row(FLUX, (80, 80), (1, 1), 84, 6.10, "1.88", "1.76", "1.46", "1.42"),
    Row(FLUX, (80, 80), (16, 1), 60, 8.53, "1.88", "1.84", "1.46", "1.45"),
    Row(FLUX, (80, 80), (16, 16), 50, 10.24, "1.88", "1.88", "1.46", "1.46", True),
    Row(COSMOS, (16, 32, 48), (1, 1, 1), 252, 1.75, "1.50", "1.35", "1.28", "1.21"),
    Row(COSMOS, (16, 32, 48), (1, 8, 1), 224, 1.96, "1.50", "1.42", "1.28", "1.24"),
    Row(COSMOS, (16, 32, 48), (1, 1, 16), 216, 2.04, "1.50", "1.42", "1.28", "1.24"),
    Row(COSMOS, (16, 32, 48), (1, 8, 16), 192, 2.29, "1.50", "1.50", "1.28", "1.28", True),
    Row(COSMOS, (16, 24, 16), (1, 1, 1), 84, 5.24, "2.10", "1.90", "1.52", "1.45"),
    Row(COSMOS, (16, 24, 16), (1, 8, 1), 72, 6.11, "2.10", "1.96", "1.52", "1.48"),
    Row(COSMOS, (16, 24, 16), (1, 1, 16), 56, 7.86, "2.10", "2.05", "1.52", "1.51"),
    Row(COSMOS, (16, 24, 16), (1, 8, 16), 48, 9.17, "2.10", "2.10", "1.52", "1.52", True),
    Row(HUNYUAN_58, (30, 40, 40), (1, 1, 1), 630, 1.43, "1.55", "1.21", "1.33", "1.14"),
    Row(HUNYUAN_58, (30, 40, 40), (1, 1, 8), 450, 2.00, "1.55", "1.44", "1.33", "1.27"),
    Row(HUNYUAN_58, (30, 40, 40), (1, 32, 8), 375, 2.40, "1.55", "1.55", "1.33", "1.33", True),
    Row(HUNYUAN_58, (30, 40, 40), (30, 40, 40), 450, 2.00, "1.55", "1.44", None, None),
    Row(HUNYUAN_91, (18, 24, 24), (1, 1, 1), 275, 3.27, "2.23", "1.73", "1.63", "1.42"),
    Row(HUNYUAN_91, (18, 24, 24), (2, 1, 1), 250, 3.60, "2.23", "1.78", "1.63", "1.44"),
    Row(HUNYUAN_91, (18, 24, 24), (1, 1, 8), 165, 5.45, "2.23", "1.99", "1.63", "1.53"),
    Row(HUNYUAN_91, (18, 24, 24), (2, 1, 8), 150, 6.00, "2.23", "2.02", "1.63", "1.55"),
    Row(HUNYUAN_91, (18, 24, 24), (1, 8, 8), 99, 9.09, "2.23", "2.17", "1.63", "1.61"),
    Row(HUNYUAN_91, (18, 24, 24), (2, 8, 8), 90, 10.0, "2.23", "2.20", "1.63", "1.62"),
    Row(HUNYUAN_91, (18, 24, 24), (16, 8, 8), 81, 11.11, "2.23", "2.23", "1.63", "1.63", True),
    Row(HUNYUAN_91, (18, 24, 24), (18, 24, 24), 135, 6.67, "2.23", "2.06", None, None),
]
