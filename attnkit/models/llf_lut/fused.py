"""The fine head of LLF-LUT++ as one compiled pass over a band, for pictures on a CPU.

The head's layers are so narrow that general convolutions spend their time on moving 16 features a pixel through memory.
Here the features of three rows at a time stay in the caches, and features of the coarser band are computed once for two
rows.
"""

from __future__ import annotations

import numpy as np
from attnkit_kernels.compiled import launch, loops
from numba import prange
from numpy.typing import NDArray

# rows that one task works through; the features of its first two rows are computed by its neighbour as well
TASK_ROWS = 32


@loops(parallel=True)
def _fine_head(context, band, enter, enter_bias, spatial, spatial_bias, leave, leave_bias, order, result):  # type: ignore[no-untyped-def]
    rows, columns = band.shape[1:]
    width = enter.shape[0]
    number = band.dtype.type
    slope = number(0.2)
    zero = number(0)
    for task in prange((rows + TASK_ROWS - 1) // TASK_ROWS):
        # features of three rows, one zero at both ends as the convolution pads them
        features = np.zeros((3, width, columns + 2), band.dtype)
        below = np.empty((width, columns), band.dtype)
        held = -1
        start = task * TASK_ROWS
        end = min(start + TASK_ROWS, rows)
        for at in range(start - 1, end + 1):
            slot = (at + 3) % 3
            if at < 0 or at >= rows:
                features[slot] = zero
            else:
                if at // 2 != held:
                    held = at // 2
                    for feature in range(width):
                        target = below[feature]
                        target[:] = enter_bias[feature]
                        for source in range(context.shape[0]):
                            weight = enter[feature, order[source]]
                            line = context[source, held]
                            for column in range(columns):
                                target[column] += weight * line[column >> 1]
                red = band[0, at]
                green = band[1, at]
                blue = band[2, at]
                for feature in range(width):
                    from_red = enter[feature, 3]
                    from_green = enter[feature, 4]
                    from_blue = enter[feature, 5]
                    base = below[feature]
                    target = features[slot, feature]
                    for column in range(columns):
                        value = base[column] + from_red * red[column] + from_green * green[column]
                        value += from_blue * blue[column]
                        target[column + 1] = max(value, slope * value)
            row = at - 1
            if row < start:
                continue
            strength = result[0, row]
            spread = result[1, row]
            strength[:] = leave_bias[0]
            spread[:] = leave_bias[1]
            for feature in range(width):
                above = features[(row + 2) % 3, feature]
                here = features[row % 3, feature]
                under = features[(row + 1) % 3, feature]
                taps = spatial[feature]
                bias = spatial_bias[feature]
                to_strength = leave[0, feature]
                to_spread = leave[1, feature]
                for column in range(columns):
                    value = bias + taps[0] * above[column] + taps[1] * above[column + 1] + taps[2] * above[column + 2]
                    value += taps[3] * here[column] + taps[4] * here[column + 1] + taps[5] * here[column + 2]
                    value += taps[6] * under[column] + taps[7] * under[column + 1] + taps[8] * under[column + 2]
                    value = max(value, slope * value)
                    strength[column] += to_strength * value
                    spread[column] += to_spread * value


def fine_head(context: NDArray, band: NDArray, weights: dict[str, NDArray]) -> NDArray:
    """Strength and width of the curve for every pixel of a band.

    Parameters
    ----------
    context : [6, ceil(rows / 2), ceil(columns / 2)], the result so far and the remapped band of the coarser level
    band : [3, rows, columns]
    weights : arrays of `heads.FineHead` by name; all of one dtype with context and band

    Returns
    -------
    [2, rows, columns]; equal to `heads.FineHead` to rounding.
    """
    result = np.empty((2, *band.shape[1:]), band.dtype)
    # the head's inputs are three channels of context, the band, and the other three
    order = np.array([0, 1, 2, 6, 7, 8])
    launch(
        _fine_head,
        context,
        band,
        weights["enter.weight"].reshape(-1, 9),
        weights["enter.bias"],
        weights["spatial.weight"].reshape(-1, 9),
        weights["spatial.bias"],
        weights["leave.weight"].reshape(2, -1),
        weights["leave.bias"],
        order,
        result,
    )
    return result
