"""The .cube file of a published model names the light that its table spans."""

from pathlib import Path

import numpy as np
import pytest

from attnkit.models import registry
from attnkit.tasks.tonemap import learned
from attnkit.tasks.tonemap.task import TonemapRequest


@pytest.mark.parametrize("scale", [0.5, 8.0])
def test_the_domain_ends_at_the_models_anchor(tmp_path: Path, scale: float) -> None:
    model = registry.build("llf-lut-pp", tiny=True)
    registry.save(model, "llf-lut-pp", tmp_path / "tiny.safetensors")
    pixels = (model.example(40, 56) * scale).astype(np.float32)
    request = TonemapRequest(pixels, model=str(tmp_path / "tiny.safetensors"), exposure=1.0)
    gain = learned.parameters(pixels, request)["gain"]
    assert (gain == 1.0) == (scale < 1)
    assert learned.cube(pixels, request).domain[1] == pytest.approx((1 / (2 * gain),) * 3)
