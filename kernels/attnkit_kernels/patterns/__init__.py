"""Sparse attentions: settings (or query and key) in, block map out; one short file each.

A static pattern is a frozen dataclass of settings with `block_map(canvas, query_tile, key_tile)`; a routed one has
`block_map(query, key, *, canvas)`. They are found by name, and imported only then; nothing here imports torch.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .settings import REQUIRED, Setting, assignments, listed, read

if TYPE_CHECKING:
    from ..softmax.blockmap import BlockMap

__all__ = [
    "PATTERNS",
    "REQUIRED",
    "ROUTED",
    "STATIC",
    "Maps",
    "Setting",
    "parse_settings",
    "pattern",
    "pattern_class",
    "settings_of",
]

STATIC = {
    "dense": "dense:Dense",
    "causal": "dense:Causal",
    "sliding": "sliding:Sliding",
    "streaming": "sliding:Streaming",
    "neighborhood": "neighborhood:Neighborhood",
    "radial": "radial:Radial",
    "blocked": "blocked:Blocked",
    "grid": "blocked:Grid",
    "halo": "halo:Halo",
    "random_blocks": "random_blocks:RandomBlocks",
}
ROUTED = {
    "bilevel": "bilevel:Bilevel",
    "kmeans": "kmeans:Kmeans",
    "sla": "sla:Sla",
    "headwise": "headwise:Headwise",
}
PATTERNS = STATIC | ROUTED


def pattern_class(name: str) -> type[Any]:
    """The class of a pattern; ValueError for an unknown name, with the known ones."""
    if name not in PATTERNS:
        near = get_close_matches(name, PATTERNS, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(f"unknown pattern {name!r}{hint}; known: {', '.join(PATTERNS)}")
    module, _, attribute = PATTERNS[name].partition(":")
    return getattr(import_module(f"{__name__}.{module}"), attribute)


def settings_of(name: str) -> dict[str, Setting]:
    """The settings of a pattern by name: (type, default, help); default is REQUIRED where one must be given."""
    return listed(pattern_class(name))


def pattern(name: str, **settings: Any) -> Any:
    """A pattern by name and settings; ValueError for unknown, missing or wrong settings."""
    known = settings_of(name)
    unknown = [key for key in settings if key not in known]
    if unknown:
        raise ValueError(f"{name} has no setting {unknown[0]!r}; it has: {', '.join(known) or 'none'}")
    missing = [key for key, one in known.items() if one.default is REQUIRED and key not in settings]
    if missing:
        raise ValueError(f"{name} needs {missing[0]} ({known[missing[0]].help})")
    return pattern_class(name)(**settings)


def parse_settings(texts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Settings per pattern from texts "PATTERN.KEY=VALUE", values of the declared type (tuples are comma lists).

    >>> parse_settings(["radial.decay=.2", "neighborhood.window=18,24,24"])
    {'radial': {'decay': 0.2}, 'neighborhood': {'window': (18, 24, 24)}}
    """
    parsed: dict[str, dict[str, Any]] = {}
    for name, key, value in assignments(texts):
        known = settings_of(name)
        if key not in known:
            raise ValueError(f"{name} has no setting {key!r}; it has: {', '.join(known) or 'none'}")
        parsed.setdefault(name, {})[key] = read(known[key].type, value, f"{name}.{key}")
    return parsed


class Maps:
    """Block maps of static patterns, kept by their owner: the `size` last used, by pattern, canvas and tiles."""

    def __init__(self, size: int = 16) -> None:
        if size < 1:
            raise ValueError(f"size must be at least 1, got {size}")
        self._size = size
        self._maps: OrderedDict[Any, BlockMap] = OrderedDict()

    def __len__(self) -> int:
        return len(self._maps)

    def block_map(self, pattern: Any, canvas: Any, query_tile: Any = None, key_tile: Any = None) -> BlockMap:
        """pattern.block_map(canvas, query_tile, key_tile), built at the first call only."""
        canvas, *tiles = (tuple(part) if isinstance(part, list) else part for part in (canvas, query_tile, key_tile))
        key = (pattern, canvas, *tiles)
        if key not in self._maps:
            self._maps[key] = pattern.block_map(canvas, *tiles)
            if len(self._maps) > self._size:
                self._maps.popitem(last=False)
        self._maps.move_to_end(key)
        return self._maps[key]
