"""The tile map as a picture: which key tiles each query tile visits, full or with a mask. Pillow draws the words."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from attnkit.runtime.errors import UsageError

from .report import settings_shown, word
from .task import NEIGHBORHOOD, SimulationResult

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PAPER, INK = (255, 255, 255), (40, 40, 40)
FULL, PARTIAL, SKIPPED = (24, 84, 160), (240, 150, 40), (236, 238, 240)
# pixels of the longer side; a pixel shows the mean of its tiles
LARGEST = 1024
# pairs of tiles that are still looked at: seconds, and half a gigabyte
MOST_TILES = 1 << 28
MARGIN, LINE = 16, 22


def tile_map(rows: Iterable[tuple[Any, Any]], query_tiles: int, key_tiles: int) -> NDArray[np.uint8]:
    """Picture (rows, columns, 3) uint8 of (visited, full) rows, at most LARGEST pixels along a side.

    Small maps are enlarged so that every tile is a square of whole pixels.
    """
    import numpy as np

    cells = [min(tiles, LARGEST) for tiles in (query_tiles, key_tiles)]
    edges = np.linspace(0, key_tiles, cells[1] + 1).astype(np.int64)[:-1]
    shares = np.zeros((2, *cells))
    for number, row in enumerate(rows):
        at = number * cells[0] // query_tiles
        for share, table in zip(shares, row, strict=True):
            share[at] += np.add.reduceat(table.astype(np.int64), edges)
    counts = np.bincount(np.arange(query_tiles) * cells[0] // query_tiles, minlength=cells[0])
    shares /= counts[:, None] * np.diff([*edges, key_tiles])
    visited, full = shares
    colours = [np.array(colour, np.float64) for colour in (FULL, PARTIAL, SKIPPED)]
    weights = (full, visited - full, 1 - visited)
    mixed = sum(weight[..., None] * colour for weight, colour in zip(weights, colours, strict=True))
    picture = np.rint(np.asarray(mixed)).astype(np.uint8)
    scale = max(1, LARGEST // 2 // max(cells))
    return picture.repeat(scale, axis=0).repeat(scale, axis=1)


def draw(result: SimulationResult) -> NDArray[np.uint8]:
    """The tile map with what it shows above it: picture (rows, columns, 3) uint8. UsageError for a map too large."""
    import numpy as np
    from attnkit_kernels.simulate.rows import map_rows, tile_rows
    from PIL import Image, ImageDraw, ImageFont

    request, one = result.request, result.simulation
    if one.map_tiles_total > MOST_TILES:
        raise UsageError(f"--plot: got a map of {one.map_tiles_total} tiles, expected at most {MOST_TILES}")
    if request.pattern == NEIGHBORHOOD and len(result.query_tile) == len(request.canvas):
        rows = tile_rows(request.canvas, result.pattern, result.query_tile, result.key_tile)
        key_tiles = one.map_tiles_total // one.query_tiles
    else:
        block_map = result.block_map or result.pattern.block_map(request.canvas, result.query_tile, result.key_tile)
        rows, key_tiles = map_rows(block_map), block_map.key_blocks
    tiles = Image.fromarray(tile_map(rows, one.query_tiles, key_tiles))
    settings = " ".join(f"{name} {word(value)}" for name, value in settings_shown(result).items())
    lines = [
        f"{request.pattern}, canvas {word(request.canvas)}, tiles {word(result.query_tile)} | {word(result.key_tile)}",
        settings,
        f"{one.query_tiles} query tiles (down) x {key_tiles} key tiles (across), as the engine tiles them",
    ]
    legend = (
        (FULL, f"full {one.map_tiles_full}"),
        (PARTIAL, f"partial {one.map_tiles_partial}"),
        (SKIPPED, f"skipped {one.map_tiles_total - one.map_tiles_visited}"),
    )
    font = ImageFont.load_default(14)
    width = max(tiles.width, *(round(font.getlength(line)) for line in lines), 420) + 2 * MARGIN
    top = MARGIN + LINE * (len(lines) + 1) + 8
    sheet = Image.new("RGB", (width, top + tiles.height + MARGIN), PAPER)
    pen = ImageDraw.Draw(sheet)
    for number, line in enumerate(lines):
        pen.text((MARGIN, MARGIN + number * LINE), line, font=font, fill=INK)
    left = MARGIN
    for colour, text in legend:
        below = MARGIN + len(lines) * LINE
        pen.rectangle((left, below + 2, left + 12, below + 14), fill=colour, outline=INK)
        pen.text((left + 18, below), text, font=font, fill=INK)
        left += 36 + round(font.getlength(text))
    sheet.paste(tiles, (MARGIN, top))
    return np.asarray(sheet)


def plot_bytes(result: SimulationResult, settings: dict[str, Any]) -> bytes:
    """The PNG file, which carries its settings."""
    from attnkit.pictures import encode_picture
    from attnkit.runtime.records import plain

    return encode_picture(draw(result), format="png", depth=8, settings=json.loads(json.dumps(plain(settings))))
