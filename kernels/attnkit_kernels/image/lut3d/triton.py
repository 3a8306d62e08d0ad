"""Triton kernels of the table lookup, forward and backward: a program computes BLOCK pixels of one image.

float16 and bfloat16 are computed in float32. The gradient of the table is summed with atomics, so its last bits may
differ from run to run. Runs interpreted on a CPU with TRITON_INTERPRET=1.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...tiles import choices, on_device

CONFIGS = choices((256, 4), (512, 8))


@triton.jit
def _load(p_image, o_pixel, m_pixel, SIZE: tl.constexpr):
    """Value, cell and fraction of one channel, [BLOCK] each; a NaN is placed in cell 0 with fraction 0."""
    b_value = tl.load(p_image + o_pixel, mask=m_pixel, other=0.0).to(tl.float32)
    known = tl.where(b_value == b_value, b_value, 0.0)
    place = tl.minimum(tl.maximum(known * (SIZE - 1), 0.0), SIZE - 1.0)
    cell = tl.minimum(place.to(tl.int32), SIZE - 2)
    return b_value, cell, place - cell.to(tl.float32)


@triton.jit
def _entry(p_table, o_entry, m_pixel):
    return tl.load(p_table + o_entry, mask=m_pixel, other=0.0).to(tl.float32)


@triton.jit
def _between(low, high, fraction):
    return low + (high - low) * fraction


@triton.jit
def _order(r, g, b, SIZE: tl.constexpr):
    """Sorted fractions, and the steps of the leading and of the lacking axis in a table's plane."""
    high = tl.maximum(r, tl.maximum(g, b))
    low = tl.minimum(r, tl.minimum(g, b))
    middle = tl.maximum(tl.minimum(r, g), tl.minimum(tl.maximum(r, g), b))
    leading = tl.where(r == high, 1, tl.where(g == high, SIZE, SIZE * SIZE))
    lacking = tl.where(b == low, SIZE * SIZE, tl.where(g == low, SIZE, 1))
    return high, middle, low, leading, lacking


@triton.autotune(CONFIGS, key=["pixels"])
@triton.jit
def lookup_kernel(
    p_image, p_table, p_result, pixels, table_stride, SIZE: tl.constexpr, TETRAHEDRAL: tl.constexpr, BLOCK: tl.constexpr
):
    blocks = tl.cdiv(pixels, BLOCK)
    i_image = (tl.program_id(0) // blocks).to(tl.int64)
    # [BLOCK]
    o_pixel = (tl.program_id(0) % blocks).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    m_pixel = o_pixel < pixels
    p_image += i_image * 3 * pixels
    p_result += i_image * 3 * pixels
    p_table += i_image * table_stride
    red, cell_r, r = _load(p_image, o_pixel, m_pixel, SIZE)
    green, cell_g, g = _load(p_image + pixels, o_pixel, m_pixel, SIZE)
    blue, cell_b, b = _load(p_image + pixels + pixels, o_pixel, m_pixel, SIZE)
    poison = tl.where(red == red, 0.0, red) + tl.where(green == green, 0.0, green) + tl.where(blue == blue, 0.0, blue)
    o_entry = (cell_b * SIZE + cell_g) * SIZE + cell_r
    high, middle, low, leading, lacking = _order(r, g, b, SIZE)
    for c in tl.static_range(3):
        p_plane = p_table + c * SIZE * SIZE * SIZE
        if TETRAHEDRAL:
            last = o_entry + 1 + SIZE + SIZE * SIZE
            b_result = (1.0 - high) * _entry(p_plane, o_entry, m_pixel)
            b_result += (high - middle) * _entry(p_plane, o_entry + leading, m_pixel)
            b_result += (middle - low) * _entry(p_plane, last - lacking, m_pixel)
            b_result += low * _entry(p_plane, last, m_pixel)
        else:
            far = o_entry + SIZE * SIZE
            b_00 = _between(_entry(p_plane, o_entry, m_pixel), _entry(p_plane, o_entry + 1, m_pixel), r)
            b_01 = _between(_entry(p_plane, o_entry + SIZE, m_pixel), _entry(p_plane, o_entry + SIZE + 1, m_pixel), r)
            b_10 = _between(_entry(p_plane, far, m_pixel), _entry(p_plane, far + 1, m_pixel), r)
            b_11 = _between(_entry(p_plane, far + SIZE, m_pixel), _entry(p_plane, far + SIZE + 1, m_pixel), r)
            b_result = _between(_between(b_00, b_01, g), _between(b_10, b_11, g), b)
        tl.store(p_result + o_pixel, (b_result + poison).to(p_result.dtype.element_ty), mask=m_pixel)
        p_result += pixels


@triton.jit
def _inside(value, gradient, SIZE: tl.constexpr):
    # as torch's clamp: the ends still pass the gradient on
    return tl.where((value >= 0.0) & (value <= 1.0), gradient * (SIZE - 1), 0.0)


@triton.autotune(CONFIGS, key=["pixels"], reset_to_zero=["p_to_table"])
@triton.jit
def lookup_backward_kernel(
    p_image,
    p_table,
    p_gradient,
    p_to_image,
    p_to_table,
    pixels,
    table_stride,
    SIZE: tl.constexpr,
    TETRAHEDRAL: tl.constexpr,
    BLOCK: tl.constexpr,
):
    blocks = tl.cdiv(pixels, BLOCK)
    i_image = (tl.program_id(0) // blocks).to(tl.int64)
    # [BLOCK]
    o_pixel = (tl.program_id(0) % blocks).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    m_pixel = o_pixel < pixels
    p_image += i_image * 3 * pixels
    p_gradient += i_image * 3 * pixels
    p_to_image += i_image * 3 * pixels
    p_table += i_image * table_stride
    p_to_table += i_image * table_stride
    red, cell_r, r = _load(p_image, o_pixel, m_pixel, SIZE)
    green, cell_g, g = _load(p_image + pixels, o_pixel, m_pixel, SIZE)
    blue, cell_b, b = _load(p_image + pixels + pixels, o_pixel, m_pixel, SIZE)
    o_entry = (cell_b * SIZE + cell_g) * SIZE + cell_r
    high, middle, low, leading, lacking = _order(r, g, b, SIZE)
    to_r = tl.zeros([BLOCK], tl.float32)
    to_g = tl.zeros([BLOCK], tl.float32)
    to_b = tl.zeros([BLOCK], tl.float32)
    for c in tl.static_range(3):
        p_plane = p_table + c * SIZE * SIZE * SIZE
        p_to_plane = p_to_table + c * SIZE * SIZE * SIZE
        b_gradient = tl.load(p_gradient + o_pixel, mask=m_pixel, other=0.0).to(tl.float32)
        p_gradient += pixels
        if TETRAHEDRAL:
            last = o_entry + 1 + SIZE + SIZE * SIZE
            b_0 = _entry(p_plane, o_entry, m_pixel)
            b_1 = _entry(p_plane, o_entry + leading, m_pixel)
            b_2 = _entry(p_plane, last - lacking, m_pixel)
            b_3 = _entry(p_plane, last, m_pixel)
            to_high = b_gradient * (b_1 - b_0)
            to_middle = b_gradient * (b_2 - b_1)
            to_low = b_gradient * (b_3 - b_2)
            to_r += tl.where(leading == 1, to_high, tl.where(lacking == 1, to_low, to_middle))
            to_g += tl.where(leading == SIZE, to_high, tl.where(lacking == SIZE, to_low, to_middle))
            to_b += tl.where(leading == SIZE * SIZE, to_high, tl.where(lacking == SIZE * SIZE, to_low, to_middle))
            tl.atomic_add(p_to_plane + o_entry, b_gradient * (1.0 - high), mask=m_pixel)
            tl.atomic_add(p_to_plane + o_entry + leading, b_gradient * (high - middle), mask=m_pixel)
            tl.atomic_add(p_to_plane + last - lacking, b_gradient * (middle - low), mask=m_pixel)
            tl.atomic_add(p_to_plane + last, b_gradient * low, mask=m_pixel)
        else:
            for db in tl.static_range(2):
                for dg in tl.static_range(2):
                    o_pair = o_entry + db * SIZE * SIZE + dg * SIZE
                    b_low = _entry(p_plane, o_pair, m_pixel)
                    b_high = _entry(p_plane, o_pair + 1, m_pixel)
                    weight_b = b if db else 1.0 - b
                    weight_g = g if dg else 1.0 - g
                    b_value = b_gradient * _between(b_low, b_high, r)
                    to_r += b_gradient * (b_high - b_low) * weight_g * weight_b
                    to_g += b_value * weight_b * (1.0 if dg else -1.0)
                    to_b += b_value * weight_g * (1.0 if db else -1.0)
                    b_weight = b_gradient * weight_g * weight_b
                    tl.atomic_add(p_to_plane + o_pair, b_weight * (1.0 - r), mask=m_pixel)
                    tl.atomic_add(p_to_plane + o_pair + 1, b_weight * r, mask=m_pixel)
    tl.store(p_to_image + o_pixel, _inside(red, to_r, SIZE), mask=m_pixel)
    tl.store(p_to_image + pixels + o_pixel, _inside(green, to_g, SIZE), mask=m_pixel)
    tl.store(p_to_image + pixels + pixels + o_pixel, _inside(blue, to_b, SIZE), mask=m_pixel)


def _table_stride(table: Tensor) -> int:
    return table[0].numel() if table.dim() == 5 and table.shape[0] > 1 else 0


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor, table: Tensor, tetrahedral: bool) -> Tensor:
        image, table = image.contiguous(), table.contiguous()
        ctx.save_for_backward(image, table)
        ctx.tetrahedral = tetrahedral
        result = torch.empty_like(image)
        pixels = image.shape[2] * image.shape[3]
        if result.numel():
            with on_device(image):
                lookup_kernel[lambda meta: (triton.cdiv(pixels, meta["BLOCK"]) * image.shape[0],)](
                    image, table, result, pixels, _table_stride(table), SIZE=table.shape[-1], TETRAHEDRAL=tetrahedral
                )
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        image, table = ctx.saved_tensors
        to_image = torch.zeros(image.shape, dtype=torch.float32, device=image.device)
        to_table = torch.zeros(table.shape, dtype=torch.float32, device=image.device)
        pixels = image.shape[2] * image.shape[3]
        if gradient.numel():
            with on_device(image):
                lookup_backward_kernel[lambda meta: (triton.cdiv(pixels, meta["BLOCK"]) * image.shape[0],)](
                    image,
                    table,
                    gradient.contiguous(),
                    to_image,
                    to_table,
                    pixels,
                    _table_stride(table),
                    SIZE=table.shape[-1],
                    TETRAHEDRAL=ctx.tetrahedral,
                )
        return to_image.to(image.dtype), to_table.to(table.dtype), None


def lookup(image: Tensor, table: Tensor, interpolation: str) -> Tensor:
    """See `api.lookup`."""
    return _Lookup.apply(image, table, interpolation == "tetrahedral")  # type: ignore[no-any-return, no-untyped-call]
