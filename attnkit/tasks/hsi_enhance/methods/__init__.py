"""The methods of `hsi-enhance` by name: what each one takes, and the bright regions that it makes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from attnkit.runtime.errors import UsageError

from ..source import Region, Source
from .hsie import DEFAULT_MODEL
from .regions import band_regions, row_regions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WAVELETS = ("haar", "db2", "db3", "db4", "db5", "db6", "db8", "sym4", "sym5", "sym6", "sym8", "coif1", "coif2")


@dataclass(frozen=True)
class Setting:
    """A key of --set: its default, and the least and largest number or the words that it takes."""

    default: Any
    least: float = 0.0
    most: float = 0.0
    words: tuple[str, ...] = ()

    def refusal(self, value: Any) -> str | None:
        """What was expected, where a value is not that."""
        if self.words:
            return None if value in self.words else f"one of {', '.join(self.words)}"
        whole = isinstance(self.default, int)
        good = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if good and self.least <= value <= self.most:
            return None
        return f"a {'whole ' if whole else ''}number from {self.least:g} to {self.most:g}"


@dataclass(frozen=True)
class Method:
    """One way to take the noise out of a brightened cube; its module `methods.NAME` has `run_NAME`.

    by_memory    its regions are as large as `memory` allows; those of the others are regions.row_regions
    slow_start   most of its work comes before the first region: it tells how far that is
    """

    name: str
    summary: str
    settings: Mapping[str, Setting] = field(default_factory=dict)
    has_model: bool = False
    by_memory: bool = False
    slow_start: bool = False


_ALL = (
    Method(
        "hsie",
        "learned: the cube's eigen-images, or its bands where the model is the published one",
        {"rank": Setting(0, 0, 1000), "smooth": Setting(1, 0, 1), "window": Setting("band", words=("band", "nm"))},
        has_model=True,
        slow_start=True,
    ),
    Method("gain", "brightened only"),
    Method("mnf", "minimum noise fraction: the components above the noise", {"components": Setting(0, 0, 100_000)}),
    Method(
        "lowrank",
        "noise-whitened subspace, wavelet shrinkage tuned by Stein's unbiased risk estimate",
        {
            "rank": Setting(0, 0, 100_000),
            "wavelet": Setting("sym4", words=WAVELETS),
            "levels": Setting(0, 0, 12),
            "smooth": Setting(0, 0, 1),
        },
        slow_start=True,
    ),
    Method(
        "clahe",
        "contrast-limited adaptive histogram equalisation of each band",
        {"clip": Setting(2.0, 0.0, 1000.0), "tiles": Setting(8, 1, 256)},
        by_memory=True,
    ),
)
_BY_NAME = {method.name: method for method in _ALL}
METHODS: tuple[str, ...] = tuple(_BY_NAME)


def method_named(name: str) -> Method:
    """The method, or UsageError with the names that exist."""
    if name not in _BY_NAME:
        raise UsageError(f"--method: got {name!r}, expected one of {', '.join(METHODS)}")
    return _BY_NAME[name]


def has_model(name: str) -> bool:
    """Whether a method works with weights."""
    return method_named(name).has_model


def planned_regions(
    name: str, model: str | None, shape: tuple[int, int, int], memory: int
) -> list[Region] | None:
    """The regions that `run` will hand back; None where that is settled by a model that is not the default."""
    if has_model(name) and model not in (None, DEFAULT_MODEL):
        return None
    return list(band_regions(shape, memory) if method_named(name).by_memory else row_regions(shape))


def cuts_by_memory(name: str, model: str | None) -> bool:
    """Whether the regions may depend on `memory`."""
    return method_named(name).by_memory or (has_model(name) and model not in (None, DEFAULT_MODEL))


def valid_settings() -> dict[str, Any]:
    """All keys of --set with their defaults, as "method.key"."""
    return {f"{name}.{key}": one.default for name, method in _BY_NAME.items() for key, one in method.settings.items()}


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raise UsageError for a key that no method has (listing those that exist) or a value that it does not take."""
    valid = valid_settings()
    for key, value in settings.items():
        if key not in valid:
            raise UsageError(f"--set {key}: unknown key, expected one of {', '.join(valid)}")
        name, _, bare = key.partition(".")
        expected = _BY_NAME[name].settings[bare].refusal(value)
        if expected is not None:
            raise UsageError(f"--set {key}: got {value!r}, expected {expected}")


def settings_of(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The values of one method's settings by bare key, defaults where none is given."""
    return {key: settings.get(f"{name}.{key}", one.default) for key, one in method_named(name).settings.items()}


def run(
    name: str,
    source: Source,
    *,
    settings: Mapping[str, Any],
    memory: int,
    done: Collection[Region] = frozenset(),
    device: str = "cpu",
    model: str | None = None,
    offline: bool = False,
    facts: dict[str, Any],
    tell: Callable[[float], None] = lambda share: None,
) -> Iterator[tuple[Region, NDArray[np.float32]]]:
    """Regions of the enhanced cube and their bright values [bands, rows, columns], which together cover it once.

    settings   values by "method.key"; those of other methods are ignored
    memory     bytes for the method's arrays; the values do not depend on it beyond float rounding
    done       regions that are left out; order and extent of the others are the same without it
    facts      receives what the record should tell of the run: at the latest with the first region
    tell       is told how much of the work before the first region is done, 0 to 1, where that is most of it
    """
    method = method_named(name)
    function = getattr(import_module(f"{__name__}.{name}"), f"run_{name}")
    # a model and a device mean nothing to the others
    more: dict[str, Any] = {"device": device, "model": model, "offline": offline} if method.has_model else {}
    if method.slow_start:
        more["tell"] = tell
    own = settings_of(name, settings)
    yield from function(source, settings=own, memory=memory, done=frozenset(done), facts=facts, **more)
