"""Tile shapes of known kernels: what a query tile and a key tile look like on a canvas of one, two or three axes."""

from __future__ import annotations

__all__ = ["TARGETS", "Tile", "TilePair", "tiles_of", "word"]

Tile = tuple[int, ...]
TilePair = tuple[Tile, Tile]

# query tile | key tile by number of axes, the default first. NATTEN 0.21.7: b200 is its Blackwell kernel, h100 its
# Hopper kernel at head dimension 128, flex its masks for FlexAttention
TARGETS: dict[str, dict[int, tuple[TilePair, ...]]] = {
    "b200": {
        1: (((256,), (128,)),),
        2: (((16, 16), (16, 8)), ((16, 16), (8, 16)), ((8, 32), (8, 16)), ((8, 32), (4, 32))),
        3: (
            ((8, 4, 8), (4, 4, 8)),
            ((8, 4, 8), (2, 8, 8)),
            ((2, 8, 16), (4, 4, 8)),
            ((2, 8, 16), (2, 8, 8)),
            ((4, 4, 16), (2, 4, 16)),
            ((2, 16, 8), (2, 8, 8)),
            ((4, 8, 8), (2, 8, 8)),
        ),
    },
    "h100": {
        1: (((128,), (128,)),),
        2: (((16, 8), (16, 8)),),
        3: (((4, 4, 8), (4, 4, 8)), ((2, 8, 8), (2, 8, 8))),
    },
    "flex": {
        1: (((64,), (64,)),),
        2: (((8, 8), (8, 8)), ((4, 16), (4, 16))),
        3: (((4, 4, 4), (4, 4, 4)), ((2, 4, 8), (2, 4, 8))),
    },
}


def tiles_of(target: str, axes: int) -> tuple[TilePair, ...]:
    """The (query tile, key tile) pairs of a target for canvases of `axes` axes, its default first."""
    if target not in TARGETS:
        raise ValueError(f"target: got {target!r}, expected one of {', '.join(TARGETS)}")
    if axes not in TARGETS[target]:
        raise ValueError(f"target {target}: got a canvas of {axes} axes, expected 1, 2 or 3")
    return TARGETS[target][axes]


def word(values: tuple[int, ...]) -> str:
    """'18,24,24': how shapes are written on the command line."""
    return ",".join(str(value) for value in values)
