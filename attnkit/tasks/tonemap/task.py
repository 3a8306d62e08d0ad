"""Tone mapping as a pure function: linear light in, a display picture out. No files, no terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from attnkit.runtime.errors import UsageError

from .cube import Cube
from .methods import METHODS, check_settings, method_named

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "METHODS",
    "OUTPUT_SPACES",
    "TonemapRequest",
    "TonemapResult",
    "check_request",
    "scene_parameters",
    "tonemap",
]

OUTPUT_SPACES = ("srgb", "display-p3")
INTERPOLATIONS = ("trilinear", "tetrahedral")


@dataclass(frozen=True)
class TonemapRequest:
    """One picture to be tone-mapped.

    pixels          (rows, columns, 3) float32, linear Rec.709 light, at least one pixel
    method          one of METHODS
    exposure        stops; above 0 is brighter
    gamma           exponent of the display; None is the method's own (2.2, or the sRGB curve for llf-lut)
    saturation      factor on the distance from grey, in linear display light
    strength        of the local detail, 1 is the method's own; for methods that have a local part
    output_space    "srgb" or "display-p3"
    model           registry name, path or hub id for llf-lut; None is the embedded model
    device, offline where that model runs, and whether the network may be asked for it
    lut             a .cube: one that takes linear light replaces the method, another is applied to its picture
    lut_interp      "tetrahedral" or "trilinear", for `lut` and the model's own tables
    parameters      global parameters to use instead of the picture's own: smoothed ones, in a sequence
    settings        values by "method.key", see methods.valid_settings()
    depth           8 gives uint8, None float32
    want_lut        also return the global part as a cube
    """

    pixels: NDArray[np.float32]
    method: str = "llf-lut"
    exposure: float = 0.0
    gamma: float | None = None
    saturation: float = 1.0
    strength: float = 1.0
    output_space: str = "srgb"
    model: str | None = None
    device: str = "cpu"
    offline: bool = False
    lut: Cube | None = None
    lut_interp: str = "tetrahedral"
    parameters: Mapping[str, Any] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    depth: int | None = None
    want_lut: bool = False


@dataclass(frozen=True)
class TonemapResult:
    """A display picture (rows, columns, 3) in `output_space`: float32 0..1, or uint8 where the request's depth is 8."""

    display: NDArray[Any]
    record: dict[str, Any]
    lut: Cube | None = None


def check_request(request: TonemapRequest, *, pixels: bool = True) -> None:
    """Raise UsageError for options that cannot be done; `pixels=False` for a check before the picture is read."""
    method = method_named(request.method)
    check_settings(request.settings)
    _one_of("--output-space", request.output_space, OUTPUT_SPACES)
    _one_of("--lut-interp", request.lut_interp, INTERPOLATIONS)
    _within("--exposure", request.exposure, -64.0, 64.0)
    _within("--saturation", request.saturation, 0.0, 10.0)
    _within("--strength", request.strength, 0.0, 4.0)
    if request.gamma is not None:
        _within("--gamma", request.gamma, 0.1, 10.0)
    if request.strength != 1.0 and not method.has_strength:
        able = ", ".join(name for name in METHODS if method_named(name).has_strength)
        raise UsageError(f"--strength: method {request.method} has no local part to weaken, expected one of {able}")
    if request.model is not None and not method.has_model:
        raise UsageError(f"--model: method {request.method} uses no model, expected --method llf-lut")
    if request.want_lut and (method.cube is None or request.lut is not None):
        reason = "--lut given" if method.cube is not None else f"got --method {request.method}"
        raise UsageError(f"--lut-out: {reason}, expected --method llf-lut without --lut")
    if request.parameters is not None and method.parameters is None:
        raise UsageError(f"--sequence: method {request.method} has no parameters to share between frames")
    if pixels and (request.pixels.ndim != 3 or request.pixels.shape[2] != 3 or not request.pixels.size):
        raise UsageError(f"pixels: got shape {request.pixels.shape}, expected (rows, columns, 3) of at least one pixel")


def scene_parameters(request: TonemapRequest) -> dict[str, Any]:
    """The global parameters that the method finds for this picture: what a sequence smooths over its frames."""
    check_request(request)
    method = method_named(request.method)
    if method.parameters is None:
        able = ", ".join(name for name in METHODS if method_named(name).parameters)
        raise UsageError(f"--sequence: method {request.method} has no parameters to share, expected one of {able}")
    return method.parameters(repair(request.pixels)[0], request)


def tonemap(request: TonemapRequest) -> TonemapResult:
    """Turn linear light into a display picture.

    Every picture gives finite values in 0..1. NaN becomes 0, infinity the largest finite value and negative light 0,
    counted in the record; readers repair files with more care before.

    Raises:
        UsageError: an option does not fit the method.
    """
    import numpy as np

    check_request(request)
    pixels, repaired = repair(request.pixels)
    record: dict[str, Any] = {"method": request.method}
    if repaired:
        record["repaired_values"] = repaired
    if request.lut is not None and request.lut.takes_linear:
        light = _exposed(pixels, request.exposure)
        display, facts = request.lut.apply(light, request.lut_interp), {"encoded": "srgb", "exposed": True}
        record.update(method="lut", lut=request.lut.title, lut_interp=request.lut_interp)
    else:
        display, facts = method_named(request.method).render(pixels, request)
    display = _finish(display, request, record, facts)
    if request.lut is not None and not request.lut.takes_linear:
        display = request.lut.apply(display, request.lut_interp)
        np.clip(display, 0.0, 1.0, out=display)
        record.update(lut=request.lut.title, lut_interp=request.lut_interp, lut_input="display values of the method")
    record.update(facts)
    cube = method_named(request.method).cube
    lut = cube(pixels, request) if request.want_lut and cube is not None else None
    return TonemapResult(_to_depth(display, request.depth), record, lut)


def repair(pixels: NDArray[Any]) -> tuple[NDArray[np.float32], dict[str, int]]:
    """Finite non-negative float32 light in C order, and how many values had to be changed, by kind."""
    import numpy as np

    if pixels.dtype == np.float64:
        # light beyond float32 is infinite there, and repaired as such
        with np.errstate(over="ignore"):
            pixels = pixels.astype(np.float32)
    pixels = np.ascontiguousarray(pixels, dtype=np.float32)
    # the minimum and the maximum of anything with a NaN are NaN: two passes without a mask settle the usual case
    low, high = float(pixels.min()), float(pixels.max())
    if low >= 0.0 and high < np.inf:
        return pixels, {}
    nan, infinite, negative = np.isnan(pixels), np.isposinf(pixels), pixels < 0
    finite = pixels[np.isfinite(pixels)]
    largest = float(finite.max()) if finite.size else 1.0
    fixed = np.where(nan | negative, np.float32(0.0), np.where(infinite, np.float32(max(largest, 0.0)), pixels))
    counts = {"nan": int(nan.sum()), "inf": int(infinite.sum()), "negative": int(negative.sum())}
    return fixed, {kind: count for kind, count in counts.items() if count}


def _finish(
    display: NDArray[Any], request: TonemapRequest, record: dict[str, Any], facts: dict[str, Any]
) -> NDArray[np.float32]:
    """Saturation, exposure, primaries and the display curve; `facts` says what the method has done already."""
    import numpy as np

    from attnkit.pictures import spaces

    encoded, exposed = facts.pop("encoded", None), facts.pop("exposed", False)
    bounded = facts.pop("bounded", False)
    transfer = f"gamma {request.gamma:g}" if request.gamma is not None else (encoded or "gamma 2.2")
    record.update(space=request.output_space, transfer=transfer)
    if encoded == "srgb" and request.gamma is None and request.saturation == 1.0 and request.output_space == "srgb":
        return display if bounded else np.clip(display, 0.0, 1.0, out=display)
    light = spaces.srgb_decode(np.clip(display, 0.0, 1.0)) if encoded == "srgb" else display
    if request.saturation != 1.0:
        from .operators import luminance

        grey = luminance(light)[..., None]
        light = grey + (light - grey) * np.float32(request.saturation)
    if not exposed:
        light = _exposed(light, request.exposure)
    if request.output_space == "display-p3":
        light = spaces.convert(np.clip(light, 0.0, 1.0), "rec709", "display-p3")
    light = np.clip(light, 0.0, 1.0)
    if transfer == "srgb":
        return np.clip(spaces.srgb_encode(light), 0.0, 1.0)
    return _power(light, 1.0 / (request.gamma or 2.2))


def _exposed(light: NDArray[Any], stops: float) -> NDArray[Any]:
    import numpy as np

    if stops == 0.0:
        return light
    with np.errstate(over="ignore"):
        return np.minimum(light * np.float32(2.0**stops), np.finfo(np.float32).max)


def _power(light: NDArray[Any], exponent: float) -> NDArray[np.float32]:
    import cv2
    import numpy as np

    # cv2.pow sees two dimensions: three channels side by side are as good
    powered: Any = cv2.pow(light.reshape(light.shape[0], -1), exponent)
    return np.minimum(powered, np.float32(1.0), out=powered).reshape(light.shape)


def _to_depth(display: NDArray[Any], depth: int | None) -> NDArray[Any]:
    import cv2
    import numpy as np

    if depth != 8 or display.dtype == np.uint8:
        return display
    return cv2.convertScaleAbs(display.reshape(len(display), -1), alpha=255.0).reshape(display.shape)


def _one_of(option: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(f"{option}: got {value!r}, expected {' or '.join(choices)}")


def _within(option: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise UsageError(f"{option}: got {value:g}, expected {low:g} to {high:g}")
