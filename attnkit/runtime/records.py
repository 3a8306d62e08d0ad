"""Machine-readable answers: JSON without NaN, appended record files, the document that --json prints."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attnkit.runtime.errors import AttnkitError, UsageError

SCHEMA = 1


def plain(value: Any) -> Any:
    """`value` as JSON can say it: NaN and infinities become null, paths and unknown objects text."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        parts = sorted(value, key=str) if isinstance(value, set | frozenset) else value
        return [plain(part) for part in parts]
    # numpy scalars and arrays know how to become Python's own
    for method in ("tolist", "item"):
        if hasattr(value, method):
            return plain(getattr(value, method)())
    return str(value)


def json_line(value: Any) -> str:
    """One line of JSON."""
    return json.dumps(plain(value), ensure_ascii=False, allow_nan=False)


def document(command: str, options: Mapping[str, Any], summary: Mapping[str, Any], **content: Any) -> str:
    """The one document of --json: `content` is `items=[...]` or `result=...`."""
    from attnkit import __version__

    head = {"schema": SCHEMA, "version": __version__, "command": command, "options": options}
    return json.dumps(plain({**head, **content, "summary": summary}), ensure_ascii=False, allow_nan=False, indent=1)


def utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class RecordFile:
    """The file of --record: one line per item and one per run, each appended whole, by several runs if need be."""

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def check(self) -> None:
        """Raise UsageError where the file could not be appended to."""
        if self.path is None:
            return
        folder = self.path.parent
        target = self.path if self.path.exists() else folder
        if self.path.is_dir() or not folder.is_dir() or not os.access(target, os.W_OK):
            raise UsageError(
                f"--record {self.path}: cannot be written, expected a file in an existing, writable folder"
            )

    def add(self, **fields: Any) -> None:
        """Append one line. Raises AttnkitError when the disk does not take it."""
        if self.path is None:
            return
        import fcntl

        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                size = os.fstat(descriptor).st_size
                # a line that a kill or a full disk tore must not swallow this one
                torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
                data = (b"\n" if torn else b"") + json_line(fields).encode() + b"\n"
                if os.write(descriptor, data) != len(data):
                    os.ftruncate(descriptor, size)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            finally:
                os.close(descriptor)
        except OSError as error:
            raise AttnkitError(
                f"--record {self.path}: cannot append to it ({error.strerror}); make room for it"
            ) from error
