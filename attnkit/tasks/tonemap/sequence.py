"""Numbered frames that belong together: one smooth course of the global parameters instead of one choice per frame."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

# frames: a change of light takes a few frames to be followed, and what flickers from one frame to the next is averaged
SMOOTHING_FRAMES = 4.0


def smooth_parameters(frames: Sequence[Mapping[str, Any]], smoothing: float = SMOOTHING_FRAMES) -> list[dict[str, Any]]:
    """The global parameters of each frame, averaged over its neighbours in time.

    Args:
        frames: parameters frame by frame, as `task.scene_parameters` gives them: numbers and arrays of one shape.
        smoothing: standard deviation of the weights in frames; 0 leaves everything as it is.

    The weights are symmetric in time, so nothing lags behind, and are cut at three deviations and at the ends of the
    sequence. Numbers that are positive in all frames are averaged as logarithms: a flash does not outweigh the frames
    around it. Values that are no numbers, or do not have one shape in all frames, stay those of their frame.
    """
    import numpy as np

    count = len(frames)
    if count < 2 or smoothing <= 0:
        return [dict(frame) for frame in frames]
    reach = min(count - 1, math.ceil(3 * smoothing))
    distance = np.arange(count)[:, None] - np.arange(count)[None, :]
    weights = np.exp(-0.5 * (distance / smoothing) ** 2) * (np.abs(distance) <= reach)
    weights /= weights.sum(axis=1, keepdims=True)
    smoothed = [dict(frame) for frame in frames]
    for name, first in frames[0].items():
        if not all(name in frame and _same_kind(frame[name], first) for frame in frames):
            continue
        values = np.stack([np.asarray(frame[name], dtype=np.float64) for frame in frames])
        flat = values.reshape(count, -1)
        positive = np.ndim(first) == 0 and (flat > 0).all()
        course = np.exp(weights @ np.log(flat)) if positive else weights @ flat
        for at in range(count):
            value = course[at].reshape(values.shape[1:])
            # a number or list stays one, so that the parameters can still be written as JSON
            smoothed[at][name] = value.astype(first.dtype) if isinstance(first, np.ndarray) else value.tolist()
    return smoothed


def _same_kind(value: Any, other: Any) -> bool:
    import numpy as np

    if isinstance(value, bool | int | str) or value is None:
        return False
    array = np.asarray(value)
    return array.dtype.kind == "f" and array.shape == np.shape(other) and bool(np.isfinite(array).all())
