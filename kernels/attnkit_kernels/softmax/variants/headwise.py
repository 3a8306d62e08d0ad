"""HeSS's head sensitivity: how much the errors of a scene move with each head's query projection."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["fisher_traces", "head_sensitivity", "projection_gradients"]


def projection_gradients(error: Tensor, projections: Sequence[Tensor], *, retain_graph: bool = True) -> list[Tensor]:
    """Gradients of a scalar `error` to the query projections of the layers, zero where it does not depend on one.

    projections : weights [heads * dim, width] (torch's Linear) or biases [heads * dim], recording gradients. One
    backward pass per error and scene; the model is the dense one.
    """
    found = torch.autograd.grad(error, list(projections), retain_graph=retain_graph, allow_unused=True)
    return [torch.zeros_like(w) if g is None else g for g, w in zip(found, projections, strict=True)]


def fisher_traces(gradients: Tensor, heads: int) -> Tensor:
    """Trace of the Fisher matrix of each head, [heads], float64: the mean over scenes of the squared gradient's sum.

    gradients : [scenes, heads * dim, ...] of one layer, one error per scene. ValueError when the heads do not divide.
    """
    if gradients.ndim < 2 or gradients.shape[1] % heads:
        raise ValueError(
            f"gradients: expected [scenes, rows, ...], rows a multiple of {heads}, got {list(gradients.shape)}"
        )
    return gradients.double().unflatten(1, (heads, -1)).flatten(2).square().sum(-1).mean(0)


def head_sensitivity(camera: Tensor, points: Tensor, heads: int, *, balance: float = 0.5) -> Tensor:
    """Score of each head of one layer, [heads], summing to 1; for `patterns.headwise` of the same layer only.

    camera, points : gradients [scenes, heads * dim, ...] of the camera and of the point error to the layer's query
    projection; balance : weight of the camera's (pi^3: 0). A layer that gets no gradient has equal scores.

    Notes
    -----
    HeSS: S_e(h) = tr F^h_e / sum over the layer's heads, score = balance S_camera + (1 - balance) S_points. Scores of
    different layers are not comparable.
    """
    if not 0 <= balance <= 1:
        raise ValueError(f"balance must be between 0 and 1, got {balance}")
    shares = []
    for gradients in (camera, points):
        traces = fisher_traces(gradients, heads)
        total = traces.sum()
        shares.append(traces / total if total > 0 else torch.full_like(traces, 1 / heads))
    return balance * shares[0] + (1 - balance) * shares[1]
