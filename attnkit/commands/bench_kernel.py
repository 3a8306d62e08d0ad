"""`attnkit bench-kernel`: attention operators checked, timed and compared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from attnkit.runtime.options import OUTPUT_PANEL, TALK_PANEL, BatchOptions, batch_command

# no files go in, one table comes out
_NOT_HERE = (
    "recursive",
    "include",
    "exclude",
    "limit",
    "input_format",
    "out",
    "skip_existing",
    "update",
    "fail_fast",
    "jobs",
    "engine",
    "scheduler",
    "resume",
    "wait",
    "offline",
    "record",
)
SHAPE_PANEL = "Shape"
COMPARE_PANEL = "Comparing"


@batch_command(leave_out=_NOT_HERE)
def bench_kernel(
    batch: BatchOptions,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Operators; --list shows them; none: --suite quick")
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="List operators, baselines and suites")] = False,
    suite: Annotated[
        Literal["cpu", "gpu", "quick"] | None, typer.Option(help="A set of measurements instead of names")
    ] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=A,B", help="Values of tokens or of any shape or setting; repeatable: the product"),
    ] = None,
    canvas: Annotated[
        str | None,
        typer.Option(
            "--canvas",
            "-i",
            metavar="T,H,W",
            help="Axes, slowest first; else tokens, 4096",
            rich_help_panel=SHAPE_PANEL,
        ),
    ] = None,
    window: Annotated[
        str | None,
        typer.Option("--window", "-w", metavar="N,N", help="Setting window, per axis", rich_help_panel=SHAPE_PANEL),
    ] = None,
    stride: Annotated[
        str | None,
        typer.Option("--stride", "-s", metavar="N,N", help="Setting stride, per axis", rich_help_panel=SHAPE_PANEL),
    ] = None,
    dilation: Annotated[
        str | None, typer.Option(metavar="N,N", help="Setting dilation, per axis", rich_help_panel=SHAPE_PANEL)
    ] = None,
    causal: Annotated[
        str | None,
        typer.Option("--causal", "-c", metavar="0,1", help="Setting causal, per axis", rich_help_panel=SHAPE_PANEL),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME.KEY=VALUE", help="A setting of an operator; repeatable", rich_help_panel=SHAPE_PANEL
        ),
    ] = None,
    q_tile: Annotated[
        str | None, typer.Option(metavar="N,N", help="Slots of a query tile, per axis", rich_help_panel=SHAPE_PANEL)
    ] = None,
    kv_tile: Annotated[
        str | None, typer.Option(metavar="N,N", help="Slots of a key tile, per axis", rich_help_panel=SHAPE_PANEL)
    ] = None,
    size: Annotated[
        int | None, typer.Option("--batch", metavar="N", min=1, help="Samples; else 1", rich_help_panel=SHAPE_PANEL)
    ] = None,
    heads: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Query heads; else 8", rich_help_panel=SHAPE_PANEL)
    ] = None,
    kv_heads: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Key heads, a divisor; else as queries", rich_help_panel=SHAPE_PANEL),
    ] = None,
    dim: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Dimension of a head; else 64", rich_help_panel=SHAPE_PANEL)
    ] = None,
    dtype: Annotated[
        Literal["float64", "float32", "float16", "bfloat16"] | None,
        typer.Option(help="Type of the inputs; else float32", rich_help_panel=SHAPE_PANEL),
    ] = None,
    direction: Annotated[
        Literal["fwd", "bwd", "fwdbwd"] | None,
        typer.Option(help="Forward, backward, or both; else fwd", rich_help_panel=SHAPE_PANEL),
    ] = None,
    impl: Annotated[
        Literal["auto", "reference", "torch", "numba", "triton", "flex"] | None,
        typer.Option(help="Implementation; else auto", rich_help_panel=SHAPE_PANEL),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(metavar="A,B", help="Compare with these; else sdpa", rich_help_panel=COMPARE_PANEL)
    ] = None,
    repeats: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Rounds; else 7 to 50, about 1.5 s a kernel")
    ] = None,
    memory: Annotated[bool, typer.Option("--memory/--no-memory", help="Measure peak memory in fresh processes")] = True,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="OLD.json", help="Compare with a record; a regression ends with 1", rich_help_panel=COMPARE_PANEL
        ),
    ] = None,
    threshold: Annotated[
        float, typer.Option(metavar="PERCENT", min=0, help="What a regression exceeds", rich_help_panel=COMPARE_PANEL)
    ] = 5.0,
    roofline: Annotated[
        bool, typer.Option("--roofline", help="A second table: what bounds each kernel", rich_help_panel=TALK_PANEL)
    ] = False,
    tables: Annotated[
        list[Path] | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="Also write .json, .csv, .md or .jsonl; repeatable",
            rich_help_panel=OUTPUT_PANEL,
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Also draw times or speed-ups", rich_help_panel=OUTPUT_PANEL)
    ] = None,
    fit_cost: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Fit a cost model of this device, for sim-gna --cost")
    ] = None,
    compile_only: Annotated[
        bool, typer.Option("--compile-only", help="Compile the Triton kernels without a GPU; show what they use")
    ] = False,
    target: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="GPUs of --compile-only: sm_80,sm_90,sm_100,gfx942; else sm_90,sm_100"),
    ] = None,
) -> None:
    """Check attention operators against the reference, then time them beside what a user would pick instead.

    An operator that is wrong gets no time. The others and the baselines run in turns: median, percentiles, coefficient
    of variation, and the speed-up with its 95 % bootstrap interval ("no difference" where it holds 1). TFLOP/s count
    the visible pairs only; roof is the share of what this device could do, measured in the same run. Peak memory is
    what one call adds in a fresh process. Building the map, permuting tokens and the first call (compile) have columns
    of their own; total is map and median together. Break-even is the length from which on the operator beats dense
    attention: from a fit where --sweep tokens has three lengths or more. What does not run is a row with its reason.

    Examples:
      attnkit bench-kernel --list
      attnkit bench-kernel neighborhood radial --sweep tokens=512,1024,2048 --heads 2
      attnkit bench-kernel neighborhood -i 16,16,16 -w 8,8,8 -s 4,4,8 --baseline sdpa,flex --heads 2 --out gna.json
      attnkit bench-kernel blocked --sweep window=8x8,16x16 --direction fwdbwd --heads 2 --dry-run
      attnkit bench-kernel --fit-cost here.json
      attnkit bench-kernel neighborhood --compile-only --target sm_90,sm_100
    """
    from attnkit.tasks.bench_kernel import modes

    shape = {
        "canvas": canvas,
        "window": window,
        "stride": stride,
        "dilation": dilation,
        "causal": causal,
        "q-tile": q_tile,
        "kv-tile": kv_tile,
        "batch": size,
        "heads": heads,
        "kv-heads": kv_heads,
        "dim": dim,
        "dtype": dtype,
        "direction": direction,
        "impl": impl,
    }
    code = modes.run(
        batch,
        names=tuple(names or ()),
        listed=listed,
        suite=suite,
        sweeps=tuple(sweep or ()),
        values={key: str(value) for key, value in shape.items() if value is not None},
        settings=tuple(settings or ()),
        baselines=None if baseline is None else tuple(part.strip() for part in baseline.split(",") if part.strip()),
        repeats=repeats,
        memory=memory,
        against=against,
        threshold=threshold,
        roofline=roofline,
        tables=tuple(tables or ()),
        plot=plot,
        fit_cost=fit_cost,
        compile_only=compile_only,
        target=target,
    )
    if code:
        raise typer.Exit(code)
