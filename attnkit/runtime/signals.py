"""A clean stop: SIGINT, SIGTERM and SIGHUP end a run between two files, never inside one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop; `signal_name` says by what."""

    def __init__(self, signal_name: str) -> None:
        super().__init__(signal_name)
        self.signal_name = signal_name


class _State:
    shields = 0
    requested: str | None = None


_state = _State()


def _handle(number: int, frame: FrameType | None) -> None:
    if _state.requested is not None:
        # the stop is under way; a second signal must not tear its clean-up
        return
    _state.requested = signal.Signals(number).name
    if not _state.shields:
        raise Interrupted(_state.requested)


@contextmanager
def stoppable(ignored: tuple[str, ...] = ()) -> Iterator[None]:
    """Inside, the stop signals raise Interrupted in the main thread, `ignored` ones do nothing.

    Handlers can only be set in the main thread: elsewhere this changes nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {}
    _state.requested = None
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        # nohup starts its program with SIGHUP ignored, and a shell its background jobs with SIGINT: keep that
        if number is None or signal.getsignal(number) is signal.SIG_IGN:
            continue
        before[number] = signal.signal(number, signal.SIG_IGN if name in ignored else _handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _state.requested = None


@contextmanager
def shielded() -> Iterator[None]:
    """A stop that is asked for inside takes effect at the end: for renames and their book-keeping."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _state.shields += 1
    try:
        yield
    finally:
        _state.shields -= 1
    check()


def check() -> None:
    """Raise Interrupted if a stop was asked for and the exception got lost or had to wait."""
    if _state.requested is not None and not _state.shields:
        raise Interrupted(_state.requested)
