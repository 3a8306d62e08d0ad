"""From the arguments of a command to its items: files, folders, globs and standard input."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from attnkit.runtime.errors import UsageError
from attnkit.runtime.items import STANDARD_STREAM, Identity, Item

if TYPE_CHECKING:
    from attnkit.runtime.command import FileCommand
    from attnkit.runtime.options import BatchOptions

HEAD_BYTES = 512


def discover(
    command: FileCommand, inputs: Sequence[str], batch: BatchOptions, *, repeats: bool = False
) -> list[Item]:
    """The items behind `inputs`, in the order given and, inside a folder, in the order people count.

    A file is an item by its content. A folder gives the files of the command's `folder_kinds`, without its
    sub-folders unless --recursive. A glob stands for the names that it matches. The same file named twice is one
    item, or two with `repeats`. Raises UsageError for a named input that does not exist, a folder that cannot be read,
    or a terminal as `-`.
    """
    if batch.input_format is not None and batch.input_format not in command.kinds:
        known = " or ".join(sorted(command.kinds)) or "nothing: this command has one kind of input"
        raise UsageError(f"--input-format: got {batch.input_format}, expected {known}")
    found: dict[object, Item] = {}
    for text in inputs:
        for item in _items_of(command, text, batch):
            place = STANDARD_STREAM if item.path is None else os.path.abspath(item.path)
            turn = len(found) if repeats and item.path is not None else 0
            found.setdefault((place, turn), item)
    items = list(found.values())
    return items[: batch.limit] if batch.limit is not None else items


def _items_of(command: FileCommand, text: str, batch: BatchOptions) -> Iterator[Item]:
    if text == STANDARD_STREAM:
        yield _standard_input(command, batch)
        return
    if text and os.path.lexists(text):
        yield from _named(command, Path(text), batch)
        return
    if not any(sign in text for sign in "*?["):
        raise UsageError(f"{text or repr(text)}: no such file or folder")
    import glob

    for name in sorted(glob.glob(text, recursive=True), key=_counting):
        if _wanted(PurePath(Path(name).name), batch):
            yield from _named(command, Path(name), batch)


def _named(command: FileCommand, path: Path, batch: BatchOptions) -> Iterator[Item]:
    if path.is_dir():
        yield from _folder(command, path, batch)
        return
    if not path.exists():
        raise UsageError(f"{path}: the link leads nowhere ({os.readlink(path)})")
    if not path.is_file():
        raise UsageError(f"{path}: not a regular file or a folder; use - to read from a pipe")
    head = _head(path)
    # a file that cannot be opened, or that is of no use here, is an item that will say so when its turn comes
    identity = None if head is None else command.identify(path, head)
    yield _item(path, identity, batch, home=path.parent)


def _folder(command: FileCommand, folder: Path, batch: BatchOptions) -> Iterator[Item]:
    for path in _walk(folder, batch.recursive):
        below = path.relative_to(folder)
        if not _wanted(below, batch):
            continue
        head = _head(path)
        identity = None if head is None else command.identify(path, head)
        # an unreadable file may be one of ours: better a failed item than a silent gap
        if _suffix_fits(path, command) if head is None else identity is not None and _taken(command, path, identity):
            yield _item(path, identity, batch, home=folder, below=below.parent, found=True)


def _walk(folder: Path, recursive: bool) -> Iterator[Path]:
    try:
        with os.scandir(folder) as entries:
            names = sorted((entry for entry in entries), key=lambda entry: _counting(entry.name))
    except OSError as error:
        raise UsageError(f"{folder}: cannot read this folder ({error.strerror}); check its permissions") from error
    for entry in names:
        # hidden files are nobody's pictures; attnkit's own lock and temporary files are among them
        if entry.name.startswith("."):
            continue
        path = folder / entry.name
        if entry.is_file():
            yield path
        elif recursive and entry.is_dir(follow_symlinks=False):
            yield from _walk(path, recursive)


def _taken(command: FileCommand, path: Path, identity: Identity) -> bool:
    return command.folder_takes(identity.path or path, identity.kind)


def _suffix_fits(path: Path, command: FileCommand) -> bool:
    return path.suffix.lower().lstrip(".") in command.folder_suffixes


def _wanted(below: PurePath, batch: BatchOptions) -> bool:
    names = (below.name, below.as_posix())
    if batch.include and not any(fnmatch(name, pattern) for name in names for pattern in batch.include):
        return False
    return not any(fnmatch(name, pattern) for name in names for pattern in batch.exclude)


def _head(path: Path) -> bytes | None:
    try:
        with path.open("rb") as stream:
            return stream.read(HEAD_BYTES)
    except OSError:
        return None


def _item(
    path: Path,
    identity: Identity | None,
    batch: BatchOptions,
    home: Path,
    below: PurePath | None = None,
    found: bool = False,
) -> Item:
    main = path if identity is None or identity.path is None else identity.path
    return Item(
        name=str(main),
        stem=main.stem,
        kind=batch.input_format or (None if identity is None else identity.kind),
        path=main,
        companions=() if identity is None else identity.companions,
        below=below or PurePath(),
        home=home,
        found=found,
    )


def _standard_input(command: FileCommand, batch: BatchOptions) -> Item:
    stream = sys.stdin
    if stream is None or stream.isatty():
        raise UsageError("-: standard input is a terminal; pipe a file into it")
    data = stream.buffer.read()
    kind = batch.input_format or command.kind_of(None, data[:HEAD_BYTES])
    return Item(name=STANDARD_STREAM, stem="stdin", kind=kind, data=data)


def _counting(name: str | os.PathLike[str]) -> list[tuple[bool, int, str]]:
    # frame2 before frame10
    parts = re.split(r"(\d+)", os.fspath(name))
    return [(not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]
