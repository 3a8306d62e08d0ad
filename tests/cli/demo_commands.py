"""Small commands that stand for the next ones: pairs of files in and out, rows in one table, files from words.

A text may hold one order for its own item: `fail`, `break` (an error nobody foresaw), `hold FIFO` (wait there), `crash`
(the process dies), `crash-once FILE` (it dies, unless FILE is there).
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer

from attnkit import cli
from attnkit.runtime.batch import run_files
from attnkit.runtime.command import FileCommand, choose_format
from attnkit.runtime.commandline import Entry
from attnkit.runtime.errors import ItemError
from attnkit.runtime.items import Column, Context, Estimate, Identity, Item, SideOutput, prompt_item
from attnkit.runtime.options import BatchOptions, Inputs, batch_command
from attnkit.runtime.outputs import Outputs


def obey(text: str) -> None:
    order, _, argument = text.strip().partition(" ")
    if order == "fail":
        raise ItemError("the text asks to fail; write something else")
    if order == "break":
        raise RuntimeError("first line\nsecond line")
    if order == "hold":
        # returns when the other end is closed; the test opens it to learn that this item is at work
        Path(argument).read_bytes()
    if order == "crash" or (order == "crash-once" and not Path(argument).exists()):
        if argument:
            Path(argument).touch()
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Pairs(FileCommand):
    """Copies pairs STEM.head (text, begins with PAIR) + STEM.body, the body shouted."""

    mark: str = "!"
    preview: str | None = None

    name = "demo-pairs"
    method = "shout"
    formats: ClassVar = {".head": "pair"}
    folder_kinds = frozenset({"pair"})
    kinds = frozenset({"pair"})

    def identify(self, path: Path, head: bytes) -> Identity | None:
        if path.suffix == ".body" and path.with_suffix(".head").exists():
            return Identity("pair", path.with_suffix(".head"), (path,))
        if not head.startswith(b"PAIR"):
            return None
        return Identity("pair", None, (path.with_suffix(".body"),))

    def side_outputs(self) -> tuple[SideOutput, ...]:
        return (SideOutput("preview", "--preview", self.preview, ".txt"),) if self.preview else ()

    def settings(self) -> dict[str, Any]:
        return {"mark": self.mark}

    def read_settings(self, path: Path) -> dict[str, Any] | None:
        try:
            return json.loads(path.read_text().partition("\n")[2])
        except ValueError:
            return None

    def estimate(self, item: Item, format: str) -> Estimate:
        return Estimate(output_bytes=sum(path.stat().st_size for path in item.files), seconds=0.5)

    def open(self, context: Context) -> Pairs:
        return self

    def run(self, item: Item, outputs: Outputs) -> dict[str, Any]:
        if not item.companions:
            raise ItemError("not a pair, expected a text that begins with PAIR")
        body = item.companions[0].read_text()
        first, _, second = body.partition("\n")
        obey(first)
        outputs.path("main", ".body").write_text(body.upper() + self.mark)
        # the body lies under its temporary name by now
        obey(second)
        outputs.write("main", b"PAIR\n" + json.dumps(outputs.settings).encode())
        if outputs.wants("preview"):
            outputs.write("preview", body[:4].encode())
        return {"letters": len(body)}


@dataclass(frozen=True)
class Words(FileCommand):
    """Counts the letters of texts: of .txt files that begin with TEXT, or of the words themselves."""

    prompts: bool = False
    per: int = 1

    name = "demo-words"
    layout = "table"
    formats: ClassVar = {".jsonl": "jsonl", ".csv": "csv"}
    folder_kinds = frozenset({"text"})
    kinds = frozenset({"text"})

    def items(self, inputs: Sequence[str], batch: BatchOptions) -> list[Item]:
        return [prompt_item(text) for text in inputs] if self.prompts else super().items(inputs, batch)

    def kind_of(self, path: Path | None, head: bytes) -> str | None:
        return "text" if head.startswith(b"TEXT") else None

    def output_format(self, out: str | None) -> str:
        return choose_format(self.formats, out, None)

    def columns(self) -> tuple[Column, ...]:
        return (Column("letters", "letters"),)

    def settings(self) -> dict[str, Any]:
        return {"per": self.per}

    def open(self, context: Context) -> Words:
        return self

    def run(self, item: Item, outputs: Outputs) -> dict[str, Any]:
        if item.data is not None:
            text = item.data.decode()
        elif item.path is not None:
            text = item.path.read_text()
        else:
            text = str(item.payload)
        if item.kind is None:
            raise ItemError("not a text, expected a file that begins with TEXT")
        obey(text.removeprefix("TEXT").strip())
        outputs.row(letters=len(text) * self.per, share=float("nan"))
        return {"letters": len(text) * self.per, "share": float("nan")}


@dataclass(frozen=True)
class Clips(Words):
    """One file per prompt."""

    name = "demo-clips"
    layout = "files"
    formats: ClassVar = {".clip": "clip"}

    def columns(self) -> tuple[Column, ...]:
        return ()

    def run(self, item: Item, outputs: Outputs) -> dict[str, Any]:
        outputs.write("main", f"{item.payload}\n".encode())
        return {}


@batch_command
def pairs(
    batch: BatchOptions,
    inputs: Inputs,
    mark: Annotated[str, typer.Option(help="Put at the end")] = "!",
    preview: Annotated[str | None, typer.Option(help="The first letters")] = None,
) -> int:
    """Shout pairs."""
    return run_files(Pairs(mark, preview), inputs, batch)


@batch_command
def words(
    batch: BatchOptions,
    inputs: Inputs,
    prompts: Annotated[bool, typer.Option("--prompts", help="The inputs are words")] = False,
    per: Annotated[int, typer.Option(help="Worth of a letter")] = 1,
) -> int:
    """Count letters."""
    return run_files(Words(prompts, per), inputs, batch)


@batch_command
def clips(batch: BatchOptions, inputs: Inputs) -> int:
    """Film words."""
    return run_files(Clips(prompts=True), inputs, batch)


COMMANDS = {
    "tonemap": cli.COMMANDS["tonemap"],
    "hsi-enhance": cli.COMMANDS["hsi-enhance"],
    "vlm-ask": cli.COMMANDS["vlm-ask"],
    "demo-pairs": Entry("demo_commands:pairs", "Shout pairs"),
    "demo-words": Entry("demo_commands:words", "Count letters"),
    "demo-clips": Entry("demo_commands:clips", "Film words"),
}


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    cli.Root.table = COMMANDS
    cli.main()
