"""Bootstrap intervals over scenes: views of one scene are not independent, so whole scenes are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


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


def resampled_sums(
    counts: NDArray[Any], groups: Sequence[str], *, seed: int = 0, draws: int = 2000
) -> NDArray[np.float64]:
    """Sums of `counts` when whole groups are drawn again with replacement, for measures that are no plain means.

    counts     [units, columns]
    groups     name of the group of each unit
    returns    [draws, columns]

    The draws depend on the seed and the names of the groups only: two tables of the same groups are paired.
    """
    import zlib

    import numpy as np

    names, where = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.zeros((len(names), counts.shape[1]))
    np.add.at(sums, where, counts)
    draw = np.random.default_rng([seed, zlib.crc32("\n".join(names).encode())])
    found = np.empty((draws, counts.shape[1]))
    # at most about 64 MB of weights at a time
    step = max(1, 4_000_000 // max(1, len(names)))
    for start in range(0, draws, step):
        rows = min(step, draws - start)
        for row, picks in enumerate(draw.integers(0, len(names), size=(rows, len(names)), dtype=np.int32), start):
            found[row] = np.bincount(picks, minlength=len(names)) @ sums
    return found
