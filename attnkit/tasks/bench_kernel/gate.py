"""The correctness gate: no kernel is timed before its answers were compared with the reference in float64."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .kernels import Kernel

# scores of the reference in memory at once; larger cases are checked on some of their rows
MOST_PAIRS = 1 << 25
FEWEST_ROWS = 16
# largest error that passes, as a share of the largest right value: some hundred roundings of the type
BOUNDS = {"float64": 1e-9, "float32": 2e-4, "float16": 1e-2, "bfloat16": 6e-2}


@dataclass(frozen=True)
class Checked:
    """error: largest deviation over the largest right value, of the output and of each gradient; size: what was
    compared ("full", "64 of 16384 rows", "at 2048 tokens"); first_seconds: what the first call took beyond the
    second (compiling, tuning, moving a map to the device)."""

    error: float
    size: str
    bound: float
    first_seconds: float

    @property
    def right(self) -> bool:
        return self.error <= self.bound


def check(kernel: Kernel, direction: str, seed: int, most_pairs: int = MOST_PAIRS) -> Checked:
    """Compare one run of `kernel` with the right answer; with gradients unless the direction is "fwd".

    Where the reference would hold more than `most_pairs` scores, only some rows are compared, first and last among
    them: over all keys, at the full size of the kernel; a kernel that cannot be cut by rows is compared at a smaller
    shape, which its size names. The gradient of the output is zero in all other rows, so that
    the gradients of keys and values follow from these rows alone.
    """
    if kernel.pairs > most_pairs and kernel.smaller is not None:
        reduced, size = kernel.smaller(most_pairs)
        return replace(check(reduced, direction, seed, reduced.pairs), size=size)
    rows = sample_rows(kernel, seed, most_pairs)
    backward = direction != "fwd"
    exact = tuple(_tokens(tensor.detach(), kernel).double().requires_grad_(backward) for tensor in kernel.inputs)
    with torch.set_grad_enabled(backward):
        expected = kernel.expected(exact, rows)
    dtype, device = kernel.inputs[0].dtype, expected.device
    generator = torch.Generator(device).manual_seed(seed)
    # what is rounded on its way into the kernel is rounded for the reference too
    upstream = torch.randn(expected.shape, generator=generator, dtype=torch.float64, device=device).to(dtype)
    shape = (expected.shape[0], kernel.rows, *expected.shape[2:])
    full = upstream if rows is None else upstream.new_zeros(shape).index_copy_(1, rows, upstream)
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        got = _once(kernel, full if backward else None)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
    # the second answers are compared: some mistakes show only once something is reused
    output = got[0] if rows is None else got[0].index_select(1, rows)
    errors = [error_of(output, expected.detach())]
    if backward:
        right = torch.autograd.grad(expected, exact, upstream.double())
        errors += [error_of(one, two) for one, two in zip(got[1:], right, strict=True)]
    size = "full" if rows is None else f"{len(rows)} of {kernel.rows} rows"
    bound = BOUNDS[str(dtype).removeprefix("torch.")]
    return Checked(max(errors), size, bound, max(0.0, seconds[0] - seconds[1]))


def _once(kernel: Kernel, upstream: Tensor | None) -> Sequence[Tensor]:
    """The output, and the gradients where the output has one; all in layout "tokens"."""
    if upstream is None:
        with torch.no_grad():
            return [_tokens(kernel.run(*kernel.inputs), kernel)]
    inputs = tuple(tensor.detach().requires_grad_() for tensor in kernel.inputs)
    output = _tokens(kernel.run(*inputs), kernel)
    gradients = torch.autograd.grad(output, inputs, upstream)
    return [output.detach(), *(_tokens(one, kernel) for one in gradients)]


def sample_rows(kernel: Kernel, seed: int, most_pairs: int) -> Tensor | None:
    """The rows that are compared, or None for all: as many as `most_pairs` allows, spread over the whole length."""
    if kernel.pairs <= most_pairs:
        return None
    count = min(kernel.rows, max(FEWEST_ROWS, most_pairs * kernel.rows // kernel.pairs))
    generator = torch.Generator().manual_seed(seed)
    # one from each of `count` equal parts, so that no region is left out
    edges = torch.linspace(0, kernel.rows, count + 1).long()
    widths = edges.diff()
    rows = edges[:-1] + (torch.rand(count, generator=generator) * widths).long()
    rows[0], rows[-1] = 0, kernel.rows - 1
    return rows.to(kernel.inputs[0].device)


def error_of(got: Tensor, expected: Tensor) -> float:
    """Largest deviation over the largest right value; infinite where a number is none or the shapes differ."""
    if got.shape != expected.shape:
        return math.inf
    if not expected.numel():
        return 0.0
    deviation = (got.double() - expected).abs().max().item()
    largest = expected.abs().max().item()
    return deviation / max(largest, 1e-12) if math.isfinite(deviation) else math.inf


def _tokens(tensor: Tensor, kernel: Kernel) -> Tensor:
    return tensor.transpose(1, 2) if kernel.layout == "heads" else tensor
