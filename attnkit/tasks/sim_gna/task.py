"""From a canvas and a pattern to counts and estimates. numpy only: nothing here imports torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attnkit_kernels.simulate import AxisSweep, CostModel, Simulation, Traffic, Verification
    from attnkit_kernels.softmax.blockmap import BlockMap

NEIGHBORHOOD = "neighborhood"
DEFAULT_TARGET = "b200"
MOST_AXES = 3
# combinations of useful strides that are shown, beyond which only those remain that no other beats
MOST_COMBINATIONS = 64
# tiles of a map that is built because a cost model depends on the order of its lists
MOST_LISTED = 1 << 23
# pairs of tiles of a pattern whose map is built to be counted: seconds, and a gigabyte
MOST_TILES = 1 << 28

Tile = tuple[int, ...]


@dataclass(frozen=True)
class SimulationRequest:
    """What to simulate.

    canvas : tokens per axis, slowest first. pattern, settings : a static pattern by name, with its settings
    query_tile, key_tile : sides per axis, or one number for runs of the row-major index; None takes the default of
        `target`'s tile list for neighborhood, and the pattern's own default for the others
    dynamic : key tiles start at the first key that a query tile sees
    share, steps, dense_steps : attention's part of the run time (0..1), steps of a run, steps that stay dense
    heads, dim, dtype : for operations, bytes and times
    sweep : also try all strides. verify : also compare with the engine's own map
    cost : milliseconds by this model
    """

    canvas: tuple[int, ...]
    pattern: str = NEIGHBORHOOD
    settings: Mapping[str, Any] = field(default_factory=dict)
    target: str = DEFAULT_TARGET
    query_tile: Tile | None = None
    key_tile: Tile | None = None
    dynamic: bool = False
    share: float | None = None
    steps: int = 1
    dense_steps: int = 0
    heads: int = 1
    dim: int = 128
    dtype: str = "bfloat16"
    sweep: bool = False
    verify: bool = False
    cost: CostModel | None = None


@dataclass(frozen=True)
class TileChoice:
    """One pair of tile shapes and what it would give."""

    query_tile: Tile
    key_tile: Tile
    tiles_visited: int
    tiles_total: int
    simulated_speedup: float
    block_sparse: bool
    chosen: bool


@dataclass(frozen=True)
class StrideChoice:
    """One combination of useful strides. off_centre : greatest shift of a window from its query, in windows.

    pareto : no other combination has fewer tiles and windows that are at least as well centred, or the reverse.
    """

    stride: tuple[int, ...]
    simulation: Simulation
    off_centre: float
    pareto: bool


@dataclass(frozen=True)
class SimulationResult:
    """What was found. `pattern` is the pattern built; `axes`, `tile_choices`, `strides` are of neighborhood alone."""

    request: SimulationRequest
    pattern: Any
    query_tile: Tile
    key_tile: Tile
    tile_source: str
    simulation: Simulation
    traffic: Traffic
    block_map: BlockMap | None = None
    tile_choices: tuple[TileChoice, ...] = ()
    axes: tuple[AxisSweep, ...] | None = None
    strides: tuple[StrideChoice, ...] = ()
    verification: Verification | None = None

    def end_to_end(self, speedup: float) -> float | None:
        """Speed-up of the whole run, by the paper's rule; None without a share."""
        from attnkit_kernels.simulate import published_end_to_end

        one = self.request
        return None if one.share is None else published_end_to_end(speedup, one.share, one.steps, one.dense_steps)

    def milliseconds(self, simulation: Simulation, *, dense: bool = False) -> float | None:
        """Time of one forward pass of all heads; None without a cost model."""
        from attnkit_kernels.simulate import Counts

        one = self.request
        if one.cost is None:
            return None
        if not one.cost.needs_lists:
            counts = (simulation.dense_work if dense else simulation.work)(one.heads, one.dim)
        elif dense:
            tokens, keys = simulation.query_tokens, simulation.key_tokens
            counts = Counts.dense(tokens, keys, simulation.query_block, simulation.key_block, one.heads, one.dim)
        else:
            counts = Counts.of(self._map_of(simulation), one.heads, one.dim)
        return one.cost.predict(counts) * 1e3

    def _map_of(self, simulation: Simulation) -> BlockMap:
        """The engine's map of this simulation or of one of the strides."""
        from dataclasses import replace

        if self.block_map is not None:
            return self.block_map
        stride = next((one.stride for one in self.strides if one.simulation is simulation), None)
        pattern = self.pattern if stride is None else replace(self.pattern, stride=stride)
        built: BlockMap = pattern.block_map(self.request.canvas, self.query_tile, self.key_tile)
        return built


def run_simulation(request: SimulationRequest) -> SimulationResult:
    """Simulate; ValueError, with both values, for settings that do not fit the canvas or each other."""
    from attnkit_kernels.patterns import ROUTED, pattern
    from attnkit_kernels.simulate import traffic

    _check(request)
    if request.pattern in ROUTED:
        raise ValueError(
            f"{request.pattern}: its blocks depend on query and key, so there is nothing to simulate; "
            f"attnkit bench-kernel {request.pattern} measures it"
        )
    built = pattern(request.pattern, **request.settings)
    result = _neighborhood(request, built) if request.pattern == NEIGHBORHOOD else _other(request, built)
    if request.cost is not None:
        _check_cost(request.cost, [result["simulation"], *(one.simulation for one in result.get("strides", ()))])
    moved = traffic(result["simulation"], request.heads, request.dim, request.dtype)
    return SimulationResult(request, built, traffic=moved, **result)


def _check(request: SimulationRequest) -> None:
    if not 1 <= len(request.canvas) <= MOST_AXES:
        raise ValueError(f"canvas: got {len(request.canvas)} axes {request.canvas}, expected 1 to {MOST_AXES}")
    if (request.query_tile is None) != (request.key_tile is None):
        raise ValueError(f"tiles: got {request.query_tile} for queries and {request.key_tile} for keys, expected both")
    if not 0 <= request.dense_steps <= request.steps:
        raise ValueError(
            f"dense steps: got {request.dense_steps} of {request.steps} steps, expected no more than those"
        )
    if request.share is None and (request.steps > 1 or request.dense_steps):
        raise ValueError(f"share: not given, expected attention's part of the run time with {request.steps} steps")
    if request.cost is not None and request.cost.exact:
        own = (("dtype", request.cost.dtype, request.dtype), ("dim", request.cost.dim, request.dim))
        for name, expected, got in own:
            if expected != got:
                raise ValueError(f"cost: measured with {name} {expected}, got {got}; add --{name} {expected}")
        if request.dynamic:
            raise ValueError("cost: measured with tiles cut from 0, got dynamic tiling; leave out --dynamic")
    if request.pattern != NEIGHBORHOOD:
        for name in ("dynamic", "sweep", "verify"):
            if getattr(request, name):
                raise ValueError(f"{name}: got pattern {request.pattern}, expected {NEIGHBORHOOD}")


def _check_cost(cost: CostModel, simulations: list[Simulation]) -> None:
    one = simulations[0]
    own, got = (cost.query_block, cost.key_block), (one.query_block, one.key_block)
    if cost.exact and own != got:
        raise ValueError(
            f"cost: measured with tiles of {own[0]} x {own[1]} slots, got {got[0]} x {got[1]}; "
            "give --q-tile and --kv-tile whose sides multiply to that"
        )
    most = max(each.map_tiles_visited for each in simulations)
    if cost.needs_lists and most > MOST_LISTED:
        raise ValueError(
            f"cost: got a map that lists {most} tiles, expected at most {MOST_LISTED} with this cost file, "
            "which needs the map itself"
        )


def _neighborhood(request: SimulationRequest, built: Any) -> dict[str, Any]:
    from attnkit_kernels.simulate import simulate, tiles_of, verify

    canvas = request.canvas
    listed = tiles_of(request.target, len(canvas))
    if request.query_tile is not None and request.key_tile is not None:
        query, key, source = request.query_tile, request.key_tile, "given"
    else:
        (query, key), source = listed[0], f"default of target {request.target}"
    simulation = simulate(canvas, built, query, key, dynamic=request.dynamic)
    found: dict[str, Any] = {"query_tile": query, "key_tile": key, "tile_source": source, "simulation": simulation}
    pairs = [(query, key), *(pair for pair in listed if pair != (query, key))]
    choices = []
    for pair in pairs:
        chosen = pair == (query, key)
        one = simulation if chosen else simulate(canvas, built, *pair, dynamic=request.dynamic)
        choices.append(
            TileChoice(*pair, one.tiles_visited, one.tiles_total, one.simulated_speedup, one.block_sparse, chosen)
        )
    found["tile_choices"] = tuple(sorted(choices, key=lambda one: -one.simulated_speedup))
    if request.sweep:
        if len(query) < len(canvas):
            raise ValueError(f"sweep: got runs of {query[0]} tokens, expected tiles of {len(canvas)} sides")
        found.update(_sweep(request, built, query, key))
    if request.verify:
        found["verification"] = verify(canvas, built, query, key)
    return found


def _sweep(request: SimulationRequest, built: Any, query: Tile, key: Tile) -> dict[str, Any]:
    from dataclasses import replace
    from itertools import product

    from attnkit_kernels.simulate import simulate, sweep_axis

    settings = built.axes(request.canvas)
    axes = tuple(
        sweep_axis(axis, *sides, dynamic=request.dynamic) for axis, *sides in zip(settings, query, key, strict=True)
    )
    combinations = []
    for stride in product(*(axis.useful_strides for axis in axes)):
        visits = 1
        for axis, one in zip(axes, stride, strict=True):
            visits *= axis.visited[axis.useful_strides.index(one)]
        combinations.append((stride, visits, max(map(_off_centre, settings, stride))))
    best = _unbeaten(combinations)
    if len(combinations) > MOST_COMBINATIONS:
        combinations = [one for one in combinations if one[0] in best]
    strides = tuple(
        StrideChoice(
            stride,
            simulate(request.canvas, replace(built, stride=stride), query, key, dynamic=request.dynamic),
            shift,
            stride in best,
        )
        for stride, _, shift in sorted(combinations, key=lambda one: (-one[1], one[0]))
    )
    return {"axes": axes, "strides": strides}


def _unbeaten(combinations: list[tuple[Tile, int, float]]) -> set[Tile]:
    """The strides that no other combination beats in visits or shift without losing in the other."""
    best: set[Tile] = set()
    last: tuple[int, float] | None = None
    for stride, visits, shift in sorted(combinations, key=lambda one: one[1:]):
        if last is None or shift < last[1] or (visits, shift) == last:
            best.add(stride)
            last = (visits, shift)
    return best


def _off_centre(axis: tuple[int, int, int, int, bool], stride: int) -> float:
    """How far the window of a group lies from the query that it suits least; causal: the keys that this one lacks."""
    _, window, _, _, causal = axis
    return (stride - 1 if causal else stride // 2) / window


def _other(request: SimulationRequest, built: Any) -> dict[str, Any]:
    from attnkit_kernels.patterns.canvas import BLOCK
    from attnkit_kernels.simulate import count

    tokens = math.prod(request.canvas)
    slots = [BLOCK if tile is None else math.prod(tile) for tile in (request.query_tile, request.key_tile)]
    tiles = math.prod(-(-tokens // size) for size in slots)
    if tiles > MOST_TILES:
        raise ValueError(
            f"canvas: got {tokens} tokens, {tiles} pairs of tiles of {slots[0]} and {slots[1]}, expected at most "
            f"{MOST_TILES} pairs for {request.pattern}; try larger tiles"
        )
    block_map = built.block_map(request.canvas, request.query_tile, request.key_tile)
    # a pattern that can say it at once need not have its map's masks expanded
    pairs = built.visible_pairs(request.canvas) if hasattr(built, "visible_pairs") else None
    query, key = request.query_tile, request.key_tile
    return {
        "query_tile": query or (block_map.query_block,),
        "key_tile": key or (block_map.key_block,),
        "tile_source": f"default of pattern {request.pattern}" if query is None else "given",
        "simulation": count(block_map, visible_pairs=pairs),
        "block_map": block_map,
    }
