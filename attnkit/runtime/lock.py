"""One writer per output folder: an OS lock that a killed run cannot leave behind."""

from __future__ import annotations

import json
import os
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attnkit.runtime.errors import AttnkitError

LOCK_NAME = ".attnkit.lock"
POLL_SECONDS = 0.1


class FolderLocked(AttnkitError):
    """Another run writes into the folder."""


class FolderLock:
    """The lock of one output folder, held from `acquire` to `release`.

    The kernel holds it (flock), so it goes away with the process. The file says who has it, and is removed at the
    end of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK_NAME
        self._descriptor: int | None = None

    def acquire(self, wait: float = 0.0) -> bool:
        """Take the lock, waiting up to `wait` seconds; True if it had to wait. Raises FolderLocked."""
        deadline = time.monotonic() + wait
        waited = False
        while not self._try():
            if time.monotonic() >= deadline:
                raise FolderLocked(
                    f"{self.path.parent}: another run is writing here ({self._holder()}); {_advice(wait)}"
                )
            waited = True
            time.sleep(min(POLL_SECONDS, max(0.0, deadline - time.monotonic())))
        return waited

    def _try(self) -> bool:
        import fcntl

        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise AttnkitError(
                f"{self.path.parent}: cannot lock this folder ({error.strerror}); check its permissions and its disk"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        except OSError as error:
            os.close(descriptor)
            raise AttnkitError(
                f"{self.path.parent}: its file system has no locks ({error.strerror}); write to another folder and copy"
            ) from error
        # the run before may have removed the file between our open and our lock: then what we hold is no longer it
        try:
            ours = os.path.samestat(os.fstat(descriptor), os.stat(self.path))
        except FileNotFoundError:
            ours = False
        if not ours:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        about = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(about).encode() + b"\n", 0)
        except OSError:
            # a full disk cannot hold the text, but the lock itself needs no space
            pass
        return True

    def _holder(self) -> str:
        try:
            about: dict[str, Any] = json.loads(self.path.read_text())
            return f"pid {about['pid']} on {about['host']} since {about['since']}"
        except (OSError, ValueError, KeyError, TypeError):
            return "which one is not known"

    def release(self) -> None:
        """Give the lock back and remove its file. Does nothing where it is not held."""
        if self._descriptor is None:
            return
        self.path.unlink(missing_ok=True)
        os.close(self._descriptor)
        self._descriptor = None


def held(folder: Path) -> bool:
    """Whether some run holds the lock of `folder` now."""
    import fcntl

    try:
        descriptor = os.open(folder / LOCK_NAME, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _advice(wait: float) -> str:
    return f"still busy after {wait:g} s" if wait else "--wait S waits for it"
