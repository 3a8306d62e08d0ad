"""Standard output and standard error belong to the whole process: one thread at a time uses them.

The readers of pictures turn both away for the moment of a decoding call (attnkit.pictures.native), while other items of
the same process are booked. A line written in such a moment would be lost, and turn up in the error of another file.
"""

from __future__ import annotations

import threading
from typing import Any, TextIO

# held for as long as the streams are turned away, and by whoever writes a line
STREAMS = threading.RLock()


class Waiting:
    """A stream whose `write` waits until it is not turned away; all else is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with STREAMS:
            count = self._stream.write(text)
            # what stays in the buffer would be written later, by anybody
            self._stream.flush()
            return count

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
