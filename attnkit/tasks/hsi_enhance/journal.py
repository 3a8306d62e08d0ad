"""Which tiles of a large cube are already in its partial file, so that a killed run can go on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from .source import Region


class Journal:
    """Lines of JSON beside a partial file: what the file is bound to, then one line for each tile that is in it.

    A tile's line is its region and the number of its values that were clipped. A line torn by a kill is dropped. A
    journal bound to other settings or another input is not this run's.
    """

    def __init__(self, path: Path, bound: Mapping[str, Any]) -> None:
        self.path = path
        self.bound = json.loads(json.dumps(bound, sort_keys=True))
        self._stream: Any = None

    def read(self) -> dict[Region, int] | None:
        """Clipped values by tile that is done; None where there is no journal or it belongs to something else."""
        try:
            lines = self.path.read_text(encoding="ascii").split("\n")
            # the last part has no line end after it: empty, or torn
            head, *rest = (json.loads(line) for line in lines[:-1])
            done = {Region(*numbers): clipped for *numbers, clipped in rest}
        except (OSError, ValueError, TypeError):
            return None
        return done if head == self.bound else None

    def start(self, done: Mapping[Region, int]) -> None:
        """Begin the file, with the tiles that an earlier run has done."""
        self._stream = self.path.open("w", encoding="ascii")
        self._write(self.bound)
        for region, clipped in done.items():
            self.add(region, clipped)

    def add(self, region: Region, clipped: int) -> None:
        """A tile is in the partial file."""
        self._write([*region.as_tuple(), clipped])

    def _write(self, line: Any) -> None:
        self._stream.write(json.dumps(line, sort_keys=True) + "\n")
        self._stream.flush()

    def close(self) -> None:
        if self._stream is not None:
            with suppress(OSError):
                self._stream.close()
            self._stream = None
