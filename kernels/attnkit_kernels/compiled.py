"""Compiled CPU loops: where their machine code is kept, and how they are launched.

The code is kept in the user's cache folder, so that a second process starts without compiling. A folder that cannot be
found or written (no HOME, read-only, disk full) costs the compilation in each process and nothing else.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numba
from numba.core import caching

from .cache import cache_folder
from .native import FAST

_FOLDER = cache_folder()


class _Locator(caching.UserProvidedCacheLocator):
    """Places the code of a source file in `cache_folder()`, without touching numba's process-wide setting."""

    def __init__(self, function: Callable[..., Any], source: str) -> None:
        super().__init__(function, source)
        self._cache_path = str(_FOLDER / self.get_suitable_cache_subpath(source))

    @classmethod
    def from_function(cls, function: Callable[..., Any], source: str) -> Any:
        """Locator of `function`, or None where its folder cannot be made."""
        locator = cls(function, source)
        try:
            locator.ensure_cache_path()
        except OSError:
            return None
        return locator


class _Files(caching.CompileResultCacheImpl):
    _locator_classes = [_Locator]  # noqa: RUF012


class _Cache(caching.FunctionCache):
    """A cache that never fails a run: code that cannot be read is compiled again, code that cannot be kept is not."""

    _impl_class = _Files

    def load_overload(self, signature: Any, context: Any) -> Any:
        """The kept code, or None."""
        try:
            return super().load_overload(signature, context)
        except Exception:
            return None

    def save_overload(self, signature: Any, data: Any) -> None:
        """Keep the code where there is room."""
        try:
            super().save_overload(signature, data)
        except Exception:
            return


def loops(*, parallel: bool = False, inline: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """Decorator for compiled loops; `parallel` splits `prange` over threads, `inline` is for small helpers.

    Call a parallel one through `launch`. A helper used by a cached function has to be in the same file: the kept code
    is renewed when that file changes.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        compiled: Any = numba.njit(
            function,
            parallel=parallel,
            fastmath=set(FAST),
            error_model="numpy",
            nogil=True,
            inline="always" if inline else "never",
        )
        if parallel and _FOLDER is not None:
            try:
                compiled._cache = _Cache(function)
            except RuntimeError:
                # no locator: the sub-folder cannot be written, so the code lives as long as the process
                return compiled
        return compiled

    return decorate


_ONE_AT_A_TIME = threading.Lock()


def launch(kernel: Any, *arguments: Any) -> None:
    """Run a parallel kernel; safe to call from several Python threads under every threading layer of numba."""
    try:
        threadsafe = numba.threading_layer() != "workqueue"
    except ValueError:
        # the layer is chosen by the first launch
        threadsafe = False
    if threadsafe:
        kernel(*arguments)
        return
    with _ONE_AT_A_TIME:
        kernel(*arguments)
