"""The methods of `tonemap` by name: what each one takes, and how its picture is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from attnkit.runtime.errors import UsageError

from . import local_laplacian, operators

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .cube import Cube
    from .task import TonemapRequest

Picture = "NDArray[Any]"
Render = Callable[["NDArray[Any]", "TonemapRequest"], "tuple[NDArray[Any], dict[str, Any]]"]


@dataclass(frozen=True)
class Method:
    """One way to tone-map.

    render      linear light -> (picture, facts). The picture is linear display light, or sRGB-encoded where facts hold
                encoded="srgb"; facts with exposed=True have used request.exposure; all other facts go to the record
    settings    valid keys of --set NAME.KEY with their defaults, and `limits` of each
    parameters  linear light -> global parameters that a sequence may smooth, or None
    cube        linear light -> the global part as a .cube, or None
    """

    name: str
    summary: str
    render: Render
    settings: Mapping[str, float] = field(default_factory=dict)
    limits: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    has_strength: bool = False
    has_model: bool = False
    parameters: Callable[[NDArray[Any], TonemapRequest], dict[str, Any]] | None = None
    cube: Callable[[NDArray[Any], TonemapRequest], Cube] | None = None


def settings_of(name: str, settings: Mapping[str, Any]) -> dict[str, float]:
    """The values of one method's settings by bare key, out of values by "method.key"."""
    prefix = f"{name}."
    return {key[len(prefix) :]: float(value) for key, value in settings.items() if key.startswith(prefix)}


def _render_learned(pixels: NDArray[Any], request: TonemapRequest) -> tuple[NDArray[Any], dict[str, Any]]:
    from . import learned

    return learned.render(pixels, request)


def _parameters_learned(pixels: NDArray[Any], request: TonemapRequest) -> dict[str, Any]:
    from . import learned

    return learned.parameters(pixels, request)


def _cube_learned(pixels: NDArray[Any], request: TonemapRequest) -> Cube:
    from . import learned

    return learned.cube(pixels, request)


def _render_llf(pixels: NDArray[Any], request: TonemapRequest) -> tuple[NDArray[Any], dict[str, Any]]:
    return local_laplacian.render(
        pixels, settings_of("llf", request.settings), strength=request.strength, parameters=request.parameters
    )


def _parameters_llf(pixels: NDArray[Any], request: TonemapRequest) -> dict[str, Any]:
    return local_laplacian.parameters(pixels, settings_of("llf", request.settings), strength=request.strength)


def _classical(operator: str, summary: str) -> Method:
    def render(pixels: NDArray[Any], request: TonemapRequest) -> tuple[NDArray[Any], dict[str, Any]]:
        return operators.render(pixels, operator, settings_of(operator, request.settings))

    limits = {key: operators.LIMITS[f"{operator}.{key}"] for key in operators.DEFAULTS[operator]}
    return Method(operator, summary, render, operators.DEFAULTS[operator], limits)


_ALL = (
    Method(
        "llf-lut",
        "learned: image-adaptive 3-D tables and a local Laplacian step",
        _render_learned,
        has_strength=True,
        has_model=True,
        parameters=_parameters_learned,
        cube=_cube_learned,
    ),
    Method(
        "llf",
        "fast local Laplacian filter on log luminance, no weights",
        _render_llf,
        local_laplacian.DEFAULTS,
        local_laplacian.LIMITS,
        has_strength=True,
        parameters=_parameters_llf,
    ),
    _classical("drago", "adaptive logarithm (Drago 2003)"),
    _classical("reinhard", "photoreceptor model (Reinhard 2005)"),
    _classical("mantiuk", "contrast domain (Mantiuk 2006)"),
    _classical("linear", "the brightest value becomes white, no curve but gamma"),
)
_BY_NAME = {method.name: method for method in _ALL}
METHODS: tuple[str, ...] = tuple(_BY_NAME)


def method_named(name: str, option: str = "--method") -> Method:
    """The method, or UsageError with the names that exist, about the option that asked for it."""
    if name not in _BY_NAME:
        raise UsageError(f"{option}: got {name!r}, expected one of {', '.join(METHODS)}")
    return _BY_NAME[name]


def valid_settings() -> dict[str, float]:
    """All keys of --set with their defaults, as "method.key"."""
    return {f"{method.name}.{key}": value for method in _ALL for key, value in method.settings.items()}


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raise UsageError for a key that no method has (listing those that exist) or a value out of its range."""
    valid = valid_settings()
    for key, value in settings.items():
        if key not in valid:
            raise UsageError(f"--set {key}: unknown key, expected one of {', '.join(valid)}")
        name, _, bare = key.partition(".")
        low, high = _BY_NAME[name].limits[bare]
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise UsageError(f"--set {key}: got {value!r}, expected a number from {low:g} to {high:g}") from None
        if not low <= number <= high:
            raise UsageError(f"--set {key}: got {value}, expected {low:g} to {high:g}")
