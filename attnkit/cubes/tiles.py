"""Arrays in files, read and written in tiles with a bounded part of the file in memory."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from .cube import AXES, CubeError, CubeInfo

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# bytes of a mapped file that one step of a read or write may touch
STEP_BYTES = 64_000_000
# what a system may map around a place that is touched: Linux since 6.18 all of a large page
AROUND_BYTES = 2_097_152
ZEROS_BYTES = 8_000_000


class CubeReader:
    """A cube as [bands, rows, columns], read tile by tile from an array of any axis order.

    `array` lies in the file in the order of `axes`, the last one fastest. It may be mapped, an HDF5 dataset, or
    whatever takes an index of slices: nothing but the tiles asked for is held in memory, unless it is Packed. `name` is
    for messages.
    """

    def __init__(
        self,
        info: CubeInfo,
        array: Any,
        axes: tuple[str, ...],
        *,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self.info = info
        self.name = "the cube"
        self._array = array
        self._axes = axes
        self._close = close

    @property
    def in_memory(self) -> bool:
        """Whether the whole cube is held in memory once it is read from."""
        return isinstance(self._array, Packed)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self._array = None
        self._close()

    def read(self, bands: Any = slice(None), rows: Any = slice(None), columns: Any = slice(None)) -> NDArray[Any]:
        """Stored values [bands, rows, columns] in native byte order; bands a slice or increasing numbers.

        Raises CubeError where the file does not give them.
        """
        import numpy as np

        info = self.info
        chosen = chosen_of((bands, rows, columns), (info.bands, info.rows, info.columns))
        result = np.empty([len(part) for part in chosen], info.dtype)
        target = laid(result, self._axes)
        for piece, place in pieces(chosen, self._axes, self._array.shape, info.dtype.itemsize):
            try:
                target[piece] = self._array[place]
            except (OSError, ValueError) as error:
                raise CubeError(f"{self.name}: values cannot be read ({error}); copy the file again") from error
            release(self._array)
        return result


class Packed:
    """An array of `shape` that can only be read whole, which is done when its first values are asked for."""

    def __init__(self, shape: tuple[int, ...], unpack: Callable[[], NDArray[Any]]) -> None:
        self.shape = shape
        self._unpack = unpack
        self._values: NDArray[Any] | None = None

    def __getitem__(self, index: tuple[Any, ...]) -> NDArray[Any]:
        if self._values is None:
            self._values = self._unpack()
        return self._values[index]


class CubeWriter:
    """A mapped array of the file's axis order that takes tiles in any order; `close` makes the file whole."""

    def __init__(self, array: Any, axes: tuple[str, ...], info: CubeInfo, finish: Callable[[], None]) -> None:
        self._array = array
        self._axes = axes
        self._shape = (info.bands, info.rows, info.columns)
        self._finish = finish

    def write(self, values: NDArray[Any], bands: slice, rows: slice, columns: slice) -> None:
        """Put a tile [bands, rows, columns] in its place."""
        chosen = chosen_of((bands, rows, columns), self._shape)
        if values.shape != tuple(map(len, chosen)):
            raise ValueError(f"a tile of shape {values.shape} for a place of shape {tuple(map(len, chosen))}")
        source = laid(values, self._axes)
        for piece, place in pieces(chosen, self._axes, self._array.shape, self._array.dtype.itemsize):
            self._array[place] = source[piece]
            release(self._array)

    def read(self, bands: slice, rows: slice, columns: slice) -> NDArray[Any]:
        """A tile [bands, rows, columns] that was written before."""
        import numpy as np

        chosen = chosen_of((bands, rows, columns), self._shape)
        result = np.empty([len(part) for part in chosen], self._array.dtype.newbyteorder("="))
        target = laid(result, self._axes)
        for piece, place in pieces(chosen, self._axes, self._array.shape, self._array.dtype.itemsize):
            target[piece] = self._array[place]
            release(self._array)
        return result

    def close(self) -> None:
        """Write what is still held and make the file whole."""
        self._array.flush()
        self._array = None
        self._finish()

    def abort(self) -> None:
        """Let go of the file as it is; `create_cube(..., resume=True)` goes on with it."""
        self._array = None


def chosen_of(parts: Sequence[Any], shape: Sequence[int]) -> list[Any]:
    """Slices of an array of this shape as ranges; lists of numbers as they are."""
    return [
        range(*part.indices(size)) if isinstance(part, slice) else [int(number) for number in part]
        for part, size in zip(parts, shape, strict=True)
    ]


def laid(block: Any, axes: tuple[str, ...]) -> Any:
    """[bands, rows, columns] seen as an array of these axes."""
    if "bands" not in axes:
        return block[0] if axes == ("rows", "columns") else block[0].T
    return block.transpose([AXES.index(name) for name in axes])


def pieces(
    chosen: Sequence[Any], axes: tuple[str, ...], shape: Sequence[int], itemsize: int
) -> Iterator[tuple[tuple[slice, ...], tuple[Any, ...]]]:
    """Cut a tile along the outer axes of the file so that no piece touches more than STEP_BYTES of it.

    chosen    numbers wanted of bands, rows and columns
    shape     of the array in the file
    yields the place of a piece in the tile as the file lays it, and in the file
    """
    parts = [chosen[AXES.index(name)] for name in axes]
    if not all(map(len, parts)):
        return
    counts = [1] * (3 - len(parts)) + [len(part) for part in parts]
    # a run costs its neighbourhood, but no more than the line or plane that it is part of
    line = min(shape[-1] * itemsize, counts[2] * itemsize + AROUND_BYTES)
    plane = min(shape[-2] * shape[-1] * itemsize, counts[1] * line + AROUND_BYTES)
    inner = counts[1] if plane <= STEP_BYTES else min(counts[1], max(1, STEP_BYTES // line))
    outer = max(1, STEP_BYTES // plane)
    for first in range(0, counts[0], outer):
        for second in range(0, counts[1], inner):
            piece = (slice(first, min(counts[0], first + outer)), slice(second, min(counts[1], second + inner)))
            within = (*piece, slice(0, counts[2]))[3 - len(parts) :]
            yield within, tuple(_part(part, place) for part, place in zip(parts, within, strict=True))


def _part(numbers: Any, place: slice) -> Any:
    part = numbers[place]
    if isinstance(part, range):
        return slice(part.start, part.stop, part.step)
    run = part[-1] - part[0] == len(part) - 1
    return slice(part[0], part[-1] + 1) if run else part


def release(array: Any) -> None:
    """Give back the pages of a mapped file: they stay with the system, but no longer count as this process's."""
    base = array
    while base is not None and not isinstance(base, mmap.mmap):
        base = getattr(base, "base", None)
    if base is not None and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def map_written(
    path: Path, dtype: np.dtype[Any], shape: Sequence[int], *, prefix: bytes = b"", end: int = 0, resume: bool = False
) -> np.memmap[Any, Any]:
    """An array in a file of its own size, behind `prefix` and before `end` further bytes.

    The blocks of a new file are all there: a full disk is an OSError now. With `resume` the file is one that was begun
    before; CubeError where it is another's.
    """
    import math

    import numpy as np

    size = len(prefix) + math.prod(shape) * dtype.itemsize + end
    if resume:
        check_begun(path, size, prefix)
    else:
        with path.open("wb") as stream:
            stream.write(prefix)
        allocate(path, size)
    return np.memmap(path, dtype, "r+", offset=len(prefix), shape=tuple(shape))


def check_begun(path: Path, size: int, prefix: bytes = b"") -> None:
    """Refuse to go on with a file that this run has not begun."""
    with path.open("rb") as stream:
        start = stream.read(len(prefix))
    found = path.stat().st_size
    if found != size or start != prefix:
        raise CubeError(f"{path}: holds {found} bytes, expected {size} of the same run; remove it and start again")


def allocate(path: Path, size: int) -> None:
    """Give a file its size and all its blocks: a full disk shows now, not as a crash while it is mapped.

    What is in the file stays.
    """
    with path.open("r+b") as stream:
        try:
            os.posix_fallocate(stream.fileno(), 0, size)
        except (AttributeError, OSError) as error:
            if getattr(error, "errno", None) not in (None, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
                raise
            _fill(stream, size)


def _fill(stream: Any, size: int) -> None:
    stream.seek(0, os.SEEK_END)
    while (missing := size - stream.tell()) > 0:
        stream.write(bytes(min(missing, ZEROS_BYTES)))


def check_size(path: Path, wanted: int, said: str, *, longer: bool = False) -> None:
    """CubeError unless a file holds `wanted` bytes (or, with `longer`, at least as many); `said` is the reason why."""
    size = path.stat().st_size
    if size < wanted:
        raise CubeError(f"{path}: cut short: holds {size} bytes, expected {wanted} ({said}); copy the file again")
    if size > wanted and not longer:
        raise CubeError(f"{path}: too long: holds {size} bytes, expected {wanted} ({said}); correct the header")
