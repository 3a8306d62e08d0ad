"""A band-window network over a cube of any size: which bands are read when, and in which parts they are computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attnkit.runtime.errors import ItemError

from ..source import Region, Source

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from attnkit.models.hsie.fast import FastHsie
    from attnkit.models.hsie.tiled import Box

# pixels that are computed at a time: more leave the caches, fewer are lost in the calls
GROUP_PIXELS = 1 << 14
# half-resolution samples along a tile where memory allows
TILE_SIDE = 256
LEAST_SIDE = 16


@dataclass(frozen=True)
class Plan:
    """How a cube is gone through.

    mode    "whole": `group` bands at a time; "blocks": one band, features of the whole band kept and computed in
            tiles; "tiles": one band, tiles computed anew for each attention block
    side    half-resolution samples along a tile
    rows    rows of a region, where a band is handed back in parts
    """

    mode: str
    group: int
    side: int
    rows: int


def plan(network: FastHsie, shape: tuple[int, int, int], memory: int) -> Plan:
    """The fastest way through a cube [bands, rows, columns] that stays within `memory` bytes of arrays."""
    from attnkit.models.hsie.tiled import kept_bytes

    bands, rows, columns = shape
    half = ((rows + 1) // 2) * ((columns + 1) // 2)
    pixels = 4 * half
    window = network.neighbours + 2
    low, high = network.low_bytes, network.high_bytes
    group = max(1, min(bands, GROUP_PIXELS // pixels))
    while group:
        # planes and their halves of all windows, the sum, and the layers
        held = (window + group) * (4 * pixels + 4 * half) + 16 * pixels
        if held + group * max(low * half, high * pixels) <= memory:
            return Plan("whole", group, 0, rows)
        group //= 2
    around = network.low_reach + network.finish_reach
    # halves of the window, features, and of the full resolution the sum, two planes, the detail and the result
    held = half * (4 * window + kept_bytes(network)) + pixels * (8 + 4 * 4)
    reach = 2 * network.finish_reach
    side = _side(memory - held, max(low, 4 * high), reach)
    if side >= LEAST_SIDE:
        return Plan("blocks", 1, min(side, TILE_SIDE), rows)
    inputs = 4 * 4 * (network.neighbours + 1) * 2 + 4 * (network.neighbours + 1) * 2
    side = max(LEAST_SIDE, min(TILE_SIDE, _side(memory, max(low, 4 * high) + inputs, 2 * around)))
    strip = max(1, memory // 8 // (columns * 4))
    return Plan("tiles", 1, side, min(rows, 2 * side * max(1, strip // (2 * side))))


def _side(memory: int, sample: int, reach: int) -> int:
    """The largest tile whose samples, with those around it, fit in memory."""
    return int(max(memory, 0) / sample) and int((max(memory, 0) / sample) ** 0.5) - reach


def run_bandwise(
    source: Source,
    network: FastHsie,
    *,
    memory: int,
    done: Collection[Region],
    facts: dict[str, Any],
    by_wavelength: bool = False,
    chosen: Plan | None = None,
) -> Iterator[tuple[Region, NDArray[np.float32]]]:
    """Regions of the enhanced cube and their values, not clipped, in the order of the bands and rows.

    memory         bytes of arrays
    done           regions that are left out
    facts          receives `tiling`, and where bands are too few for the window, `window_filled` and a notice
    by_wavelength  neighbours by their distance in nm; ItemError where the cube has no wavelengths
    chosen         a plan in the place of that for `memory`
    """
    from attnkit.models.hsie.window import band_window

    if by_wavelength and source.wavelengths is None:
        raise ItemError("neighbours by wavelength: the cube states no wavelengths; give them or choose by band number")
    bands = source.shape[0]
    windows, filled = band_window(bands, network.neighbours, source.wavelengths if by_wavelength else None)
    if filled:
        facts["window_filled"] = filled
        facts.setdefault("notices", []).append(
            f"{bands} bands, {network.neighbours + 1} needed by the band window: {filled} filled by reflection"
        )
    how = chosen or plan(network, source.shape, memory)
    facts["tiling"] = how.mode
    runner = {"whole": _run_whole, "blocks": _run_blocks, "tiles": _run_tiles}[how.mode]
    yield from runner(source, network, windows, how, frozenset(done))


def _run_whole(
    source: Source, network: FastHsie, windows: NDArray[np.int64], how: Plan, done: frozenset[Region]
) -> Iterator[tuple[Region, NDArray[np.float32]]]:
    import torch

    bands, rows, columns = source.shape
    window = _Window(source, network, keep_planes=True)
    for first in range(0, bands, how.group):
        region = Region(first, min(first + how.group, bands), 0, rows, 0, columns)
        if region in done:
            continue
        numbers = range(first, region.last_band)
        with torch.inference_mode():
            window.look_at({band for own in numbers for band in (own, *windows[own].tolist())})
            lows = torch.stack([window.low(own) for own in numbers])[..., None]
            context = torch.stack([window.context(windows[own]) for own in numbers])
            detail = torch.stack([window.detail(windows[own]) for own in numbers])[..., None]
            bright = network.brighten(lows, context)
            result = network.finish(detail, lows, bright)[:, :rows, :columns, 0]
            values = result.cpu().numpy()
        yield region, values


def _run_blocks(
    source: Source, network: FastHsie, windows: NDArray[np.int64], how: Plan, done: frozenset[Region]
) -> Iterator[tuple[Region, NDArray[np.float32]]]:
    import torch

    from attnkit.models.hsie.tiled import boxes, brighten_by_blocks

    bands, rows, columns = source.shape
    window = _Window(source, network, keep_planes=False)
    for own in range(bands):
        region = Region(own, own + 1, 0, rows, 0, columns)
        if region in done:
            continue
        with torch.inference_mode():
            window.look_at({own, *windows[own].tolist()})
            low = window.low(own)
            bright = brighten_by_blocks(network, low, [window.low(int(band)) for band in windows[own]], how.side)
            detail = window.detail(windows[own])
            result = torch.empty_like(detail)
            for box in boxes(low.shape[0], low.shape[1], how.side):
                outer = box.grown(network.finish_reach, *low.shape)
                full, around = box.doubled(), outer.doubled()
                parts = detail[around.slices], low[outer.slices], bright[outer.slices]
                tile = network.finish(*(part[None, ..., None].contiguous() for part in parts))
                result[full.slices] = tile[(0, *full.within(around), 0)]
            values = result[None, :rows, :columns].cpu().numpy()
        del detail, bright, low, result
        yield region, values


def _run_tiles(
    source: Source, network: FastHsie, windows: NDArray[np.int64], how: Plan, done: frozenset[Region]
) -> Iterator[tuple[Region, NDArray[np.float32]]]:
    import numpy as np
    import torch

    from attnkit.models.hsie.tiled import Box, boxes, brighten_tile, pooled_attention

    bands, rows, columns = source.shape
    half = ((rows + 1) // 2, (columns + 1) // 2)
    for own in range(bands):
        regions = [
            Region(own, own + 1, top, min(top + how.rows, rows), 0, columns) for top in range(0, rows, how.rows)
        ]
        if all(region in done for region in regions):
            continue
        parts = _TileReader(source, network, own, windows[own])
        with torch.inference_mode():
            attention = pooled_attention(network, parts.lows, *half, how.side)
        for region in regions:
            if region in done:
                continue
            values = np.empty(region.shape, np.float32)
            with torch.inference_mode():
                for box in boxes((region.bottom + 1) // 2, half[1], how.side, region.top // 2):
                    outer = box.grown(network.finish_reach, *half)
                    wide = outer.grown(network.low_reach, *half)
                    pair = parts.lows(wide)
                    place = (slice(None), *outer.within(wide))
                    bright = brighten_tile(network, pair, attention)[place].contiguous()
                    tile = network.finish(parts.detail(outer), pair[0][place].contiguous(), bright)
                    tile = tile[(0, *box.doubled().within(outer.doubled()), 0)]
                    full = box.doubled()
                    inside = Box(full.top, min(full.bottom, rows), full.left, min(full.right, columns))
                    target = inside.within(Box(region.top, region.bottom, 0, columns))
                    kept = tile[: inside.bottom - inside.top, : inside.right - inside.left]
                    values[(0, *target)] = kept.cpu().numpy()
            yield region, values


class _Window:
    """Halves of the bands around the current one, and the sum of the neighbours, moved from band to band.

    The pyramid is linear, so the mean detail of the neighbours is the detail of their mean. The sum is in float64,
    where adding and taking away float32 values leaves nothing behind.
    """

    def __init__(self, source: Source, network: FastHsie, keep_planes: bool) -> None:
        import numpy as np

        self._source = source
        self._network = network
        self._keep = keep_planes
        self._planes: dict[int, NDArray[np.float32]] = {}
        self._lows: dict[int, Tensor] = {}
        self._summed: Counter[int] = Counter()
        self._sum = np.zeros(source.shape[1:], np.float64)

    def look_at(self, bands: set[int]) -> None:
        """Forget the bands that are not among these."""
        for held in (self._planes, self._lows):
            for band in [band for band in held if band not in bands]:
                del held[band]

    def low(self, band: int) -> Tensor:
        """A band at half resolution, [rows, columns]."""
        if band not in self._lows:
            self._plane(band)
        return self._lows[band]

    def context(self, window: NDArray[np.int64]) -> Tensor:
        """The neighbours at half resolution, [rows, columns, K]."""
        import torch

        return torch.stack([self.low(int(band)) for band in window], -1)

    def detail(self, window: NDArray[np.int64]) -> Tensor:
        """The mean detail of the neighbours, [rows, columns], both even."""
        wanted = Counter(window.tolist())
        entering, leaving = wanted - self._summed, self._summed - wanted
        if leaving.total() > wanted.total() // 2:
            self._sum[:] = 0
            entering, leaving = wanted, Counter()
        for changes, sign in ((entering, 1), (leaving, -1)):
            for band, times in sorted(changes.items()):
                plane = self._plane(band)
                for _ in range(times):
                    # in place: no float64 copy of the plane
                    (self._sum.__iadd__ if sign > 0 else self._sum.__isub__)(plane)
        self._summed = wanted
        mean = (self._sum / len(window)).astype("f4")
        return _detail(_evened(mean, self._network))[0, 0]

    def _plane(self, band: int) -> NDArray[np.float32]:
        from attnkit_kernels.image import laplacian

        plane = self._planes.get(band)
        if plane is None:
            plane = self._source.read(slice(band, band + 1), slice(None), slice(None))[0]
            if self._keep:
                self._planes[band] = plane
        if band not in self._lows:
            self._lows[band] = laplacian.down(_evened(plane, self._network))[0, 0]
        return plane


class _TileReader:
    """One band and its neighbours in boxes, read from the source each time."""

    def __init__(self, source: Source, network: FastHsie, own: int, window: NDArray[np.int64]) -> None:
        import numpy as np

        self._source = source
        self._network = network
        self._half = ((source.shape[1] + 1) // 2, (source.shape[2] + 1) // 2)
        self._own = own
        self._window = window
        self._numbers = np.unique(np.append(window, own))

    def lows(self, box: Box) -> tuple[Tensor, Tensor]:
        """The half-resolution band [1, rows, columns, 1] and its neighbours [1, rows, columns, K] in a box of them."""
        import numpy as np
        from attnkit_kernels.image import laplacian

        # the kernel reaches two pixels beyond
        outer = box.grown(1, *self._half)
        small = laplacian.down(self._read(outer, self._numbers))[(slice(None), slice(None), *box.within(outer))]
        place = np.searchsorted(self._numbers, np.append(self._own, self._window))
        chosen = small[0, list(place)].permute(1, 2, 0)[None].contiguous()
        return chosen[..., :1].contiguous(), chosen[..., 1:].contiguous()

    def detail(self, box: Box) -> Tensor:
        """The mean detail of the neighbours [1, rows, columns, 1] in a box of half-resolution samples."""
        import numpy as np
        import torch

        outer = box.grown(2, *self._half)
        counts = np.bincount(np.searchsorted(self._numbers, self._window), minlength=len(self._numbers))
        planes = self._read(outer, self._numbers)
        total = torch.zeros(1, 1, *planes.shape[2:], dtype=torch.float64, device=planes.device)
        for number, times in enumerate(counts.tolist()):
            total += times * planes[:, number : number + 1].double()
        mean = (total / len(self._window)).to(planes.dtype)
        place = box.doubled().within(outer.doubled())
        return _detail(mean)[(slice(None), slice(None), *place)].movedim(1, 3).contiguous()

    def _read(self, box: Box, numbers: NDArray[np.int64]) -> Tensor:
        full = box.doubled()
        _, rows, columns = self._source.shape
        down, across = slice(full.top, min(full.bottom, rows)), slice(full.left, min(full.right, columns))
        planes = self._source.read(numbers, down, across)
        # the last box holds the pixel that the reflection needs, or the band has but one
        return _evened(planes, self._network)


def _evened(planes: NDArray[np.float32], network: FastHsie) -> Tensor:
    """Planes [..., rows, columns] as [1, planes, rows, columns], made even by reflection."""
    import torch

    from attnkit.models.hsie.model import even

    tensor = torch.from_numpy(planes).to(network.device, network.dtype)
    return even(tensor.reshape(1, -1, *tensor.shape[-2:]))


def _detail(image: Tensor) -> Tensor:
    from attnkit_kernels.image import laplacian

    size = (image.shape[2], image.shape[3])
    return image - laplacian.up(laplacian.down(image), size)
