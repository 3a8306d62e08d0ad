"""The file commands that the contract is tested over, and what tests say about their inputs and ends."""

from __future__ import annotations

import json
import struct
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import demo_commands
import pytest

DEMO = Path(demo_commands.__file__)


def write_pfm(path: Path, values: Sequence[float], columns: int) -> None:
    """A float picture whose pixels are grey with the given values, in rows of `columns`."""
    samples = [value for value in values for _ in range(3)]
    head = f"PF\n{columns} {len(values) // columns}\n-1.0\n".encode()
    path.write_bytes(head + struct.pack(f"<{len(samples)}f", *samples))


@dataclass(frozen=True)
class Case:
    """One command of the table: how its inputs are written, what it makes of them, an option that changes that."""

    command: str
    options: tuple[str, ...]
    suffix: str
    out_suffix: str
    change: tuple[str, ...]
    side: tuple[str, str] | None = None

    @property
    def table(self) -> bool:
        return self.out_suffix in (".jsonl", ".csv")

    def good(self, path: Path, seed: int = 1) -> Path:
        """Write a good input."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path = path.with_name(path.name + self.suffix) if path.suffix != self.suffix else path
        if self.command == "tonemap":
            write_pfm(path, [0.01 * seed * (at + 1) for at in range(12)], 4)
        elif self.command == "hsi-enhance":
            import numpy as np

            np.save(path, np.random.default_rng(seed).integers(20, 200, (4, 3, 5), np.uint16))
        elif self.command == "vlm-ask":
            import numpy as np
            from PIL import Image

            Image.fromarray(np.random.default_rng(seed).integers(0, 256, (24, 24, 3), np.uint8)).save(path)
        elif self.command == "demo-pairs":
            path.write_text("PAIR")
            path.with_suffix(".body").write_text(f"text {seed}")
        else:
            path.write_text("TEXT" + "a" * seed)
        return path

    def bad(self, path: Path) -> Path:
        """Write an input of the right kind that fails."""
        path = self.good(path)
        if self.command in ("tonemap", "hsi-enhance"):
            path.write_bytes(path.read_bytes()[:-5])
        elif self.command == "vlm-ask":
            path.write_bytes(path.read_bytes()[:500])
        elif self.command == "demo-pairs":
            path.with_suffix(".body").write_text("fail")
        else:
            path.write_text("TEXT fail")
        return path


TONEMAP = Case("tonemap", ("--method", "linear"), ".pfm", ".png", ("--exposure", "-2"), ("--sheet", ".png"))
CUBES = Case("hsi-enhance", ("--method", "gain"), ".npy", ".npy", ("--gain", "3"), ("--preview", ".png"))
PAIRS = Case("demo-pairs", (), ".head", ".head", ("--mark", "?"), ("--preview", ".txt"))
QUESTIONS = Case(
    "vlm-ask",
    ("--question", "What is in the image?", "--each", "--max-tokens", "2"),
    ".png",
    ".jsonl",
    ("--system", "Say yes."),
    ("--overlay", ".png"),
)
WORDS = Case("demo-words", (), ".txt", ".jsonl", ("--per", "2"))

FILES = [pytest.param(case, id=case.command) for case in (TONEMAP, CUBES, PAIRS)]
EVERY = [*FILES, pytest.param(WORDS, id="demo-words")]
every = pytest.mark.parametrize("case", [*EVERY, pytest.param(QUESTIONS, id=QUESTIONS.command)])
# a process of its own, or a pool of them, would import torch and transformers each time
light = pytest.mark.parametrize("case", EVERY)
files = pytest.mark.parametrize("case", FILES)


@dataclass
class Ended:
    """How a command line ended."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line on standard error."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        return lines[0]


Run = Callable[..., Ended]


def finish(process: subprocess.Popen[str]) -> Ended:
    """The end of a process; a test that waits for nothing must not wait for ever."""
    out, err = process.communicate(timeout=60)
    return Ended(process.returncode, out or "", err or "")


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def place(case: Case, name: str = "o") -> str:
    """An --out for several items."""
    return f"{name}{case.out_suffix}" if case.table else f"{name}/"


def rows(path: Path) -> list[dict[str, object]]:
    """The lines of a JSONL file."""
    return [json.loads(line) for line in path.read_text().splitlines()]
