"""Runs a script whose Triton kernels are interpreted, in nearly half the time.

`TRITON_INTERPRET=1 python interpreting.py SCRIPT [ARGUMENT ...]`. At each call from one kernel function to another
triton looks through its whole language for what its interpreter replaces; inside a kernel that is done already.
"""

from __future__ import annotations

import inspect
import runpy
import sys
from pathlib import Path
from types import FunctionType
from typing import Any

import triton.language as tl
from triton.runtime import interpreter


def patch_once() -> None:
    """Leaves what is in place alone. Of a triton that does this in another way nothing is changed."""
    patch, scope = getattr(interpreter, "_patch_lang", None), getattr(interpreter, "_LangPatchScope", None)
    if patch is None or scope is None:
        return

    def patch_what_is_not(function: FunctionType) -> Any:
        parts = [part for part in function.__globals__.values() if inspect.ismodule(part) and part in (tl, tl.core)]
        return patch(function) if any(tl.core.is_builtin(part.load) for part in parts) else scope()

    interpreter._patch_lang = patch_what_is_not


if __name__ == "__main__":
    patch_once()
    sys.argv = sys.argv[1:]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    runpy.run_path(sys.argv[0], run_name="__main__")
