"""`--fit-cost`: attention over designed maps is timed on this device and a cost model of it is fitted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from attnkit_kernels import patterns
from attnkit_kernels.simulate import CostModel, Counts
from attnkit_kernels.softmax import BlockMap, attention, resolve_impl

from .statistics import spread_of
from .timing import Clock, in_turns

if TYPE_CHECKING:
    from attnkit.runtime.options import BatchOptions

DIM, DTYPE, BLOCK = 64, "float32", 128
ROUNDS = 5
# tiles in space with BLOCK slots, by axes of the canvas
TILES: dict[int, tuple[int, ...]] = {1: (BLOCK,), 2: (8, 16), 3: (2, 8, 8)}
Sample = tuple[Counts, float]


@dataclass(frozen=True)
class Measured:
    """One map to be timed: a pattern with its settings on a canvas, and the heads that share it."""

    pattern: str
    canvas: tuple[int, ...]
    settings: tuple[tuple[str, Any], ...] = ()
    heads: int = 2
    # side by side along the tokens, whatever the canvas
    runs: bool = False

    def block_map(self) -> BlockMap:
        """Its map, in tiles of BLOCK slots."""
        tile = (BLOCK,) if self.runs else TILES[len(self.canvas)]
        return patterns.pattern(self.pattern, **dict(self.settings)).block_map(self.canvas, tile, tile)


def one(pattern: str, canvas: tuple[int, ...], heads: int = 2, runs: bool = False, **settings: Any) -> Measured:
    """A map of the design, with its settings as words."""
    return Measured(pattern, canvas, tuple(sorted(settings.items())), heads, runs)


# each part moves one term: tiles without masks, masks, gaps, rows, heads, order
DESIGN: tuple[Measured, ...] = (
    one("dense", (1024,)),
    one("dense", (2048,), 4),
    one("dense", (4096,)),
    one("dense", (1000,), 8),
    one("dense", (3000,)),
    one("sliding", (2048,), window=64),
    one("sliding", (4096,), 4, window=300),
    one("sliding", (4096,), window=1000, causal=True),
    one("sliding", (8192,), 1, window=200),
    one("causal", (2048,), 4),
    one("random_blocks", (2048,), 4, density=0.1),
    one("random_blocks", (4096,), density=0.3),
    one("random_blocks", (8192,), 1, density=0.08),
    one("random_blocks", (8192,), 4, density=0.05, seed=1),
    one("blocked", (32, 64), 4, window=(16, 32)),
    one("blocked", (64, 64), window=(8, 16)),
    one("blocked", (64, 128), window=(32, 32)),
    one("neighborhood", (64, 64), 4, window=(24, 48), stride=(8, 16)),
    one("neighborhood", (64, 128), window=(24, 48), stride=(8, 16)),
    one("neighborhood", (32, 64), 4, window=(9, 17)),
    one("neighborhood", (64, 64), window=(20, 20)),
    one("neighborhood", (8, 16, 32), window=(4, 8, 16), stride=(2, 4, 4)),
    one("radial", (8, 16, 32), decay=0.5, runs=True),
    one("radial", (8, 16, 32), 4, decay=0.2, runs=True),
)


def time_maps(design: Sequence[Measured], device: str, clock: Clock, rounds: int = ROUNDS) -> list[Sample]:
    """Counts and median seconds of attention over each map, forward, all maps in turns."""
    maps = {at: each.block_map() for at, each in enumerate(design)}
    calls = {f"{at}": _call(design[at], block_map, device) for at, block_map in maps.items()}
    times = in_turns(calls, clock, rounds)
    if times.failed:
        raise next(iter(times.failed.values()))
    return [
        (Counts.of(maps[at], each.heads, DIM), spread_of(times.rounds[f"{at}"]).median)
        for at, each in enumerate(design)
    ]


def fit_cost(device: str, clock: Clock, design: Sequence[Measured] = DESIGN, rounds: int = ROUNDS) -> CostModel:
    """The cost model of this device, for float32, heads of 64 and tiles of 128 x 128 slots."""
    from .environment import device_name

    return CostModel.fit(
        time_maps(design, device, clock, rounds),
        device=device_name(device),
        torch=torch.__version__,
        dtype=DTYPE,
        direction="fwd",
        impl=resolve_impl(*[torch.zeros(1, 1, 1, DIM, device=device)] * 3, impl="auto"),
        source=f"measured by attnkit bench-kernel --fit-cost, {torch.get_num_threads()} threads",
        exact=True,
    )


def run_fit(path: Any, batch: BatchOptions) -> int:
    """Fit and write; returns the exit code."""
    from attnkit.runtime.answers import print_document, print_table
    from attnkit.runtime.errors import EXIT_DONE
    from attnkit.runtime.tables import replace_file

    from .environment import chosen_device
    from .measuring import clock_for
    from .run import check_outputs

    check_outputs([path], (".json",), "--fit-cost", batch)
    device = chosen_device(batch.device)
    if batch.dry_run:
        told: dict[str, Any] = {"action": "fit", "maps": len(DESIGN), "device": device, "out": path.name}
    else:
        model = fit_cost(device, clock_for(device))
        replace_file(path, model.to_json().encode())
        told = {key: value for key, value in model.__dict__.items() if value not in ("", None)}
    if batch.json or batch.jsonl:
        print_document(told)
    elif not batch.quiet:
        print_table(["cost model", "value"], [[key, _text(value)] for key, value in told.items()])
    return EXIT_DONE


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _call(measured: Measured, block_map: BlockMap, device: str) -> Callable[[], Any]:
    generator = torch.Generator(device).manual_seed(0)
    shape = (1, int(np.prod(measured.canvas)), measured.heads, DIM)
    query, key, value = (torch.randn(shape, generator=generator, device=device) for _ in range(3))

    def run() -> Any:
        with torch.no_grad():
            return attention(query, key, value, block_map=block_map).output

    return run
