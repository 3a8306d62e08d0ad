"""Whole files only: every output is written under a temporary name beside its place and renamed when it is complete."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from attnkit.runtime.errors import ItemError
from attnkit.runtime.items import sha256_of
from attnkit.runtime.naming import MAIN
from attnkit.runtime.signals import shielded

TEMPORARY_PREFIX = ".attnkit-"
PARTIAL_SUFFIX = ".attnkit-partial"


class Outputs:
    """The outputs of one item while its task runs.

    The task asks `wants(name)`, then hands over bytes with `write`, or a file of its own making at `path`, or, where
    all items answer in one table, `row`. Nothing shows under its real name until `commit`.
    """

    def __init__(
        self,
        paths: Mapping[str, Path | None],
        format: str,
        settings: dict[str, Any],
        token: str,
        index: int,
        keep: frozenset[str] = frozenset(),
        inside: Callable[[float], None] | None = None,
    ) -> None:
        self.format = format
        self.settings = settings
        self.rows: list[dict[str, Any]] = []
        self.standard_output: bytes | None = None
        self.hashes: dict[str, str] = {}
        self._paths = paths
        self._token = token
        self._index = index
        self._keep = keep
        self._inside = inside
        # (output name, suffix) -> (temporary file, final place); the main file comes last in a commit
        self._staged: dict[tuple[str, str], tuple[Path, Path | None]] = {}
        self._lasting: set[Path] = set()
        self._needless: list[Path] = []

    def tell(self, share: float) -> None:
        """Say how much of the item is done, 0 to 1: for the bar of a run whose items are large."""
        if self._inside is not None:
            self._inside(share)

    def wants(self, name: str = MAIN) -> bool:
        """Whether the run asks for this output; one that exists and is to stay is not asked for."""
        return name in self._paths and name not in self._keep

    def place(self, name: str = MAIN) -> Path | None:
        """Where this output goes in the end; None is standard output."""
        return self._paths[name]

    def path(self, name: str = MAIN, suffix: str | None = None) -> Path:
        """A temporary file to write this output to.

        `suffix` names a further file of the same output that differs in its suffix alone, such as the data of an
        ENVI header; it takes its final place before the output's own file does.
        """
        final = self._paths[name]
        own = f".{self.format}" if final is None else final.suffix
        key = (name, suffix or own)
        if key not in self._staged:
            folder = Path(_scratch()) if final is None else final.parent
            folder.mkdir(parents=True, exist_ok=True)
            temporary = folder / f"{TEMPORARY_PREFIX}{self._token}-{self._index}-{name}{key[1]}"
            self._staged[key] = (temporary, None if final is None else final.with_suffix(key[1]))
        return self._staged[key][0]

    def partial(self, name: str = MAIN, suffix: str | None = None) -> Path | None:
        """A hidden file of a lasting name to build a large output in, so that a later run can go on with it.

        It stays when the run is killed; `adopt` hands it over when it is whole. None where the output goes to standard
        output.
        """
        final = self._paths[name]
        if final is None:
            return None
        final.parent.mkdir(parents=True, exist_ok=True)
        return partial_path(final if suffix is None else final.with_suffix(suffix))

    def adopt(
        self,
        path: Path,
        name: str = MAIN,
        suffix: str | None = None,
        *,
        lasting: bool = False,
        needless: Path | None = None,
    ) -> None:
        """Take a whole file as this output, or as its further file of that suffix; `commit` gives it its name.

        lasting     it stays under the name that it has when there is no commit
        needless    a file that is removed once there is a commit
        """
        final = self._paths[name]
        assert final is not None
        key = (name, suffix or final.suffix)
        self._staged[key] = (path, final.with_suffix(key[1]))
        if lasting:
            self._lasting.add(path)
        if needless is not None:
            self._needless.append(needless)

    def write(self, name: str, data: bytes) -> None:
        """Give the whole content of an output. Raises ItemError when the disk does not take it."""
        if self._paths[name] is None:
            self.standard_output = data
            return
        path = self.path(name)
        try:
            with path.open("wb") as stream:
                stream.write(data)
        except OSError as error:
            raise write_error(error, self._paths[name] or path) from error

    def row(self, **values: Any) -> None:
        """One answer of this item in the table of all items."""
        self.rows.append(values)

    def commit(self, allowed: Callable[[], bool] = lambda: True) -> None:
        """Give every output its real name; `allowed` is asked at the last moment."""
        # a task need not ask what it may leave out: what exists and is to stay is thrown away here
        staged = [entry for entry in self._staged.items() if entry[0][0] not in self._keep]
        ordered = sorted(staged, key=lambda entry: (entry[0][0] == MAIN, self._is_own(entry[0])))
        for (name, suffix), (temporary, final) in ordered:
            try:
                _flush(temporary)
                if self._is_own((name, suffix)):
                    self.hashes[name] = sha256_of(temporary)
            except OSError as error:
                raise write_error(error, final or temporary) from error
        with shielded():
            if not allowed():
                raise ItemError("the run that asked for this item is gone; nothing written")
            for (name, suffix), (temporary, final) in ordered:
                if final is None:
                    self.standard_output = temporary.read_bytes()
                    continue
                try:
                    temporary.replace(final)
                except OSError as error:
                    raise write_error(error, final) from error
                del self._staged[name, suffix]
            for path in self._needless:
                path.unlink(missing_ok=True)

    def _is_own(self, key: tuple[str, str]) -> bool:
        final = self._paths[key[0]]
        return final is None or key[1] == final.suffix

    def discard(self) -> None:
        """Remove what has not been committed."""
        for temporary, _ in self._staged.values():
            if temporary not in self._lasting:
                temporary.unlink(missing_ok=True)
        self._staged.clear()


def partial_path(path: Path) -> Path:
    """Where a large output is built before it takes its name."""
    return path.with_name(f".{path.name}{PARTIAL_SUFFIX}")


def _scratch() -> str:
    import tempfile

    return tempfile.gettempdir()


def _flush(path: Path) -> None:
    # after a power cut a renamed file must not turn out empty
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_error(error: OSError, path: Path) -> ItemError:
    """What went wrong while writing `path`, in one line."""
    folder = path.parent
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        reason = {
            errno.ENOSPC: "no space left on the disk",
            errno.EDQUOT: "the disk quota is used up",
            errno.EFBIG: "the file is larger than this system allows",
        }[error.errno]
        return ItemError(f"cannot write {path}: {reason}; make room for {folder} and run again with --skip-existing")
    return ItemError(
        f"cannot write {path}: {error.strerror or error}; check {folder} and run again with --skip-existing"
    )


def sweep(folders: Iterable[Path], token: str | None = None) -> int:
    """Remove temporary files that a killed run (or, with `token`, one run) left in `folders`; how many there were.

    Only under the lock of the folders' run: what another run is writing looks the same.
    """
    count = 0
    start = TEMPORARY_PREFIX if token is None else f"{TEMPORARY_PREFIX}{token}-"
    for folder in folders:
        try:
            names = [entry.name for entry in os.scandir(folder) if entry.name.startswith(start)]
        except OSError:
            continue
        for name in names:
            try:
                os.unlink(folder / name)
            except OSError:
                continue
            count += 1
    return count
