"""The task between the command and the simulator: defaults, rankings, sweeps, rows and pictures."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from attnkit_kernels.patterns import pattern
from attnkit_kernels.simulate import CostModel
from attnkit_kernels.simulate.rows import map_rows, tile_rows

from attnkit.tasks.sim_gna.files import table_text
from attnkit.tasks.sim_gna.plot import FULL, LARGEST, PARTIAL, SKIPPED, draw, tile_map
from attnkit.tasks.sim_gna.report import fields_of, least_stride, rows_of, tables_of
from attnkit.tasks.sim_gna.run import settings_of_pattern
from attnkit.tasks.sim_gna.task import SimulationRequest, run_simulation

HUNYUAN = {"canvas": (30, 48, 80), "settings": {"window": (18, 24, 24)}}
TILES = {"query_tile": (4, 8, 8), "key_tile": (2, 8, 8)}


def test_default_tiles_are_the_targets_first() -> None:
    for target, query, key in (("b200", (8, 4, 8), (4, 4, 8)), ("h100", (4, 4, 8), (4, 4, 8))):
        found = run_simulation(SimulationRequest(**HUNYUAN, target=target))
        assert (found.query_tile, found.key_tile) == (query, key)
        assert found.tile_source == f"default of target {target}"
    flat = run_simulation(SimulationRequest((256, 256), settings={"window": (80, 80)}, target="flex"))
    assert (flat.query_tile, flat.key_tile) == ((8, 8), (8, 8))


def test_tile_shapes_are_ranked() -> None:
    found = run_simulation(SimulationRequest((30, 48, 80), settings={"window": (18, 24, 24), "stride": (16, 8, 8)}))
    speedups = [choice.simulated_speedup for choice in found.tile_choices]
    assert speedups == sorted(speedups, reverse=True)
    assert len(speedups) == 7
    best = found.tile_choices[0]
    assert best.block_sparse and best.simulated_speedup == pytest.approx(100 / 9)
    assert [choice.chosen for choice in found.tile_choices].count(True) == 1


def test_given_tiles_join_the_ranking() -> None:
    found = run_simulation(SimulationRequest(**HUNYUAN, query_tile=(2, 8, 8), key_tile=(2, 8, 8)))
    assert len(found.tile_choices) == 8
    chosen = next(choice for choice in found.tile_choices if choice.chosen)
    assert chosen.simulated_speedup == found.simulation.simulated_speedup == 3.6


def test_sweep_gives_the_rows_of_the_paper() -> None:
    request = SimulationRequest(**HUNYUAN, **TILES, sweep=True, share=0.654 * 0.928, steps=50, dense_steps=15)
    found = run_simulation(request)
    assert [axis.useful_strides for axis in found.axes or ()] == [(1, 2, 16), (1, 8), (1, 8)]
    assert least_stride(found) == [16, 8, 8]
    by_stride = {choice.stride: choice for choice in found.strides}
    assert len(by_stride) == 12
    visited = {(1, 1, 1): 275, (2, 1, 1): 250, (1, 1, 8): 165, (2, 1, 8): 150, (1, 8, 8): 99, (2, 8, 8): 90}
    for stride, tiles in visited.items():
        assert by_stride[stride].simulation.tiles_visited == tiles
    assert by_stride[16, 8, 8].simulation.block_sparse
    # windows shift by half a stride: 8 of 18 keys
    assert by_stride[16, 8, 8].off_centre == pytest.approx(8 / 18)
    assert [choice.stride for choice in found.strides if choice.pareto] == [(1, 1, 1), (2, 1, 1), (2, 8, 8), (16, 8, 8)]
    shown = fields_of(found)
    assert shown["useful_strides"] == [[1, 2, 16], [1, 8], [1, 8]]
    assert round(shown["strides"][-1]["e2e_simulated"], 2) == 1.63


def test_unbeaten_combinations_are_all_that_no_other_beats() -> None:
    from attnkit.tasks.sim_gna.task import _unbeaten

    generator = np.random.default_rng(0)
    for _ in range(50):
        combinations = [
            ((number,), int(visits), int(shift) / 4)
            for number, (visits, shift) in enumerate(generator.integers(0, 5, (12, 2)))
        ]
        wanted = {
            one
            for one, v, s in combinations
            if not any(a <= v and b <= s and (a, b) != (v, s) for _, a, b in combinations)
        }
        assert _unbeaten(combinations) == wanted


def test_many_combinations_are_cut_to_the_unbeaten() -> None:
    tiles = {"query_tile": (16, 16, 16), "key_tile": (1, 1, 1)}
    found = run_simulation(SimulationRequest((40, 40, 40), settings={"window": (20, 20, 20)}, sweep=True, **tiles))
    combinations = np.prod([len(axis.useful_strides) for axis in found.axes or ()])
    assert combinations > 64
    assert all(choice.pareto for choice in found.strides) and len(found.strides) < combinations


def test_milliseconds_need_a_cost_model() -> None:
    plain = fields_of(run_simulation(SimulationRequest(**HUNYUAN, **TILES)))
    assert not [key for key in plain if key.endswith("_ms")]
    cost = CostModel(1e6, 0.0, 1000.0, 2000.0, 256, 128, 128, device="a box")
    found = fields_of(run_simulation(SimulationRequest(**HUNYUAN, **TILES, cost=cost, heads=2)))
    work = 2 * (found["map_tiles_full"] * 1000 + found["map_tiles_partial"] * 2000)
    assert found["predicted_ms"] == pytest.approx(1 + work / 1e6)
    assert found["predicted_dense_ms"] == pytest.approx(1 + 2 * 450 * 900 * 1000 / 1e6)
    assert found["cost"]["device"] == "a box"


def test_dynamic_tiling_leaves_the_engines_map_alone() -> None:
    static, dynamic = (
        fields_of(run_simulation(SimulationRequest(**HUNYUAN, **TILES, dynamic=flag))) for flag in (False, True)
    )
    assert (static["tiles_visited"], dynamic["tiles_visited"]) == (275, 176)
    assert dynamic["tiling"] == "dynamic"
    for name in ("map_tiles_visited", "map_tiles_full", "map_tiles_total"):
        assert static[name] == dynamic[name]
    # operations are those of the tiling that was asked for
    assert dynamic["flops"] < static["flops"]


def test_other_patterns_are_counted_from_their_map() -> None:
    settings = {"decay": 0.5}
    found = fields_of(run_simulation(SimulationRequest((6, 8, 16), pattern="radial", settings=settings)))
    block_map = pattern("radial", **settings).block_map((6, 8, 16))
    assert found["map_tiles_visited"] == block_map.visited
    assert found["map_tiles_full"] == block_map.full_count
    assert found["map_tiles_total"] == block_map.total
    assert found["best_tiles"] == [] and found["useful_strides"] is None and found["target"] is None
    given = SimulationRequest((6, 8, 16), pattern="radial", settings=settings, query_tile=(64,), key_tile=(64,))
    assert fields_of(run_simulation(given))["map_tiles_total"] == 144


def test_rows_of_a_file_are_flat() -> None:
    request = SimulationRequest(**HUNYUAN, **TILES, sweep=True)
    rows = rows_of(run_simulation(request))
    # the combination that was asked for is not told twice
    assert len(rows) == 12 and [row["stride"] for row in rows].count("1,1,1") == 1
    text = table_text(run_simulation(request), ".csv", {})
    read = list(csv.DictReader(io.StringIO(text)))
    assert read[0]["window"] == "18,24,24" and read[0]["tiles_visited"] == "275"
    assert read[-1]["stride"] == "16,8,8" and read[-1]["block_sparse"] == "True"


def test_markdown_has_every_table() -> None:
    found = run_simulation(SimulationRequest(**HUNYUAN, **TILES, sweep=True))
    text = table_text(found, ".md", {})
    assert "| 16,8,8 | 81 | 11.11x | yes |" in text
    assert text.count("| --- |") >= len(tables_of(found)) == 4
    # a bar inside a cell would make a column
    widths = {block: {line.count("|") for line in block.splitlines() if line} for block in text.split("\n\n")}
    assert all(len(counts - {0}) <= 1 for counts in widths.values())


@pytest.mark.parametrize("dilation", [(1, 1), (2, 1), (3, 2)])
def test_drawn_rows_are_those_of_the_map(dilation: tuple[int, int]) -> None:
    """In the engine's order where there is one group; the same tiles in another order where there are more."""
    built = pattern("neighborhood", window=(3, 4), stride=(2, 1), dilation=dilation, causal=(False, True))
    rows = list(tile_rows((11, 13), built, (2, 4), (4, 2)))
    wanted = list(map_rows(built.block_map((11, 13), (2, 4), (4, 2))))
    assert len(rows) == len(wanted)
    for part in (0, 1):
        mine, theirs = (np.array([row[part] for row in table]) for table in (rows, wanted))
        if dilation == (1, 1):
            assert (mine == theirs).all()
        assert sorted(mine.sum(1)) == sorted(theirs.sum(1)) and sorted(mine.sum(0)) == sorted(theirs.sum(0))


def test_small_maps_are_enlarged_tile_by_tile() -> None:
    visited = np.array([[True, True], [False, True]])
    full = np.array([[True, False], [False, False]])
    picture = tile_map(zip(visited, full, strict=True), 2, 2)
    side = LARGEST // 4
    assert picture.shape == (2 * side, 2 * side, 3)
    assert [tuple(picture[y, x]) for y in (0, -1) for x in (0, -1)] == [FULL, PARTIAL, SKIPPED, PARTIAL]


def test_large_maps_keep_their_shares() -> None:
    """Three tiles fall on two pixels: colours are means, and nothing is lost."""
    tiles = 3 * LARGEST // 2
    rows = ((np.arange(tiles) == number, np.arange(tiles) == number) for number in range(tiles))
    picture = tile_map(rows, tiles, tiles)
    assert picture.shape == (LARGEST, LARGEST, 3)
    assert (picture.diagonal()[2] < SKIPPED[2]).all()
    assert (picture[0, 2:] == SKIPPED).all()


def test_a_drawing_has_its_colours() -> None:
    found = draw(run_simulation(SimulationRequest((64, 64), settings={"window": (24, 24)})))
    colours = {tuple(colour) for colour in found.reshape(-1, 3)}
    assert {FULL, PARTIAL, SKIPPED} <= colours
    radial = draw(run_simulation(SimulationRequest((6, 8, 16), pattern="radial", settings={"decay": 0.5})))
    assert FULL in {tuple(colour) for colour in radial.reshape(-1, 3)}
    runs = SimulationRequest((64, 64), settings={"window": (24, 24)}, query_tile=(64,), key_tile=(64,))
    assert draw(run_simulation(runs)).shape[2] == 3


def test_plain_flags_are_shorthands_of_settings() -> None:
    both = settings_of_pattern("neighborhood", {"window": (3, 4)}, ("neighborhood.stride=1,2",))
    assert both == {"window": (3, 4), "stride": (1, 2)}
    assert settings_of_pattern("sliding", {"window": (7,)}, ()) == {"window": 7}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"canvas": (2, 2, 2, 2)}, "got 4 axes"),
        ({"query_tile": (4, 8, 8)}, "None for keys, expected both"),
        ({"share": 0.5, "steps": 3, "dense_steps": 4}, "got 4 of 3 steps"),
        ({"steps": 3}, "share: not given"),
        ({"pattern": "dense", "settings": {}, "dynamic": True}, "dynamic: got pattern dense"),
        ({"pattern": "dense", "settings": {}, "sweep": True}, "sweep: got pattern dense"),
        ({"pattern": "dense", "settings": {}, "verify": True}, "verify: got pattern dense"),
        ({"query_tile": (64,), "key_tile": (64,), "sweep": True}, "sweep: got runs of 64 tokens"),
        ({"target": "a100"}, "target: got 'a100', expected one of b200"),
        ({"dtype": "int4"}, "dtype: got 'int4'"),
    ],
)
def test_requests_that_are_refused(changes: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        run_simulation(SimulationRequest(**{**HUNYUAN, **changes}))
