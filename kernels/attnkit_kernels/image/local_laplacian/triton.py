"""Triton kernels of the remapping, forward and backward, and of the fast filter, forward only.

A program computes BLOCK samples of one plane. float16 and bfloat16 are computed in float32. Runs interpreted on a CPU
with TRITON_INTERPRET=1.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...tiles import choices, on_device, plane_strides
from ..laplacian import triton as laplacian
from ..laplacian.triton import up_at
from .curves import Curve, GaussianCurve

CONFIGS = choices((256, 4), (512, 8))


@triton.jit
def _decay(exponent):
    # a NaN fails the comparison and stays
    return tl.exp(-tl.where(exponent > 80.0, 80.0, exponent))


@triton.jit
def _slope(exponent):
    """Derivative of `_decay` to the exponent."""
    return tl.where(exponent > 80.0, 0.0, -tl.exp(-exponent))


@triton.jit
def _hats(b_guide, references):
    """Lower and upper weight, the index of the lower reference, and which of the two exist; [BLOCK] each."""
    top = (references - 1).to(tl.float32)
    place = b_guide * top
    place = tl.where(place < -1.0, -1.0, tl.where(place > top + 1.0, top + 1.0, place))
    first = tl.floor(place)
    upper = place - first
    m_lower = ((first >= 0.0) & (first <= top)) | (place != place)
    m_upper = (first < top) | (place != place)
    # -1 and `references` themselves are beyond the reach of a hat, where the slope is 0 too
    m_reach = (b_guide * top > -1.0) & (b_guide * top < top + 1.0)
    return (
        tl.where(m_lower, 1.0 - upper, 0.0),
        tl.where(m_upper, upper, 0.0),
        first,
        m_lower & m_reach,
        m_upper & m_reach,
    )


@triton.autotune(CONFIGS, key=["pixels"])
@triton.jit
def remap_kernel(
    p_guide,
    p_band,
    p_sigma,
    p_strength,
    p_result,
    pixels,
    channels,
    references,
    sigma_batch,
    sigma_channel,
    sigma_pixel,
    strength_batch,
    strength_channel,
    strength_pixel,
    RELEASED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    blocks = tl.cdiv(pixels, BLOCK)
    i_plane = (tl.program_id(0) // blocks).to(tl.int64)
    # [BLOCK]
    o_pixel = (tl.program_id(0) % blocks).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    m_pixel = o_pixel < pixels
    o_band = i_plane * pixels + o_pixel
    i_batch = i_plane // channels
    i_channel = i_plane % channels
    o_sigma = i_batch * sigma_batch + i_channel * sigma_channel + o_pixel * sigma_pixel
    o_strength = i_batch * strength_batch + i_channel * strength_channel + o_pixel * strength_pixel
    b_value = tl.load(p_band + o_band, mask=m_pixel, other=0.0).to(tl.float32)
    b_sigma = tl.load(p_sigma + o_sigma, mask=m_pixel, other=1.0).to(tl.float32)
    b_strength = tl.load(p_strength + o_strength, mask=m_pixel, other=0.0).to(tl.float32)
    squared = 2.0 * b_sigma * b_sigma
    if RELEASED:
        b_guide = tl.load(p_guide + o_band, mask=m_pixel, other=0.0).to(tl.float32)
        lower, upper, first, _, _ = _hats(b_guide, references)
        step = 1.0 / (references - 1).to(tl.float32)
        detail = b_value - first * step
        b_value += lower * b_strength * detail * _decay(detail * detail * squared)
        detail = b_value - (first + 1.0) * step
        b_value += upper * b_strength * detail * _decay(detail * detail * squared)
    else:
        spread = tl.where(squared < 1e-20, 1e-20, squared)
        b_value *= 1.0 + b_strength * _decay(b_value * b_value / spread)
    tl.store(p_result + o_band, b_value.to(p_result.dtype.element_ty), mask=m_pixel)


@triton.autotune(CONFIGS, key=["pixels"])
@triton.jit
def remap_backward_kernel(
    p_guide,
    p_band,
    p_sigma,
    p_strength,
    p_gradient,
    p_to_guide,
    p_to_band,
    p_to_sigma,
    p_to_strength,
    pixels,
    channels,
    references,
    sigma_batch,
    sigma_channel,
    sigma_pixel,
    strength_batch,
    strength_channel,
    strength_pixel,
    RELEASED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    blocks = tl.cdiv(pixels, BLOCK)
    i_plane = (tl.program_id(0) // blocks).to(tl.int64)
    # [BLOCK]
    o_pixel = (tl.program_id(0) % blocks).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    m_pixel = o_pixel < pixels
    o_band = i_plane * pixels + o_pixel
    i_batch = i_plane // channels
    i_channel = i_plane % channels
    o_sigma = i_batch * sigma_batch + i_channel * sigma_channel + o_pixel * sigma_pixel
    o_strength = i_batch * strength_batch + i_channel * strength_channel + o_pixel * strength_pixel
    b_value = tl.load(p_band + o_band, mask=m_pixel, other=0.0).to(tl.float32)
    b_sigma = tl.load(p_sigma + o_sigma, mask=m_pixel, other=1.0).to(tl.float32)
    b_strength = tl.load(p_strength + o_strength, mask=m_pixel, other=0.0).to(tl.float32)
    b_gradient = tl.load(p_gradient + o_band, mask=m_pixel, other=0.0).to(tl.float32)
    squared = 2.0 * b_sigma * b_sigma
    if RELEASED:
        b_guide = tl.load(p_guide + o_band, mask=m_pixel, other=0.0).to(tl.float32)
        lower, upper, first, m_lower, m_upper = _hats(b_guide, references)
        top = (references - 1).to(tl.float32)
        # forward again: the value between the two steps is needed
        detail_1 = b_value - first / top
        exponent_1 = detail_1 * detail_1 * squared
        decay_1 = _decay(exponent_1)
        slope_1 = _slope(exponent_1)
        between = b_value + lower * b_strength * detail_1 * decay_1
        detail_2 = between - (first + 1.0) / top
        exponent_2 = detail_2 * detail_2 * squared
        decay_2 = _decay(exponent_2)
        slope_2 = _slope(exponent_2)
        b_middle = b_gradient * (1.0 + upper * b_strength * (decay_2 + 2.0 * exponent_2 * slope_2))
        to_band = b_middle * (1.0 + lower * b_strength * (decay_1 + 2.0 * exponent_1 * slope_1))
        to_upper = b_gradient * detail_2 * decay_2
        to_lower = b_middle * detail_1 * decay_1
        to_strength = upper * to_upper + lower * to_lower
        to_squared = b_gradient * upper * detail_2 * detail_2 * detail_2 * slope_2
        to_squared += b_middle * lower * detail_1 * detail_1 * detail_1 * slope_1
        to_sigma = to_squared * b_strength * 4.0 * b_sigma
        to_guide = tl.where(m_upper, to_upper, 0.0) - tl.where(m_lower, to_lower, 0.0)
        tl.store(p_to_guide + o_band, to_guide * b_strength * top, mask=m_pixel)
    else:
        spread = tl.where(squared < 1e-20, 1e-20, squared)
        exponent = b_value * b_value / spread
        decay = _decay(exponent)
        slope = _slope(exponent)
        # beyond the limit the exponent may be infinite, and the slope is 0 there
        reached = tl.where(exponent > 80.0, 0.0, exponent)
        to_band = b_gradient * (1.0 + b_strength * (decay + 2.0 * reached * slope))
        to_strength = b_gradient * b_value * decay
        to_sigma = b_gradient * b_value * b_strength * slope * -reached * 4.0 * b_sigma / spread
        to_sigma = tl.where(squared < 1e-20, 0.0, to_sigma)
    tl.store(p_to_band + o_band, to_band, mask=m_pixel)
    tl.store(p_to_sigma + o_band, to_sigma, mask=m_pixel)
    tl.store(p_to_strength + o_band, to_strength, mask=m_pixel)


class _Remap(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, guide: Tensor, band: Tensor, sigma: Tensor, strength: Tensor, references: int, released: bool
    ) -> Tensor:
        tensors = [tensor.contiguous() for tensor in (guide, band, sigma, strength)]
        ctx.save_for_backward(*tensors)
        ctx.references, ctx.released = references, released
        result = torch.empty_like(tensors[1])
        _launch(remap_kernel, tensors, [result], references, released)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        tensors = ctx.saved_tensors
        to_guide, to_band, to_sigma, to_strength = (
            torch.zeros(gradient.shape, dtype=torch.float32, device=gradient.device) for _ in range(4)
        )
        outputs = [gradient.contiguous(), to_guide, to_band, to_sigma, to_strength]
        _launch(remap_backward_kernel, tensors, outputs, ctx.references, ctx.released)
        guide, band, sigma, strength = tensors
        # a repeated parameter gets the sum over what it was repeated for
        return (
            to_guide.to(guide.dtype) if ctx.released else None,
            to_band.to(band.dtype),
            to_sigma.sum_to_size(sigma.shape).to(sigma.dtype),
            to_strength.sum_to_size(strength.shape).to(strength.dtype),
            None,
            None,
        )


def _launch(kernel: Any, tensors: list[Tensor], outputs: list[Tensor], references: int, released: bool) -> None:
    _, band, sigma, strength = tensors
    batch, channels, rows, columns = band.shape
    pixels = rows * columns
    if not band.numel():
        return
    with on_device(band):
        kernel[lambda meta: (triton.cdiv(pixels, meta["BLOCK"]) * batch * channels,)](
            *tensors,
            *outputs,
            pixels,
            channels,
            references,
            *plane_strides(sigma),
            *plane_strides(strength),
            RELEASED=released,
        )


def remap(guide: Tensor, band: Tensor, sigma: Tensor, strength: Tensor, references: int, form: str) -> Tensor:
    """See `api.remap`."""
    return _Remap.apply(guide, band, sigma, strength, references, form == "released")  # type: ignore[no-any-return, no-untyped-call]


@triton.autotune(CONFIGS, key=["count"])
@triton.jit
def curve_kernel(p_image, p_result, count, value, sigma, shape, beta, GAUSSIAN: tl.constexpr, BLOCK: tl.constexpr):
    """r(image) for one reference `value`; `shape` is the strength of a Gaussian curve, the alpha of a power curve."""
    # [BLOCK]
    o_sample = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    m_sample = o_sample < count
    b_image = tl.load(p_image + o_sample, mask=m_sample, other=0.0)
    detail = b_image - value
    if GAUSSIAN:
        b_result = b_image + shape * detail * _decay(detail * detail / (2.0 * sigma * sigma))
    else:
        size = tl.abs(detail)
        relative = size / sigma
        relative = tl.where(relative < 1e-12, 1e-12, relative)
        inside = sigma * tl.exp2(shape * tl.log2(relative))
        amount = tl.where(size > sigma, beta * (size - sigma) + sigma, inside)
        b_result = value + tl.where(detail > 0.0, amount, tl.where(detail < 0.0, -amount, detail))
    tl.store(p_result + o_sample, b_result, mask=m_sample)


@triton.autotune(CONFIGS, key=["rows", "columns"], restore_value=["p_result"])
@triton.jit
def accumulate_kernel(
    p_coarse,
    p_fine,
    p_guide,
    p_result,
    value,
    distance,
    low,
    high,
    rows,
    columns,
    small_rows,
    small_columns,
    BLOCK: tl.constexpr,
):
    """result += w(guide) (fine - up(coarse)) for one reference value."""
    count = rows * columns
    blocks = tl.cdiv(count, BLOCK)
    i_plane = (tl.program_id(0) // blocks).to(tl.int64)
    # [BLOCK]
    o_sample = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    m_sample = o_sample < count
    p_plane = p_coarse + i_plane * small_rows * small_columns
    b_up = up_at(p_plane, o_sample // columns, o_sample % columns, small_rows, small_columns, m_sample)
    o_result = i_plane * count + o_sample
    b_place = tl.load(p_guide + o_result, mask=m_sample, other=0.0)
    b_place = tl.where(b_place < low, low, tl.where(b_place > high, high, b_place))
    weight = 1.0 - tl.abs(b_place - value) / distance
    weight = tl.where(weight < 0.0, 0.0, weight)
    b_band = tl.load(p_fine + o_result, mask=m_sample, other=0.0) - b_up
    b_result = tl.load(p_result + o_result, mask=m_sample, other=0.0) + weight * b_band
    tl.store(p_result + o_result, b_result, mask=m_sample)


def filter(image: Tensor, levels: int, curve: Curve, references: int, low: float, high: float) -> Tensor:
    """See `api.filter`."""
    working = image.float().contiguous()
    if not working.numel():
        return image.clone()
    guides = laplacian.gaussian(working, levels)
    bands = [torch.zeros_like(guide) for guide in guides[:-1]]
    remapped = torch.empty_like(working)
    distance = (high - low) / (references - 1)
    gaussian = isinstance(curve, GaussianCurve)
    settings = (curve.strength, 0.0) if isinstance(curve, GaussianCurve) else (curve.alpha, curve.beta)
    count = working.numel()
    planes = image.shape[0] * image.shape[1]
    with on_device(image):
        for j in range(references if levels else 0):
            value = float(low + j * distance)
            curve_kernel[lambda meta: (triton.cdiv(count, meta["BLOCK"]),)](
                working, remapped, count, value, float(curve.sigma), *map(float, settings), GAUSSIAN=gaussian
            )
            pyramid = laplacian.gaussian(remapped, levels)
            for level in range(levels):
                size, small = guides[level].shape[2:], guides[level + 1].shape[2:]
                area = size[0] * size[1]
                accumulate_kernel[lambda meta, area=area: (triton.cdiv(area, meta["BLOCK"]) * planes,)](
                    pyramid[level + 1],
                    pyramid[level],
                    guides[level],
                    bands[level],
                    value,
                    float(distance),
                    float(low),
                    float(high),
                    *size,
                    *small,
                )
    return laplacian.reconstruct(*bands, guides[-1]).to(image.dtype)
