"""Which implementation of an operator runs: one enum, one rule, no silent fall-back.

Operators declare their implementations in order of preference; `Operator.resolve` picks one once, and the answer can be
asked for beforehand and written into a record. Nothing here imports torch, numba or triton.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np


class Impl(StrEnum):
    """Names that an `impl=` argument takes; not every operator has all of them."""

    AUTO = "auto"
    REFERENCE = "reference"
    TORCH = "torch"
    NUMBA = "numba"
    TRITON = "triton"
    FLEX = "flex"


class ImplementationError(ValueError):
    """The asked implementation is unknown, absent, or cannot take these arrays; the text lists what would work."""


@dataclass(frozen=True)
class Facts:
    """What the choice depends on: kind ("numpy", "torch"), device ("cpu", "cuda"), dtypes, whether autograd records."""

    kind: str
    device: str
    dtypes: tuple[str, ...]
    gradient: bool


def is_tensor(value: object) -> bool:
    """Whether `value` is a torch tensor, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def facts_of(*arrays: Any) -> Facts:
    """Facts of arrays that go into one operator; TypeError when kinds or devices are mixed or a value is no array."""
    kinds = []
    for array in arrays:
        if isinstance(array, np.ndarray):
            kinds.append("numpy")
        elif is_tensor(array):
            kinds.append("torch")
        else:
            raise TypeError(f"expected a numpy array or a torch tensor, got {type(array).__name__}")
    if len(set(kinds)) != 1:
        raise TypeError(f"all arrays must be of one kind, got {', '.join(kinds)}")
    if kinds[0] == "numpy":
        return Facts("numpy", "cpu", tuple(sorted({array.dtype.name for array in arrays})), False)
    devices = sorted({str(array.device) for array in arrays})
    if len(devices) != 1:
        raise TypeError(f"all tensors must be on one device, got {', '.join(devices)}")
    recording = sys.modules["torch"].is_grad_enabled() and any(array.requires_grad for array in arrays)
    dtypes = tuple(sorted({str(array.dtype).removeprefix("torch.") for array in arrays}))
    return Facts("torch", arrays[0].device.type, dtypes, recording)


Check = Callable[[Facts], str | None]


@cache
def _installed(module: str) -> bool:
    return find_spec(module) is not None


def _refused_dtype(facts: Facts, taken: Sequence[str]) -> str | None:
    refused = [name for name in facts.dtypes if name not in taken]
    return f"takes {', '.join(taken)}, not {refused[0]}" if refused else None


def takes_reference(facts: Facts) -> str | None:
    """Reason why eager torch cannot take these arrays, or None."""
    if not _installed("torch"):
        return "torch is not installed"
    return _refused_dtype(facts, ("float32", "float64", "float16", "bfloat16"))


def takes_numba(facts: Facts) -> str | None:
    """Reason why compiled CPU loops without a backward pass cannot take these arrays, or None."""
    if not _installed("numba"):
        return "numba is not installed"
    if facts.device != "cpu":
        return f"runs on cpu, not on {facts.device}"
    if facts.gradient:
        return "has no backward pass and autograd is recording (detach the input, or use torch.no_grad())"
    return _refused_dtype(facts, ("float32", "float64", "float16"))


def interpreted() -> bool:
    """Whether Triton kernels run interpreted on the CPU (TRITON_INTERPRET=1, set before triton is imported)."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes", "y")


def takes_triton(facts: Facts) -> str | None:
    """Reason why a Triton kernel with a backward pass cannot take these arrays, or None."""
    if not _installed("triton"):
        return "triton is not installed"
    if facts.kind != "torch":
        return "takes torch tensors, not numpy arrays"
    if facts.device != "cuda" and not (facts.device == "cpu" and interpreted()):
        return f"runs on cuda, not on {facts.device} (unless TRITON_INTERPRET=1 is set before the start)"
    return _refused_dtype(facts, ("float32", "float16", "bfloat16"))


def takes_triton_forward(facts: Facts) -> str | None:
    """As `takes_triton`, for a kernel that has no backward pass."""
    if facts.gradient:
        return "has no backward pass and autograd is recording (detach the input, or use torch.no_grad())"
    return takes_triton(facts)


def takes_flex(facts: Facts) -> str | None:
    """Reason why torch's FlexAttention cannot take these arrays, or None."""
    if facts.kind != "torch":
        return "takes torch tensors, not numpy arrays"
    if facts.device == "cpu" and facts.gradient:
        return "runs forward only on cpu and autograd is recording (detach the inputs, or use torch.no_grad())"
    if facts.device not in ("cpu", "cuda"):
        return f"runs on cpu and cuda, not on {facts.device}"
    return _refused_dtype(facts, ("float32", "float16", "bfloat16"))


class Operator:
    """One operator and its implementations, best first.

    `package` is the import name of the folder whose `reference.py`, `numba.py`, `triton.py` hold a function `function`
    each. Those modules are imported only when they run.
    """

    def __init__(self, package: str, function: str, implementations: dict[Impl, Check]) -> None:
        self.package = package
        self.function = function
        self.implementations = implementations

    @property
    def name(self) -> str:
        """Name of the operator in messages and records, for example "lut3d.lookup"."""
        return f"{self.package.rpartition('.')[2]}.{self.function}"

    def working(self, facts: Facts) -> list[Impl]:
        """Implementations that take arrays with these facts, best first."""
        return [impl for impl, check in self.implementations.items() if check(facts) is None]

    def resolve(self, impl: str | Impl, *arrays: Any) -> Impl:
        """The implementation that runs for `arrays`; ImplementationError when the asked one is unknown or cannot."""
        facts = facts_of(*arrays)
        working = self.working(facts)
        works = f"works here: {', '.join(working) or 'none'}"
        if impl == Impl.AUTO:
            # interpreting is a way to debug a kernel, never the fast choice
            fast = [candidate for candidate in working if candidate != Impl.TRITON or facts.device != "cpu"]
            if fast:
                return fast[0]
            reasons = "; ".join(f"{candidate} {check(facts)}" for candidate, check in self.implementations.items())
            raise ImplementationError(f"{self.name}: no implementation takes these arrays: {reasons}")
        if impl not in list(Impl):
            raise ImplementationError(f"{self.name}: unknown impl {impl!r}; known: {', '.join(Impl)}; {works}")
        chosen = Impl(impl)
        if chosen not in self.implementations:
            raise ImplementationError(f"{self.name}: has no impl {chosen.value!r}; {works}")
        reason = self.implementations[chosen](facts)
        if reason is not None:
            raise ImplementationError(f"{self.name}: impl {chosen.value!r} {reason}; {works}")
        return chosen

    def __call__(self, impl: str | Impl, arrays: Sequence[Any], *options: Any, **named: Any) -> Any:
        """Run on `arrays`, then `options`; the result is of the kind (numpy or torch) that came in."""
        chosen = self.resolve(impl, *arrays)
        run = getattr(import_module(f"{self.package}.{chosen.value}"), self.function)
        numpy_in = isinstance(arrays[0], np.ndarray)
        if chosen == Impl.NUMBA:
            if numpy_in:
                return run(*arrays, *options, **named)
            return _as_tensors(run(*[array.detach().numpy() for array in arrays], *options, **named))
        if numpy_in:
            return _as_numpy(run(*_as_tensors(list(arrays)), *options, **named))
        return run(*arrays, *options, **named)


def _as_tensors(value: Any) -> Any:
    import torch

    if isinstance(value, np.ndarray):
        # torch warns about read-only memory, and does not know negative strides
        usable = value.flags.writeable and all(stride >= 0 for stride in value.strides)
        return torch.from_numpy(value if usable else value.copy())
    return [_as_tensors(part) for part in value]


def _as_numpy(value: Any) -> Any:
    return [_as_numpy(part) for part in value] if isinstance(value, list) else value.numpy()
