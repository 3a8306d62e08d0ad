"""Errors of a predicted scene after a similarity alignment: what HeSS's sensitivity is measured with."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Similarity", "camera_error", "icp", "point_error", "umeyama"]

# distances are computed for this many points at once
CHUNK = 4096


class Similarity(NamedTuple):
    """scale [] , rotation [3, 3] and shift [3]: point -> scale rotation point + shift. No gradient flows through it."""

    scale: Tensor
    rotation: Tensor
    shift: Tensor

    def __call__(self, points: Tensor) -> Tensor:
        """The moved points [points, 3]."""
        return self.scale * points @ self.rotation.T + self.shift


def umeyama(source: Tensor, target: Tensor) -> Similarity:
    """The similarity that moves source onto target, both [points, 3] in pairs, with the least squared error.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns" (1991), Eq. 40 to 42;
    a reflection is never returned. ValueError for shapes that differ or fewer than 3 points.
    """
    if source.shape != target.shape or source.ndim != 2 or source.shape[1] != 3 or len(source) < 3:
        raise ValueError(
            "source and target: expected [points, 3] twice with 3 points or more, "
            f"got {list(source.shape)} and {list(target.shape)}"
        )
    source, target = source.detach().double(), target.detach().double()
    centres = source.mean(0), target.mean(0)
    around = source - centres[0]
    left, singular, right = torch.linalg.svd((target - centres[1]).T @ around / len(source))
    signs = torch.ones_like(singular)
    signs[-1] = torch.sign(torch.linalg.det(left) * torch.linalg.det(right))
    rotation = left * signs @ right
    spread = around.square().sum() / len(source)
    scale = (singular * signs).sum() / spread if spread > 0 else torch.ones_like(spread)
    return Similarity(scale, rotation, centres[1] - scale * rotation @ centres[0])


def icp(
    source: Tensor, target: Tensor, start: Similarity, *, steps: int = 20, reach: float = float("inf")
) -> Similarity:
    """`start` refined by iterated closest points: pairs within `reach` (units of target), then Umeyama.

    source, target : [points, 3], any numbers of them. Stops when the pairs stay as they are, or fewer than 3 are left.
    """
    found, before = start, None
    for _ in range(steps):
        moved = found(source.detach().double())
        distance, index = _closest(moved, target.detach().double())
        near = distance <= reach
        if int(near.sum()) < 3 or (before is not None and torch.equal(before, index.where(near, -1))):
            break
        before = index.where(near, -1)
        found = umeyama(source[near], target[index[near]])
    return found


def camera_error(positions: Tensor, target: Tensor, alignment: Similarity) -> Tensor:
    """1 / (2 N) * sum of |H t_i - t*_i|^2 for N camera positions [N, 3]; gradient to the positions (HeSS, e_cam)."""
    return (alignment(positions.double()) - target.double()).square().sum() / (2 * len(positions))


def point_error(points: Tensor, target: Tensor, alignment: Similarity, *, inlier: float = 0.05) -> Tensor:
    """1 / (2 |I|) * sum over I of the squared distance of H p_j to its closest target point (HeSS, e_pc).

    I : the predicted points [points, 3] within `inlier` (units of target) of the target cloud, fixed before the
    gradient is taken, as is each closest point; 0 when there is none.
    """
    moved = alignment(points.double())
    distance, index = _closest(moved.detach(), target.detach().double())
    near = distance < inlier
    gaps = moved[near] - target.double()[index[near]]
    return gaps.square().sum() / (2 * max(1, len(gaps)))


def _closest(points: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Distance to, and index of, the closest target point of each point."""
    found = [torch.cdist(part, target).min(1) for part in points.split(CHUNK)]
    return torch.cat([one.values for one in found]), torch.cat([one.indices for one in found])
