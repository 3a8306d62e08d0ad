"""What the commands that train have in common: their options, and how they talk.

def train_thing(..., device: Device = "cpu", threads: Threads = None, resume: Resume = False, ...):
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from attnkit.runtime.values import parse_device

Device = Annotated[
    str, typer.Option("--device", metavar="auto|cpu|cuda[:N]", parser=parse_device, help="Where to compute")
]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads; all cores when not given")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint beside --out")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is at --out")]
Json = Annotated[bool, typer.Option("--json", help="The result as one JSON document on standard output")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Errors only")]


def talk(quiet: bool) -> Callable[[str], None]:
    """What a training says its lines with: standard error, or nothing."""

    def say(line: str) -> None:
        if not quiet:
            print(line, file=sys.stderr, flush=True)

    return say
