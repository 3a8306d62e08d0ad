"""The embedded default of hsi-enhance: the HSIE network in the subspace of the cube."""

from collections.abc import Mapping
from typing import Any

from attnkit.models.hsie.cost import count_subspace_flops
from attnkit.models.registry import Resolved, register


def _open(resolved: Resolved, device: str) -> Any:
    from attnkit.models import registry
    from attnkit.models.torch_model import torch_device

    network: Any = registry.load(resolved.path)
    return network.to(torch_device(device))


@register(
    "hsie",
    task="hsi-enhance",
    paper="after HSIE: Low-Light Hyperspectral Image Enhancement (arXiv 2208.03042)",
    licence="Apache-2.0",
    source="embedded",
    expects="noise-whitened eigen-images and first estimates of them (rows, columns, 2 x rank) float32",
    config={
        "neighbours": 8,
        "features": 24,
        "growth": 8,
        "blocks": 2,
        "convs": 3,
        "width": 16,
        "residual_blocks": 2,
        "handed": 8,
    },
    tiny={
        "neighbours": 2,
        "features": 4,
        "growth": 2,
        "blocks": 2,
        "convs": 2,
        "width": 4,
        "residual_blocks": 1,
        "handed": 2,
    },
    open=_open,
    flops=count_subspace_flops,
)
def hsie(config: Mapping[str, Any]) -> Any:
    """Default of hsi-enhance: channel attention and mask network on the cube's eigen-images, not its bands"""
    from attnkit.models.hsie.subspace import HsieSubspace

    return HsieSubspace(**config).eval()
