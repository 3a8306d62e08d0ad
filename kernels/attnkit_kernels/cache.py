"""Where compiled code is kept between processes."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def cache_folder() -> Path | None:
    """Folder of the compiled code, or None when there is none that can be written.

    NUMBA_CACHE_DIR wins, then XDG_CACHE_HOME/attnkit/numba, then ~/.cache/attnkit/numba.
    """
    if os.environ.get("NUMBA_CACHE_DIR"):
        folder = Path(os.environ["NUMBA_CACHE_DIR"])
    elif os.environ.get("XDG_CACHE_HOME"):
        folder = Path(os.environ["XDG_CACHE_HOME"]) / "attnkit" / "numba"
    else:
        try:
            folder = Path.home() / ".cache" / "attnkit" / "numba"
        except RuntimeError:
            return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return None
    return folder
