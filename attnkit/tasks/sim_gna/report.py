"""What a simulation says, as JSON fields, as rows of a file, and as tables for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from .task import NEIGHBORHOOD, SimulationResult

if TYPE_CHECKING:
    from attnkit_kernels.simulate import Simulation

Table = tuple[str, list[str], list[list[str]]]


def fields_of(result: SimulationResult) -> dict[str, Any]:
    """The `result` of --json: counts, estimates, and what was asked for beside them."""
    request = result.request
    found: dict[str, Any] = {
        **_what(result),
        "target": request.target if request.pattern == NEIGHBORHOOD else None,
        "tile_source": result.tile_source,
        "tiling": _tiling(result),
        **_counts(result, result.simulation),
        "useful_strides": None if result.axes is None else [list(axis.useful_strides) for axis in result.axes],
        "heads": request.heads,
        "dim": request.dim,
        "dtype": request.dtype,
        **asdict(result.traffic),
        "best_tiles": [
            {
                **asdict(choice),
                "query_tile": list(choice.query_tile),
                "key_tile": list(choice.key_tile),
            }
            for choice in result.tile_choices
        ],
    }
    if result.axes is not None:
        found["block_sparse_stride"] = least_stride(result)
        found["axes"] = [asdict(axis) for axis in result.axes]
        found["strides"] = [
            {
                "stride": list(choice.stride),
                **_counts(result, choice.simulation),
                "off_centre": choice.off_centre,
                "pareto": choice.pareto,
            }
            for choice in result.strides
        ]
    if request.cost is not None:
        found["cost"] = {key: value for key, value in asdict(request.cost).items() if value not in ("", None)}
        found["predicted_dense_ms"] = result.milliseconds(result.simulation, dense=True)
    if result.verification is not None:
        found["verification"] = {"ok": not result.verification.differences, **asdict(result.verification)}
    return found


def rows_of(result: SimulationResult) -> list[dict[str, Any]]:
    """One flat row for what was asked, and with --sweep one for each other combination of useful strides."""
    request = result.request
    what = {key: word(value) for key, value in _what(result).items() if key != "settings"}
    what |= {key: word(value) for key, value in settings_shown(result).items()}
    rows = [{**what, **_counts(result, result.simulation)}]
    asked = settings_shown(result).get("stride")
    for choice in result.strides:
        if list(choice.stride) != asked:
            rows.append({**what, "stride": word(choice.stride), **_counts(result, choice.simulation)})
    target = request.target if request.pattern == NEIGHBORHOOD else None
    return [{**row, "target": target, "tiling": _tiling(result)} for row in rows]


def tables_of(result: SimulationResult) -> list[Table]:
    """(title, headers, rows) of everything that was found."""
    tables = [("", ["what", "value"], _facts(result))]
    if result.tile_choices:
        rows = [
            [
                f"{word(one.query_tile)} | {word(one.key_tile)}{' *' if one.chosen else ''}",
                f"{one.tiles_visited} / {one.tiles_total}",
                f"{one.simulated_speedup:.2f}x",
                _yes(one.block_sparse),
            ]
            for one in result.tile_choices
        ]
        title = f"Best tile shapes of target {result.request.target}, * = simulated above"
        tables.append((title, ["query | key tile", "visited / total", "speed-up", "block-sparse"], rows))
    if result.axes is not None:
        tables += _sweep_tables(result)
    return tables


def least_stride(result: SimulationResult) -> list[int] | None:
    """The least stride per axis that is fully block-sparse; None without a sweep or where an axis has none."""
    strides = [axis.block_sparse_stride for axis in result.axes or ()]
    found = [stride for stride in strides if stride is not None]
    return found if found and len(found) == len(strides) else None


def _what(result: SimulationResult) -> dict[str, Any]:
    return {
        "pattern": result.request.pattern,
        "canvas": list(result.request.canvas),
        "settings": settings_shown(result),
        "query_tile": list(result.query_tile),
        "key_tile": list(result.key_tile),
    }


def settings_shown(result: SimulationResult) -> dict[str, Any]:
    """The settings of the pattern that was simulated; those of neighborhood one per axis."""
    from attnkit_kernels.patterns import settings_of

    values = {name: getattr(result.pattern, name) for name in settings_of(result.request.pattern)}
    axes = len(result.request.canvas)
    if result.request.pattern == NEIGHBORHOOD:
        return {name: list(value * axes if len(value) == 1 else value) for name, value in values.items()}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _tiling(result: SimulationResult) -> str:
    if result.request.dynamic:
        return "dynamic"
    if result.request.pattern != NEIGHBORHOOD:
        return "of the pattern"
    return "static" if len(result.query_tile) == len(result.request.canvas) else "runs"


def _counts(result: SimulationResult, simulation: Simulation) -> dict[str, Any]:
    found = {
        "tiles_visited": simulation.tiles_visited,
        "tiles_total": simulation.tiles_total,
        "map_tiles_visited": simulation.map_tiles_visited,
        "map_tiles_full": simulation.map_tiles_full,
        "map_tiles_partial": simulation.map_tiles_partial,
        "map_tiles_total": simulation.map_tiles_total,
        "visible_pairs": simulation.visible_pairs,
        "flop_speedup": simulation.flop_speedup,
        "simulated_speedup": simulation.simulated_speedup,
        "map_speedup": simulation.map_speedup,
        "sparsity": simulation.sparsity,
        "masked_share": simulation.waste,
        "block_sparse": simulation.block_sparse,
        "e2e_flop": result.end_to_end(simulation.flop_speedup),
        "e2e_simulated": result.end_to_end(simulation.simulated_speedup),
    }
    if result.request.cost is not None:
        found["predicted_ms"] = result.milliseconds(simulation)
    return found


def _facts(result: SimulationResult) -> list[list[str]]:
    request, one, moved = result.request, result.simulation, result.traffic
    settings = " ".join(f"{name} {word(value)}" for name, value in settings_shown(result).items())
    tiling = _tiling(result)
    whole = f"{one.map_tiles_visited} / {one.map_tiles_total}"
    facts = [
        ["pattern", f"{request.pattern} {settings}".rstrip()],
        ["canvas", f"{word(request.canvas)} ({one.query_tokens} tokens)"],
        ["tiles (query | key)", f"{word(result.query_tile)} | {word(result.key_tile)} ({result.tile_source})"],
        ["tiling", tiling],
        ["tiles visited / total, worst query tile", f"{one.tiles_visited} / {one.tiles_total}"],
        ["FLOP-wise speed-up", f"{one.flop_speedup:.2f}x"],
        ["simulated speed-up", f"{one.simulated_speedup:.2f}x"],
        ["sparsity", f"{one.sparsity:.2%}"],
        ["fully block-sparse", _yes(one.block_sparse)],
        [
            f"tiles of the whole map{', static as the engine runs it' if tiling == 'dynamic' else ''}",
            f"{whole}, {one.map_tiles_full} full, {one.map_tiles_partial} partial",
        ],
        ["speed-up over the whole map", f"{one.map_speedup:.2f}x"],
        ["masked away in visited tiles", f"{one.waste:.1%}"],
        [f"operations, {request.heads} x dim {request.dim} (TFLOP)", f"{moved.flops / 1e12:.4g}"],
        [
            f"traffic, {request.dtype}, once | per visit (GB)",
            f"{moved.least_bytes / 1e9:.4g} | {moved.tile_bytes / 1e9:.4g}",
        ],
    ]
    tails = 0 if result.block_map is None else result.block_map.tail_keys
    if tails:
        facts.append(["dense tail (tokens, not counted)", str(tails)])
    flop, simulated = result.end_to_end(one.flop_speedup), result.end_to_end(one.simulated_speedup)
    if flop is not None and simulated is not None:
        name = f"end to end, share {request.share:g}, {request.dense_steps} of {request.steps} steps dense"
        facts += [[f"{name}: FLOP-wise", f"{flop:.2f}x"], [f"{name}: simulated", f"{simulated:.2f}x"]]
    if request.cost is not None:
        cost = request.cost
        sparse, dense = result.milliseconds(one), result.milliseconds(one, dense=True)
        assert sparse is not None and dense is not None
        facts += [
            [f"predicted, {cost.direction} (ms)", f"{sparse:.4g}"],
            [f"predicted, {cost.direction}, dense (ms)", f"{dense:.4g} ({dense / sparse:.2f}x)"],
            ["by the cost model of", f"{cost.device or 'unknown device'}: {cost.source or 'no source stated'}"],
        ]
        if cost.median_error is not None and cost.worst_error is not None:
            errors = f"median {cost.median_error:.1%}, worst {cost.worst_error:.1%} of {cost.samples} times"
            facts.append(["error of its fit", errors])
    if result.verification is not None:
        facts.append(["verified", verified(result)])
    return facts


def verified(result: SimulationResult) -> str:
    """What --verify compared, in words; the differences where there are some."""
    checked = result.verification
    assert checked is not None
    if checked.differences:
        return "; ".join(checked.differences)
    where = word(checked.canvas)
    small = f"{where} window {word(checked.window)}, made smaller" if checked.reduced else where
    return (
        f"tile lists equal the engine's map on {word(checked.counts_canvas)}; every mask element looked at on {small}"
    )


def _sweep_tables(result: SimulationResult) -> list[Table]:
    assert result.axes is not None
    rows = []
    for number, axis in enumerate(result.axes):
        least = "none" if axis.block_sparse_stride is None else str(axis.block_sparse_stride)
        near = "" if axis.nearest_window is None else f"window {axis.nearest_window} stride {axis.nearest_stride}"
        visits = word(axis.visited)
        rows.append([str(number), word(axis.useful_strides), visits, least, near])
    stride = least_stride(result)
    least = "none" if stride is None else word(stride)
    headers = ["axis", "useful strides", "worst tile visits", "least block-sparse stride", "nearest that has one"]
    tables: list[Table] = [(f"Least stride that is fully block-sparse: {least}", headers, rows)]
    share = result.request.share is not None
    cost = result.request.cost is not None
    headers = ["stride", "visited", "speed-up", "block-sparse", "off centre (windows)", "pareto"]
    headers += ["end to end"] * share + ["predicted (ms)"] * cost
    cells = []
    for choice in result.strides:
        one = choice.simulation
        row = [word(choice.stride), str(one.tiles_visited), f"{one.simulated_speedup:.2f}x", _yes(one.block_sparse)]
        row += [f"{choice.off_centre:.2f}", _yes(choice.pareto)]
        simulated = result.end_to_end(one.simulated_speedup)
        predicted = result.milliseconds(one)
        row += [] if simulated is None else [f"{simulated:.2f}x"]
        row += [] if predicted is None else [f"{predicted:.4g}"]
        cells.append(row)
    tables.append(("Combinations of useful strides", headers, cells))
    return tables


def word(value: Any) -> str:
    """A value as a person would type it: 18,24,24 for (18, 24, 24)."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ",".join(str(int(part)) if isinstance(part, bool) else str(part) for part in value)
    return "none" if value is None else str(value)


def _yes(value: bool) -> str:
    return "yes" if value else "no"
