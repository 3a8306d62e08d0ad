"""What a run says while it goes: lines on standard error, a log file, and a bar on a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO, cast

from attnkit.runtime.errors import UsageError
from attnkit.runtime.records import utc_now
from attnkit.runtime.streams import STREAMS, Waiting


class Talk:
    """Everything for people that is not an answer. Quiet: errors only; --log-file gets the same lines with a time."""

    def __init__(self, command: str, *, quiet: bool, verbose: bool, log_file: Path | None) -> None:
        self.prefix = f"attnkit {command}"
        self.quiet = quiet
        self.verbose = verbose
        self._log_path = log_file
        self._bar: Any = None
        self._task: Any = None
        self._done = 0

    def check(self) -> None:
        """Raise UsageError where the log file cannot be appended to."""
        if self._log_path is None:
            return
        present = self._log_path.exists()
        if self._log_path.is_dir() or not os.access(self._log_path if present else self._log_path.parent, os.W_OK):
            raise UsageError(
                f"--log-file {self._log_path}: cannot be written, expected a file in an existing, writable folder"
            )

    def error(self, text: str) -> None:
        self._say(f"{self.prefix}: {text}")

    def info(self, text: str) -> None:
        self._say(f"{self.prefix}: {text}", show=not self.quiet)

    def detail(self, text: str) -> None:
        if self.verbose:
            self.info(text)

    def traceback(self, text: str) -> None:
        self._say(text.rstrip())

    def _say(self, line: str, show: bool = True) -> None:
        if self._log_path is not None:
            try:
                with self._log_path.open("a", encoding="utf-8") as stream:
                    stream.write(f"{utc_now()} {line}\n")
            except OSError as error:
                path, self._log_path = self._log_path, None
                self.error(f"--log-file {path}: cannot append to it ({error.strerror}); going on without it")
        if not show:
            return
        if self._bar is not None:
            # not under the lock: the bar draws itself in a thread of its own
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
            return
        # where nobody listens any more the work itself goes on
        with STREAMS, suppress(OSError, ValueError):
            print(line, file=sys.stderr, flush=True)

    def start(self, total: int) -> None:
        """A bar with the time left, on a terminal that can show one."""
        if self.quiet or total < 1 or sys.stderr is None or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeRemainingColumn,
        )

        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            # known to be one, and asked while it is turned away it would not say so
            console=Console(file=cast(TextIO, Waiting(sys.stderr)), force_terminal=True),
            transient=True,
            # rich would lead what is printed meanwhile to the bar's terminal, whatever standard output is
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._bar.add_task(self.prefix, total=total)
        self._bar.start()

    def advance(self) -> None:
        """One item more is done."""
        self._done += 1
        self.inside(0.0)

    def inside(self, share: float) -> None:
        """How much of the item at hand is done, 0 to 1."""
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done + share)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Inside, the bar is off the terminal if answers are printed there too."""
        bar = self._bar
        with STREAMS:
            shares = sys.stdout is not None and sys.stdout.isatty()
        if bar is None or not shares:
            yield
            return
        self._bar = None
        bar.stop()
        try:
            yield
        finally:
            bar.start()
            self._bar = bar

    def stop(self) -> None:
        if self._bar is not None:
            bar, self._bar = self._bar, None
            bar.stop()
