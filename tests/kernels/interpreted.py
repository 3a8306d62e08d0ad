"""Run the Triton kernels of the image operators interpreted on a CPU, beside the reference.

Run as a script with TRITON_INTERPRET=1 in the environment (triton reads it when it is imported, so a test process
cannot switch); prints one JSON document: largest difference from the reference for each case.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterator
from functools import partial

import torch
from attnkit_kernels.dispatch import ImplementationError
from attnkit_kernels.image import laplacian, local_laplacian, lut3d, resolve_impl
from attnkit_kernels.image.local_laplacian import GaussianCurve, PowerCurve
from torch import Tensor

GENERATOR = torch.Generator().manual_seed(0)
CURVES = [GaussianCurve(0.2, 1.0), PowerCurve(0.2, 1.0, 0.4), PowerCurve(0.2, 0.5, 0.4)]
SIZES = [(1, 1), (1, 2), (2, 1), (2, 3), (3, 4), (5, 2), (17, 18)]
PARAMETERS = [(2, 1, 5, 7), (1, 3, 1, 1), (2, 3, 5, 7), (1, 1, 1, 1)]


def uniform(*shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    return torch.rand(shape, generator=GENERATOR) * (high - low) + low


def difference(one: list[Tensor], other: list[Tensor]) -> float:
    """Largest difference; a NaN in one only is infinite."""
    worst = 0.0
    for first, second in zip(one, other, strict=True):
        if first.dtype != second.dtype or first.shape != second.shape or not torch.equal(first.isnan(), second.isnan()):
            return float("inf")
        gap = (first.double() - second.double()).nan_to_num(0).abs()
        worst = max(worst, float(gap.max()) if gap.numel() else 0.0)
    return worst


def beside(run: Callable[[str], list[Tensor]]) -> float:
    return difference(run("triton"), run("reference"))


def with_gradients(run: Callable[[str], Tensor], inputs: list[Tensor]) -> float:
    """Difference of results and of the gradients of a random weighting of them."""
    weights = uniform(*run("reference").shape, low=-1)

    def both(impl: str) -> list[Tensor]:
        for tensor in inputs:
            tensor.grad = None
        result = run(impl)
        result.backward(weights.to(result.dtype))
        return [result.detach(), *(tensor.grad for tensor in inputs if tensor.grad is not None)]

    return beside(both)


def pyramid_cases() -> Iterator[tuple[str, float]]:
    for rows, columns in SIZES:
        image = uniform(1, 2, rows, columns)
        yield f"decompose {rows}x{columns}", beside(lambda impl, x=image: laplacian.decompose(x, 2, impl=impl))
        bands = laplacian.decompose(image, 2, impl="reference")
        yield f"reconstruct {rows}x{columns}", beside(lambda impl, b=bands: [laplacian.reconstruct(b, impl=impl)])
        yield f"up {rows}x{columns}", beside(lambda impl, x=image: [laplacian.up(x, impl=impl)])
    for dtype in (torch.float16, torch.bfloat16):
        image = uniform(1, 3, 9, 6).to(dtype)
        yield f"down {dtype}", beside(lambda impl, x=image: [laplacian.down(x, impl=impl)])
    image = uniform(1, 1, 9, 9)
    image[..., 4, 4] = float("nan")
    yield "decompose nan", beside(lambda impl: laplacian.decompose(image, 1, impl=impl))
    yield "decompose empty", beside(lambda impl: laplacian.decompose(image[:0], 1, impl=impl))


def lookup_cases() -> Iterator[tuple[str, float]]:
    for mode in lut3d.INTERPOLATIONS:
        table = uniform(3, 5, 5, 5)
        for name, tables in (("one", table), ("own", uniform(2, 3, 5, 5, 5)), ("coarsest", uniform(3, 2, 2, 2))):
            inputs = [uniform(2, 3, 6, 9, low=-0.2, high=1.2).requires_grad_(), tables.requires_grad_()]
            yield (
                f"lookup {mode} {name}",
                with_gradients(lambda impl, i=inputs, m=mode: lut3d.lookup(*i, m, impl=impl), inputs),
            )
        plain = table.detach()

        def run(impl: str, x: Tensor, t: Tensor = plain, m: str = mode) -> list[Tensor]:
            return [lut3d.lookup(x, t, m, impl=impl)]

        for dtype in (torch.float16, torch.bfloat16):
            image = uniform(1, 3, 6, 9).to(dtype)
            yield f"lookup {mode} {dtype}", beside(partial(run, x=image))
        image = uniform(1, 3, 4, 5)
        image[0, :, 1, 1:4] = torch.tensor(
            [[float("nan"), 0.5, 0.5], [0.5, float("inf"), 0.5], [0.5, 0.5, -float("inf")]]
        )
        yield f"lookup {mode} nan", beside(partial(run, x=image))
        yield f"lookup {mode} empty", beside(partial(run, x=image[:0]))


def remap_cases() -> Iterator[tuple[str, float]]:
    for form, shape in itertools.product(local_laplacian.FORMS, PARAMETERS):
        inputs = [uniform(2, 3, 5, 7, low=-0.4, high=1.4), uniform(2, 3, 5, 7, low=-0.6, high=0.6)]
        inputs += [uniform(*shape, low=0.05, high=2.0), uniform(*shape, low=-0.8, high=1.5)]
        inputs = [tensor.requires_grad_() for tensor in inputs]
        name = f"remap {form} {list(shape)}"
        yield name, with_gradients(lambda impl, i=inputs, f=form: local_laplacian.remap(*i, 4, f, impl=impl), inputs)
    for form, dtype in itertools.product(local_laplacian.FORMS, (torch.float16, torch.bfloat16)):
        halves = [uniform(1, 3, 5, 7).to(dtype), uniform(1, 3, 5, 7, low=-0.5, high=0.5).to(dtype)]
        name = f"remap {form} {dtype}"
        yield name, beside(lambda impl, h=halves, f=form: [local_laplacian.remap(*h, 0.4, 0.7, form=f, impl=impl)])
    for form in local_laplacian.FORMS:
        guide, band = uniform(1, 1, 3, 4), uniform(1, 1, 3, 4, low=-0.5, high=0.5)
        sigma, strength = torch.zeros(1, 1, 3, 4), torch.ones(1, 1, 3, 4)
        guide[..., 0, 0] = band[..., 0, 1] = sigma[..., 0, 2] = strength[..., 0, 3] = float("nan")
        inputs = [guide, band, sigma, strength]
        yield f"remap {form} nan", beside(lambda impl, i=inputs, f=form: [local_laplacian.remap(*i, form=f, impl=impl)])
        empty = band[:0]
        run = lambda impl, e=empty, f=form: [local_laplacian.remap(e, e, 1.0, 1.0, form=f, impl=impl)]  # noqa: E731
        yield f"remap {form} empty", beside(run)


def filter_cases() -> Iterator[tuple[str, float]]:
    for curve in CURVES:
        image = uniform(2, 1, 9, 14, low=-1.0, high=2.0)
        run = lambda impl, x=image, c=curve: [local_laplacian.filter(x, 2, c, 3, low=-0.5, high=1.5, impl=impl)]  # noqa: E731
        yield f"filter {curve}", beside(run)
    yield "filter empty", beside(lambda impl: [local_laplacian.filter(image[:0], 2, CURVES[0], 4, impl=impl)])


def refusals() -> Iterator[tuple[str, str]]:
    """What the kernels without a backward pass answer while autograd records, and what auto picks meanwhile."""
    recording = torch.zeros(1, 3, 4, 4, requires_grad=True)
    for name, call in (
        ("laplacian.down", lambda: laplacian.down(recording, impl="triton")),
        ("local_laplacian.filter", lambda: local_laplacian.filter(recording, 1, CURVES[0], impl="triton")),
        ("float64", lambda: laplacian.down(recording.detach().double(), impl="triton")),
    ):
        try:
            call()
        except ImplementationError as error:
            yield name, str(error)
    yield "auto", resolve_impl("laplacian.down", recording.detach())


def main() -> None:
    torch.set_num_threads(1)
    cases = [pair for part in (pyramid_cases, lookup_cases, remap_cases, filter_cases) for pair in part()]
    json.dump({"differences": dict(cases), "refusals": dict(refusals())}, sys.stdout)


if __name__ == "__main__":
    main()
