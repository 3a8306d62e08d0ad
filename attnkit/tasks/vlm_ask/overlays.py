"""Pictures of where an answer looked: heat over the input, sinks outlined, image tokens by number."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from attnkit.pictures.png import KEYWORD

if TYPE_CHECKING:
    from attnkit.models.vlm.prompt import View

# numbers in the cells are readable from the one, and a sheet of several stays viewable to the other
LEAST_EDGE, MOST_EDGE = 512, 1600
STRONGEST = 5
OPACITY = 0.7
SINK_COLOUR = (0, 200, 255)
GAP, STRIP = 8, 22


@dataclass(frozen=True)
class Panel:
    """One answer's look at its pictures.

    heat    attention to each image token of all pictures in turn, [image tokens]
    sinks   numbers of those that are sinks
    """

    title: str
    pictures: Sequence[Image.Image]
    views: Sequence[View]
    heat: NDArray[np.float64]
    sinks: Sequence[int]


def draw_overlay(panels: Sequence[Panel], settings: Mapping[str, Any]) -> bytes:
    """The panels one below the other as a PNG that carries its settings; titles where there are several.

    Red to yellow: attention by area, as a share of the strongest place in all pictures of a panel. A blue frame: a
    sink. The number is the image token's, counted over all pictures of the question; it stands in the five strongest
    cells and in sinks.
    """
    strips = [_row(panel, titled=len(panels) > 1) for panel in panels]
    sheet = Image.new("RGB", (max(one.width for one in strips), sum(one.height for one in strips)), "white")
    top = 0
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height
    target, info = io.BytesIO(), PngInfo()
    info.add_itxt(KEYWORD.decode(), json.dumps(settings, sort_keys=True))
    sheet.save(target, "PNG", pnginfo=info)
    return target.getvalue()


def _row(panel: Panel, titled: bool) -> Image.Image:
    shown, first = [], 0
    strongest = float(panel.heat.max(initial=0.0))
    most = _most(panel)
    for picture, view in zip(panel.pictures, panel.views, strict=True):
        own = slice(first, first + view.tokens)
        sinks = [sink - first for sink in panel.sinks if first <= sink < own.stop]
        marked = np.argsort(-panel.heat, kind="stable")[:STRONGEST] - first
        marked = marked[(marked >= 0) & (marked < view.tokens)] if strongest > 0 else marked[:0]
        shown.append(_heated(picture, view, panel.heat[own], sinks, sorted({*marked.tolist(), *sinks}), first, most))
        first = own.stop
    top = STRIP if titled else 0
    width = sum(one.width for one in shown) + GAP * (len(shown) - 1)
    row = Image.new("RGB", (width, top + max(one.height for one in shown)), "white")
    if titled:
        ImageDraw.Draw(row).text((4, 3), panel.title, fill="black", font=ImageFont.load_default(14))
    left = 0
    for one in shown:
        row.paste(one, (left, top))
        left += one.width + GAP
    return row


def _heated(
    picture: Image.Image,
    view: View,
    heat: NDArray[np.float64],
    sinks: Sequence[int],
    numbered: Sequence[int],
    first: int,
    most: float,
) -> Image.Image:
    size = _size(picture)
    shown = picture.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    # half of its colour, so that the heat is told from it
    canvas = np.asarray(Image.blend(shown, shown.convert("L").convert("RGB"), 0.5), np.float64)
    boxes = _boxes(view, size)
    share = _density(boxes, heat, size) / most
    colour = np.stack([np.full_like(share, 255), 255 * share**2, np.zeros_like(share)], -1)
    cover = OPACITY * share[..., None] ** 0.7
    image = Image.fromarray((canvas * (1 - cover) + colour * cover + 0.5).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for sink in sinks:
        x0, y0, x1, y1 = boxes[sink]
        draw.rectangle((x0, y0, x1 - 1, y1 - 1), outline=SINK_COLOUR, width=2)
    for number in numbered:
        x0, y0, x1, y1 = boxes[number]
        font = ImageFont.load_default(max(9, min(18, (y1 - y0) / 2)))
        middle = ((x0 + x1) / 2, (y0 + y1) / 2)
        draw.text(middle, str(first + number), "white", font, anchor="mm", stroke_width=2, stroke_fill="black")
    return image


def _size(picture: Image.Image) -> tuple[int, int]:
    edge = max(picture.size)
    scale = min(max(LEAST_EDGE / edge, 1), MOST_EDGE / edge)
    return max(1, round(picture.width * scale)), max(1, round(picture.height * scale))


def _most(panel: Panel) -> float:
    """Largest attention by area in the pictures of a panel; 1 where there is none."""
    found, first = 0.0, 0
    for picture, view in zip(panel.pictures, panel.views, strict=True):
        size = _size(picture)
        found = max(found, float(_density(_boxes(view, size), panel.heat[first : first + view.tokens], size).max()))
        first += view.tokens
    return found or 1.0


def _boxes(view: View, size: tuple[int, int]) -> NDArray[np.int64]:
    """Cells of the image tokens in whole pixels of the drawing, each at least one pixel large."""
    cells = view.cells() * np.array([size[0] / view.width, size[1] / view.height] * 2)
    boxes = np.rint(cells).astype(np.int64)
    limits = np.array([*size, *size])
    boxes[:, :2] = np.clip(boxes[:, :2], 0, limits[:2] - 1)
    boxes[:, 2:] = np.clip(np.maximum(boxes[:, 2:], boxes[:, :2] + 1), 1, limits[2:])
    return boxes


def _density(boxes: NDArray[np.int64], heat: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """Attention by area: tiles and the whole picture made small add up."""
    found = np.zeros((size[1], size[0]))
    for (x0, y0, x1, y1), weight in zip(boxes, heat, strict=True):
        found[y0:y1, x0:x1] += weight / ((x1 - x0) * (y1 - y0))
    return found
