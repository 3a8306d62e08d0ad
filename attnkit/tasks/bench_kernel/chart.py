"""The picture of --plot: times over lengths where there are several, else speed-ups as bars."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

Row = Mapping[str, Any]
WIDTH, HEIGHT = 1200, 720
LEFT, RIGHT, TOP, BOTTOM = 110, 300, 90, 70
INK, PALE = (30, 30, 30), (215, 215, 215)
# told apart by people who see red and green alike (Okabe and Ito), then the same dashed
COLOURS = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (230, 159, 0), (90, 90, 90))
_NO_TIME = "no kernel has a time"


def draw(rows: Sequence[Row], environment: Mapping[str, Any]) -> bytes:
    """A PNG: lines of time over tokens for two lengths or more, else a bar of time for each row."""
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (WIDTH, HEIGHT), "white")
    ink = ImageDraw.Draw(picture)
    timed = [row for row in rows if row.get("median_ms")]
    ink.text((LEFT, 24), "bench-kernel: median time, bars from p20 to p80", INK, _font(24))
    ink.text((LEFT, 56), f"{environment['device_name']}, {environment['threads']} threads", INK, _font(16))
    if not timed:
        ink.text((LEFT, HEIGHT // 2), _NO_TIME, INK, _font(24))
    elif len({row["tokens"] for row in timed}) > 1:
        _lines(ink, timed)
    else:
        _bars(ink, timed)
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def label_of(row: Row) -> str:
    """Operator, settings and pass: what a line or bar stands for."""
    of = f" ({row['of']})" if row.get("of") else ""
    settings = ", ".join(f"{key} {_short(value)}" for key, value in row["settings"].items())
    words = [f"{row['operator']}{of}", settings, "" if row["direction"] == "fwd" else row["direction"]]
    return " ".join(word for word in words if word)


def _short(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _lines(ink: ImageDraw, rows: Sequence[Row]) -> None:
    series: dict[str, list[Row]] = {}
    for row in rows:
        # settings that follow the length would break a series
        of = f" ({row['of']})" if row.get("of") else ""
        series.setdefault(f"{row['operator']}{of} {row['direction']} {row['dtype']}", []).append(row)
    across = _Scale([row["tokens"] for row in rows], LEFT, WIDTH - RIGHT)
    up = _Scale([row[key] for row in rows for key in ("p20_ms", "p80_ms")], HEIGHT - BOTTOM, TOP)
    for value in up.ticks():
        ink.line((LEFT, up(value), WIDTH - RIGHT, up(value)), PALE)
        ink.text((LEFT - 10, up(value)), f"{value:g}", INK, _font(16), anchor="rm")
    for value in sorted({row["tokens"] for row in rows}):
        ink.line((across(value), TOP, across(value), HEIGHT - BOTTOM), PALE)
        ink.text((across(value), HEIGHT - BOTTOM + 8), str(value), INK, _font(16), anchor="ma")
    ink.text((LEFT - 10, TOP - 12), "ms", INK, _font(16), anchor="rb")
    ink.text(((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 34), "tokens", INK, _font(16), anchor="ma")
    for at, (name, members) in enumerate(series.items()):
        colour = COLOURS[at % len(COLOURS)]
        dashed = at // len(COLOURS) % 2 == 1
        members = sorted(members, key=lambda row: row["tokens"])
        points = [(across(row["tokens"]), up(row["median_ms"])) for row in members]
        for start, end in pairwise(points):
            _stroke(ink, start, end, colour, dashed)
        for row, (x, y) in zip(members, points, strict=True):
            ink.line((x, up(row["p20_ms"]), x, up(row["p80_ms"])), colour, 2)
            ink.ellipse((x - 4, y - 4, x + 4, y + 4), colour)
        y = TOP + 26 * at
        _stroke(ink, (WIDTH - RIGHT + 20, y + 9), (WIDTH - RIGHT + 54, y + 9), colour, dashed)
        ink.text((WIDTH - RIGHT + 62, y), name, INK, _font(16))


def _bars(ink: ImageDraw, rows: Sequence[Row]) -> None:
    left = 380
    across = _Scale([row[key] for row in rows for key in ("p20_ms", "p80_ms", "median_ms")], left, WIDTH - 120)
    height = min(46.0, (HEIGHT - TOP - BOTTOM) / len(rows))
    for value in across.ticks():
        ink.line((across(value), TOP, across(value), TOP + height * len(rows)), PALE)
        ink.text((across(value), TOP + height * len(rows) + 8), f"{value:g}", INK, _font(16), anchor="ma")
    ink.text((WIDTH - 100, TOP + height * len(rows) + 8), "ms", INK, _font(16))
    size = max(8, min(16, int(height * 0.6)))
    for at, row in enumerate(rows):
        y = TOP + height * (at + 0.5)
        colour = COLOURS[0] if row["role"] == "operator" else COLOURS[-1]
        ink.rectangle((left, y - height * 0.3, across(row["median_ms"]), y + height * 0.3), colour)
        ink.line((across(row["p20_ms"]), y, across(row["p80_ms"]), y), INK, 2)
        ink.text((left - 10, y), label_of(row)[:52], INK, _font(size), anchor="rm")
        ink.text((across(row["median_ms"]) + 12, y), f"{row['median_ms']:.3g}", INK, _font(size), anchor="lm")


def _stroke(
    ink: ImageDraw, start: tuple[float, float], end: tuple[float, float], colour: tuple[int, int, int], dashed: bool
) -> None:
    if not dashed:
        ink.line((*start, *end), colour, 3)
        return
    steps = max(1, int(math.dist(start, end) // 8))
    for step in range(0, steps, 2):
        a, b = step / steps, min(1.0, (step + 1) / steps)
        points = [(start[0] + (end[0] - start[0]) * t, start[1] + (end[1] - start[1]) * t) for t in (a, b)]
        ink.line((*points[0], *points[1]), colour, 3)


class _Scale:
    """Logarithmic, from the values that are shown, with some room, to positions in pixels."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        low, high = math.log10(min(values)), math.log10(max(values))
        room = max(0.08, 0.05 * (high - low))
        self.low, self.high = low - room, high + room
        self.start, self.end = start, end

    def __call__(self, value: float) -> float:
        return self.start + (math.log10(value) - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values within the range: 1, 2 and 5 in each decade, only powers of ten over a long range."""
        steps = (1, 2, 5) if self.high - self.low < 4 else (1,)
        decades = range(math.floor(self.low), math.ceil(self.high) + 1)
        values = [step * 10.0**decade for decade in decades for step in steps]
        return [value for value in values if self.low <= math.log10(value) <= self.high]
