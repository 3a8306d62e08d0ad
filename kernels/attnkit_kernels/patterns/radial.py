"""Radial attention for long video: bands that halve as frames grow apart, by the paper or by its code."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from ..softmax.blockmap import BlockMap
from . import radial_code, radial_paper
from .canvas import Canvas, Tile, check_canvas, tokens_of
from .dense import runs
from .settings import setting

__all__ = ["MODELS", "NEAR", "RULES", "Radial"]

RULES = ("code", "paper")
MODELS = ("wan", "hunyuan")
NEAR = ("full", "half")


@dataclass(frozen=True)
class Radial:
    """A query sees its own frame and its neighbours, a band that narrows with the distance of frames, and a sink.

    rule : "code" is the block map that the published code runs, "paper" the token mask of Eq. 4 (bands of s / 2^r,
    one frame
        in 2^r where the band is one token wide, all of frame 0)
    decay, near : settings of rule "code": factor on the band's width; whether frames at distance 1 are seen "full" or,
        as until the code's last change for Wan, in a band of "half" a frame to either side
    model : "wan" has the sink (every query sees frame 0), "hunyuan" has none; `sink` overrides. Rule "paper" has it.
    text : text tokens after the video. They see and are seen by everything: as the map's dense tail, or, with
        `text_blocks` (rule "code"), as ordinary tokens of the map in blocks that are visible whole

    Notes
    -----
    "Radial Attention", arXiv 2506.19852. Tokens are frame-major, the first axis of the canvas is the frames. The
    code's quirks, kept since its sparsities are the published ones: a block survives where more than 60 % of its
    touched columns are touched in more than a third of their rows; rows of a frame pair behind the last whole block
    of its offset are lost; the 128 of frame decimation does not follow the block size. Not kept: token counts must
    be multiples of the block (here the last block holds masked padding and is visible, as are the blocks with
    text); a pair that reaches past the map is cut there instead of failing.
    """

    name: ClassVar[str] = "radial"
    paper: ClassVar[str] = "Radial Attention (arXiv 2506.19852)"

    rule: str = setting("code", help="code (published code's block map) or paper (Eq. 4, exact to the token)")
    decay: float = setting(1.0, help="factor on the band's width; rule code")
    model: str = setting("wan", help="wan (with sink) or hunyuan (without); rule code")
    near: str = setting("full", help="frames at distance 1: full, or a band of half a frame; rule code")
    sink: bool | None = setting(None, help="every query sees frame 0; none: as the model does")
    text: int = setting(0, help="text tokens after the video, seen by and seeing everything")
    text_blocks: bool = setting(False, help="text as tokens of the map instead of its dense tail; rule code")

    def __post_init__(self) -> None:
        for name, known in (("rule", RULES), ("model", MODELS), ("near", NEAR)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        if not (0 <= self.decay < math.inf and self.text >= 0):
            raise ValueError(f"decay and text must be finite and at least 0, got {self.decay} and {self.text}")
        if self.rule == "paper":
            for name, default in (("decay", 1.0), ("model", "wan"), ("near", "full"), ("text_blocks", False)):
                if getattr(self, name) != default:
                    raise ValueError(f"{name} belongs to rule 'code', got {name} {getattr(self, name)!r} with 'paper'")

    def block_map(self, canvas: Canvas, query_tile: Tile = None, key_tile: Tile = None) -> BlockMap:
        """The map of a canvas (frames, rows, columns) or (frames, tokens of a frame); tiles are runs, 128 by default.

        ValueError for a canvas of one axis and, with rule "code", for unequal tiles.
        """
        canvas = check_canvas(canvas)
        if len(canvas) < 2:
            raise ValueError(f"radial needs a canvas of frames and at least one axis more, got {canvas}")
        query, key, _ = runs(canvas, query_tile, key_tile)
        frames, per_frame = canvas[0], tokens_of(canvas[1:])
        if self.rule == "paper":
            return radial_paper.block_map(
                frames, per_frame, query, key, self.sink is not False, tail_queries=self.text, tail_keys=self.text
            )
        if query != key:
            raise ValueError(f"radial's published rule needs equal query and key tiles, got {query} and {key}")
        sink = self.model == "wan" if self.sink is None else self.sink
        return radial_code.block_map(
            frames, per_frame, query, self.decay, self.near == "half", sink, self.text, self.text_blocks
        )
