"""Enhancing a dark cube: a reader of stored values in, bright tiles and what is known of them out. No files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import TYPE_CHECKING, Any

from attnkit.runtime.errors import ItemError, UsageError

from .calibration import FULL_SCALES, Correction, settle
from .cube_source import Crop, CubeSource
from .shape_check import ShapeCheck
from .source import Region

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# what Python and its libraries take before the first array; the rest of --memory is for arrays
BASE_MEMORY = 400_000_000
LEAST_MEMORY = 64_000_000
# part of the time that a method with a slow start takes before its first region
START_SHARE = 0.9


@dataclass(frozen=True)
class EnhanceRequest:
    """How a cube is to be enhanced.

    method      one of methods.METHODS, with `settings` by "method.key" and, for hsie, a `model`
    scale       value of full exposure after dark and white; None lets calibration.settle decide
    gain        how much brighter; None puts white at calibration.WHITE_LEVEL
    bad         "keep" or "interpolate": what the result holds in dead bands, missing samples and masked pixels
    bands, rows, columns    start and stop of the part to be enhanced; None is all
    memory      bytes for the whole process, of which arrays have `working_memory`
    written     type that the result will be written in; None is float32
    """

    method: str = "hsie"
    settings: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None
    device: str = "cpu"
    offline: bool = False
    scale: float | None = None
    gain: float | None = None
    correction: Correction = field(default_factory=Correction)
    bad: str = "keep"
    bands: tuple[int, int] | None = None
    rows: tuple[int, int] | None = None
    columns: tuple[int, int] | None = None
    memory: int = 1_500_000_000
    written: np.dtype[Any] | None = None

    @property
    def working_memory(self) -> int:
        return max(self.memory - BASE_MEMORY, LEAST_MEMORY)


class Enhancement:
    """A cube that has been looked at, and is ready to be enhanced tile by tile.

    Raises ItemError for a cube without a single finite value, UsageError for a part that is not in it.
    """

    def __init__(self, reader: Any, request: EnhanceRequest) -> None:
        import numpy as np

        info = reader.info
        self.request = request
        self.crop = crop_of(info, request)
        self.source = CubeSource(reader, self.crop, request.correction, info.ignore_value)
        bands, rows, columns = self.source.shape
        chunk = max(1, min(rows, request.working_memory // 4 // (bands * columns * 4 * 6)))
        corrected = request.correction.dark is not None or request.correction.white is not None
        full_scale = None if corrected else request.scale
        if full_scale is not None and info.dtype.kind in "iu":
            full_scale = min(full_scale, float(np.iinfo(info.dtype).max))
        found = self.source.survey(chunk, full_scale)
        if found.empty:
            raise ItemError(f"no finite value in {bands} bands of {columns}x{rows} pixels; nothing to enhance")
        if full_scale is None and found.largest_stored not in usual_limits(info.dtype):
            # the largest value of a cube is no full scale
            found = replace(found, saturated=np.zeros_like(found.saturated))
        self.found = found
        written = request.written
        self.radiometry = settle(
            scale=request.scale,
            gain=request.gain,
            white_level=found.white_level,
            maximum=float(np.nanmax(found.maximum[~found.dead])),
            integer=info.dtype.kind in "iu",
            reflectance=request.correction.white is not None,
            header_scale=info.reflectance_scale,
            largest=float(np.iinfo(written).max) if written is not None and written.kind in "iu" else None,
        )
        self.source.prepare(self.radiometry, self.found)
        self.check = ShapeCheck(self.source.shape)
        self.facts: dict[str, Any] = {}
        # told how much is done, 0 to 1
        self.tell: Callable[[float], None] = lambda share: None
        self.warnings = self._warnings()

    @property
    def flat(self) -> bool:
        """Nothing in the cube differs from its band's mean: there is no noise to take out."""
        return bool((self.found.minimum == self.found.maximum).all())

    def tiles(
        self, done: Collection[Region] = frozenset()
    ) -> Iterator[tuple[Region, NDArray[np.float32], NDArray[np.float32]]]:
        """(region, bright input, bright result) of every tile that is not done; `record` sums over those seen."""
        from .methods import run

        request = self.request
        begun, samples = 0.0, sum(prod(region.shape) for region in done)

        def start(share: float) -> None:
            nonlocal begun
            begun = START_SHARE * share
            self.tell(begun)

        tiles = run(
            "gain" if self.flat else request.method,
            self.source,
            settings=request.settings,
            memory=request.working_memory,
            done=frozenset(done),
            device=request.device,
            model=request.model,
            offline=request.offline,
            facts=self.facts,
            tell=start,
        )
        for region, after in tiles:
            before = self.source.read(*region.slices)
            self.see(region, before, after)
            yield region, before, after
            samples += prod(region.shape)
            self.tell(begun + (1 - begun) * samples / prod(self.source.shape))

    def see(self, region: Region, before: NDArray[Any], after: NDArray[Any]) -> None:
        """Count a tile in the comparison of input and result."""
        self.check.add(*region.slices, before, after)

    def left_alone(self, region: Region) -> NDArray[np.bool_] | None:
        """Samples [bands, rows, columns] of a region that hold no measurement; None where all do."""
        import numpy as np

        bands, rows, columns = region.slices
        found = self.found
        masked, dead = found.masked[rows, columns], found.dead[bands]
        missing = None
        if found.missing[bands].any():
            missing = np.isnan(self.source.corrected(bands, rows, columns))
        if missing is None and not masked.any() and not dead.any():
            return None
        alone = np.broadcast_to(masked, (len(dead), *masked.shape)).copy()
        alone[dead] = True
        return alone if missing is None else alone | missing

    def stored(self, region: Region, after: NDArray[np.float32], dtype: np.dtype[Any]) -> tuple[NDArray[Any], int]:
        """The result as it is written, and how many values had to be clipped to the type."""
        import numpy as np

        scale = np.float32(self.radiometry.output_scale)
        values = after * scale
        alone = self.left_alone(region) if self.request.bad == "keep" else None
        if alone is not None:
            kept = self.source.corrected(*region.slices) * np.float32(scale / self.radiometry.scale)
            # a dark reference takes nothing from a pixel that has seen nothing
            masked = np.broadcast_to(self.found.masked[region.slices[1:]], kept.shape)
            kept[masked & ~np.isnan(kept)] = 0
            values = np.where(alone, kept, values)
        low, high = limits_of(dtype)
        missing = np.isnan(values)
        if missing.any():
            mark = self.source.ignore_value
            if mark is None or not low <= mark <= high:
                mark = np.nan if dtype.kind == "f" else 0.0
            values = np.where(missing, np.float32(mark), values)
        if dtype.kind != "f":
            values = np.rint(values)
        clipped = int(np.count_nonzero((values < low) | (values > high)))
        if clipped:
            values = np.clip(values.astype(np.float64), low, high)
        return values.astype(dtype), clipped

    def from_stored(self, region: Region, stored: NDArray[Any], before: NDArray[np.float32]) -> NDArray[np.float32]:
        """The bright result again, from the file and the bright input; rounded as the file is."""
        import numpy as np

        after = stored.astype(np.float32) / np.float32(self.radiometry.output_scale)
        alone = self.left_alone(region) if self.request.bad == "keep" else None
        return after if alone is None else np.where(alone, before, after)

    def record(self) -> dict[str, Any]:
        """What a user has to know of the result."""
        bands, rows, columns = self.source.shape
        facts = dict(self.facts)
        warnings = [*self.warnings, *facts.pop("notices", ())]
        return {
            "method": self.request.method,
            "size": f"{columns}x{rows}",
            "bands": bands,
            **self.radiometry.record(),
            **self.found.record(self.crop.bands),
            **self.check.record(self.crop.bands, self.found.masked),
            **facts,
            **({"warnings": warnings} if warnings else {}),
        }

    def _warnings(self) -> list[str]:
        found = self.found
        lines = []
        if found.masked.all():
            lines.append("every value is 0: written as it is")
        elif self.flat:
            lines.append("every band holds one value: brightened only")
        written = "left as they are" if self.request.bad == "keep" else "interpolated"
        if found.dead.any():
            lines.append(f"{counted(found.dead.sum(), 'dead band')} {written}; see dead_bands in the record")
        if len(found.broken):
            pixels = counted(len(found.broken), "pixel")
            lines.append(f"{pixels} with missing values {written}; see missing_samples in the record")
        if found.saturated.any():
            values = counted(found.saturated.sum(), "saturated value")
            lines.append(f"{values}; see saturated_bands in the record")
        return lines


def counted(number: Any, word: str) -> str:
    """'1 band', '2 bands'."""
    return f"{number} {word}{'' if number == 1 else 's'}"


def limits_of(dtype: np.dtype[Any]) -> tuple[float, float]:
    """The least and the largest number that fit in a type; float32 fits in itself and in float64."""
    import numpy as np

    if dtype.kind == "f":
        most = float(np.finfo(dtype).max) if dtype.itemsize < 4 else np.inf
        return -most, most
    low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    return float(low), float(high) if int(float(high)) <= high else float(np.nextafter(float(high), 0.0))


def usual_limits(dtype: np.dtype[Any]) -> tuple[float, ...]:
    """Values at which stored samples of a type usually saturate."""
    import numpy as np

    return (*FULL_SCALES, float(np.iinfo(dtype).max)) if dtype.kind in "iu" else FULL_SCALES


def crop_of(info: Any, request: EnhanceRequest) -> Crop:
    """The part of a cube that a request asks for; UsageError where it is not in the cube."""
    import numpy as np

    def part(option: str, wanted: tuple[int, int] | None, length: int) -> tuple[int, int]:
        start, stop = wanted or (0, length)
        if not 0 <= start < stop <= length:
            raise UsageError(f"{option}: got {start}:{stop}, expected a part of 0:{length}")
        return start, stop

    bands = part("--bands", request.bands, info.bands)
    rows = part("--rows", request.rows, info.rows)
    columns = part("--cols", request.columns, info.columns)
    return Crop(np.arange(*bands), rows, columns)


def enhance(cube: NDArray[Any], request: EnhanceRequest | None = None) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Enhance a cube in memory.

    cube    stored values [bands, rows, columns] of any real type
    returns float32 of the same shape, in stored units times the gain, and the record
    """
    import numpy as np

    enhancement = Enhancement(ArrayReader(np.asarray(cube)), request or EnhanceRequest())
    result = np.empty(enhancement.source.shape, np.float32)
    for region, _, after in enhancement.tiles():
        result[region.slices], _ = enhancement.stored(region, after, result.dtype)
    return result, enhancement.record()


@dataclass(frozen=True)
class ArrayInfo:
    """The facts of an array that a cube file's header would tell."""

    bands: int
    rows: int
    columns: int
    dtype: np.dtype[Any]
    wavelengths_nm: tuple[float, ...] | None = None
    ignore_value: float | None = None
    reflectance_scale: float | None = None


class ArrayReader:
    """An array [bands, rows, columns] in the place of a cube file."""

    def __init__(self, cube: NDArray[Any], wavelengths_nm: tuple[float, ...] | None = None) -> None:
        if cube.ndim != 3 or not cube.size or cube.dtype.kind not in "iuf":
            raise UsageError(
                f"cube: got shape {cube.shape} of {cube.dtype}, expected bands, rows, columns of real numbers"
            )
        self.cube = cube
        bands, rows, columns = cube.shape
        self.info = ArrayInfo(bands, rows, columns, cube.dtype, wavelengths_nm)

    def read(self, bands: Any, rows: slice, columns: slice) -> NDArray[Any]:
        return self.cube[bands, rows, columns]
