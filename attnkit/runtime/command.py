"""What a file command declares so that the batch runner can run it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from attnkit.runtime.errors import UsageError
from attnkit.runtime.items import Column, Context, Estimate, Identity, Item, SideOutput

if TYPE_CHECKING:
    from attnkit.runtime.options import BatchOptions
    from attnkit.runtime.outputs import Outputs


class Worker(Protocol):
    """A loaded model: it lives once in a process and runs item after item."""

    def run(self, item: Item, outputs: Outputs) -> Mapping[str, Any]:
        """Do one item, hand its outputs to `outputs`, and return the fields of its record."""


class FileCommand:
    """Base of every file command: the runner calls these, a command overrides what it needs.

    An object must survive pickling: workers in other processes and on other machines get a copy. It holds
    options, not models; `open` loads the model, once per process.

    layout "files": one main output per item. layout "table": all items answer in one JSONL or CSV file; where none is
    named, rows go to standard output, or in a command that `speaks` their bare words.
    """

    name: ClassVar[str] = ""
    method: str = ""
    layout: str = "files"
    # its answers are words (see `say`)
    speaks: bool = False
    # suffix of --out -> the name that --format takes; the first one is the default
    formats: ClassVar[Mapping[str, str]] = {}
    folder_kinds: ClassVar[frozenset[str]] = frozenset()
    # usual suffixes of those kinds: all that can be said of a file that cannot be opened
    folder_suffixes: ClassVar[frozenset[str]] = frozenset()
    # what --input-format may say
    kinds: ClassVar[frozenset[str]] = frozenset()
    # --format was given, so that --out needs no suffix
    format_given: bool = False
    # one item's output depends on the other items: what makes one stale makes all stale
    coupled: bool = False
    # one output may fill a disk: the plan asks every item for its size and refuses what does not fit
    checks_space: bool = False
    # --resume goes on inside an item that was stopped
    resumes_items: bool = False
    # an item waits for its process's other items unless the worker says that its run() may overlap
    thread_safe: bool = False
    # so many items at most can be done in one go: each is told the others as its `group`
    together: int = 1

    def validate(self) -> None:
        """Refuse options that do not go together, before anything is looked at, with a UsageError."""

    def items(self, inputs: Sequence[str], batch: BatchOptions) -> list[Item]:
        """The items behind the arguments; a command of prompts makes its own."""
        from attnkit.runtime.discovery import discover

        return discover(self, inputs, batch)

    def folder_takes(self, path: Path, kind: str) -> bool:
        """Whether a folder that was named gives this file; what it does not give must be named.

        The results of an earlier run lie beside their inputs and may be of the same kind: they are no inputs.
        """
        if kind not in self.folder_kinds:
            return False
        return not (path.stem.endswith(f"_{self.name}") and self.made(path))

    def made(self, path: Path) -> bool:
        """Whether a file is a result of this command, by the settings that it holds."""
        return (self.read_settings(path) or {}).get("command") == self.name

    def identify(self, path: Path, head: bytes) -> Identity | None:
        """What a file is by its first bytes, or None when this command has no use for it."""
        kind = self.kind_of(path, head)
        return None if kind is None else Identity(kind)

    def kind_of(self, path: Path | None, head: bytes) -> str | None:
        """The kind of a file that is an item by itself."""
        return None

    def output_format(self, out: str | None) -> str:
        """The format of the main output, from --format and the suffix of --out."""
        return choose_format(self.formats, out, None)

    def suffix_of(self, item: Item, format: str) -> str:
        """The suffix of an item's main output where --out names none."""
        return next(suffix for suffix, name in self.formats.items() if name == format)

    def further_suffixes(self, item: Item, format: str) -> tuple[str, ...]:
        """Suffixes of further files of the main output, beside it, such as the data of an ENVI header."""
        return ()

    def side_outputs(self) -> tuple[SideOutput, ...]:
        return ()

    def columns(self) -> tuple[Column, ...]:
        """Columns of the table that is printed at the end; empty where the files are the answer."""
        return ()

    def table_rows(self, record: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        """The rows of one item's record in that table."""
        return (record,)

    def say(self, row: Mapping[str, Any]) -> str | None:
        """What people read of an answer, with no name before it; None where it is shown elsewhere."""
        return None

    def settings(self) -> dict[str, Any]:
        """All that changes the output, as JSON: stored in the output and compared by --update."""
        return {}

    def read_settings(self, path: Path) -> dict[str, Any] | None:
        """The settings stored in an output, or None when it has none."""
        return None

    def resolve_device(self, requested: str) -> str:
        """The device that the run will use; a command that knows only the CPU refuses others."""
        if requested not in ("auto", "cpu"):
            raise UsageError(f"--device: got {requested}, expected cpu; {self.name} has no other device")
        return "cpu"

    def check(self, item: Item) -> None:
        """Refuse an item at plan time, cheaply, with a UsageError."""

    def estimate(self, item: Item, format: str) -> Estimate:
        return Estimate()

    def prepare(self, items: Sequence[Item]) -> list[Any] | None:
        """One pass over all items before the first one runs; gives each item its `payload`, or None."""
        return None

    def open(self, context: Context) -> Worker:
        """Load the model, once per process."""
        raise NotImplementedError


def choose_format(formats: Mapping[str, str], out: str | None, wanted: str | None) -> str:
    """The main output's format: --format, else the suffix of --out, else the command's default.

    Raises UsageError for an unknown name, an unknown suffix, or two that contradict each other.
    """
    known = list(dict.fromkeys(formats.values()))
    if wanted is not None and wanted not in known:
        raise UsageError(f"--format: got {wanted}, expected {' or '.join(known)}")
    suffix = Path(out).suffix.lower() if out is not None else ""
    if not suffix:
        return wanted or known[0]
    by_suffix = formats.get(suffix)
    if by_suffix is None:
        raise UsageError(f"--out {out}: got suffix {suffix}, expected {' or '.join(formats)}; end a folder's name in /")
    if wanted is not None and wanted != by_suffix:
        raise UsageError(f"--out {out}: its suffix says {by_suffix}, --format says {wanted}; give one of the two")
    return by_suffix
