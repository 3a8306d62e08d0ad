"""The operators that can be measured, by name. Nothing here imports torch: `--list` answers at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from attnkit_kernels import patterns
from attnkit_kernels.patterns.settings import read

from attnkit.runtime.errors import UsageError
from attnkit.runtime.values import nearest

Canvas = tuple[int, ...]
Usual = Mapping[str, Any]


def _nothing(canvas: Canvas) -> Usual:
    return {}


@dataclass(frozen=True)
class Operator:
    """What a benchmark needs to know of an operator before it runs.

    axes: axes of the canvas that `tokens` stands for; usual: settings where none are given, for a canvas; linear:
    whether the usual settings keep the keys per query fixed while the length grows.
    """

    name: str
    kind: str
    summary: str
    axes: int = 1
    usual: Callable[[Canvas], Usual] = _nothing
    linear: bool = False
    # the pattern whose settings it has, where that has another name; or settings of its own
    pattern: str | None = None
    own_settings: Mapping[str, patterns.Setting] | None = None

    def settings(self) -> Mapping[str, patterns.Setting]:
        """Its settings by name: type, default, help. Those of routed patterns import torch."""
        return patterns.settings_of(self.pattern or self.name) if self.own_settings is None else self.own_settings

    @property
    def light(self) -> bool:
        """Whether its settings can be had without torch."""
        return self.own_settings is not None or (self.pattern or self.name) in patterns.STATIC

    def canvas_of(self, tokens: int) -> Canvas:
        """A canvas of that many tokens, as cubic as its divisors allow, the longest axis last. UsageError for none."""
        canvas: list[int] = []
        left = tokens
        for axes in range(self.axes, 1, -1):
            side = max(side for side in range(1, math.isqrt(left) + 1) if left % side == 0 and side**axes <= left)
            canvas.append(side)
            left //= side
        if tokens > 1 and 1 in canvas:
            raise UsageError(
                f"tokens: {tokens} is no product of {self.axes} sides, which {self.name} needs; give --canvas"
            )
        return (*canvas, left)


def fitted(sides: Mapping[int, tuple[int, ...]]) -> Callable[[str, Canvas], tuple[int, ...]]:
    """Sides by number of axes, cut to the axis where that is shorter."""

    def of(key: str, canvas: Canvas) -> tuple[int, ...]:
        return tuple(min(side, length) for side, length in zip(sides[len(canvas)], canvas, strict=True))

    return of


_WINDOW = fitted({1: (384,), 2: (24, 48), 3: (4, 12, 24)})
_STRIDE = fitted({1: (128,), 2: (8, 16), 3: (4, 4, 8)})


def _neighborhood(canvas: Canvas) -> Usual:
    # odd multiples of the default tile: every visited tile is full
    if len(canvas) > 3:
        return {}
    return {"window": _WINDOW("window", canvas), "stride": _STRIDE("stride", canvas)}


def _dividing(canvas: Canvas, product: int) -> tuple[int, ...]:
    """The largest powers of two that divide the axes, as equal as they can be, whose product is at most `product`."""
    sides = [1] * len(canvas)
    while True:
        room = [axis for axis, length in enumerate(canvas) if length % (2 * sides[axis]) == 0]
        if not room or 2 * math.prod(sides) > product:
            return tuple(sides)
        sides[min(reversed(room), key=lambda axis: sides[axis])] *= 2


OPERATORS: dict[str, Operator] = {
    one.name: one
    for one in (
        Operator("dense", "static", "every query sees every key"),
        Operator("causal", "static", "a query sees the keys before it"),
        Operator("sliding", "static", "a window over the flat index", usual=lambda _: {"window": 384}, linear=True),
        Operator("streaming", "static", "first blocks and nearest blocks, causal (Flux Attention)", linear=True),
        Operator(
            "neighborhood", "static", "windows with stride and dilation (GNA)", 2, usual=_neighborhood, linear=True
        ),
        Operator("radial", "static", "video: density falls with the distance in time (Radial Attention)", 3),
        Operator(
            "blocked",
            "static",
            "windows side by side (MaxViT, Swin)",
            2,
            usual=lambda canvas: {"window": _dividing(canvas, 256)},
            linear=True,
        ),
        Operator(
            "grid",
            "static",
            "tokens spread evenly (MaxViT)",
            2,
            usual=lambda canvas: {"grid": _dividing(canvas, 256)},
            linear=True,
        ),
        Operator(
            "halo",
            "static",
            "blocks that see a halo around them (HaloNet)",
            2,
            usual=lambda canvas: {"block": tuple(min(8, side) for side in _dividing(canvas, 64))},
            linear=True,
        ),
        Operator("random_blocks", "static", "blocks drawn at random: speed without structure"),
        Operator(
            "bilevel",
            "routed",
            "regions choose regions (BiFormer)",
            2,
            usual=lambda canvas: {"regions": tuple(min(8, side) for side in canvas), "topk": 4},
        ),
        Operator("sla", "routed", "the best-scored blocks (the sparse part of SLA)"),
        Operator("headwise", "routed", "blocks per head (HeSS over SparseVGGT)", usual=lambda _: {"sparsity": 0.9}),
        Operator("sla-linear", "variant", "SLA whole: routing, sparse part, projected linear part", pattern="sla"),
        Operator(
            "kmeans",
            "variant",
            "clusters by centroids (Routing Transformer), routing included",
            usual=lambda canvas: {"clusters": 8, "window": max(1, math.prod(canvas) // 8)},
        ),
        Operator(
            "lut3d",
            "image",
            "colours through a 3-D table, trilinear",
            2,
            own_settings={"size": patterns.Setting(int, 33, "samples along an axis of the table")},
        ),
        Operator(
            "local-laplacian",
            "image",
            "the fast local Laplacian filter",
            2,
            own_settings={
                "levels": patterns.Setting(int, 5, "bands of the pyramid"),
                "references": patterns.Setting(int, 20, "values that the curve is sampled at"),
            },
        ),
    )
}


def operator_named(name: str) -> Operator:
    """The operator of that name. UsageError with the nearest and all names for an unknown one."""
    if name not in OPERATORS:
        near = nearest(name, OPERATORS)
        hint = f"did you mean {near}? " if near else ""
        raise UsageError(f"no operator {name!r}; {hint}known: {', '.join(OPERATORS)}")
    return OPERATORS[name]


def read_setting(operator: Operator, key: str, text: str) -> Any:
    """The value of a setting from text; axes are joined by commas or by x. UsageError for one that is none."""
    kind = operator.settings()[key].type
    try:
        return read(kind, text.replace("x", ",") if "tuple" in str(kind) else text, f"{operator.name}.{key}")
    except ValueError as error:
        raise UsageError(str(error)) from None
