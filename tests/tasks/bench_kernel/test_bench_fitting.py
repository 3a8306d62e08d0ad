"""The designed maps and the cost model that is fitted to them; times come from a made-up device."""

from __future__ import annotations

import pytest
import torch
from attnkit_kernels.simulate import CostModel, Counts
from attnkit_kernels.simulate.cost import TERMS

from attnkit.tasks.bench_kernel import fitting
from attnkit.tasks.bench_kernel.timing import HostClock

TRUE = CostModel(
    5e5, 900.0, 25e3, 39e3, 128, 128, 64, list_ns=8e4, gather_ns=5e3, mask_ns=14e3, move_ns=40.0, exact=True
)


def test_the_design_tells_all_terms_apart() -> None:
    counts = [Counts.of(each.block_map(), each.heads, fitting.DIM) for each in fitting.DESIGN]
    fitted = CostModel.fit([(one, TRUE.predict(one)) for one in counts])
    for name in TERMS:
        assert getattr(fitted, name) == pytest.approx(getattr(TRUE, name), rel=1e-4), name


def test_counts_of_a_map() -> None:
    block_map = fitting.one("random_blocks", (512,), heads=3, density=0.5, seed=2).block_map()
    rows = {tuple(block_map.row(0, 0, block)[0].tolist()) for block in range(4)}
    lists = len(rows)
    gaps = sum(len(row) for row in rows if row and row != tuple(range(row[0], row[-1] + 1)))
    counted = Counts.of(block_map, 3, 64)
    assert (counted.full_tiles, counted.partial_tiles, counted.rows) == (3 * block_map.visited, 0, 12)
    assert (counted.gathered, counted.lists, counted.masked, counted.moved) == (3 * gaps, lists, 0, 0)
    # each window of 2 x 2 tiles is one call, though its tiles lie in two pieces of the order
    window = fitting.one("neighborhood", (32, 64), window=(16, 32), stride=(16, 32)).block_map()
    assert [window.row(0, 0, block)[0].tolist() for block in (0, 1, 4, 5)] == 4 * [[0, 1, 4, 5]]
    counted = Counts.of(window, 1, 64)
    assert (counted.rows, counted.lists, counted.gathered) == (16, 4, 16)
    spatial = Counts.of(fitting.one("blocked", (16, 32), window=(8, 16)).block_map(), 2, 64)
    assert spatial.moved == 4 * 512 * 2 and spatial.masked == 0


@pytest.mark.parametrize("tokens", [128, 384, 400, 50, 128 * 70])
def test_dense_counts_are_those_of_its_map(tokens: int) -> None:
    block_map = fitting.one("dense", (tokens,)).block_map()
    assert Counts.dense(tokens, tokens, 128, 128, 3, 64) == Counts.of(block_map, 3, 64)


def test_fit_of_this_device() -> None:
    design = [fitting.one("dense", (128,), 1), fitting.one("sliding", (256,), 1, window=20)]
    model = fitting.fit_cost("cpu", HostClock(), design, rounds=2)
    assert (model.dtype, model.dim, model.query_block, model.impl) == ("float32", 64, 128, "torch")
    assert model.torch == torch.__version__ and model.device and model.exact and model.samples == 2
    assert model.predict(Counts.of(design[0].block_map(), 1, 64)) > 0


def test_a_measured_model_refuses_other_tiles() -> None:
    with pytest.raises(ValueError, match="got tiles of 64 x 128 slots and dim 64, expected 128 x 128 and dim 64"):
        TRUE.predict(Counts(1, 0, 1, 64, 128, 64))
