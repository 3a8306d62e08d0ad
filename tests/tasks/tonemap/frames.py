"""Frames that break tone mappers, and an ordinary one, for tests of every method."""

import numpy as np


def ordinary(rows=40, columns=52, seed=0):
    """Coloured light over about twelve stops."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:rows, :columns]
    stops = 4 * np.sin(x / 9 + y / 15) + 2 * np.cos(y / 7) + 0.2 * random.standard_normal((rows, columns))
    colour = 1 + 0.5 * np.stack([np.sin(x / 11), np.cos(y / 13), np.sin((x + y) / 17)], axis=2)
    return (np.exp2(stops)[..., None] * colour).astype(np.float32)


def broken():
    """Name -> finite non-negative light that is degenerate in one way."""
    base = ordinary()
    one_bright = np.zeros_like(base)
    one_bright[7, 9] = 1e6
    half_black = base.copy()
    half_black[:, :26] = 0
    return {
        "black": np.zeros((9, 9, 3), np.float32),
        "constant": np.full((9, 9, 3), 3.0, np.float32),
        "constant colour": np.tile(np.array([1.0, 0.0, 0.2], np.float32), (30, 30, 1)),
        "one pixel": np.full((1, 1, 3), 0.2, np.float32),
        "one black pixel": np.zeros((1, 1, 3), np.float32),
        "two pixels": np.array([[[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]]], np.float32),
        "one row": base[:1],
        "one column": base[:, :1],
        "two by two": base[:2, :2],
        "grey": np.repeat(base[..., :1], 3, axis=2),
        "one channel lit": base * np.array([1.0, 0.0, 0.0], np.float32),
        "half black": half_black,
        "one bright pixel": one_bright,
        "huge": (base / base.max() * 3e38).astype(np.float32),
        "tiny": base * np.float32(1e-30),
        "denormal": base * np.float32(1e-42),
        "almost constant": np.linspace(1, 1.00001, 300, dtype=np.float32).reshape(10, 10, 3),
    }
