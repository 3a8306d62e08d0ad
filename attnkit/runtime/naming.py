"""Where the outputs of each item go, and the refusals that follow from names alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from attnkit.runtime.errors import UsageError
from attnkit.runtime.items import STANDARD_STREAM, Item, SideOutput

if TYPE_CHECKING:
    from attnkit.runtime.command import FileCommand
    from attnkit.runtime.options import BatchOptions

MAIN = "main"
# answers as people read them, on standard output alone
TEXT = "text"


@dataclass(frozen=True)
class Destinations:
    """The outputs of one item by name; a path of None is standard output. `further` are more files of the main one."""

    paths: dict[str, Path | None] = field(default_factory=dict)
    further: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Layout:
    """Every destination of a run: per item, the one table of all items if there is one, and the folders to lock."""

    format: str
    items: list[Destinations]
    table: Path | None
    roots: tuple[Path, ...]
    to_standard_output: bool

    def files(self) -> Iterable[Path]:
        for _, path in self.named():
            yield path

    def named(self) -> Iterable[tuple[str, Path]]:
        """Every file with the name of its output."""
        for destinations in self.items:
            yield from ((name, path) for name, path in destinations.paths.items() if path is not None)
            yield from ((MAIN, path) for path in destinations.further)
        if self.table is not None:
            yield MAIN, self.table


def lay_out(command: FileCommand, items: Sequence[Item], batch: BatchOptions) -> Layout:
    """Name every output. Raises UsageError for two items on one path, an output that is an input, and the like."""
    roots: dict[Path, str] = {}
    out = batch.out
    as_folder = out is not None and out != STANDARD_STREAM and command.layout == "files" and _is_folder(out, items)
    format = command.output_format(None if as_folder or out == STANDARD_STREAM else out)
    if out is not None and as_folder and len(items) > 1 and Path(out).exists() and not Path(out).is_dir():
        raise UsageError(f"--out {out}: is a file, expected a folder for {len(items)} items")
    if command.layout == "table":
        table = None if out in (None, STANDARD_STREAM) else Path(str(out))
        if table is not None and (table.is_dir() or str(out).endswith(("/", os.sep))):
            raise UsageError(
                f"--out {out}: is a folder, expected one file for all items such as "
                f"{table / 'answers'}{next(suffix for suffix, name in command.formats.items() if name == format)}"
            )
        if out is None and command.speaks:
            format = TEXT
        mains: list[Path | None] = [None] * len(items)
        if table is not None:
            roots[table.parent] = "--out"
    else:
        table = None
        mains = [
            _main_path(command, item, batch, as_folder, command.suffix_of(item, format), len(items), roots)
            for item in items
        ]
    laid = []
    sides = command.side_outputs()
    for item, main in zip(items, mains, strict=True):
        paths = {side.name: _side_path(side, item, main, len(items), roots) for side in sides}
        further = () if main is None else command.further_suffixes(item, format)
        laid.append(
            Destinations(
                {MAIN: main, **paths} if command.layout == "files" else dict(paths),
                tuple(main.with_suffix(suffix) for suffix in further if main is not None),
            )
        )
    to_standard_output = (command.layout == "files" and None in mains) or (command.layout == "table" and table is None)
    layout = Layout(format, laid, table, tuple(roots), to_standard_output)
    _refuse_streams(command, layout, batch)
    _refuse_clashes(items, layout)
    options = {side.name: side.option for side in sides}
    _refuse_inputs(items, layout, batch, options)
    _refuse_other_kinds(layout, options, roots)
    return layout


def _is_folder(out: str, items: Sequence[Item]) -> bool:
    if os.path.isdir(out) or out.endswith(("/", os.sep)) or len(items) > 1:
        return True
    # a folder that happens to hold one file gets a folder too, unless --out names a picture
    return bool(items) and all(item.found for item in items) and not Path(out).suffix and not os.path.exists(out)


def _main_path(
    command: FileCommand,
    item: Item,
    batch: BatchOptions,
    as_folder: bool,
    suffix: str,
    count: int,
    roots: dict[Path, str],
) -> Path | None:
    out = batch.out
    if out == STANDARD_STREAM:
        if count > 1:
            raise UsageError(f"--out -: got {count} items, expected one; name a folder")
        return None
    if out is None:
        if item.data is not None:
            return None
        folder = item.path.parent if item.path is not None else Path()
        roots[item.home or folder] = "--out"
        return folder / f"{item.stem}_{command.name}{suffix}"
    if as_folder:
        roots[Path(out)] = "--out"
        return Path(out) / item.below / f"{item.stem}{suffix}"
    if not Path(out).suffix and not Path(out).exists() and not command.format_given:
        raise UsageError(
            f"--out {out}: no suffix to pick a format by, expected {' or '.join(command.formats)}, "
            "or / at the end for a folder"
        )
    roots[Path(out).parent] = "--out"
    return Path(out)


def _side_path(side: SideOutput, item: Item, main: Path | None, count: int, roots: dict[Path, str]) -> Path:
    if side.destination is None:
        if main is None:
            raise UsageError(f"{side.option}: the result goes to standard output, name a file beside it with --out")
        return main.with_name(f"{main.stem}{side.beside}{side.suffix}")
    target = Path(side.destination)
    if side.destination == STANDARD_STREAM:
        raise UsageError(f"{side.option} -: expected a file or a folder; only --out may be standard output")
    if target.is_dir() or side.destination.endswith(("/", os.sep)) or count > 1:
        if target.exists() and not target.is_dir():
            raise UsageError(f"{side.option} {target}: is a file, expected a folder for {count} items")
        roots.setdefault(target, side.option)
        return target / item.below / f"{item.stem}{side.suffix}"
    if target.suffix.lower() != side.suffix:
        raise UsageError(f"{side.option} {target}: got suffix {target.suffix or 'none'}, expected {side.suffix}")
    roots.setdefault(target.parent, side.option)
    return target


def _refuse_streams(command: FileCommand, layout: Layout, batch: BatchOptions) -> None:
    if not layout.to_standard_output:
        return
    # with a document the bare words are left out, since it holds them
    if (batch.json or batch.jsonl) and not batch.dry_run and layout.format != TEXT:
        flag = "--json" if batch.json else "--jsonl"
        raise UsageError(f"{flag}: the answer already goes to standard output; name a file with --out")
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    if command.layout == "files" and is_terminal and not batch.dry_run:
        raise UsageError("--out: standard output is a terminal, expected a file or a pipe for the picture or clip")


def _key(path: Path) -> str:
    return os.path.join(os.path.realpath(path.parent), path.name)


def _refuse_clashes(items: Sequence[Item], layout: Layout) -> None:
    taken: dict[str, tuple[Item, str]] = {}
    if layout.table is not None:
        taken[_key(layout.table)] = (Item(name="the table of answers", stem=""), MAIN)
    streams = [
        item for item, laid in zip(items, layout.items, strict=True) if MAIN in laid.paths and laid.paths[MAIN] is None
    ]
    if len(streams) > 1:
        raise UsageError(
            f"{streams[0].name} and {streams[1].name} both go to standard output; name a folder with --out"
        )
    for item, destinations in zip(items, layout.items, strict=True):
        for name, path in (*destinations.paths.items(), *((path.suffix, path) for path in destinations.further)):
            if path is None:
                continue
            other = taken.setdefault(_key(path), (item, name))
            if other != (item, name):
                what = "two outputs of" if other[0] is item else f"{other[0].name} and"
                raise UsageError(
                    f"{what} {item.name} have one output, {path}; keep folders apart with --recursive or other names"
                )


def _refuse_inputs(items: Sequence[Item], layout: Layout, batch: BatchOptions, options: Mapping[str, str]) -> None:
    names: dict[str, Path] = {}
    nodes: dict[tuple[int, int], Path] = {}
    for item in items:
        for path in item.files:
            names[os.path.realpath(path)] = path
            about = path.stat()
            nodes[about.st_dev, about.st_ino] = path
    side_files = [("--record", batch.record), ("--log-file", batch.log_file)]
    written = [(options.get(name, "--out"), path) for name, path in layout.named()]
    for option, path in [*written, *((option, path) for option, path in side_files if path is not None)]:
        source = names.get(os.path.realpath(path))
        if source is None:
            try:
                about = path.stat()
            except OSError:
                continue
            source = nodes.get((about.st_dev, about.st_ino))
        if source is not None:
            raise UsageError(
                f"{option}: {path} is the input {source}; an input is never written to, name another place"
            )
    outputs = {_key(path) for path in layout.files()}
    for option, file in side_files:
        if file is not None and _key(file) in outputs:
            raise UsageError(f"{option} {file}: is an output of this run too; name another file")


def _refuse_other_kinds(layout: Layout, options: Mapping[str, str], roots: Mapping[Path, str]) -> None:
    for name, path in layout.named():
        if path.is_dir():
            option = options.get(name, "--out")
            raise UsageError(
                f"{path}: is a folder, expected to write a file there; move it away or choose another {option}"
            )
        # a rename would put a file in the place of the device, or of /dev/stdout
        if (path.exists() and not path.is_file()) or (path.is_symlink() and str(path.readlink()).startswith("/proc/")):
            raise UsageError(f"{path}: is a pipe or a device, expected a file; --out - writes to standard output")
    for root, option in roots.items():
        present = root.absolute()
        while not os.path.lexists(present):
            present = present.parent
        if not present.is_dir():
            raise UsageError(f"{root}: {present} is not a folder; name another place with {option}")
        if not os.access(present, os.W_OK | os.X_OK):
            raise UsageError(f"{root}: no permission to write in {present}; name another place with {option}")
