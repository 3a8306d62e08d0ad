"""What the batch runner works on: an item, the outputs that it asks for, and what one run of it gave."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

STANDARD_STREAM = "-"


@dataclass(frozen=True)
class Identity:
    """What a file turned out to be, judged by its content.

    `path` is the main file of the item where another of its files was named (the data file of an ENVI pair);
    `companions` are the other files that belong to it.
    """

    kind: str
    path: Path | None = None
    companions: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Item:
    """One unit of work: a file, several files that belong together, bytes from standard input, or a prompt.

    `name` is what people read in messages and records. `below` is the sub-folder kept under an output folder;
    `home` the folder from which the outputs and the lock take their place where --out is not given. `words` are what
    is asked of its files, part of its content. An item with a `problem` fails with it when its turn comes, without a
    model. `group` are the items that the worker may do in one go with this one, itself among them.
    """

    name: str
    stem: str
    kind: str | None = None
    path: Path | None = None
    companions: tuple[Path, ...] = ()
    below: PurePath = field(default_factory=PurePath)
    home: Path | None = None
    data: bytes | None = None
    payload: Any = None
    words: str | None = None
    problem: str | None = None
    group: tuple[Item, ...] = ()
    found: bool = False
    index: int = 0

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that the item is made of."""
        return () if self.path is None else (self.path, *self.companions)

    def fingerprint(self) -> str:
        """SHA-256 of the content: of its bytes, its files in order and its words, or else of its prompt as JSON."""
        digests = [] if self.data is None else [hashlib.sha256(self.data).hexdigest()]
        digests += [sha256_of(path) for path in self.files]
        if self.words is not None:
            digests.append(hashlib.sha256(self.words.encode()).hexdigest())
        if not digests:
            return hashlib.sha256(json.dumps(self.payload, sort_keys=True, default=str).encode()).hexdigest()
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def prompt_item(text: str, *, identifier: str | None = None, payload: Any = None) -> Item:
    """An item made of words; its stem comes from its id or from the first words of the text."""
    words = re.findall(r"\w+", text.lower())[:6]
    stem = safe_stem(identifier) if identifier is not None else "-".join(words)[:60]
    return Item(name=identifier or stem or "prompt", stem=stem or "prompt", kind="prompt", payload=payload or text)


def safe_stem(identifier: str) -> str:
    """An id as a file name: everything that a file system or a shell may read otherwise becomes a dash."""
    return re.sub(r"[^\w.+-]+", "-", identifier).strip("-.") or "item"


@dataclass(frozen=True)
class SideOutput:
    """One more output of each item: a file for one item, a folder for many.

    Without a destination it lies beside the main output, `beside` and the suffix added to that one's stem.
    """

    name: str
    option: str
    destination: str | None
    suffix: str
    beside: str = ""


@dataclass(frozen=True)
class Column:
    """One column of the table that a command prints when it has answers of its own; the unit is in `title`."""

    key: str
    title: str
    digits: int = 3


@dataclass(frozen=True)
class Estimate:
    """What one item will take, as far as its header tells; None where it cannot be known."""

    output_bytes: int | None = None
    seconds: float | None = None
    memory_bytes: int | None = None
    size: str | None = None
    tiles: int | None = None


@dataclass(frozen=True)
class Context:
    """What a worker may know about the run it is part of."""

    device: str = "cpu"
    seed: int = 0
    threads: int = 0
    token: str = ""
    debug: bool = False
    offline: bool = False
    parent: int = 0


@dataclass
class Outcome:
    """What became of one item: its record, and what the run itself has to pass on.

    `fatal`: the model could not be loaded, so that no other item can do better.
    """

    index: int
    status: str
    record: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    standard_output: bytes | None = None
    error: str | None = None
    traceback: str | None = None
    seconds: float = 0.0
    fatal: bool = False
