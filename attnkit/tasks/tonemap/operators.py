"""The classical operators linear, Drago, Reinhard and Mantiuk: OpenCV's, made to survive every frame.

OpenCV's own give NaN for a whole frame over one NaN or one infinite value, fail an assertion on constant, black and
small frames, and take only three channels of float32. Here each takes any non-negative frame of at least one pixel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import cv2
    from numpy.typing import NDArray

# OpenCV's Mantiuk builds a pyramid down to 3 pixels and fails on smaller frames; its solver wants some room
_LEAST_SIDE = 16
# relative luminance range below which a frame is one flat tone
_FLAT = 1e-6

DEFAULTS: dict[str, dict[str, float]] = {
    "linear": {"white": 100.0},
    "drago": {"bias": 0.85},
    "reinhard": {"intensity": 0.0, "light_adapt": 1.0, "color_adapt": 0.0},
    "mantiuk": {"scale": 0.7},
}
# what the papers and OpenCV allow; outside it the curves turn over or the solver fails
LIMITS: dict[str, tuple[float, float]] = {
    "linear.white": (0.0, 100.0),
    "drago.bias": (0.01, 0.99),
    "reinhard.intensity": (-8.0, 8.0),
    "reinhard.light_adapt": (0.0, 1.0),
    "reinhard.color_adapt": (0.0, 1.0),
    "mantiuk.scale": (0.01, 5.0),
}


def flat_frame(pixels: NDArray[Any]) -> tuple[str | None, NDArray[Any] | None]:
    """What to show of a frame without contrast, for which no operator is defined.

    Args:
        pixels: finite non-negative linear light (rows, columns, 3).

    Returns (None, None) for an ordinary frame, ("black", zeros) or ("constant", linear display light): a constant
    frame is shown as it is, scaled down so that no channel exceeds 1.
    """
    import numpy as np

    high = float(pixels.max())
    if high <= 0.0:
        return "black", np.zeros_like(pixels)
    light = luminance(pixels)
    brightest = float(light.max())
    if brightest - float(light.min()) > _FLAT * brightest:
        return None, None
    return "constant", pixels / np.float32(max(high, 1.0))


def luminance(pixels: NDArray[Any]) -> NDArray[Any]:
    """Rec.709 luminance (rows, columns) float32 of linear light (rows, columns, 3)."""
    import cv2
    import numpy as np

    weights = np.array([[0.2126, 0.7152, 0.0722]], dtype=np.float32)
    return cv2.transform(pixels, weights).reshape(pixels.shape[:2])


def render(pixels: NDArray[Any], operator: str, settings: Mapping[str, float]) -> tuple[NDArray[Any], dict[str, Any]]:
    """Linear display light (rows, columns, 3) float32 in 0..1 of one operator, and what is worth recording.

    Args:
        pixels: finite non-negative linear light (rows, columns, 3) float32, any size from one pixel.
        operator: one of DEFAULTS.
        settings: values for the keys of DEFAULTS[operator]; missing ones keep their default.

    A frame without contrast is shown as `flat_frame` says. The result has no gamma: OpenCV's gamma, like ours, comes
    last, so this is its picture with gamma 1.
    """
    import cv2
    import numpy as np

    values = {**DEFAULTS[operator], **settings}
    kind, shown = flat_frame(pixels)
    if shown is not None:
        return shown, {"degenerate_frame": kind}
    # every operator stretches the frame first, so a scale changes nothing but keeps squares from overflowing
    scaled = pixels / pixels.max()
    if operator == "linear":
        return _linear(scaled, values["white"]), {}
    tonemap: cv2.Tonemap
    if operator == "drago":
        tonemap = cv2.createTonemapDrago(1.0, 1.0, values["bias"])
    elif operator == "reinhard":
        tonemap = cv2.createTonemapReinhard(1.0, values["intensity"], values["light_adapt"], values["color_adapt"])
    else:
        tonemap = cv2.createTonemapMantiuk(1.0, values["scale"], 1.0)
    rows, columns = scaled.shape[:2]
    down, across = max(0, _LEAST_SIDE - rows), max(0, _LEAST_SIDE - columns)
    if down or across:
        scaled = np.pad(scaled, ((0, down), (0, across), (0, 0)), mode="edge")
    result = _quietly(tonemap, np.ascontiguousarray(scaled))[:rows, :columns]
    # what is left undefined are black pixels: 0 / 0 in the quotient of the colour and the luminance
    undefined = int(np.count_nonzero(~np.isfinite(result).all(axis=2)))
    if undefined:
        result = np.nan_to_num(result, nan=0.0, posinf=1.0, neginf=0.0)
    facts: dict[str, Any] = {"undefined_pixels_set_to_black": undefined} if undefined else {}
    return np.clip(result, 0.0, 1.0), facts


def _quietly(tonemap: cv2.Tonemap, scaled: NDArray[Any]) -> NDArray[Any]:
    """Run an operator without OpenCV 5's warning, printed once per process, about a change of its own matrices."""
    import cv2

    before = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
    try:
        return tonemap.process(scaled)
    finally:
        cv2.utils.logging.setLogLevel(before)


def _linear(scaled: NDArray[Any], white: float) -> NDArray[Any]:
    """Smallest value to 0, the `white` percentile of the channel values to 1: OpenCV's linear stretch at 100."""
    import numpy as np

    low = float(scaled.min())
    high = float(scaled.max() if white >= 100.0 else np.percentile(scaled, white))
    if high <= low:
        high = float(scaled.max())
    return np.clip((scaled - np.float32(low)) / np.float32(high - low), 0.0, 1.0)
