"""Headers of OpenEXR files, parsed here: planning must know sizes and layers without loading the OpenEXR library.

Facts from "OpenEXR File Layout" of the OpenEXR documentation.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, cast

from attnkit.pictures.picture import Chromaticities
from attnkit.runtime.errors import PictureError

_MULTI_PART = 0x1000
# a part without a layer prefix of its own
MAIN = "main"
# in the order in which they are looked for within a layer
_COLOURS = (("R", "G", "B"), ("r", "g", "b"), ("red", "green", "blue"), ("Y", "RY", "BY"), ("Y",))
_ALPHAS = ("A", "a", "alpha")


@dataclass(frozen=True)
class Part:
    """Header of one part: windows as (x0, y0, x1, y1), both ends inside."""

    name: str
    storage: str
    channels: tuple[str, ...]
    data_window: tuple[int, int, int, int]
    display_window: tuple[int, int, int, int]
    chromaticities: Chromaticities | None
    strings: dict[str, str]

    @property
    def size(self) -> tuple[int, int]:
        """(rows, columns) of the display window."""
        x0, y0, x1, y1 = self.display_window
        return y1 - y0 + 1, x1 - x0 + 1


@dataclass(frozen=True)
class Layer:
    """Channels that make one picture: colours are 3 (RGB or Y RY BY) or 1 full names."""

    name: str
    part: int
    colours: tuple[str, ...]
    alpha: str | None


def _name(data: Any, at: int) -> tuple[str, int]:
    window = bytes(data[at : at + 257])
    end = window.find(b"\0")
    if end < 0:
        raise PictureError(f"truncated or damaged in its EXR header at byte {at}")
    return window[:end].decode("utf-8", "replace"), at + end + 1


def _part(attributes: dict[str, bytes]) -> Part:
    missing = [name for name in ("channels", "dataWindow", "displayWindow") if name not in attributes]
    if missing:
        raise PictureError(f"its EXR header lacks {', '.join(missing)}")
    channels, at, block = [], 0, attributes["channels"]
    while at < len(block) and block[at]:
        channel, at = _name(block, at)
        channels.append(channel)
        at += 16
    windows = [struct.unpack("<4i", attributes[name]) for name in ("dataWindow", "displayWindow")]
    for window in windows:
        if window[2] < window[0] or window[3] < window[1]:
            raise PictureError(f"its EXR window is {window}, expected x0 <= x1 and y0 <= y1")
    chromaticities = None
    if len(attributes.get("chromaticities", b"")) == 32:
        chromaticities = cast(Chromaticities, struct.unpack("<8f", attributes["chromaticities"]))
    strings = {
        name: value.decode("utf-8", "replace") for name, value in attributes.items() if name.startswith("attnkit-")
    }
    return Part(
        name=attributes.get("name", b"").decode("utf-8", "replace"),
        storage=attributes.get("type", b"").decode("ascii", "replace"),
        channels=tuple(channels),
        data_window=windows[0],
        display_window=windows[1],
        chromaticities=chromaticities,
        strings=strings,
    )


def parse(data: Any) -> list[Part]:
    """Headers of all parts; PictureError where they end early or make no sense."""
    if len(data) < 8:
        raise PictureError("truncated in its EXR header")
    (flags,) = struct.unpack_from("<I", data, 4)
    at, parts = 8, []
    while True:
        attributes: dict[str, bytes] = {}
        while True:
            name, at = _name(data, at)
            if not name:
                break
            _, at = _name(data, at)
            if at + 4 > len(data):
                raise PictureError(f"truncated in its EXR header at byte {at}")
            (size,) = struct.unpack_from("<i", data, at)
            at += 4
            if size < 0 or at + size > len(data):
                raise PictureError(
                    f"truncated or damaged in its EXR header: attribute {name[:32]!a} of {size} bytes at byte {at}"
                )
            attributes[name] = bytes(data[at : at + size])
            at += size
        if attributes:
            parts.append(_part(attributes))
        if not attributes or not flags & _MULTI_PART:
            break
    if not parts:
        raise PictureError("its EXR header is empty")
    return parts


def layers(parts: list[Part]) -> list[Layer]:
    """All pictures in the file, in file order: a part's plain channels first, then its prefixed ones.

    A layer is called by its prefix ("diffuse" for diffuse.R); in a file of several parts by the part, and the prefix
    behind it where they differ ("beauty", "beauty.diffuse").
    """
    found = []
    for index, part in enumerate(parts):
        prefixes = dict.fromkeys(name.rpartition(".")[0] for name in part.channels)
        for prefix in sorted(prefixes, key=lambda text: (text != "", text)):
            lead = f"{prefix}." if prefix else ""
            names = {name for name in part.channels if name.rpartition(".")[0] == prefix}
            for colours in _COLOURS:
                full = tuple(lead + colour for colour in colours)
                if names.issuperset(full):
                    alpha = next((lead + name for name in _ALPHAS if lead + name in names), None)
                    found.append(Layer(_label(part.name, prefix, len(parts)), index, full, alpha))
                    break
    return found


def _label(part: str, prefix: str, parts: int) -> str:
    if parts == 1:
        return prefix or MAIN
    if not prefix or prefix == part:
        return part or MAIN
    return f"{part}.{prefix}"


def choose(parts: list[Part], wanted: str | None) -> Layer:
    """The layer called wanted, or a single channel of that full name as a grey picture; without a name, the first
    layer.

    PictureError names the layers that there are.
    """
    known = layers(parts)
    if wanted is None:
        if known:
            return known[0]
        channels = [name for part in parts for name in part.channels]
        raise PictureError(
            f"no colour channels: it has {', '.join(channels)}; name one with --layer to read it as grey"
        )
    for layer in known:
        if layer.name == wanted:
            return layer
    for index, part in enumerate(parts):
        for channel in part.channels:
            if wanted in (channel, f"{part.name}.{channel}"):
                return Layer(wanted, index, (channel,), None)
    names = ", ".join(dict.fromkeys(layer.name for layer in known)) or "none"
    raise PictureError(f"no layer {wanted!r}; it has {names}")
