"""The facts of a cube as JSON, for files that have no header of their own."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .cube import CubeInfo

SETTINGS = "attnkit"


def described(info: CubeInfo, history: str) -> str:
    """The description with one more line of processing history."""
    return "\n".join(part for part in (info.description, " ".join(history.split())) if part)


def facts_text(info: CubeInfo, settings: Mapping[str, Any], history: str, **more: Any) -> str:
    """One line of ASCII that `read_facts` understands: the settings under SETTINGS, and what CubeInfo tells."""
    found = {
        SETTINGS: settings,
        "description": described(info, history),
        "wavelengths": info.wavelengths,
        "wavelength_units": info.wavelength_units,
        "bad_bands": None if info.bad_bands is None else [int(bad) for bad in info.bad_bands],
        "ignore_value": _plain(info.ignore_value),
        "reflectance_scale": _plain(info.reflectance_scale),
        "header": dict(info.extra) or None,
        **more,
    }
    return json.dumps({name: value for name, value in found.items() if value is not None}, sort_keys=True)


def _plain(value: float | None) -> float | str | None:
    # JSON knows no NaN and no infinity
    return value if value is None or math.isfinite(value) else str(value)


def read_facts(text: str) -> dict[str, Any]:
    """What facts_text wrote; empty where the text is something else."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) and isinstance(found.get(SETTINGS), dict) else {}


def settings_of(facts: Mapping[str, Any]) -> dict[str, Any] | None:
    found = facts.get(SETTINGS)
    return found if isinstance(found, dict) else None


def with_facts(info: CubeInfo, facts: Mapping[str, Any]) -> CubeInfo:
    """`info` with what the facts add; lists that do not fit its bands are left out."""
    try:
        return _with_facts(info, facts)
    except (TypeError, ValueError):
        # someone has changed them by hand
        return info


def _with_facts(info: CubeInfo, facts: Mapping[str, Any]) -> CubeInfo:

    def per_band(name: str) -> tuple[float, ...] | None:
        values = facts.get(name)
        if not isinstance(values, list) or len(values) != info.bands:
            return None
        return tuple(map(float, values))

    def number(name: str) -> float | None:
        return None if facts.get(name) is None else float(facts[name])

    flags = per_band("bad_bands")
    return replace(
        info,
        wavelengths=per_band("wavelengths") or info.wavelengths,
        wavelength_units=facts.get("wavelength_units") or info.wavelength_units,
        bad_bands=info.bad_bands if flags is None else tuple(flag != 0 for flag in flags),
        ignore_value=number("ignore_value") if "ignore_value" in facts else info.ignore_value,
        reflectance_scale=number("reflectance_scale") if "reflectance_scale" in facts else info.reflectance_scale,
        description=facts.get("description") or info.description,
        extra={**info.extra, **(facts.get("header") or {})},
    )
