"""Bootstrap intervals over scenes: views of one scene are not independent, so whole scenes are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def scene_means(values: Sequence[float], scenes: Sequence[str]) -> dict[str, float]:
    """Mean of the values of each scene, NaN values left out; scenes without a value are left out."""
    import math

    if len(values) != len(scenes):
        raise ValueError(f"values and scenes must have the same length, got {len(values)} and {len(scenes)}")
    found: dict[str, list[float]] = {}
    for value, scene in zip(values, scenes, strict=True):
        if math.isfinite(value):
            found.setdefault(scene, []).append(float(value))
    return {scene: math.fsum(of_scene) / len(of_scene) for scene, of_scene in found.items()}


def bootstrap(
    means: Mapping[str, float], *, seed: int = 0, draws: int = 2000, level: float = 0.95
) -> tuple[float, float, float]:
    """Mean over scenes, and the percentile interval of that mean when scenes are drawn again with replacement.

    For a paired comparison hand over the differences scene by scene. All three are NaN without a scene; with one
    scene the interval is the value itself.
    """
    import numpy as np

    values = np.array(list(means.values()), dtype=np.float64)
    if not len(values):
        return (float("nan"),) * 3
    picks = np.random.default_rng(seed).integers(0, len(values), size=(draws, len(values)))
    low, high = np.quantile(values[picks].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(values.mean()), float(low), float(high)
