"""Contact sheets: the same scene by several methods, side by side with labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .methods import METHODS, method_named
from .task import TonemapRequest, tonemap

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_GAP = 6
_PAPER = 24
_INK = 235


def sheet_of_methods(request: TonemapRequest, methods: Sequence[str] = METHODS, tile: int = 640) -> NDArray[np.uint8]:
    """Contact sheet (rows, columns, 3) uint8 of one scene by each method, at the request's exposure and curve.

    Options that a method does not have (its model, strength, tables) are left at their defaults there.
    """
    from attnkit.pictures import resize

    pixels = request.pixels
    long_side = max(pixels.shape[:2])
    if long_side > tile:
        # every tile is made from the small scene: a sheet of a 4K frame takes no longer than one of a thumbnail
        pixels = resize(pixels, str(tile))
    tiles = []
    for name in methods:
        own = method_named(name)
        one = replace(
            request,
            pixels=pixels,
            method=name,
            lut=None,
            want_lut=False,
            parameters=None,
            depth=8,
            strength=request.strength if own.has_strength else 1.0,
            model=request.model if own.has_model else None,
        )
        tiles.append((name, tonemap(one).display))
    return contact_sheet(tiles)


def contact_sheet(
    tiles: Sequence[tuple[str, NDArray[Any]]], *, columns: int | None = None, tile: int = 640
) -> NDArray[np.uint8]:
    """Labelled pictures in a grid.

    Args:
        tiles: (label, display picture) with pictures (rows, columns, 3), uint8 or float 0..1, of any size.
        columns: pictures in a row; by default the grid that comes nearest to a 3:2 sheet.
        tile: long side in pixels that larger pictures are shrunk to.

    Returns (rows, columns, 3) uint8. ValueError without a picture.
    """
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    if not tiles:
        raise ValueError("contact_sheet: expected at least one picture")
    pictures = [(label, _shrunk(picture, tile)) for label, picture in tiles]
    cell_height = max(picture.height for _, picture in pictures)
    # a label must be readable under a picture of one pixel too
    cell_width = max(120, *(picture.width for _, picture in pictures))
    size = max(12, min(28, cell_width // 24))
    font = ImageFont.load_default(size)
    bar = size + 10
    across = columns or _columns(len(pictures), cell_width, cell_height + bar)
    down = math.ceil(len(pictures) / across)
    sheet = Image.new(
        "RGB",
        (across * (cell_width + _GAP) + _GAP, down * (cell_height + bar + _GAP) + _GAP),
        (_PAPER, _PAPER, _PAPER),
    )
    draw = ImageDraw.Draw(sheet)
    for at, (label, picture) in enumerate(pictures):
        left = _GAP + (at % across) * (cell_width + _GAP)
        top = _GAP + (at // across) * (cell_height + bar + _GAP)
        sheet.paste(picture, (left + (cell_width - picture.width) // 2, top + bar))
        draw.text((left + 4, top + 3), label, font=font, fill=(_INK, _INK, _INK))
    return np.asarray(sheet)


def _columns(count: int, width: int, height: int) -> int:
    return min(range(1, count + 1), key=lambda n: abs(math.log(n * width / (math.ceil(count / n) * height) / 1.5)))


def _shrunk(picture: NDArray[Any], tile: int) -> Any:
    import cv2
    import numpy as np
    from PIL import Image

    if picture.dtype != np.uint8:
        picture = np.rint(np.clip(picture, 0.0, 1.0) * 255.0).astype(np.uint8)
    scale = tile / max(picture.shape[:2])
    if scale < 1.0:
        size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return Image.fromarray(np.ascontiguousarray(picture))
