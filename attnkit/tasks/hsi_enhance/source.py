"""What a method sees of a cube, and the parts that it hands back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Source(Protocol):
    """A bright cube that can be read in parts, any part more than once: full exposure is 1, no holes.

    shape        (bands, rows, columns)
    wavelengths  in nm, one a band, where they are known
    """

    shape: tuple[int, int, int]
    wavelengths: Sequence[float] | None

    def read(self, bands: Any, rows: slice, columns: slice) -> NDArray[np.float32]:
        """Values [bands, rows, columns], a copy; bands a slice or increasing numbers."""


@dataclass(frozen=True, order=True)
class Region:
    """A box of a cube, start and stop of each axis."""

    first_band: int
    last_band: int
    top: int
    bottom: int
    left: int
    right: int

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        return slice(self.first_band, self.last_band), slice(self.top, self.bottom), slice(self.left, self.right)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.last_band - self.first_band, self.bottom - self.top, self.right - self.left

    def as_tuple(self) -> tuple[int, ...]:
        """For a journal; `Region(*numbers)` is its inverse."""
        return self.first_band, self.last_band, self.top, self.bottom, self.left, self.right


class ArraySource:
    """A bright cube [bands, rows, columns] float32 in memory as a source."""

    def __init__(self, cube: NDArray[np.float32], wavelengths: Sequence[float] | None = None) -> None:
        self.cube = cube
        self.shape: tuple[int, int, int] = cube.shape  # type: ignore[assignment]
        self.wavelengths = wavelengths

    def read(self, bands: Any, rows: slice, columns: slice) -> NDArray[np.float32]:
        import numpy as np

        return np.array(self.cube[bands, rows, columns], dtype=np.float32)
