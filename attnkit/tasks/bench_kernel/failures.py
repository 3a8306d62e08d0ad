"""Why a kernel has no time: a status and a reason of one line."""

from __future__ import annotations

import re

OK = "ok"
WRONG = "wrong"
UNSUPPORTED = "unsupported"
ABSENT = "absent"
OUT_OF_MEMORY = "out of memory"
FAILED = "failed"
_MEMORY = re.compile(
    r"out of memory|can't allocate|cannot allocate|not enough memory|failed to allocate", re.IGNORECASE
)


class Absent(Exception):
    """The package of a baseline is not here."""


class Unsupported(ValueError):
    """This baseline cannot do this case."""


def reason_of(error: BaseException) -> tuple[str, str]:
    """(status, reason) of an error that preparing, checking or timing a kernel raised."""
    text = " ".join(str(error).split())
    if isinstance(error, Absent | ModuleNotFoundError):
        return ABSENT, text
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or _MEMORY.search(text):
        return OUT_OF_MEMORY, text.split(". ")[0] or "the memory of this machine is not enough"
    # ImplementationError is a ValueError too: the library refuses by ValueErrors, everything else is a fault
    if isinstance(error, ValueError | NotImplementedError):
        return UNSUPPORTED, text
    return FAILED, f"{type(error).__name__}: {text}"
