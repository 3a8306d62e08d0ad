"""The learned method: opens a tone mapper of the model registry and drives it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .cube import Cube, LogShaper

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .task import TonemapRequest

DEFAULT_MODEL = "llf-lut"


def mapper_named(model: str, device: str, offline: bool) -> Any:
    """The mapper behind a registry name, path or hub id; kept, so that a process loads a model once."""
    from attnkit.models.identity import kept_model

    return kept_model(model, "tonemap", device, offline)


def parameters(pixels: NDArray[Any], request: TonemapRequest) -> dict[str, Any]:
    """Global parameters (numbers and small arrays) that the model predicts for a picture."""
    return dict(_mapper(request).parameters(pixels))


def render(pixels: NDArray[Any], request: TonemapRequest) -> tuple[NDArray[Any], dict[str, Any]]:
    """sRGB-encoded picture (rows, columns, 3) of the model, and what to record."""
    from attnkit.models.llf_lut_fast import FastToneMapper

    mapper = _mapper(request)
    given = None if request.parameters is None else dict(request.parameters)
    # the default model looks at the picture once for its parameters and for its maps
    seen = mapper.survey(pixels, given) if isinstance(mapper, FastToneMapper) else None
    found = dict(seen.parameters if seen is not None else given or mapper.parameters(pixels))
    # below this the reciprocal of the anchor leaves float32; an anchor of 1 is that of black samples
    anchor = found.get("anchor", 1.0)
    if (anchor < 1e-30 or anchor == 1.0) and float(pixels.max()) < 1e-30:
        return np.zeros_like(pixels), {"encoded": "srgb", "exposed": True, "degenerate_frame": "black"}
    # the parameters are those of the picture as it is, so that exposure is not taken back by the model's own anchor
    light = pixels if request.exposure == 0.0 else pixels * np.float32(2.0**request.exposure)
    known = seen if seen is not None and light is pixels else found
    display = mapper.render(light, known, strength=request.strength, interpolation=request.lut_interp)
    # the compiled loops of the default model end in 0..1; a published network may not
    bounded = isinstance(mapper, FastToneMapper)
    facts: dict[str, Any] = {"encoded": "srgb", "exposed": True, "bounded": bounded}
    facts["model"] = request.model or DEFAULT_MODEL
    facts["parameters"] = {name: _plain(value) for name, value in found.items() if np.size(value) <= 16}
    return display, facts


def cube(pixels: NDArray[Any], request: TonemapRequest) -> Cube:
    """The global part of what the model does to this picture, at the request's exposure."""
    mapper = _mapper(request)
    found = dict(request.parameters) if request.parameters is not None else dict(mapper.parameters(pixels))
    table = np.ascontiguousarray(mapper.cube(found), dtype=np.float32)
    # a path would tell where it lay
    title = f"attnkit {Path(request.model or DEFAULT_MODEL).name}"
    gain = 2.0**request.exposure
    encoding = mapper.config
    if "toe" not in encoding:
        # published models take light 0..1, to which their own anchor scales brighter pictures
        peak = 1.0 / (gain * float(found.get("gain", 1.0)))
        return Cube(table, domain=((0.0,) * 3, (peak,) * 3), takes_linear=True, title=title)
    span = encoding["toe"] + encoding["head"]
    shaper = LogShaper(gain / float(found["anchor"]), 2.0 ** -encoding["toe"], 1.0 / span, encoding["toe"] / span)
    return Cube(table, shaper=shaper, takes_linear=True, title=title)


CUBE_NOTES = (
    "made by attnkit tonemap --lut-out for one picture; another picture gets another table",
    "output: display values 0..1, sRGB-encoded, Rec.709 primaries",
    "a table cannot carry what depends on the place in the picture: the per-pixel map and local detail are not in it",
)


def _mapper(request: TonemapRequest) -> Any:
    return mapper_named(request.model or DEFAULT_MODEL, request.device, request.offline)


def _plain(value: Any) -> Any:
    """A number or list for the record, six significant digits."""
    if isinstance(value, str | bool | int):
        return value
    return [float(f"{item:.6g}") for item in np.ravel(value)] if np.ndim(value) else float(f"{float(value):.6g}")
