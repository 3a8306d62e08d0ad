"""The band-wise runner: any way through a cube gives what the network gives band by band."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from attnkit.models.hsie.fast import FastHsie
from attnkit.models.hsie.model import HsieLptn
from attnkit.models.hsie.window import band_window
from attnkit.runtime.errors import ItemError
from attnkit.tasks.hsi_enhance.methods.bandwise import Plan, plan, run_bandwise
from attnkit.tasks.hsi_enhance.source import ArraySource, Region

torch.set_num_threads(1)
WAYS = [
    Plan("whole", 1, 0, 99),
    Plan("whole", 4, 0, 99),
    Plan("blocks", 1, 11, 99),
    Plan("tiles", 1, 11, 22),
    Plan("tiles", 1, 16, 64),
]
SHAPES = [(7, 61, 75), (6, 34, 40), (3, 33, 20), (1, 25, 31), (6, 1, 1), (5, 2, 3)]


@pytest.fixture(scope="module")
def model() -> HsieLptn:
    """A network by seed whose attention weighs much."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        made = HsieLptn(neighbours=4, features=3, growth=3, blocks=2, convs=2, width=6, residual_blocks=1).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(0.7)
        for block in made.blocks:
            block.attention.mix.weight.fill_(2.0)
    return made


def bright_corner(shape: tuple[int, int, int]) -> np.ndarray:
    cube = np.random.default_rng(0).random(shape).astype(np.float32) * 0.2
    cube[:, -(shape[1] // 6 + 1) :, -(shape[2] // 6 + 1) :] += 3
    return cube


def enhanced(cube: np.ndarray, network: FastHsie, way: Plan | None, memory: int = 10**9, **options) -> np.ndarray:  # type: ignore[no-untyped-def]
    result = np.full(cube.shape, np.nan, np.float32)
    for region, values in run_bandwise(
        ArraySource(cube), network, memory=memory, done=frozenset(), facts={}, chosen=way, **options
    ):
        assert values.dtype == np.float32 and np.isnan(result[region.slices]).all()
        result[region.slices] = values
    return result


def straight(model: HsieLptn, cube: np.ndarray) -> np.ndarray:
    return model.run(cube.transpose(1, 2, 0))["cube"].transpose(2, 0, 1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: f"{way.mode} {way.group} {way.side}")
def test_every_way_gives_the_band_by_band_result(model: HsieLptn, shape: tuple[int, int, int], way: Plan) -> None:
    cube = bright_corner(shape)
    expected = straight(model, cube)
    result = enhanced(cube, FastHsie(model), way)
    assert np.abs(result - expected).max() < 1e-5 * max(1.0, float(np.abs(expected).max()))


def test_naive_tiles_would_differ(model: HsieLptn) -> None:
    cube = bright_corner((7, 60, 76))
    difference = straight(model, cube)[:, :20, :26] - straight(model, cube[:, :40, :50])[:, :20, :26]
    assert np.abs(difference[:, :10, :10]).max() > 1e-3


@pytest.mark.parametrize("way", WAYS[1:4], ids=lambda way: way.mode)
def test_done_regions_are_left_out_and_the_rest_stays(model: HsieLptn, way: Plan) -> None:
    source, network = ArraySource(bright_corner((7, 45, 30))), FastHsie(model)
    every = list(run_bandwise(source, network, memory=0, done=frozenset(), facts={}, chosen=way))
    done = frozenset(region for region, _ in every[::2])
    rest = list(run_bandwise(source, network, memory=0, done=done, facts={}, chosen=way))
    assert [region for region, _ in rest] == [region for region, _ in every[1::2]]
    for (_, values), (_, again) in zip(every[1::2], rest, strict=True):
        assert np.array_equal(values, again)


def test_too_few_bands_are_told(model: HsieLptn) -> None:
    facts: dict[str, object] = {}
    list(run_bandwise(ArraySource(bright_corner((2, 8, 8))), FastHsie(model), memory=10**9, done=(), facts=facts))
    assert facts == {
        "window_filled": 3,
        "notices": ["2 bands, 5 needed by the band window: 3 filled by reflection"],
        "tiling": "whole",
    }


def test_neighbours_by_wavelength(model: HsieLptn) -> None:
    cube = bright_corner((7, 12, 14))
    nm = [400.0, 410, 420, 700, 710, 720, 730]
    windows, _ = band_window(7, 4, nm)
    bands = torch.from_numpy(cube)[None]
    with torch.no_grad():
        expected = torch.cat([model(bands[:, i : i + 1], bands[:, list(row)]) for i, row in enumerate(windows)], 1)[0]
    facts: dict[str, object] = {}
    source = ArraySource(cube, nm)
    for way in WAYS[1:4]:
        result = np.empty_like(cube)
        parts = run_bandwise(
            source, FastHsie(model), memory=0, done=(), facts=facts, by_wavelength=True, chosen=way
        )
        for region, values in parts:
            result[region.slices] = values
        assert np.abs(result - expected.numpy()).max() < 1e-5 * float(expected.abs().max())
    with pytest.raises(ItemError, match="no wavelengths"):
        enhanced(cube, FastHsie(model), None, by_wavelength=True)


def test_less_memory_takes_smaller_parts_and_gives_the_same(model: HsieLptn) -> None:
    cube = bright_corner((6, 90, 110))
    network = FastHsie(model)
    plans = {memory: plan(network, cube.shape, memory) for memory in (50_000_000, 2_000_000, 600_000)}
    assert [one.mode for one in plans.values()] == ["whole", "blocks", "tiles"]
    results = [enhanced(cube, network, None, memory) for memory in plans]
    assert max(np.abs(result - results[0]).max() for result in results) < 1e-5 * np.abs(results[0]).max()


def test_the_published_network_on_large_bands_keeps_its_features() -> None:
    network = FastHsie(HsieLptn())
    assert plan(network, (200, 2000, 2000), 1_100_000_000).mode == "blocks"
    assert plan(network, (200, 8000, 8000), 1_100_000_000).mode == "tiles"
    assert plan(network, (64, 128, 128), 1_100_000_000) == Plan("whole", 1, 0, 128)
    assert plan(network, (64, 32, 32), 1_100_000_000).group == 16


def test_regions_of_large_bands_are_blocks_of_rows(model: HsieLptn) -> None:
    source = ArraySource(bright_corner((5, 50, 21)))
    parts = run_bandwise(source, FastHsie(model), memory=0, done=(), facts={}, chosen=Plan("tiles", 1, 8, 16))
    regions = [region for region, _ in parts]
    assert regions[:4] == [Region(0, 1, top, min(top + 16, 50), 0, 21) for top in (0, 16, 32, 48)]
    assert sum(np.prod(region.shape) for region in regions) == 5 * 50 * 21
