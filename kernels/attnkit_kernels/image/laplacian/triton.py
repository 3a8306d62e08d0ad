"""Triton kernels of the pyramid, forward only: a program computes BLOCK samples of one plane.

float16 and bfloat16 are computed in float32. Runs interpreted on a CPU with TRITON_INTERPRET=1.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...tiles import choices, on_device

CONFIGS = choices((256, 4), (512, 8))


@triton.jit
def _reflected(index, size):
    # one reflection reaches as far as the kernel does; below three samples the repeated one is the nearest end
    index = tl.abs(index)
    index = tl.where(index >= size, tl.abs(2 * size - 2 - index), index)
    return tl.minimum(index, size - 1)


@triton.jit
def _tap(distance):
    # 1, 4, 6, 4, 1 sixteenths
    return tl.where(distance == 0, 0.375, tl.where(tl.abs(distance) == 1, 0.25, 0.0625))


@triton.autotune(CONFIGS, key=["rows", "columns"])
@triton.jit
def down_kernel(p_image, p_result, rows, columns, small_rows, small_columns, BLOCK: tl.constexpr):
    count = small_rows * small_columns
    blocks = tl.cdiv(count, BLOCK)
    i_plane = (tl.program_id(0) // blocks).to(tl.int64)
    # [BLOCK]
    o_sample = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    m_sample = o_sample < count
    row = 2 * (o_sample // small_columns)
    column = 2 * (o_sample % small_columns)
    p_plane = p_image + i_plane * rows * columns
    b_sum = tl.zeros([BLOCK], tl.float32)
    for dr in tl.static_range(-2, 3):
        o_row = _reflected(row + dr, rows).to(tl.int64) * columns
        b_row = tl.zeros([BLOCK], tl.float32)
        for dc in tl.static_range(-2, 3):
            o_source = o_row + _reflected(column + dc, columns)
            b_row += _tap(dc) * tl.load(p_plane + o_source, mask=m_sample, other=0.0).to(tl.float32)
        b_sum += _tap(dr) * b_row
    p_out = p_result + i_plane * count + o_sample
    tl.store(p_out, b_sum.to(p_result.dtype.element_ty), mask=m_sample)


@triton.jit
def _up_row(p_row, at, odd, small_columns, m_sample):
    before = tl.where(at > 0, at - 1, tl.minimum(1, small_columns - 1))
    after = tl.minimum(at + 1, small_columns - 1)
    b_before = tl.load(p_row + before, mask=m_sample, other=0.0).to(tl.float32)
    b_middle = tl.load(p_row + at, mask=m_sample, other=0.0).to(tl.float32)
    b_after = tl.load(p_row + after, mask=m_sample, other=0.0).to(tl.float32)
    even = (b_before + b_after + 6.0 * b_middle) * 0.125
    return tl.where(odd, (b_middle + b_after) * 0.5, even)


@triton.jit
def up_at(p_plane, row, column, small_rows, small_columns, m_sample):
    """The up-sampled level at (row, column), [BLOCK], float32."""
    at = row // 2
    before = tl.where(at > 0, at - 1, tl.minimum(1, small_rows - 1)).to(tl.int64) * small_columns
    after = tl.minimum(at + 1, small_rows - 1).to(tl.int64) * small_columns
    middle = at.to(tl.int64) * small_columns
    odd = column % 2 == 1
    b_before = _up_row(p_plane + before, column // 2, odd, small_columns, m_sample)
    b_middle = _up_row(p_plane + middle, column // 2, odd, small_columns, m_sample)
    b_after = _up_row(p_plane + after, column // 2, odd, small_columns, m_sample)
    even = (b_before + b_after + 6.0 * b_middle) * 0.125
    return tl.where(row % 2 == 1, (b_middle + b_after) * 0.5, even)


@triton.autotune(CONFIGS, key=["rows", "columns"])
@triton.jit
def up_kernel(
    p_coarse, p_fine, p_result, sign, rows, columns, small_rows, small_columns, ADD: tl.constexpr, BLOCK: tl.constexpr
):
    """result = sign up(coarse), plus fine where ADD."""
    count = rows * columns
    blocks = tl.cdiv(count, BLOCK)
    i_plane = (tl.program_id(0) // blocks).to(tl.int64)
    # [BLOCK]
    o_sample = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    m_sample = o_sample < count
    p_plane = p_coarse + i_plane * small_rows * small_columns
    b_up = sign * up_at(p_plane, o_sample // columns, o_sample % columns, small_rows, small_columns, m_sample)
    o_result = i_plane * count + o_sample
    if ADD:
        b_up += tl.load(p_fine + o_result, mask=m_sample, other=0.0).to(tl.float32)
    tl.store(p_result + o_result, b_up.to(p_result.dtype.element_ty), mask=m_sample)


def _next(image: Tensor, dtype: torch.dtype) -> Tensor:
    batch, channels, rows, columns = image.shape
    small = (rows + 1) // 2, (columns + 1) // 2
    result = image.new_empty((batch, channels, *small), dtype=dtype)
    if result.numel():
        with on_device(image):
            down_kernel[lambda meta: (triton.cdiv(small[0] * small[1], meta["BLOCK"]) * batch * channels,)](
                image, result, rows, columns, *small
            )
    return result


def _add_up(coarse: Tensor, fine: Tensor | None, sign: float, size: tuple[int, int], dtype: torch.dtype) -> Tensor:
    batch, channels, *small = coarse.shape
    result = coarse.new_empty((batch, channels, *size), dtype=dtype)
    if result.numel():
        with on_device(coarse):
            up_kernel[lambda meta: (triton.cdiv(size[0] * size[1], meta["BLOCK"]) * batch * channels,)](
                coarse, result if fine is None else fine, result, float(sign), *size, *small, ADD=fine is not None
            )
    return result


def down(image: Tensor) -> Tensor:
    """See `api.down`."""
    return _next(image.contiguous(), image.dtype)


def up(image: Tensor, size: tuple[int, int]) -> Tensor:
    """See `api.up`."""
    return _add_up(image.contiguous(), None, 1.0, size, image.dtype)


def gaussian(image: Tensor, levels: int) -> list[Tensor]:
    """See `api.gaussian`."""
    pyramid = [image.contiguous()]
    for _ in range(levels):
        # float32 between the levels, whatever the image is
        pyramid.append(_next(pyramid[-1], torch.float32))
    return [level.to(image.dtype) for level in pyramid]


def decompose(image: Tensor, levels: int) -> list[Tensor]:
    """See `api.decompose`."""
    fine = image.contiguous()
    bands = []
    for _ in range(levels):
        coarse = _next(fine, torch.float32)
        bands.append(_add_up(coarse, fine, -1.0, (fine.shape[2], fine.shape[3]), image.dtype))
        fine = coarse
    return [*bands, fine.to(image.dtype)]


def reconstruct(*bands: Tensor) -> Tensor:
    """See `api.reconstruct`."""
    image = bands[-1].contiguous()
    for band in reversed(bands[:-1]):
        image = _add_up(image, band.contiguous(), 1.0, (band.shape[2], band.shape[3]), torch.float32)
    return image.to(bands[0].dtype)
