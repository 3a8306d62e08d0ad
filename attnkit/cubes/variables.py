"""Files that hold several arrays: which of them is the cube, which its wavelengths, and how its axes lie."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .cube import DEFAULT_AXIS_ORDER, ONE_BAND, CubeError, cube_axes

WAVELENGTH_NAME = re.compile(r"(band_?|cent(er|re)_?)?(wave_?lengths?|wvl|wl|lambda|cent(er|re)s?)(_?(nm|um))?(_?\d)?")
MOST_LISTED = 20
# arrays in files of ours
FACTS, WAVELENGTHS, DEFAULT_KEY = "attnkit", "wavelengths", "cube"


@dataclass(frozen=True)
class Variable:
    """An array of a file, with its axes as its maker sees them; `numbers` where it holds real numbers."""

    shape: tuple[int, ...]
    type: str
    numbers: bool = True

    def __str__(self) -> str:
        return f"{'x'.join(map(str, self.shape)) or 'single'} {self.type}"


def listing(variables: Mapping[str, Variable]) -> str:
    """All variables with shapes and types, for a message."""
    shown = [f"{name} ({variable})" for name, variable in variables.items()]
    return ", ".join(shown[:MOST_LISTED]) + (" and others" if len(shown) > MOST_LISTED else "") or "nothing"


def choose(path: Path, variables: Mapping[str, Variable], key: str | None) -> str:
    """The variable that --key names, or the only one that can be a cube.

    Without a key: the only one with three axes, or where there is none, the only one with two axes longer than 1.
    The facts of a file of ours are none. Raises CubeError with the list of variables for an unknown key or where
    several would do.
    """
    variables = {name: found for name, found in variables.items() if name != FACTS}
    if key is not None:
        for name in (key, key.strip("/")):
            if name in variables:
                return name
        raise CubeError(f"{path}: --key {key}: no such array; it holds {listing(variables)}; name one of them")
    numbers = {name: found for name, found in variables.items() if found.numbers}
    cubes = [name for name, found in numbers.items() if len(found.shape) == 3]
    if not cubes:
        cubes = [name for name, found in numbers.items() if len(found.shape) == 2 and min(found.shape) != 1]
    if len(cubes) == 1:
        return cubes[0]
    if not cubes and len(variables) == 1:
        # what is wrong with it is for the reader to say
        return next(iter(variables))
    what = "several arrays could be the cube" if cubes else "no array has two axes (one band) or three"
    raise CubeError(f"{path}: {what}: it holds {listing(variables)}; name one with --key")


def wavelength_names(variables: Mapping[str, Variable], shape: Sequence[int]) -> list[str]:
    """Variables that look like the wavelengths of an array of this shape."""
    return [
        name
        for name, found in variables.items()
        if found.numbers
        and WAVELENGTH_NAME.fullmatch(name.rpartition("/")[2].lower())
        and max(found.shape, default=0) in shape
        and sum(size != 1 for size in found.shape) <= 1
    ]


def settle_axes(
    shape: Sequence[int], *, asked: str | None, stored: object, wavelengths: int | None, where: str
) -> tuple[str, ...]:
    """Names of the axes of an array.

    asked         --axis-order, which is always obeyed for three axes
    stored        the order that an output of ours holds
    wavelengths   how many there are: they tell the axis of the bands where they fit one axis only
    """
    if len(shape) != 3 or asked is not None:
        return cube_axes(shape, asked, where)
    if isinstance(stored, str) and stored.count(",") == 2:
        return cube_axes(shape, stored, where)
    fitting = [place for place, size in enumerate(shape) if size == wavelengths]
    names = DEFAULT_AXIS_ORDER.split(",")
    if len(fitting) == 1:
        names = list(ONE_BAND)
        names.insert(fitting[0], "bands")
    return cube_axes(shape, ",".join(names), where)
