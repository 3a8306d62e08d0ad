"""`attnkit models sinks`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attnkit.runtime.values import parse_device


def find_model_sinks(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Registry name, folder or hub id")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE.json", help="Profile for vlm-ask --profile")
    ] = None,
    device: Annotated[
        str, typer.Option("--device", metavar="auto|cpu|cuda[:N]", parser=parse_device, help="Where to compute")
    ] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FILE")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Never use the network, not even for a hub id")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output")] = False,
) -> None:
    """Find the sink dimensions of a vision-language model from its first-token states.

    Sinks are tokens that soak up attention; a few hidden dimensions are huge in them. `vlm-ask --calibrate var` takes
    dimensions and threshold from this profile. A small model may have none: the profile says so, and VAR will change
    nothing.

    Examples:
      attnkit models sinks tiny-llava
      attnkit models sinks ./llava-1.5-7b-hf --out llava.json
    """
    from dataclasses import asdict

    from attnkit.models import registry
    from attnkit.models.vlm.sinks import find_sinks
    from attnkit.runtime.answers import print_document, print_table
    from attnkit.runtime.errors import UsageError
    from attnkit.runtime.tables import replace_file

    if out is not None and out.exists() and not overwrite:
        raise UsageError(f"--out {out}: exists; use --overwrite or name another file")
    if out is not None and not out.parent.is_dir():
        raise UsageError(f"--out {out}: no folder {out.parent}; make it first")
    vlm = registry.open_model(model, task="vlm-ask", device=device, offline=offline)
    profile, layers = find_sinks(vlm, model)
    if out is not None:
        replace_file(out, profile.as_json().encode())
    if json:
        print_document({**asdict(profile), "by_layer": [asdict(one) for one in layers]})
        return
    rows = [
        [str(one.layer), str(one.dimension), f"{one.score:.2f}", f"{one.others:.2f}", f"{one.contrast:.1f}"]
        for one in layers
    ]
    print_table(("layer", "largest dimension of the first token", "score", "others at most", "times their value"), rows)
    if profile.dims:
        found = ", ".join(str(one) for one in profile.dims)
        typer.echo(f"sink dimensions {found}, threshold {profile.tau:g}", err=True)
    else:
        best = max(one.score for one in layers)
        typer.echo(
            f"{model}: no sink dimension found; largest score {best:.2f}, possible {profile.hidden_size**0.5:.2f}",
            err=True,
        )
