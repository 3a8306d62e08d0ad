"""Method llf: the classic fast local Laplacian filter on log luminance, without weights.

Paris, Hasinoff and Kautz, "Local Laplacian filters" (2011 / CACM 2015), section on tone mapping: filter the logarithm
of intensity with sigma = log 2.5, put the colour ratios back, bring the result into a fixed output range, apply the
display's gamma. The fast form is that of Aubry et al. (2014).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from . import operators

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# sigma: as a ratio of intensities; range: output range, light to dark; steps: references per sigma
DEFAULTS: dict[str, float] = {"alpha": 0.8, "beta": 0.2, "sigma": 2.5, "range": 100.0, "steps": 2.0}
LIMITS: dict[str, tuple[float, float]] = {
    "alpha": (0.05, 4.0),
    "beta": (0.0, 4.0),
    "sigma": (1.05, 100.0),
    "range": (2.0, 1e6),
    "steps": (0.5, 8.0),
}
# light this far (stops) below the brightest is treated as equally dark: sensors and half floats hold no more
_DEPTH_STOPS = 20.0
_PERCENTILES = (0.5, 99.5)
_SAMPLES = 1_000_000


def render(
    pixels: NDArray[Any],
    settings: Mapping[str, float],
    *,
    strength: float = 1.0,
    parameters: Mapping[str, Any] | None = None,
) -> tuple[NDArray[Any], dict[str, Any]]:
    """Linear display light (rows, columns, 3) float32 in 0..1, and what to record.

    Args:
        pixels: finite non-negative linear light (rows, columns, 3) float32.
        settings: values for keys of DEFAULTS.
        strength: 0 leaves alpha and beta at 1 (no local change, only the range), 1 takes them as they are, 2 goes twice
            as far.
        parameters: `white` and `scale` to use instead of the picture's own.
    """
    import cv2
    import numpy as np

    kind, shown = operators.flat_frame(pixels)
    if shown is not None:
        return shown, {"degenerate_frame": kind}
    values = {**DEFAULTS, **settings}
    light, stops = _log_light(pixels)
    filtered = _filter(stops, values, strength)
    found = dict(parameters) if parameters is not None else _range(filtered, values["range"])
    wanted: Any = cv2.exp((filtered - np.float32(found["white"])) * np.float32(found["scale"]))
    display = pixels * (wanted / light)[..., None]
    _into_gamut(display, np.minimum(wanted, np.float32(1.0)))
    return np.clip(display, 0.0, 1.0, out=display), {"parameters": {key: float(f"{x:.6g}") for key, x in found.items()}}


def _into_gamut(display: NDArray[Any], wanted: NDArray[Any]) -> None:
    """Mix colours brighter than a screen can show with the grey of their luminance, in place.

    Cutting off single channels instead would turn an orange sun yellow.
    """
    import numpy as np

    over = np.nonzero(display.max(axis=2) > 1.0)
    grey = wanted[over][:, None]
    colour = display[over]
    excess = np.maximum(colour.max(axis=1, keepdims=True) - grey, np.float32(1e-9))
    display[over] = grey + (colour - grey) * ((1.0 - grey) / excess)


def parameters(pixels: NDArray[Any], settings: Mapping[str, float], *, strength: float = 1.0) -> dict[str, float]:
    """`white` (natural log of the filtered luminance shown as 1) and `scale` (slope of the log range) of a picture."""
    values = {**DEFAULTS, **settings}
    if operators.flat_frame(pixels)[0] is not None:
        return {"white": math.log(max(float(pixels.max()), 1.0)), "scale": 1.0}
    return _range(_filter(_log_light(pixels)[1], values, strength), values["range"])


def _log_light(pixels: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Luminance (rows, columns), with a floor far below the brightest, and its natural logarithm."""
    import cv2
    import numpy as np

    light: Any = operators.luminance(pixels)
    light = np.maximum(light, np.float32(max(float(light.max()) * 2.0**-_DEPTH_STOPS, 1e-37)))
    logarithm: Any = cv2.log(light)
    return light, logarithm


def _filter(stops: NDArray[np.float32], values: Mapping[str, float], strength: float) -> NDArray[np.float32]:
    from attnkit_kernels.image import local_laplacian

    sigma = math.log(values["sigma"])
    curve = local_laplacian.PowerCurve(
        sigma,
        alpha=max(1.0 + (values["alpha"] - 1.0) * strength, 0.05),
        beta=max(1.0 + (values["beta"] - 1.0) * strength, 0.0),
    )
    low, high = float(stops.min()), float(stops.max())
    if min(stops.shape) < 4 or high - low < 1e-6:
        return stops
    references = max(2, math.ceil((high - low) / sigma * values["steps"]) + 1)
    # down to a pixel or two: contrast between far parts of the picture is an edge like any other
    levels = max(1, math.ceil(math.log2(max(stops.shape))) - 1)
    return local_laplacian.filter(stops[None, None], levels, curve, references, low=low, high=high)[0, 0]


def _range(filtered: NDArray[np.float32], output_range: float) -> dict[str, float]:
    """White at the 99.5th percentile; the range down to the 0.5th shrunk to the output range where it is larger."""
    import numpy as np

    step = max(1, math.isqrt(max(1, filtered.size // _SAMPLES)))
    low, high = np.percentile(filtered[::step, ::step], _PERCENTILES)
    return {"white": float(high), "scale": min(1.0, math.log(output_range) / max(float(high - low), 1e-6))}
