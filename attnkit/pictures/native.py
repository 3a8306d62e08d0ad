"""Keep what C libraries print out of the user's terminal, and look at it."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Iterator

from attnkit.runtime.streams import STREAMS


@contextlib.contextmanager
def captured_messages() -> Iterator[list[str]]:
    """Collect what libraries write to standard error (and OpenEXR's binding to sys.stdout); the lines are there at
    the end.

    OpenEXR, libjpeg, libpng and OpenCV print their complaints past Python, where a command must print one line of its
    own. File descriptor 2 is turned away for that long, and other threads wait with their lines: keep the block to the
    one decoding call.
    """
    lines: list[str] = []
    with STREAMS, tempfile.TemporaryFile() as sink:
        text = io.StringIO()
        with contextlib.suppress(ValueError, AttributeError, OSError):
            sys.stderr.flush()
        try:
            saved = os.dup(2)
        except OSError:
            # a daemon without standard error has nothing to keep clean
            with contextlib.redirect_stdout(text):
                yield lines
            lines.extend(text.getvalue().splitlines())
            return
        os.dup2(sink.fileno(), 2)
        try:
            with contextlib.redirect_stdout(text):
                yield lines
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            sink.seek(0)
            lines.extend(text.getvalue().splitlines())
            lines.extend(sink.read().decode("utf-8", "replace").splitlines())
