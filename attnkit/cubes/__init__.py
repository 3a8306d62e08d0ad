"""Hyperspectral cubes as files: ENVI, MATLAB, HDF5, NumPy and TIFF, read and written in tiles.

Names load on first use; neither they nor sniffing and identifying files import numpy or the libraries of a format.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attnkit.cubes.cube import CubeError, CubeInfo
    from attnkit.cubes.detect import KINDS_WITH_AXES, KINDS_WITH_KEYS, SUFFIXES, identify, sniff
    from attnkit.cubes.opening import SIDE_SUFFIXES, create_cube, open_cube, read_settings, resumable
    from attnkit.cubes.tiles import CubeReader, CubeWriter

_HOMES = {
    "CubeError": "cube",
    "CubeInfo": "cube",
    "KINDS_WITH_AXES": "detect",
    "KINDS_WITH_KEYS": "detect",
    "SUFFIXES": "detect",
    "identify": "detect",
    "sniff": "detect",
    "SIDE_SUFFIXES": "opening",
    "create_cube": "opening",
    "open_cube": "opening",
    "read_settings": "opening",
    "resumable": "opening",
    "CubeReader": "tiles",
    "CubeWriter": "tiles",
}

__all__ = [
    "KINDS_WITH_AXES",
    "KINDS_WITH_KEYS",
    "SIDE_SUFFIXES",
    "SUFFIXES",
    "CubeError",
    "CubeInfo",
    "CubeReader",
    "CubeWriter",
    "create_cube",
    "identify",
    "open_cube",
    "read_settings",
    "resumable",
    "sniff",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
