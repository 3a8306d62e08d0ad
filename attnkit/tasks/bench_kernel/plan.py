"""What is to be measured: names, settings and sweeps as a person wrote them, turned into cases and checked."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from attnkit_kernels.patterns import REQUIRED

from attnkit.runtime.errors import UsageError
from attnkit.runtime.values import nearest, one_of

from .operators import OPERATORS, Operator, operator_named, read_setting

DTYPES = ("float64", "float32", "float16", "bfloat16")
DIRECTIONS = ("fwd", "bwd", "fwdbwd")
IMPLS = ("auto", "reference", "torch", "numba", "triton", "flex")
# what every operator takes, as a sweep spells it
SHAPE_KEYS = (
    "tokens",
    "canvas",
    "q-tile",
    "kv-tile",
    "batch",
    "heads",
    "kv-heads",
    "dim",
    "dtype",
    "direction",
    "impl",
)
# short for NAME.KEY of every named operator that has such a setting
SHORT_KEYS = ("window", "stride", "dilation", "causal")
DEFAULTS: Mapping[str, str] = {
    "tokens": "4096",
    "batch": "1",
    "heads": "8",
    "dim": "64",
    "dtype": "float32",
    "direction": "fwd",
    "impl": "auto",
}


@dataclass(frozen=True)
class Case:
    """One operator at one shape. kv_heads divide heads; tiles None are the operator's own choice."""

    operator: str
    canvas: tuple[int, ...]
    settings: tuple[tuple[str, Any], ...] = ()
    batch: int = 1
    heads: int = 8
    kv_heads: int = 8
    dim: int = 64
    dtype: str = "float32"
    direction: str = "fwd"
    impl: str = "auto"
    query_tile: tuple[int, ...] | None = None
    key_tile: tuple[int, ...] | None = None
    # the settings that were asked for: with them, cases of several lengths make one series
    asked: tuple[tuple[str, Any], ...] = field(default=(), compare=False)

    @property
    def tokens(self) -> int:
        return math.prod(self.canvas)

    @property
    def group(self) -> tuple[Any, ...]:
        """Cases with the same group are measured in turns, against one and the same baseline."""
        return (self.batch, self.heads, self.kv_heads, self.dim, self.dtype, self.direction, self.tokens)

    def identity(self) -> dict[str, Any]:
        """The fields of a row that say what was measured."""
        return {
            **{one.name: getattr(self, one.name) for one in fields(self) if one.name not in ("impl", "asked")},
            "canvas": list(self.canvas),
            "settings": {key: list(value) if isinstance(value, tuple) else value for key, value in self.settings},
            "query_tile": None if self.query_tile is None else list(self.query_tile),
            "key_tile": None if self.key_tile is None else list(self.key_tile),
            "impl_asked": self.impl,
            "tokens": self.tokens,
        }


@dataclass(frozen=True)
class Wanted:
    """The measurements as written: operators, `KEY=A,B` sweeps, single values by key, and NAME.KEY=VALUE settings."""

    names: tuple[str, ...]
    sweeps: tuple[str, ...] = ()
    values: Mapping[str, str] = field(default_factory=dict)
    settings: tuple[str, ...] = ()


def cases_of(wanted: Wanted) -> list[Case]:
    """Every case of the product, each once, in the order of names and sweeps. UsageError for what cannot be meant."""
    operators = [operator_named(name) for name in dict.fromkeys(wanted.names)]
    sweeps = [read_sweep(text, operators) for text in wanted.sweeps]
    repeated = [key for key, count in _counted(key for key, _ in sweeps).items() if count > 1]
    if repeated:
        raise UsageError(f"--sweep: got {repeated[0]} twice; give its values in one list")
    if {"tokens", "canvas"} <= {*wanted.values, *(key for key, _ in sweeps)}:
        raise UsageError("tokens and --canvas: got both, expected one of them; tokens is the product of a canvas")
    given = _own_settings(wanted, operators)
    found: dict[Case, None] = {}
    for operator in operators:
        for chosen in itertools.product(*([(key, value) for value in values] for key, values in sweeps)):
            found[_case(operator, {**wanted.values, **dict(chosen)}, given)] = None
    return list(found)


def read_sweep(text: str, operators: Sequence[Operator]) -> tuple[str, list[str]]:
    """(key, values) of KEY=A,B. A value for several axes joins them with x: canvas=16x32x32,32x32x32."""
    key, equals, listed = text.partition("=")
    key, values = key.strip(), [part.strip() for part in listed.split(",")]
    if not equals or not all(values):
        raise UsageError(f"--sweep: got {text!r}, expected KEY=A,B such as tokens=1024,4096 or window=8x8,16x16")
    name, dot, own = key.partition(".")
    if dot:
        _check_own(name, own, operators, "--sweep")
    elif key not in (*SHAPE_KEYS, *SHORT_KEYS):
        near = nearest(key, (*SHAPE_KEYS, *SHORT_KEYS))
        hint = f"did you mean {near}? " if near else ""
        raise UsageError(
            f"--sweep: unknown key {key!r}; {hint}expected {one_of((*SHAPE_KEYS, *SHORT_KEYS))}, or NAME.KEY"
        )
    elif key in SHORT_KEYS:
        _check_short(key, operators, "--sweep")
    return key, list(dict.fromkeys(values))


def _own_settings(wanted: Wanted, operators: Sequence[Operator]) -> dict[str, dict[str, str]]:
    """{operator: {key: text}} of --set."""
    for key in SHORT_KEYS:
        if key in wanted.values:
            _check_short(key, operators, f"--{key}")
    given: dict[str, dict[str, str]] = {}
    for text in wanted.settings:
        target, equals, value = text.partition("=")
        name, dot, key = target.strip().partition(".")
        if not equals or not dot:
            raise UsageError(f"--set: got {text!r}, expected NAME.KEY=VALUE; {_known_settings(operators)}")
        _check_own(name, key, operators, "--set")
        given.setdefault(name, {})[key] = value.strip()
    return given


def _check_own(name: str, key: str, operators: Sequence[Operator], option: str) -> None:
    operator = next((one for one in operators if one.name == name), None)
    if operator is None:
        words = one_of(one.name for one in operators)
        raise UsageError(f"{option}: got a setting of {name!r}, which is not measured; expected one of {words}")
    known = operator.settings()
    if key not in known:
        near = nearest(key, known)
        hint = f"did you mean {near}? " if near else ""
        raise UsageError(f"{option}: {name} has no setting {key!r}; {hint}it has: {', '.join(known) or 'none'}")


def _check_short(key: str, operators: Sequence[Operator], option: str) -> None:
    if not any(key in operator.settings() for operator in operators):
        names = one_of(operator.name for operator in operators)
        having = ", ".join(name for name, one in OPERATORS.items() if one.light and key in one.settings())
        raise UsageError(f"{option}: {names} has no {key}; these have one: {having}")


def _known_settings(operators: Sequence[Operator]) -> str:
    return "valid keys: " + (", ".join(f"{one.name}.{key}" for one in operators for key in one.settings()) or "none")


def _case(operator: Operator, texts: Mapping[str, str], given: Mapping[str, Mapping[str, str]]) -> Case:
    shape = {**DEFAULTS, **{key: text for key, text in texts.items() if key in SHAPE_KEYS}}
    if "canvas" in shape:
        canvas = sides_of("canvas", shape["canvas"])
    else:
        canvas = operator.canvas_of(whole("tokens", shape["tokens"]))
    own = {key: texts[key] for key in SHORT_KEYS if key in texts and key in operator.settings()}
    own.update(given.get(operator.name, {}))
    head = f"{operator.name}."
    own.update({key.removeprefix(head): text for key, text in texts.items() if key.startswith(head)})
    asked = {key: read_setting(operator, key, text) for key, text in own.items()}
    # who gives one setting means the others at their own defaults; what has none is filled in
    usual = {
        key: value
        for key, value in operator.usual(canvas).items()
        if not asked or operator.settings()[key].default is REQUIRED
    }
    settings = {**usual, **asked}
    if operator.kind == "image":
        # planes of one picture: red, green and blue are its only width
        shape |= {"heads": "1", "kv-heads": "1", "dim": "3"}
    heads = whole("heads", shape["heads"])
    kv_heads = whole("kv-heads", shape.get("kv-heads", shape["heads"]))
    if heads % kv_heads:
        raise UsageError(f"--kv-heads: got {kv_heads} for {heads} heads, expected a divisor of them")
    return Case(
        operator.name,
        canvas,
        tuple(sorted(settings.items())),
        batch=whole("batch", shape["batch"]),
        heads=heads,
        kv_heads=kv_heads,
        dim=whole("dim", shape["dim"]),
        dtype=chosen("dtype", shape["dtype"], DTYPES),
        direction=chosen("direction", shape["direction"], DIRECTIONS),
        impl=chosen("impl", shape["impl"], IMPLS),
        query_tile=sides_of("q-tile", shape["q-tile"]) if "q-tile" in shape else None,
        key_tile=sides_of("kv-tile", shape["kv-tile"]) if "kv-tile" in shape else None,
        asked=tuple(sorted(asked.items())),
    )


def whole(key: str, text: str) -> int:
    """A whole number of at least 1."""
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise UsageError(f"{key}: got {text!r}, expected a whole number of at least 1")
    return int(text)


def sides_of(key: str, text: str) -> tuple[int, ...]:
    """Numbers per axis, slowest first, joined by commas or by x."""
    parts = [part.strip() for part in text.replace("x", ",").split(",")]
    if not all(part.isascii() and part.isdigit() and int(part) for part in parts):
        raise UsageError(f"{key}: got {text!r}, expected whole numbers of at least 1 per axis, such as 16,32,32")
    return tuple(map(int, parts))


def chosen(key: str, text: str, known: Sequence[str]) -> str:
    """One of the known words."""
    if text not in known:
        near = nearest(text, known)
        raise UsageError(f"{key}: got {text!r}, expected {one_of(known)}{f'; did you mean {near}?' if near else ''}")
    return text


def _counted(keys: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for key in keys:
        counts[key] = counts.get(key, 0) + 1
    return counts
