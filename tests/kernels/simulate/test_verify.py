"""--verify's machinery: silent where all is well, and loud where a map is wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from attnkit_kernels.patterns.neighborhood import Neighborhood
from attnkit_kernels.simulate import verify
from attnkit_kernels.simulate.verify import reduced
from brute_force import random_axes


def test_maps_are_right() -> None:
    generator = np.random.default_rng(2)
    for number in range(30):
        axes = random_axes(generator, number % 3 + 1, 9)
        canvas, window, stride, dilation, causal = zip(*axes, strict=True)
        query, key = (tuple(int(side) for side in generator.integers(1, 5, len(axes))) for _ in range(2))
        found = verify(canvas, Neighborhood(window, stride, dilation, causal), query, key)
        assert found.differences == ()
        assert (found.reduced, found.canvas) == (False, canvas)


def test_runs_are_verified_too() -> None:
    assert verify((9, 14), Neighborhood((3, 4), (2, 4)), (16,), (8,)).differences == ()


def test_large_canvases_are_made_smaller() -> None:
    pattern = Neighborhood((18, 24, 24), (16, 8, 8), (1, 1, 2), (True, False, False))
    canvas, small = reduced((30, 48, 80), pattern)
    assert canvas == (10, 16, 26)
    assert small == Neighborhood((6, 8, 8), (5, 2, 2), (1, 1, 2), (True, False, False))
    found = verify((30, 48, 80), pattern, (4, 8, 8), (2, 8, 8))
    assert found.reduced and found.differences == ()
    assert (found.counts_canvas, found.canvas) == ((30, 48, 80), canvas)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: {"full": np.ones_like(m.full), "query_order": m.query_order}, "tiles taken for full or partial"),
        (lambda m: {"starts": np.append(m.starts[:-1], m.starts[-1] - 1), "columns": m.columns[:-1]}, "not listed"),
    ],
)
def test_a_wrong_map_is_seen(change, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pattern = Neighborhood((3, 4))
    right = pattern.block_map((8, 8), (4, 4), (4, 4))
    changed = change(right)
    changed.setdefault("full", right.full[: len(changed.get("columns", right.columns))])
    wrong = replace(right, **changed)
    monkeypatch.setattr(Neighborhood, "block_map", lambda *_: wrong)
    differences = verify((8, 8), pattern, (4, 4), (4, 4)).differences
    assert any(words in one for one in differences)
    assert any("simulated" in one for one in differences)
