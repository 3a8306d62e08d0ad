"""What every model of the registry can do, and the helpers that numpy and torch models share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from attnkit.runtime.errors import UsageError

if TYPE_CHECKING:
    import numpy as np


class Model(Protocol):
    """A model built from a config: the verbs that registry, verification and tests use."""

    config: dict[str, Any]
    dtypes: tuple[str, ...]

    def arrays(self) -> dict[str, np.ndarray]:
        """All that the weight file holds, by name."""

    def load_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take the arrays of a weight file; missing or unknown names and wrong shapes are a UsageError."""

    def example(self, rows: int = 48, columns: int = 64) -> np.ndarray:
        """An input by formula, the same everywhere: for tests and for the golden output."""

    def run(self, inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Named outputs for an input; deterministic."""

    def as_dtype(self, dtype: str) -> Model:
        """The same model computing in another of its dtypes."""

    def count_parameters(self) -> int:
        """Numbers that training may change."""

    def count_flops(self, rows: int, columns: int) -> int:
        """Floating-point operations of one forward pass, a multiply and an add counted as two."""


def check_arrays(expected: Mapping[str, tuple[int, ...]], given: Mapping[str, np.ndarray], *, model: str) -> None:
    """Raise a UsageError unless the given arrays have just the expected names and shapes."""
    missing = sorted(set(expected) - set(given))
    unknown = sorted(set(given) - set(expected))
    for kind, names in (("lacks", missing), ("has the unknown", unknown)):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise UsageError(f"{model}: the weight set {kind} array {names[0]!r}{more}; is it another architecture?")
    for name, shape in expected.items():
        if tuple(given[name].shape) != tuple(shape):
            raise UsageError(f"{model}: array {name!r} has shape {tuple(given[name].shape)}, expected {tuple(shape)}")


def wave_picture(rows: int, columns: int) -> np.ndarray:
    """A linear colour picture in 0..1 by formula, float64 [rows, columns, 3]: waves, a ramp and a soft step.

    It is the picture of the published model's parity numbers, which were taken at 480 rows and 640 columns.
    """
    import numpy as np

    y, x = np.mgrid[0:rows, 0:columns].astype(np.float64)
    step = 1 / (1 + np.exp(-(x - columns / 2) / 20))
    red = (0.5 + 0.5 * np.sin(0.021 * x + 0.013 * y)) * (0.2 + 0.8 * step)
    green = ((x + y) / max(rows + columns - 2, 1)) ** 2
    blue = (0.5 + 0.5 * np.cos(0.05 * y) * np.sin(0.03 * x)) * (1 - 0.7 * step)
    return np.stack([red, green, blue], axis=-1)
