"""Turns what a person wrote (a flag, a variable, a line of a configuration file) into the type of an option."""

from __future__ import annotations

import difflib
import math
import types
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

TRUE_WORDS = ("1", "true", "yes", "on")
FALSE_WORDS = ("0", "false", "no", "off")


class ValueRefused(ValueError):
    """The value does not fit the option; the text says what would."""

    def __init__(self, expected: str) -> None:
        super().__init__(expected)
        self.expected = expected


def one_of(names: Iterable[object]) -> str:
    """'a, b or c'."""
    words = [str(name) for name in names]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that a typing error most likely meant, or None."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return found[0] if found else None


def plain_type(annotation: Any) -> Any:
    """The type itself where the annotation is `type | None`."""
    if get_origin(annotation) in (Union, types.UnionType):
        kept = [part for part in get_args(annotation) if part is not type(None)]
        if len(kept) == 1:
            return kept[0]
    return annotation


def convert(
    value: Any,
    annotation: Any,
    *,
    parser: Callable[[str], Any] | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
) -> Any:
    """One value as `annotation` (str, int, float, bool, Path, a Literal, or a list of one of them).

    `value` is text from a command line or a variable, or what a TOML file holds.
    Raises ValueRefused with the text of what was expected.
    """
    annotation = plain_type(annotation)
    if get_origin(annotation) is list:
        parts = value if isinstance(value, list | tuple) else [value]
        inner = get_args(annotation)[0]
        return [convert(part, inner, parser=parser, minimum=minimum, maximum=maximum) for part in parts]
    if parser is not None:
        return _parsed(as_text(value), parser)
    if annotation is bool:
        return as_bool(value)
    if annotation in (int, float):
        return as_number(value, annotation, minimum, maximum)
    if get_origin(annotation) is Literal:
        return as_choice(value, get_args(annotation))
    text = as_text(value)
    return Path(text) if annotation is Path else text


def _parsed(text: str, parser: Callable[[str], Any]) -> Any:
    try:
        return parser(text)
    except ValueRefused:
        raise
    except ValueError as error:
        raise ValueRefused(str(error)) from error


def as_text(value: Any) -> str:
    # a number where text is expected is how people write `seed = 3` or `resize = 2048` in a file
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, Path):
        return str(value)
    raise ValueRefused("a text")


def as_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in TRUE_WORDS:
        return True
    if isinstance(value, str) and value.strip().lower() in FALSE_WORDS:
        return False
    raise ValueRefused("true or false")


def as_number(value: Any, kind: type, minimum: float | None, maximum: float | None) -> int | float:
    expected = "a whole number" if kind is int else "a number"
    if minimum is not None and maximum is not None:
        expected += f" from {minimum:g} to {maximum:g}"
    elif minimum is not None:
        expected += f" of at least {minimum:g}"
    elif maximum is not None:
        expected += f" of at most {maximum:g}"
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueRefused(expected)
    if kind is int and isinstance(value, float):
        raise ValueRefused(expected)
    try:
        number: int | float = kind(value)
    except ValueError:
        raise ValueRefused(expected) from None
    if not math.isfinite(number):
        raise ValueRefused(expected)
    if (minimum is not None and number < minimum) or (maximum is not None and number > maximum):
        raise ValueRefused(expected)
    return number


def as_choice(value: Any, choices: Sequence[Any]) -> Any:
    if not isinstance(value, bool):
        for choice in choices:
            if str(value) == str(choice):
                return choice
    near = nearest(str(value), [str(choice) for choice in choices])
    raise ValueRefused(one_of(choices) + (f"; did you mean {near}" if near else ""))


def parse_device(text: str) -> str:
    """auto, cpu, cuda or cuda:N."""
    if text in ("auto", "cpu", "cuda"):
        return text
    name, _, index = text.partition(":")
    if name == "cuda" and index.isascii() and index.isdigit():
        return text
    raise ValueRefused("auto, cpu, cuda or cuda:N")


def parse_seed(text: str) -> int:
    """A whole number from 0, or `random`, which draws one (the record states it)."""
    if text == "random":
        import secrets

        return secrets.randbelow(2**31)
    if text.isascii() and text.isdigit() and int(text) < 2**63:
        return int(text)
    raise ValueRefused("a whole number of at least 0, or random")


BYTE_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def parse_bytes(text: str) -> int:
    """A number of bytes such as 800MB or 1.5GB, in powers of ten."""
    number = text.strip().upper().rstrip("KMGTB")
    unit = text.strip().upper()[len(number) :]
    try:
        count = float(number) * BYTE_UNITS[unit]
    except (ValueError, KeyError):
        raise ValueRefused("a size such as 800MB or 1.5GB") from None
    if not 1 <= count < 2**63:
        raise ValueRefused("a size such as 800MB or 1.5GB")
    return int(count)


def parse_settings(pairs: Sequence[str], valid: dict[str, Any]) -> dict[str, Any]:
    """The pairs of --set NAME.KEY=VALUE as {NAME.KEY: value}, converted to the type of the default in `valid`.

    `valid` maps each "name.key" to its default value; a list default takes comma-separated parts.
    Raises attnkit's UsageError; for an unknown key it lists the valid ones.
    """
    from attnkit.runtime.errors import UsageError

    settings: dict[str, Any] = {}
    for pair in pairs:
        key, sign, text = pair.partition("=")
        key = key.strip()
        if not sign:
            raise UsageError(f"--set: got {pair!r}, expected NAME.KEY=VALUE; valid keys: {', '.join(sorted(valid))}")
        if key not in valid:
            near = nearest(key, valid)
            hint = f"did you mean {near}? " if near else ""
            raise UsageError(f"--set: unknown key {key!r}; {hint}valid keys: {', '.join(sorted(valid)) or 'none'}")
        try:
            settings[key] = _like_default(text.strip(), valid[key])
        except ValueRefused as refused:
            raise UsageError(f"--set {key}: got {text.strip()!r}, expected {refused.expected}") from None
    return settings


def _like_default(text: str, default: Any) -> Any:
    if isinstance(default, list | tuple):
        inner = type(default[0]) if default else str
        return type(default)(convert(part.strip(), inner) for part in text.split(","))
    return convert(text, str if default is None else type(default))
