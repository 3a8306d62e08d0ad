"""Structural similarity of two planes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

WINDOW = 11
SIGMA = 1.5


def similarity_map(first: NDArray[Any], second: NDArray[Any], peak: float) -> NDArray[Any]:
    """Structural similarity at every place where the 11x11 Gaussian window (sigma 1.5) fits whole.

    first, second    float64 (rows, columns[, channels])
    returns          the same axes, 10 rows and 10 columns fewer; empty where a side is below 11

    K1 .01, K2 .03, population covariance.

    Notes:
        Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment", TIP 2004, equation 13.
    """
    if min(first.shape[:2]) < WINDOW:
        return first[:0, :0]
    mean_first, mean_second = _blur(first), _blur(second)
    variance_first = _blur(first * first) - mean_first**2
    variance_second = _blur(second * second) - mean_second**2
    covariance = _blur(first * second) - mean_first * mean_second
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    return ((2 * mean_first * mean_second + c1) * (2 * covariance + c2)) / (
        (mean_first**2 + mean_second**2 + c1) * (variance_first + variance_second + c2)
    )


def _blur(plane: NDArray[Any]) -> NDArray[Any]:
    import cv2

    edge = WINDOW // 2
    blurred = cv2.GaussianBlur(plane, (WINDOW, WINDOW), SIGMA, borderType=cv2.BORDER_REFLECT)
    return blurred[edge:-edge, edge:-edge]
