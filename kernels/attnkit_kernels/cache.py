"""Where compiled code is kept between processes."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path


def cache_folder() -> Path | None:
    """Folder of the compiled code, or None when there is none that can be written.

    NUMBA_CACHE_DIR wins, then XDG_CACHE_HOME/attnkit/numba, then ~/.cache/attnkit/numba. Where the home folder cannot
    be written, as in many containers, a private folder of this user among the temporary files takes their place.
    """
    if os.environ.get("NUMBA_CACHE_DIR"):
        return _writable(Path(os.environ["NUMBA_CACHE_DIR"]))
    if os.environ.get("XDG_CACHE_HOME"):
        above = Path(os.environ["XDG_CACHE_HOME"])
    else:
        try:
            above = Path.home() / ".cache"
        except RuntimeError:
            return _temporary()
    return _writable(above / "attnkit" / "numba") or _temporary()


def _writable(folder: Path) -> Path | None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return None
    return folder


def _temporary() -> Path | None:
    user = os.geteuid() if hasattr(os, "geteuid") else ""
    folder = Path(tempfile.gettempdir()) / f"attnkit-cache-{user}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        facts = folder.lstat()
    except OSError:
        return None
    # the code in it is run: a folder, or a link to one, that another user put there must not be taken for ours
    others = user != "" and (facts.st_uid != user or facts.st_mode & 0o077)
    return _writable(folder) if stat.S_ISDIR(facts.st_mode) and not others else None
