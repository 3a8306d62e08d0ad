"""Image operators: Laplacian pyramid, 3-D look-up tables, local Laplacian remapping.

float32 planar [batch, channels, rows, columns]; torch tensors or numpy arrays in, the same kind out. numpy with the
numba implementation never imports torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ..dispatch import Impl

PACKAGES = ("laplacian", "lut3d", "local_laplacian")


def resolve_impl(operator: str, *arrays: Any, impl: str | Impl = "auto") -> str:
    """Name of the implementation that `operator` runs for these arrays, for records and dry runs.

    `operator` is "laplacian.decompose", "lut3d.lookup", "local_laplacian.remap" and so on; `arrays` are the operator's
    array arguments. Raises ValueError for an unknown operator or an implementation that cannot take the arrays.

    >>> import numpy as np
    >>> resolve_impl("laplacian.decompose", np.zeros((1, 3, 8, 8), np.float32))
    'numba'
    """
    package, _, function = operator.partition(".")
    operators = import_module(f"{__name__}.{package}.api").OPERATORS if package in PACKAGES else {}
    if function not in operators:
        known = [f"{name}.{key}" for name in PACKAGES for key in import_module(f"{__name__}.{name}.api").OPERATORS]
        raise ValueError(f"operator: unknown {operator!r}; known: {', '.join(known)}")
    return str(operators[function].resolve(impl, *arrays).value)
