"""The calibrations by name: what each one is, its settings, and what it does not go together with. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from attnkit.runtime.errors import UsageError

NONE = "none"
# looks at a text of the named option; raises UsageError for what can be told to be wrong without the model
Check = Callable[[str, str], object]


def read_numbers(text: str, option: str) -> list[int]:
    """Numbers such as "1415,2533"; UsageError for anything else."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"{option}: got {text!r}, expected numbers such as 1415,2533") from None


def read_ranges(text: str, option: str, what: str = "layers") -> list[tuple[int, int | None]] | None:
    """Parts of "1,18:32" or `all` as begin and end, None where it is open; None for `auto`. Raises UsageError."""
    if text in ("auto", "all"):
        return None if text == "auto" else [(0, None)]
    found: list[tuple[int, int | None]] = []
    for part in text.split(","):
        first, sign, stop = part.strip().partition(":")
        try:
            begin = int(first or 0) if sign else int(first)
            end = (int(stop) if stop.strip() else None) if sign else begin + 1
        except ValueError:
            raise UsageError(f"{option}: got {text!r}, expected {what} such as 2:30 or 1,18:32") from None
        if begin < 0 or (end is not None and end <= begin):
            raise UsageError(f"{option}: got {part.strip()}, expected {what} counted from 0, rising")
        found.append((begin, end))
    return found


def dims_or_profile(text: str, option: str) -> None:
    """UsageError for what is neither numbers nor the word."""
    if text != "profile":
        read_numbers(text, option)


def file_or(*words: str) -> Check:
    """A check for a file that is there, or one of some words instead."""

    def check(text: str, option: str) -> None:
        if text not in words and not Path(text).is_file():
            raise UsageError(f"{option}: {text}: no such file; expected {', '.join(words)} or a JSON file")

    return check


def limited(
    default: Any,
    low: float | None = None,
    high: float | None = None,
    *,
    help: str,
    choices: Sequence[str] = (),
    check: Check | None = None,
) -> Any:
    """A setting with the values that it may take."""
    facts = {"low": low, "high": high, "help": help, "choices": tuple(choices), "check": check}
    return field(default=default, metadata=facts)


@dataclass(frozen=True)
class VarSettings:
    """VAR: attention of visual sinks to the other image tokens (arXiv 2503.03321)."""

    tau: float = limited(0.0, 0, help="least sink score; 0: the profile's")
    dims: str = limited(
        "profile", help="sink dimensions such as 1415,2533; profile: the profile's", check=dims_or_profile
    )
    rho: float = limited(0.5, 0, 1, help="least share of a head's image attention on tokens that are no sinks")
    recycle: float = limited(0.6, 0, 1, help="share of the sinks' attention that is handed on (the paper's p)")
    mass: float = limited(0.2, 0, help="least attention of a head to the image; above 1: none is changed")
    layers: str = limited("auto", check=read_ranges, help="decoder layers such as 2:30; auto: all but the last")
    compat: bool = limited(False, help="as the published code: recycle and rho are its p and rho, last layer included")


@dataclass(frozen=True)
class PlaceboSettings(VarSettings):
    """Placebo of VAR: as much attention, taken from random tokens in random heads."""


@dataclass(frozen=True)
class CarveSettings:
    """CARVE: the part of the picture that the question attracts, cut out (arXiv 2509.06461)."""

    layers: str = limited(
        "auto", check=read_ranges, help="decoder layers such as 20:26; auto: the same share of the depth"
    )
    keep: float = limited(0.2, 0, 1, help="share of the pixels above the threshold (the paper's p)")
    regions: int = limited(3, 1, 1000, help="most regions kept (the paper's K)")
    smoothing: float = limited(1e-8, 1e-12, help="added to the neutral map (the paper's lambda)")
    steps: str = limited(
        "last", help="generation steps whose maps count: first, last or all", choices=("first", "last", "all")
    )
    tokens: int = limited(32, 1, 4096, help="most tokens of the two extra passes")
    pictures: str = limited(
        "refined",
        help="what the last pass sees: refined, or both (as the published code)",
        choices=("refined", "both"),
    )


@dataclass(frozen=True)
class VhrSettings:
    """VHR: heads that change with the picture, reinforced (arXiv 2412.13949)."""

    factor: float = limited(2.0, 0, help="by which their outputs grow (the paper's alpha)")
    layers: str = limited(
        "auto", check=read_ranges, help="decoder layers such as 1,18:32; auto: the second and the last 14 of 32, scaled"
    )
    outliers: bool = limited(True, help="leave out heads that surge without the picture")
    each_token: bool = limited(False, help="report the divergence of each token of the answer: a second pass over it")
    top: int = limited(0, 0, help="heads of a layer whose divergence counts for a token; 0: all")


@dataclass(frozen=True)
class PaintSettings:
    """PAINT: scores of local and summary image tokens raised (arXiv 2501.12206)."""

    local: float = limited(0.7, 0, help="boost of local tokens (the paper's alpha)")
    summary: float = limited(0.4, 0, help="boost of summary tokens (the paper's beta)")
    share: float = limited(0.25, 0, 1, help="share of the image tokens that are local")
    spatial: float = limited(0.0, 0, 1, help="share of tokens added by the attention that they receive")
    guidance: float = limited(1.1, 0, help="weight of the picture against the text-only branch; 1: no second pass")
    cut: float = limited(0.1, 0, 1, help="tokens less likely than this share of the best are shut out by guidance")
    layers: str = limited("auto", check=read_ranges, help="decoder layers such as 2:32; auto: all but the first two")
    gains: str = limited(
        "none",
        help="none, or a JSON file with [[layer, head, gain], ...]: factors of a head's boost",
        check=file_or("none"),
    )


@dataclass(frozen=True)
class ActSettings:
    """ACT: attention of later sinks spread over the row (arXiv 2406.15765)."""

    threshold: float = limited(0.0, 0, help="attention received that makes a sink; 0: 5 over the prompt's length")
    keep: float = limited(0.4, 0, 1, help="share that sinks keep (the paper's beta)")
    heads: str = limited(
        "all",
        help="all; a JSON file with [[layer, head], ...]; auto: act_heads.json of the model",
        check=file_or("all", "auto"),
    )
    layers: str = limited("auto", check=read_ranges, help="decoder layers such as 2:31; auto: all but the first two")
    least_queries: int = limited(1, 1, help="queries that must see a token before it can be a sink")
    compat: bool = limited(False, help="as the published code: threshold 0.1, the first sink found is spared")


@dataclass(frozen=True)
class Kind:
    """One calibration: module and class, its settings, and the others that change the same rows."""

    settings: type
    location: str
    excludes: frozenset[str] = frozenset()


CALIBRATIONS: Mapping[str, Kind] = {
    "var": Kind(VarSettings, "var:Var", frozenset({"act", "placebo"})),
    "carve": Kind(CarveSettings, "carve:Carve"),
    "vhr": Kind(VhrSettings, "vhr:Vhr"),
    "paint": Kind(PaintSettings, "paint:Paint"),
    "act": Kind(ActSettings, "act:Act", frozenset({"var", "placebo"})),
    "placebo": Kind(PlaceboSettings, "placebo:Placebo", frozenset({"var", "act"})),
}
NAMES = (NONE, *CALIBRATIONS)


def valid_settings() -> dict[str, Any]:
    """All keys of --set with their defaults, as "calibration.key"."""
    return {f"{name}.{one.name}": one.default for name, kind in CALIBRATIONS.items() for one in fields(kind.settings)}


def parse_calibrations(text: str) -> list[tuple[str, ...]]:
    """The arms of --calibrate: "none,var,carve+var" as (), ("var",), ("carve", "var").

    Raises UsageError for an unknown name, one named twice, and two that change the same rows.
    """
    arms: list[tuple[str, ...]] = []
    for part in text.split(","):
        names = tuple(name.strip() for name in part.split("+"))
        for name in names:
            if name not in NAMES:
                raise UsageError(f"--calibrate: got {name!r}, expected one of {', '.join(NAMES)}, joined by + or ,")
        if NONE in names and len(names) > 1:
            raise UsageError(f"--calibrate {part}: none goes with nothing else; use a comma for one answer each")
        if len(set(names)) < len(names):
            raise UsageError(f"--calibrate {part}: names one calibration twice")
        for name in names:
            clash = CALIBRATIONS[name].excludes & set(names) if name != NONE else set()
            if clash:
                other = min(clash)
                raise UsageError(
                    f"--calibrate {part}: {name} and {other} move the same attention; "
                    f"use {name},{other} for one answer each"
                )
        arm = () if names == (NONE,) else names
        if arm in arms:
            raise UsageError(f"--calibrate {text}: names {part.strip()} twice")
        arms.append(arm)
    return arms


def arm_name(arm: Sequence[str]) -> str:
    """How an arm is written: "none", "var", "carve+var"."""
    return "+".join(arm) or NONE


def settings_for(name: str, given: Mapping[str, Any]) -> Any:
    """The settings of one calibration, out of values by "calibration.key"; UsageError for a value out of its range."""
    kind = CALIBRATIONS[name]
    own = {key.partition(".")[2]: value for key, value in given.items() if key.startswith(f"{name}.")}
    for one in fields(kind.settings):
        low, high = one.metadata["low"], one.metadata["high"]
        value = own.get(one.name, one.default)
        if (low is not None and value < low) or (high is not None and value > high):
            limits = f"{low:g} to {high:g}" if high is not None else f"at least {low:g}"
            raise UsageError(f"--set {name}.{one.name}: got {value}, expected {limits}")
        choices = one.metadata["choices"]
        if choices and value not in choices:
            raise UsageError(f"--set {name}.{one.name}: got {value!r}, expected {' or '.join(choices)}")
        if one.metadata["check"] is not None:
            one.metadata["check"](value, f"--set {name}.{one.name}")
    return kind.settings(**own)


def parse_layers(text: str, count: int, auto: Sequence[int], option: str, what: str = "layers") -> frozenset[int]:
    """Layers, or heads, out of "1,18:32" (the end left out), `all` or `auto`; UsageError beyond the model's `count`."""
    ranges = read_ranges(text, option, what)
    if ranges is None:
        return frozenset(auto)
    found: set[int] = set()
    for begin, end in ranges:
        stop = count if end is None else end
        if not begin < stop <= count:
            got = f"{begin}:{'' if end is None else end}" if stop != begin + 1 else f"{begin}"
            raise UsageError(f"{option}: got {got}, expected {what} from 0 to {count - 1}, rising")
        found.update(range(begin, stop))
    return frozenset(found)
