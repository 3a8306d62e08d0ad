"""`attnkit sim-gna`: what a sparse attention costs, before any kernel runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from attnkit.runtime.options import BATCH_OPTIONS, OUTPUT_PANEL, BatchOptions, batch_command
from attnkit.runtime.values import ValueRefused, as_bool

TILE_PANEL, RUN_PANEL, WORK_PANEL = "Tiles", "End to end", "Work and time"
# numbers in, one answer out: no inputs, no items, no device
_HERE = ("overwrite", "json", "quiet")


def sizes(text: str) -> tuple[int, ...]:
    """'30,48,80' as whole numbers above 0."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise ValueRefused("whole numbers above 0 such as 30,48,80")
    return tuple(int(part) for part in parts)


def flags(text: str) -> tuple[bool, ...]:
    """'0,0,1' as truth values."""
    try:
        return tuple(as_bool(part.strip()) for part in text.split(","))
    except ValueRefused:
        raise ValueRefused("0 or 1 per axis such as 0,0,1") from None


@batch_command(leave_out=tuple(name for name in BATCH_OPTIONS if name not in _HERE))
def sim_gna(
    batch: BatchOptions,
    canvas: Annotated[
        str,
        typer.Option("--canvas", "-i", metavar="T,H,W", parser=sizes, help="Tokens per axis, slowest first, 1 to 3"),
    ],
    window: Annotated[
        str | None,
        typer.Option("--window", "-w", metavar="T,H,W", parser=sizes, help="Keys that a query sees, per axis"),
    ] = None,
    stride: Annotated[
        str | None,
        typer.Option("--stride", "-s", metavar="T,H,W", parser=sizes, help="Queries that share a window; else 1"),
    ] = None,
    dilation: Annotated[
        str | None, typer.Option(metavar="T,H,W", parser=sizes, help="Step between the keys of a window; else 1")
    ] = None,
    causal: Annotated[
        str | None, typer.Option("--causal", "-c", metavar="0,0,1", parser=flags, help="Hide later keys, per axis")
    ] = None,
    pattern: Annotated[str, typer.Option(metavar="NAME", help="Any static pattern")] = "neighborhood",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME.KEY=VALUE", help="A setting of the pattern; repeatable")
    ] = None,
    sweep: Annotated[bool, typer.Option("--sweep", help="Try all strides and show the useful ones")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare with the engine's own map, end with 1 if they differ")
    ] = False,
    target: Annotated[
        Literal["b200", "h100", "flex"],
        typer.Option(
            help="Whose tile shapes for neighborhood; the first is simulated, all are ranked",
            rich_help_panel=TILE_PANEL,
        ),
    ] = "b200",
    q_tile: Annotated[
        str | None,
        typer.Option(metavar="T,H,W", parser=sizes, help="Query tile; one number: runs", rich_help_panel=TILE_PANEL),
    ] = None,
    kv_tile: Annotated[
        str | None, typer.Option(metavar="T,H,W", parser=sizes, help="Key tile", rich_help_panel=TILE_PANEL)
    ] = None,
    dynamic: Annotated[
        bool, typer.Option("--dynamic", help="Key tiles start at the first key seen", rich_help_panel=TILE_PANEL)
    ] = False,
    share: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Attention's part of the run time, 0 to 1", rich_help_panel=RUN_PANEL),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of a run", rich_help_panel=RUN_PANEL)] = 1,
    dense_steps: Annotated[
        int, typer.Option(metavar="N", min=0, help="Steps that stay dense", rich_help_panel=RUN_PANEL)
    ] = 0,
    heads: Annotated[int, typer.Option(min=1, help="Heads, times samples", rich_help_panel=WORK_PANEL)] = 1,
    dim: Annotated[int, typer.Option(min=1, help="Dimension of a head", rich_help_panel=WORK_PANEL)] = 128,
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16", "float8"], typer.Option(help="For bytes", rich_help_panel=WORK_PANEL)
    ] = "bfloat16",
    cost: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.json",
            help="Milliseconds by a cost file, or by gna-h100, gna-b200, fitted to published times",
            rich_help_panel=WORK_PANEL,
        ),
    ] = None,
    tables: Annotated[
        list[Path] | None,
        typer.Option(
            "--out", "-o", metavar="FILE", help="Write .csv, .json or .md; repeatable", rich_help_panel=OUTPUT_PANEL
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw the map of tiles", rich_help_panel=OUTPUT_PANEL)
    ] = None,
) -> None:
    """Predict what a sparse attention costs: tiles visited, speed-ups, run time.

    Counts the tiles that a kernel must visit for generalized neighborhood attention, by products of counts per axis:
    a million tokens take no mask and no time. The speed-up that can be had is that of tiles, not of operations; they
    agree where the map is fully block-sparse. --window, --stride, --dilation and --causal are shorthands of --set;
    one value serves all axes. Milliseconds are given with --cost alone.

    Words:
      visited / total   key tiles of the worst query tile, and of one row: what the paper counts
      whole map         the same summed over all query tiles, as the engine runs it (static tiling)
      useful strides    those that lower an axis' worst visits below every smaller stride's
      off centre        greatest shift of a window from its query, in windows
      pareto            no other combination is better in visits or centring and not worse in the other

    Examples:
      attnkit sim-gna -i 30,48,80 -w 18,24,24 -s 16,8,8 --q-tile 4,8,8 --kv-tile 2,8,8
      attnkit sim-gna -i 256,256 -w 80,80 --sweep --share .518 --steps 28 --dense-steps 9 --out strides.csv
      attnkit sim-gna -i 32768 -w 2048 -s 256 --target h100 --cost gna-h100 --json
      attnkit sim-gna -i 8,30,52 --pattern radial --set radial.decay=.5 --plot radial.png
    """
    from attnkit.tasks.sim_gna.run import Asked, run

    shorthands = {"window": window, "stride": stride, "dilation": dilation, "causal": causal}
    asked = Asked(
        {name: value for name, value in shorthands.items() if value is not None}, tuple(settings or ()), cost,
        tuple(tables or ()), plot,
    )  # fmt: skip
    numbers = {
        "canvas": canvas, "pattern": pattern, "target": target, "query_tile": q_tile, "key_tile": kv_tile,
        "dynamic": dynamic, "share": share, "steps": steps, "dense_steps": dense_steps, "heads": heads, "dim": dim,
        "dtype": dtype, "sweep": sweep, "verify": verify,
    }  # fmt: skip
    run(asked, numbers, batch)
