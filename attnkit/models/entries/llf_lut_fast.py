"""The embedded default of tonemap: LUTs fused by point and by map, with an in-band remap of the luma pyramid."""

from collections.abc import Mapping
from typing import Any

from attnkit.models.registry import Resolved, register


def _open(resolved: Resolved, device: str) -> Any:
    # numpy and compiled loops: whatever the device, this model runs on the CPU
    from attnkit.models.llf_lut_fast import FastToneMapper

    return FastToneMapper.load(resolved.path)


@register(
    "llf-lut",
    task="tonemap",
    paper="LLF-LUT (NeurIPS 2023, arXiv 2310.17190) and LLF-LUT++ (TPAMI 2025, arXiv 2510.11613)",
    licence="Apache-2.0",
    source="embedded",
    expects="linear Rec.709 light, (rows, columns, 3) float32, any scale",
    config={"table_size": 33, "widths": [16, 24, 32, 48]},
    tiny={"table_size": 5, "widths": [4, 4, 8, 8]},
    open=_open,
)
def llf_lut(config: Mapping[str, Any]) -> Any:
    """Default of tonemap: three 3-D LUTs fused by point and by map, local Laplacian remap of the luma pyramid"""
    from attnkit.models.llf_lut_fast import FastConfig, FastToneMapper

    return FastToneMapper.fresh(FastConfig.from_dict(config))
