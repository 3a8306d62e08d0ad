"""Which tiles of a large cube are already in its partial file, so that a killed run can go on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any


class Journal:
    """Lines of JSON beside a partial file: what the file is bound to, then one line for each tile that is in it.

    A line torn by a kill is dropped. A journal bound to other settings, another input or another method is not this
    run's, and is begun anew.
    """

    def __init__(self, path: Path, bound: dict[str, Any]) -> None:
        self.path = path
        self.bound = json.loads(json.dumps(bound, sort_keys=True))
        self._stream: Any = None

    def read(self) -> frozenset[tuple[int, ...]] | None:
        """Tiles done, or None where there is no journal or it belongs to something else."""
        try:
            lines = self.path.read_text(encoding="ascii").split("\n")
            # the last part has no line end after it: empty, or torn
            head, *rest = (json.loads(line) for line in lines[:-1])
        except (OSError, ValueError):
            return None
        return frozenset(tuple(tile) for tile in rest) if head == self.bound else None

    def start(self, done: Iterable[tuple[int, ...]] = ()) -> None:
        """Begin the file, with the tiles that an earlier run has done."""
        self._stream = self.path.open("w", encoding="ascii")
        for line in (self.bound, *(list(tile) for tile in sorted(done))):
            self._write(line)

    def add(self, tile: tuple[int, ...]) -> None:
        """A tile is in the partial file."""
        self._write(list(tile))

    def _write(self, line: Any) -> None:
        self._stream.write(json.dumps(line, sort_keys=True) + "\n")
        self._stream.flush()

    def close(self) -> None:
        if self._stream is not None:
            with suppress(OSError):
                self._stream.close()
            self._stream = None

    def remove(self) -> None:
        """The cube is whole: nothing is left to go on with."""
        self.close()
        with suppress(OSError):
            os.unlink(self.path)
