"""Eager torch: the definition. float64 stays, half is computed in float32."""

from __future__ import annotations

import torch
from torch import Tensor


def attend(rows: Tensor, columns: Tensor, mixed: Tensor, scale: float) -> Tensor:
    """softmax(scale rows^T columns) mixed^T of [batch, tokens, groups, dim], in that layout."""
    dtype = torch.float64 if rows.dtype == torch.float64 else torch.float32
    with torch.autocast(rows.device.type, enabled=False):
        left, right, source = (x.to(dtype).transpose(1, 2) for x in (rows, columns, mixed))
        weights = (scale * left.mT @ right).softmax(-1)
        return (source @ weights.mT).transpose(1, 2).to(mixed.dtype)
