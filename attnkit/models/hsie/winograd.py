"""3x3 convolutions of many channels on a CPU with a quarter of the multiplications.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (CVPR 2016), F(4x4, 3x3): each 6x6 patch of
the input is transformed, multiplied channel by channel with the transformed kernel as 36 matrix products, and
transformed back to a 4x4 block of the output, to which bias and activation are applied at once. In float32 the result
differs from the direct sum by about ten of its roundings.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from attnkit_kernels.compiled import launch, loops
from numba import prange
from torch import Tensor

# patches at a time: one thread keeps the transforms of 64 channels in its core's cache; for several, waiting for each
# other costs more than that saves, above all on a busy machine
PATCHES = 128
SHARED_PATCHES = 1024
# fewer channels leave nothing to gain: the transforms cost as much as the products save
LEAST_CHANNELS = 32

_KERNEL = [
    [1 / 4, 0, 0],
    [-1 / 6, -1 / 6, -1 / 6],
    [-1 / 6, 1 / 6, -1 / 6],
    [1 / 24, 1 / 12, 1 / 6],
    [1 / 24, -1 / 12, 1 / 6],
    [0, 0, 1],
]


def suits(weight: Tensor) -> bool:
    """Whether a convolution's weight [outputs, inputs, rows, columns] is worth transforming."""
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and tuple(weight.shape[2:]) == (3, 3)
        and min(weight.shape[:2]) >= LEAST_CHANNELS
    )


def transformed(weight: Tensor) -> Tensor:
    """The kernel [outputs, inputs, 3, 3] as 36 matrices [36, inputs, outputs]."""
    edge = torch.tensor(_KERNEL, dtype=torch.float64)
    return torch.einsum("ia,ocab,jb->ijco", edge, weight.double(), edge).flatten(0, 1).float().contiguous()


def convolve(features: Tensor, kernel: Tensor, bias: Tensor, slope: float, result: Tensor, *, add: bool) -> None:
    """Same-size convolution, zeros outside, of one image [rows, columns, inputs], float32, contiguous.

    kernel   from `transformed`; bias [outputs]
    slope    in 0..1; negative values of the result are multiplied with it: 0 for ReLU, 1 for none
    result   [rows, columns, outputs], contiguous; with `add` the convolution is added to it, without activation
    """
    rows, columns, inputs = features.shape
    outputs = kernel.shape[2]
    given = torch.get_num_threads()
    threads = min(given, numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
    numba.set_num_threads(threads)
    across, down = (columns + 3) // 4, (rows + 3) // 4
    step = min(down, max(threads, (PATCHES if threads == 1 else SHARED_PATCHES) // across))
    spread = features.new_empty(36 * step * across * inputs)
    products = features.new_empty(36 * step * across * outputs)
    source, target, shift = features.numpy(), result.numpy(), bias.numpy()
    for first in range(0, down, step):
        patches = min(step, down - first) * across
        left = spread[: 36 * patches * inputs].view(36, patches, inputs)
        right = products[: 36 * patches * outputs].view(36, patches, outputs)
        launch(_spread, source, first, left.numpy())
        torch.bmm(left, kernel, out=right)
        launch(_gather, right.numpy(), first, shift, np.float32(slope), add, target)
    if torch.get_num_threads() != given:
        # numba's first launch sets what both share under OpenMP
        torch.set_num_threads(given)


@loops(parallel=True)
def _spread(features, first, spread):  # type: ignore[no-untyped-def]
    """Rows of 6x6 patches, four apart, from `first` on: transformed along both axes into [36, patches, channels]."""
    rows, columns, channels = features.shape
    across = (columns + 3) // 4
    wide = (4 * across + 2) * channels
    kind = features.dtype.type
    two, four, five = kind(2), kind(4), kind(5)
    for part in prange(spread.shape[1] // across):
        lines = np.empty((6, wide), features.dtype)
        top = 4 * (first + part) - 1
        for i in range(6):
            line = lines[i]
            if top + i < 0 or top + i >= rows:
                line[:] = kind(0)
            else:
                line[:channels] = kind(0)
                line[channels : (columns + 1) * channels] = features[top + i].reshape(-1)
                line[(columns + 1) * channels :] = kind(0)
        l0, l1, l2, l3, l4, l5 = lines[0], lines[1], lines[2], lines[3], lines[4], lines[5]
        for at in range(wide):
            a, b, d, e, f, g = l0[at], l1[at], l2[at], l3[at], l4[at], l5[at]
            s, t, u, v = f - four * d, e - four * b, f - d, two * (e - b)
            l0[at] = four * a - five * d + f
            l1[at] = s + t
            l2[at] = s - t
            l3[at] = u + v
            l4[at] = u - v
            l5[at] = four * b - five * e + g
        for i in range(6):
            line = lines[i]
            for patch in range(across):
                start = 4 * patch * channels
                p0 = line[start : start + channels]
                p1 = line[start + channels : start + 2 * channels]
                p2 = line[start + 2 * channels : start + 3 * channels]
                p3 = line[start + 3 * channels : start + 4 * channels]
                p4 = line[start + 4 * channels : start + 5 * channels]
                p5 = line[start + 5 * channels : start + 6 * channels]
                to = part * across + patch
                o0, o1, o2 = spread[6 * i, to], spread[6 * i + 1, to], spread[6 * i + 2, to]
                o3, o4, o5 = spread[6 * i + 3, to], spread[6 * i + 4, to], spread[6 * i + 5, to]
                for c in range(channels):
                    a, b, d, e, f, g = p0[c], p1[c], p2[c], p3[c], p4[c], p5[c]
                    s, t, u, v = f - four * d, e - four * b, f - d, two * (e - b)
                    o0[c] = four * a - five * d + f
                    o1[c] = s + t
                    o2[c] = s - t
                    o3[c] = u + v
                    o4[c] = u - v
                    o5[c] = four * b - five * e + g


@loops(parallel=True)
def _gather(products, first, bias, slope, accumulate, result):  # type: ignore[no-untyped-def]
    """Rows of 4x4 blocks from [36, patches, channels], with bias and activation, into the rows of the result."""
    rows, columns, channels = result.shape
    across = (columns + 3) // 4
    kind = result.dtype.type
    two, four, eight = kind(2), kind(4), kind(8)
    wide = across * channels
    flat = products.reshape(36, -1)
    for part in prange(products.shape[1] // across):
        half = np.empty((4, 6, wide), result.dtype)
        low, high = part * wide, (part + 1) * wide
        for j in range(6):
            p0, p1, p2 = flat[j, low:high], flat[6 + j, low:high], flat[12 + j, low:high]
            p3, p4, p5 = flat[18 + j, low:high], flat[24 + j, low:high], flat[30 + j, low:high]
            h0, h1, h2, h3 = half[0, j], half[1, j], half[2, j], half[3, j]
            for at in range(wide):
                b, d, e, f = p1[at], p2[at], p3[at], p4[at]
                s, t, u, v = b + d, b - d, e + f, e - f
                h0[at] = p0[at] + s + u
                h1[at] = t + two * v
                h2[at] = s + four * u
                h3[at] = t + eight * v + p5[at]
        top = 4 * (first + part)
        for i in range(min(4, rows - top)):
            # the four columns of a block take the place of the middle four sums
            h0, h1, h2, h3, h4, h5 = half[i, 0], half[i, 1], half[i, 2], half[i, 3], half[i, 4], half[i, 5]
            for at in range(wide):
                b, d, e, f = h1[at], h2[at], h3[at], h4[at]
                s, t, u, v = b + d, b - d, e + f, e - f
                h1[at] = h0[at] + s + u
                h2[at] = t + two * v
                h3[at] = s + four * u
                h4[at] = t + eight * v + h5[at]
            for j in range(4):
                line = half[i, 1 + j]
                for patch in range((columns - j + 3) // 4):
                    source = line[patch * channels : (patch + 1) * channels]
                    target = result[top + i, 4 * patch + j]
                    if accumulate:
                        for c in range(channels):
                            target[c] += source[c] + bias[c]
                    else:
                        for c in range(channels):
                            value = source[c] + bias[c]
                            target[c] = max(value, slope * value)
