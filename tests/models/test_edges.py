"""Canny's edges against kornia's, and by hand."""

from __future__ import annotations

import pytest
import torch

from attnkit.models.llf_lut.edges import canny, grey


def test_a_step_gives_one_line_of_edges() -> None:
    image = torch.zeros(1, 1, 16, 17)
    image[..., 9:] = 1
    edges = canny(image)
    assert set(edges.unique().tolist()) == {0.0, 1.0}
    assert edges[..., :7].sum() == 0 and edges[..., 11:].sum() == 0
    assert (edges.sum(-1) <= 2).all()


def test_a_ramp_has_a_ridge_where_it_is_steepest() -> None:
    across = torch.arange(33, dtype=torch.float32)
    image = torch.sigmoid((across - 16.2) / 2).expand(1, 1, 20, 33)
    edges = canny(image)
    assert torch.equal(edges[0, 0].sum(0).nonzero().flatten(), torch.tensor([16]))
    assert edges[0, 0, :, 16].all()


def test_a_weak_edge_counts_only_where_it_reaches_a_strong_one() -> None:
    across = torch.arange(40, dtype=torch.float32)
    rows = torch.linspace(0.02, 0.2, 60).view(-1, 1)
    fading = rows * torch.sigmoid((across - 20.2) / 1.5)
    edges = canny(fading[None, None])
    all_weak = canny(fading[None, None], low=0.1, high=0.1)
    assert 0 < edges.sum() == all_weak.sum()
    # below the high threshold everywhere: no strong pixel to hang on to
    assert canny(fading[None, None], low=0.1, high=10.0).sum() == 0


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 9), (2, 3), (3, 2)])
def test_tiny_pictures(rows: int, columns: int) -> None:
    edges = canny(torch.ones(1, 1, rows, columns))
    assert edges.shape == (1, 1, rows, columns) and edges.sum() == 0


def test_flat_and_batched() -> None:
    random = torch.rand(2, 1, 24, 30, generator=torch.Generator().manual_seed(1))
    both = canny(random)
    assert torch.equal(both[1:], canny(random[1:])) and both.sum() > 0
    assert canny(torch.full((1, 1, 8, 8), 0.7)).sum() == 0


def test_grey_weighs_as_television_did() -> None:
    image = torch.eye(3).view(1, 3, 1, 3)
    assert torch.allclose(grey(image).flatten(), torch.tensor([0.299, 0.587, 0.114]))


# edge pixels of each row, from kornia 0.9.0: kornia.filters.canny(picture(rows, columns, scale))[1][0, 0].sum(1)
KORNIA = {
    (33, 47, 1.0): [
        4,
        14,
        12,
        4,
        12,
        12,
        9,
        7,
        8,
        10,
        7,
        9,
        7,
        8,
        12,
        11,
        10,
        12,
        10,
        8,
        11,
        9,
        13,
        10,
        14,
        11,
        8,
        12,
        12,
        13,
        16,
        12,
        8,
    ],
    (33, 47, 0.2): [
        1,
        5,
        7,
        2,
        9,
        9,
        7,
        5,
        5,
        10,
        7,
        9,
        7,
        8,
        12,
        11,
        10,
        12,
        7,
        6,
        8,
        7,
        11,
        9,
        12,
        9,
        5,
        9,
        9,
        8,
        8,
        10,
        6,
    ],
    (24, 80, 1.0): [9, 28, 19, 16, 26, 16, 22, 17, 19, 18, 16, 20, 16, 21, 20, 19, 17, 21, 23, 20, 19, 26, 21, 13],
    (5, 7, 3.0): [2, 1, 2, 1, 2],
}


@pytest.mark.parametrize(("rows", "columns", "scale"), KORNIA)
def test_equals_kornia(rows: int, columns: int, scale: float) -> None:
    found = canny(picture(rows, columns, scale))[0, 0].sum(1)
    # another processor's rounding may move a pixel over a threshold
    assert (found - torch.tensor(KORNIA[rows, columns, scale])).abs().sum() <= 4


def picture(rows: int, columns: int, scale: float) -> torch.Tensor:
    """Waves of many directions with a step, by formula."""
    down, across = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    waves = torch.sin(0.37 * down + 0.21 * across) + torch.sin(0.11 * across * down / 7) + (across > columns / 2)
    return (scale * (0.3 * waves.double() + 0.4)).float()[None, None]
