"""The values of a TIFF that is compressed or cut into tiles, unpacked as they are asked for."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cube import CubeError

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Segments:
    """Looks like an array of `shape`; an index of slices unpacks the strips or tiles that it meets.

    shape   (rows, columns), (rows, columns, samples), (planes, rows, columns) or, with several pages, (pages, rows,
            columns)
    end     byte behind the last of them
    """

    def __init__(self, path: Path, file: Any, pages: list[Any], shape: tuple[int, ...]) -> None:
        self.path = path
        self.shape = shape
        self._file = file
        self._pages = pages
        self.end = max(
            (start + size for page in pages for start, size in zip(page.dataoffsets, page.databytecounts, strict=True)),
            default=0,
        )

    def check(self) -> None:
        """Unpack the first of them: CubeError now, not after an hour, where that is not possible."""
        self._unpacked(self._pages[0], 0)

    def __getitem__(self, index: tuple[Any, ...]) -> NDArray[Any]:
        import numpy as np

        ranges = [
            range(*part.indices(size)) if isinstance(part, slice) else list(part)
            for part, size in zip(index, self.shape, strict=True)
        ]
        dtype = self._pages[0].dtype
        layered = len(self.shape) == 3 and (len(self._pages) > 1 or self._planes() > 1)
        if not layered:
            sample: Any = ranges[2] if len(ranges) == 3 else [0]
            block = self._window(self._pages[0], 0, ranges[0], ranges[1])[:, :, sample]
            return block if len(ranges) == 3 else block[..., 0]
        result = np.empty([len(part) for part in ranges], dtype)
        for place, layer in enumerate(ranges[0]):
            page, plane = (self._pages[layer], 0) if len(self._pages) > 1 else (self._pages[0], layer)
            result[place] = self._window(page, plane, ranges[1], ranges[2])[..., 0]
        return result

    def _planes(self) -> int:
        return int(self._pages[0].keyframe.shaped[0])

    def _window(self, page: Any, plane: int, rows: Any, columns: Any) -> NDArray[Any]:
        """Rows and columns (increasing) of one plane, [rows, columns, samples]."""
        import numpy as np

        keyframe = page.keyframe
        top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
        result = np.zeros((bottom - top, right - left, keyframe.shaped[4]), keyframe.dtype)
        for number in self._met(keyframe, plane, top, bottom, left, right):
            values, row, column = self._unpacked(page, number)
            if values is None:
                continue
            first, last = max(top, row), min(bottom, row + values.shape[0])
            start, stop = max(left, column), min(right, column + values.shape[1])
            if first < last and start < stop:
                result[first - top : last - top, start - left : stop - left] = values[
                    first - row : last - row, start - column : stop - column
                ]
        return result[np.asarray(rows) - top][:, np.asarray(columns) - left]

    def _met(self, page: Any, plane: int, top: int, bottom: int, left: int, right: int) -> Iterator[int]:
        """Numbers of the strips or tiles of a plane that a window meets."""
        high = page.tilelength if page.is_tiled else min(page.rowsperstrip, page.imagelength)
        wide = page.tilewidth if page.is_tiled else page.imagewidth
        across = -(-page.imagewidth // wide)
        down = -(-page.imagelength // high)
        for row in range(top // high, min(down, -(-bottom // high))):
            for column in range(left // wide, min(across, -(-right // wide))):
                yield (plane * down + row) * across + column

    def _unpacked(self, page: Any, number: int) -> tuple[Any, int, int]:
        """Values [rows, columns, samples] of one strip or tile and where it begins; None where it is left out."""
        handle = self._file.filehandle
        try:
            count = page.databytecounts[number]
            handle.seek(page.dataoffsets[number])
            data = handle.read(count) if count else None
            tables = {} if page.jpegtables is None else {"jpegtables": page.jpegtables}
            values, place, _ = page.keyframe.decode(data, number, **tables)
        except (ValueError, IndexError, RuntimeError, zlib.error, OSError) as error:
            said = " ".join(str(error).split())[:200]
            if "imagecodecs" in said:
                compression = str(page.keyframe.compression.name)
                raise CubeError(
                    f"{self.path}: compression {compression} needs a library; install imagecodecs, or save with deflate"
                ) from error
            raise CubeError(f"{self.path}: strip or tile {number} cannot be unpacked ({said})") from error
        return (None if values is None else values[0]), int(place[2]), int(place[3])
