"""Loops over rows whose machine code is kept as object files: numba compiles once, later processes do without it.

Importing numba and reviving a function from its own cache costs most of a second, which a command that handles one
file would pay each time; linking an object file costs milliseconds. The price is a plainer kind of function: it takes
a range of rows, arrays and numbers, allocates nothing, raises nothing, and reshapes nothing.
"""

from __future__ import annotations

import ctypes
import hashlib
import inspect
import os
import re
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np

from .cache import cache_folder

# no "nnan" and no "ninf": a NaN that comes in has to come out
FAST = ("contract", "reassoc", "nsz", "arcp", "afn")
# code that calls anything else would need numba's own runtime beside it
KNOWN_CALLS = {"memset", "memcpy", "memmove"}
CHUNKS_PER_THREAD = 2
# elements of the largest array from which on handing ranges to threads pays
LARGE = 1 << 16
_NUMBERS = {"float32": ctypes.c_float, "float64": ctypes.c_double, "int32": ctypes.c_int32, "int64": ctypes.c_int64}


def inline(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator for small helpers of row loops in the same file."""
    function.__dict__["compiled_inline"] = True
    return function


def rows(types: str) -> Callable[[Callable[..., Any]], RowLoop]:
    """Decorator for `function(start, stop, *arguments)`, which does rows start..stop-1 of some arrays.

    `types` declares the arguments after `start` and `stop`, separated by ";": "float32", "int64", "float32[:, ::1]"
    for arrays in C order, "float32[:, :]" for any strides.
    """
    return lambda function: RowLoop(function, tuple(part.strip() for part in types.split(";")))


class RowLoop:
    """A row loop: compiled or linked on first use, then run by several threads, which leave the interpreter free."""

    def __init__(self, function: Callable[..., Any], types: tuple[str, ...]) -> None:
        self.function = function
        self.types = types
        self.compiled_here = False
        self._lock = threading.Lock()
        self._call: Any = None

    def __call__(self, count: int, *arguments: Any, scratch: int = 0) -> None:
        """Run rows 0..count-1. `scratch` > 0 gives each range that much memory, the last of the declared arguments."""
        call = self._call or self._linked()
        flat, kept = _flattened(self.types[: len(arguments)], arguments)
        large = max((value.size for value in arguments if isinstance(value, np.ndarray)), default=0) >= LARGE
        chunks = min(count, CHUNKS_PER_THREAD * threads() if large and threads() > 1 else 1)
        edges = [count * at // max(chunks, 1) for at in range(chunks + 1)]

        def run(start: int, stop: int) -> None:
            own, memory = flat, None
            if scratch:
                declared = self.types[-1]
                more, memory = _flattened((declared,), (np.empty(scratch, declared.split("[")[0]),))
                own = [*flat, *more]
            # numba's convention: where the (empty) result and an exception would be written
            result, problem = ctypes.c_void_p(), ctypes.c_void_p()
            call(ctypes.addressof(result), ctypes.addressof(problem), start, stop, *own)
            del memory

        ranges = list(pairwise(edges))
        if len(ranges) == 1:
            run(*ranges[0])
        elif ranges:
            list(_pool(threads()).map(lambda ends: run(*ends), ranges))
        del kept

    def _linked(self) -> Any:
        with self._lock:
            if self._call is None:
                name, code = self._code()
                self._call = _prototype(self.types)(_address(name, code))
        return self._call

    def _code(self) -> tuple[str, bytes]:
        folder = cache_folder()
        path = None if folder is None else folder / "objects" / f"{self.function.__name__}-{self._key()}.o"
        kept = None if path is None else _read(path)
        if kept is not None:
            return kept
        name, code = _compile(self.function, self.types)
        self.compiled_here = True
        if path is not None:
            _keep(path, name, code)
        return name, code

    def _key(self) -> str:
        """What the code depends on: the source file, the compiler, the processor, the types."""
        import llvmlite.binding as llvm

        source = Path(inspect.getfile(self.function)).read_bytes() + Path(__file__).read_bytes()
        facts = (version("numba"), version("llvmlite"), llvm.get_host_cpu_name(), _features(), *self.types)
        return hashlib.sha256(source + repr(facts).encode()).hexdigest()[:32]


_limits = threading.local()


def limit_threads(count: int) -> None:
    """Let row loops that the calling thread starts use `count` threads at most: others work beside it."""
    _limits.threads = count


def threads() -> int:
    """Threads of a row loop here: NUMBA_NUM_THREADS, or the cores that this process may use, within the limit."""
    cores = _cores()
    return min(cores, getattr(_limits, "threads", cores))


@cache
def _cores() -> int:
    given = os.environ.get("NUMBA_NUM_THREADS", "")
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:
        cores = os.cpu_count() or 1
    return max(1, min(int(given), cores)) if given.isdigit() else cores


@cache
def _pool(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="rows")


def _after_fork() -> None:
    # threads do not survive a fork; the child starts its own
    _pool.cache_clear()


os.register_at_fork(after_in_child=_after_fork)


@cache
def _features() -> str:
    import llvmlite.binding as llvm

    return str(llvm.get_host_cpu_features().flatten())


@cache
def _machine() -> Any:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_triple(llvm.get_process_triple())
    return target.create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=_features(), opt=3, reloc="default", codemodel="jitdefault", jit=True
    )


@cache
def _engine() -> Any:
    import llvmlite.binding as llvm

    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine())


_linking = threading.Lock()


def _address(name: str, code: bytes) -> int:
    import llvmlite.binding as llvm

    with _linking:
        engine = _engine()
        engine.add_object_file(llvm.object_file.ObjectFileRef.from_data(code))
        engine.finalize_object()
        return int(engine.get_function_address(name))


def _compile(function: Callable[..., Any], types: tuple[str, ...]) -> tuple[str, bytes]:
    import llvmlite.binding as llvm
    import numba
    from numba.core import sigutils

    arguments, _ = sigutils.normalize_signature(f"void(int64, int64, {', '.join(types)})")
    # numba's annotations leave out the switches that drop its runtime and its wrappers for Python
    njit: Any = numba.njit
    compiled = njit(
        arguments,
        fastmath=set(FAST),
        error_model="numpy",
        nogil=True,
        _nrt=False,
        no_cpython_wrapper=True,
        no_cfunc_wrapper=True,
    )(_with_helpers(function))
    result = compiled.overloads[arguments]
    text = result.library.get_llvm_str()
    called = set(re.findall(r"^declare .*?@([\w.]+)\(", text, re.MULTILINE))
    foreign = sorted(name for name in called if not name.startswith("llvm.") and name not in KNOWN_CALLS)
    if foreign:
        raise RuntimeError(f"{function.__name__}: a row loop must not call {', '.join(foreign)}")
    code = _machine().emit_object(llvm.parse_assembly(text))
    return str(result.fndesc.llvm_func_name), code


def _with_helpers(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its inline helpers made known to numba; the module keeps the plain ones."""
    import numba

    assert isinstance(function, FunctionType)
    njit: Any = numba.njit
    scope = dict(function.__globals__)
    for name in function.__code__.co_names:
        helper = scope.get(name)
        if callable(helper) and getattr(helper, "compiled_inline", False):
            scope[name] = njit(
                _with_helpers(helper), inline="always", fastmath=set(FAST), error_model="numpy", _nrt=False
            )
    own = FunctionType(function.__code__, scope, function.__name__, function.__defaults__, function.__closure__)
    own.__module__ = function.__module__
    return own


def _dimensions(declared: str) -> int:
    return declared.count(",") + 1 if "[" in declared else 0


def _prototype(types: tuple[str, ...]) -> Any:
    """C type of numba's calling convention: two result pointers, the range, then each array as its seven parts."""
    parts: list[Any] = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64]
    for declared in types:
        dimensions = _dimensions(declared)
        if dimensions:
            parts += [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
            parts += [ctypes.c_int64] * (2 * dimensions)
        else:
            parts.append(_NUMBERS[declared])
    return ctypes.CFUNCTYPE(ctypes.c_int32, *parts)


def _flattened(types: tuple[str, ...], arguments: tuple[Any, ...]) -> tuple[list[Any], list[Any]]:
    """Arguments as the prototype wants them; the second list keeps the memory alive while the code runs."""
    flat: list[Any] = []
    for declared, value in zip(types, arguments, strict=True):
        if not _dimensions(declared):
            flat.append(value.item() if isinstance(value, np.generic) else value)
            continue
        dtype = declared.split("[")[0]
        in_order = not declared.endswith("::1]") or value.flags.c_contiguous
        if value.dtype != dtype or value.ndim != _dimensions(declared) or not in_order:
            raise TypeError(f"expected {declared}, got {value.dtype} {list(value.shape)} strides {list(value.strides)}")
        flat += [None, None, value.size, value.itemsize, value.ctypes.data, *value.shape, *value.strides]
    return flat, list(arguments)


def _read(path: Path) -> tuple[str, bytes] | None:
    """Name and code of a kept file; None where there is none or it is damaged: a linker trusts what it is given."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, _, rest = content.partition(b"\n")
    if hashlib.sha256(rest).hexdigest().encode() != digest:
        return None
    name, _, code = rest.partition(b"\n")
    return name.decode(), code


def _keep(path: Path, name: str, code: bytes) -> None:
    rest = name.encode() + b"\n" + code
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            temporary = file.name
            file.write(hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest)
        os.replace(temporary, path)
    except OSError:
        # no room costs the compilation in the next process and nothing else
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
