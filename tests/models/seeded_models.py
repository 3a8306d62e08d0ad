"""Models for tests: tiny, and with every array set by a seed."""

from __future__ import annotations

import numpy as np
import torch

from attnkit.models import registry
from attnkit.models.verbs import Model


def seeded(name: str) -> Model:
    """A tiny model with seeded values in every array, so that no part is zero or identity by its start."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = registry.build(name, tiny=True)
    random = np.random.default_rng(7)
    arrays = model.arrays()
    model.load_arrays(
        {key: (arrays[key] + 0.1 * random.standard_normal(arrays[key].shape)).astype("f4") for key in sorted(arrays)}
    )
    return model
