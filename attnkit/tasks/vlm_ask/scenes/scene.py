"""What a generated scene holds: things with shape, colour, size and place, all drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SHAPES = ("circle", "square", "triangle", "star", "ring", "cross", "diamond", "heart")
COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "white", "black")
CLUTTERS = (0, 1, 2, 3)
# scenes for tests have seeds from here on; a training takes smaller ones
HELD_OUT = 1_000_000

MOST_THINGS = 6
# fewest and most things of a scene by clutter
THINGS = {0: (1, 3), 1: (1, 4), 2: (2, 5), 3: (3, 6)}
BACKGROUNDS = {
    0: ("plain", "gradient"),
    1: ("plain", "gradient", "striped", "noisy"),
    2: ("gradient", "striped", "noisy", "photograph"),
    3: ("striped", "noisy", "photograph"),
}
RADII = {"small": (0.095, 0.115), "large": (0.145, 0.175)}
# free space between two things, and between a thing and the border
GAP = 0.02


@dataclass(frozen=True)
class Thing:
    """One shape: its centre and radius in units of the picture's side, its turn in degrees."""

    shape: str
    colour: str
    size: str
    row: float
    column: float
    radius: float
    turn: float

    @property
    def name(self) -> str:
        """Colour and shape, as a question names it."""
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class Scene:
    """Things that do not overlap, from left to right, on a background of some clutter."""

    seed: int
    clutter: int
    background: str
    things: tuple[Thing, ...]


def make_scene(seed: int, clutter: int | None = None) -> Scene:
    """The scene of a seed; `clutter` 0 to 3 sets texture, strokes and number of things, drawn too where it is None."""
    draw = np.random.default_rng((seed, 0))
    drawn = int(draw.integers(len(CLUTTERS)))
    level = drawn if clutter is None else clutter
    background = str(draw.choice(BACKGROUNDS[level]))
    fewest, most = THINGS[level]
    things: list[Thing] = []
    wanted = int(draw.integers(fewest, most + 1))
    # a scene of things that resemble each other gives counts above 1 and questions that only look answers hold apart
    alike = draw.random()
    tries = 0
    while len(things) < wanted:
        tries += 1
        shape, colour = str(draw.choice(SHAPES)), str(draw.choice(COLOURS))
        if things and draw.random() < 0.6 * alike:
            model = things[int(draw.integers(len(things)))]
            shared = draw.integers(3)
            shape = model.shape if shared != 0 else shape
            colour = model.colour if shared != 1 else colour
        # a full picture has room for small things only
        size = "large" if draw.random() < (0.5 if tries < 12 else 0.0) else "small"
        radius = float(draw.uniform(*RADII[size]))
        row, column = (float(value) for value in draw.uniform(radius + GAP, 1 - radius - GAP, 2))
        if all(np.hypot(row - other.row, column - other.column) > radius + other.radius + GAP for other in things):
            turn = float(draw.uniform(-10, 10))
            things.append(Thing(shape, colour, size, row, column, radius, turn))
        elif tries > 200:
            break
    return Scene(seed, level, background, tuple(sorted(things, key=lambda thing: thing.column)))
