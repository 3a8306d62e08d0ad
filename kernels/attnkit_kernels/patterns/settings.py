"""Settings of patterns: what a pattern's dataclass declares, listed, checked and read from text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import MISSING, field, fields
from types import NoneType, UnionType
from typing import Any, NamedTuple, Union, get_args, get_origin, get_type_hints

__all__ = ["REQUIRED", "Setting", "broadcast", "listed", "read", "setting", "spread"]


class _Required:
    def __repr__(self) -> str:
        return "required"


REQUIRED = _Required()


class Setting(NamedTuple):
    """One setting of a pattern; `default` is REQUIRED where it must be given."""

    type: Any
    default: Any
    help: str


def setting(default: Any = MISSING, *, help: str) -> Any:
    """A dataclass field with a help text; without a default it must be given."""
    return field(default=default, metadata={"help": help})


def listed(cls: type) -> dict[str, Setting]:
    """The settings of a pattern class by name, in the order of its definition."""
    types = get_type_hints(cls)
    return {
        one.name: Setting(
            types[one.name], REQUIRED if one.default is MISSING else one.default, one.metadata.get("help", "")
        )
        for one in fields(cls)
    }


def broadcast(name: str, values: tuple[Any, ...], canvas: tuple[int, ...]) -> tuple[Any, ...]:
    """One value per axis of the canvas: `values` itself, or its only value for every axis; ValueError otherwise."""
    if len(values) == 1:
        return values * len(canvas)
    if len(values) != len(canvas):
        raise ValueError(
            f"{name} needs one value or one per axis, got {len(values)} values {values} for a canvas of "
            f"{len(canvas)} axes {canvas}"
        )
    return values


def spread(pattern: object, *names: str) -> None:
    """In a frozen dataclass' __post_init__: turn single values of these per-axis settings into tuples of one."""
    for name in names:
        value = getattr(pattern, name)
        value = tuple(value) if isinstance(value, list | tuple) else (value,)
        if not value:
            raise ValueError(f"{name} needs one value or one per axis, got none")
        object.__setattr__(pattern, name, value)


def read(kind: Any, text: str, name: str) -> Any:
    """The value of a setting of type `kind` from text; tuples are comma lists, None is "none"; ValueError otherwise.

    Kinds: int, float, str, bool (1 0 true false yes no), tuple[kind, ...], kind | None.
    """
    if get_origin(kind) in (Union, UnionType):
        if text.lower() == "none" and NoneType in get_args(kind):
            return None
        kind = next(one for one in get_args(kind) if one is not NoneType)
    if get_origin(kind) is tuple:
        return tuple(read(get_args(kind)[0], part.strip(), name) for part in text.split(","))
    try:
        if kind is bool:
            return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[text.lower()]
        return kind(text)
    except (ValueError, KeyError):
        raise ValueError(f"{name}: expected {_words(kind)}, got {text!r}") from None


def _words(kind: type) -> str:
    return {int: "a whole number", float: "a number", bool: "true or false"}.get(kind, kind.__name__)


def assignments(texts: Iterable[str]) -> list[tuple[str, str, str]]:
    """(pattern, key, value) of texts "PATTERN.KEY=VALUE"; ValueError for any other form."""
    parsed = []
    for text in texts:
        target, equals, value = text.partition("=")
        name, dot, key = target.strip().partition(".")
        if not (equals and dot and name and key):
            raise ValueError(f"expected PATTERN.KEY=VALUE, got {text!r}")
        parsed.append((name, key, value.strip()))
    return parsed
