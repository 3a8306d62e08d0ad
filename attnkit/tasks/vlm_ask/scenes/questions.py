"""Questions about a scene with answers that follow from its description: what is asked, not how it is said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from .phrases import hint, plural, say, with_article
from .scene import COLOURS, SHAPES, Scene, Thing

KINDS = ("existence", "colour", "shape", "count", "position", "description")
# a place is asked for only where it is clear: centres this near to a border between two answers are left out
UNCLEAR = 0.04
# two things are left and right of each other only from this distance on
APART = 0.15
# everyday things that no scene holds
ABSENT = (
    "dog", "cat", "person", "car", "tree", "house", "bird", "horse", "chair", "table", "bottle", "boat", "cup",
    "bicycle", "train", "flower", "book", "cow", "sheep", "phone",
)  # fmt: skip
# draws of a question before a scene is said to allow none
TRIES = 6
PLACES = (("top left", "top", "top right"), ("left", "middle", "right"), ("bottom left", "bottom", "bottom right"))
# row and column of the direction
RELATIONS = {"left of": (0, -1), "right of": (0, 1), "above": (-1, 0), "below": (1, 0)}
SIDES = {"left": (1, 0, 0.5), "right": (1, 0.5, 1), "top": (0, 0, 0.5), "bottom": (0, 0.5, 1)}

Draw = np.random.Generator


class Centred(Protocol):
    """What has a centre, in units of the picture's side."""

    @property
    def row(self) -> float: ...

    @property
    def column(self) -> float: ...


@dataclass(frozen=True)
class Question:
    """A question about one scene.

    kind is one of KINDS or "choice" (which of two sides); form says how its negatives or wording were chosen.
    """

    kind: str
    form: str
    text: str
    answer: str


def ask(scene: Scene, kind: str, draw: Draw) -> Question | None:
    """One question of a kind, or None where none is found; yes and no are equally likely where both can be."""
    for _ in range(TRIES):
        question = _ASKED[kind](scene, draw)
        if question is not None:
            return replace(question, text=question.text + hint(question.answer, draw))
    return None


def ask_where(scene: Scene, form: str, draw: Draw) -> Question | None:
    """One question of a form of WHERE, or None where none is found; either answer is equally likely."""
    for _ in range(TRIES):
        thing = scene.things[int(draw.integers(len(scene.things)))]
        name = _reference(scene, thing, draw)
        question = None if name is None else _WHERE[form](scene, thing, name, draw)
        if question is not None:
            return replace(question, text=question.text + hint(question.answer, draw))
    return None


def _pick(draw: Draw, options: list[str]) -> str | None:
    return options[int(draw.integers(len(options)))] if options else None


def _existence(scene: Scene, draw: Draw) -> Question | None:
    names = {thing.name for thing in scene.things}
    shapes = {thing.shape for thing in scene.things}
    colours = {thing.colour for thing in scene.things}
    level = draw.random()
    if level < 0.6:
        everything = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]
        present, subject = names, "name"
    elif level < 0.8:
        everything, present, subject = list(SHAPES), shapes, "shape"
    else:
        everything, present, subject = list(COLOURS), colours, "colour"
    if draw.random() < 0.5:
        chosen, form, answer = _pick(draw, sorted(present)), subject, "Yes"
    else:
        absent = [one for one in everything if one not in present]
        form, answer = "random", "No"
        if subject == "name":
            near = [one for one in absent if (one.split()[0] in colours) + (one.split()[1] in shapes) == 1]
            mixed = [one for one in absent if one.split()[0] in colours and one.split()[1] in shapes]
            chance = draw.random()
            if chance < 0.4 and mixed:
                absent, form = mixed, "adversarial"
            elif chance < 0.75 and near:
                absent, form = near, "popular"
        if draw.random() < 0.08:
            absent, form, subject = list(ABSENT), "foreign", "name"
        chosen = _pick(draw, absent)
    if chosen is None:
        return None
    thing = f"anything {chosen}" if subject == "colour" else with_article(chosen)
    return Question(
        "existence", form, say("anything" if subject == "colour" else "existence", draw, thing=thing), answer
    )


def _unique(scene: Scene, attribute: Callable[[Thing], str]) -> list[Thing]:
    counts = Counter(attribute(thing) for thing in scene.things)
    return [thing for thing in scene.things if counts[attribute(thing)] == 1]


def _colour(scene: Scene, draw: Draw) -> Question | None:
    found = _unique(scene, lambda thing: thing.shape)
    if not found:
        return None
    thing = found[int(draw.integers(len(found)))]
    return Question("colour", "open", say("colour", draw, thing=thing.shape), thing.colour)


def _shape(scene: Scene, draw: Draw) -> Question | None:
    found = _unique(scene, lambda thing: thing.colour)
    if not found:
        return None
    thing = found[int(draw.integers(len(found)))]
    return Question("shape", "open", say("shape", draw, colour=thing.colour), thing.shape)


def _count(scene: Scene, draw: Draw) -> Question | None:
    level = draw.random()
    anything = "shapes" if draw.random() < 0.5 else "objects"
    if level < 0.25:
        return Question("count", "all", say("count", draw, things=anything), str(len(scene.things)))
    thing = scene.things[int(draw.integers(len(scene.things)))]
    shape, colour = thing.shape, thing.colour
    if draw.random() < 0.15:
        shape, colour = str(draw.choice(SHAPES)), str(draw.choice(COLOURS))
    if level < 0.5:
        things, number = plural(shape), sum(one.shape == shape for one in scene.things)
    elif level < 0.75:
        things, number = f"{colour} {anything}", sum(one.colour == colour for one in scene.things)
    else:
        things = f"{colour} {plural(shape)}"
        number = sum(one.shape == shape and one.colour == colour for one in scene.things)
    return Question("count", "some", say("count", draw, things=things), str(number))


def _reference(scene: Scene, thing: Thing, draw: Draw) -> str | None:
    """A name that means just this thing: its shape, its colour, or both."""
    options = []
    if sum(one.shape == thing.shape for one in scene.things) == 1:
        options.append(thing.shape)
    if sum(one.colour == thing.colour for one in scene.things) == 1:
        options.append(f"{thing.colour} shape")
    if sum(one.name == thing.name for one in scene.things) == 1:
        options += [thing.name, thing.name]
    return _pick(draw, options)


def place_of(thing: Centred) -> str | None:
    """Which ninth of the picture the centre of a thing lies in, or None where it is near a border between two."""
    indices = []
    for centre in (thing.row, thing.column):
        if min(abs(centre - 1 / 3), abs(centre - 2 / 3)) < UNCLEAR:
            return None
        indices.append(int(centre * 3))
    return PLACES[indices[0]][indices[1]]


def lies(thing: Centred, relation: str, other: Centred) -> bool | None:
    """Whether a thing is left of, right of, above or below another; None where they are not far enough apart."""
    down, across = RELATIONS[relation]
    distance = down * (thing.row - other.row) + across * (thing.column - other.column)
    return None if abs(distance) < APART else distance > 0


def _position(scene: Scene, draw: Draw) -> Question | None:
    thing = scene.things[int(draw.integers(len(scene.things)))]
    name = _reference(scene, thing, draw)
    if name is None:
        return None
    level = draw.random()
    if level < 0.35:
        place = place_of(thing)
        return None if place is None else Question("position", "place", say("place", draw, thing=name), place)
    if level < 0.55 or len(scene.things) == 1:
        return _side(thing, name, draw)
    if level < 0.75:
        return _relation(scene, thing, name, draw)
    found = {}
    for relation in RELATIONS:
        lying = {lies(one, relation, thing): one for one in scene.things if one is not thing}
        only = sum(lies(one, relation, thing) is True for one in scene.things if one is not thing) == 1
        if only and None not in lying:
            found[relation] = lying[True]
    chosen = _pick(draw, list(found))
    if chosen is None:
        return None
    text = say("neighbour", draw, relation=chosen, thing=name)
    return Question("position", "neighbour", text, found[chosen].name)


def _relation(scene: Scene, thing: Thing, name: str, draw: Draw) -> Question | None:
    relation = str(draw.choice(list(RELATIONS)))
    other, other_name = _other(scene, thing, relation, draw)
    if other is None or other_name is None:
        return None
    text = say("relation", draw, thing=other_name, relation=relation, other=name)
    return Question("position", "relation", text, "Yes" if lies(other, relation, thing) else "No")


def _other(scene: Scene, thing: Thing, relation: str, draw: Draw) -> tuple[Thing | None, str | None]:
    """Another thing that clearly does or does not lie so, and a name for it."""
    others = [one for one in scene.things if one is not thing and lies(one, relation, thing) is not None]
    if not others:
        return None, None
    other = others[int(draw.integers(len(others)))]
    return other, _reference(scene, other, draw)


def _side(thing: Thing, name: str, draw: Draw) -> Question | None:
    side = str(draw.choice(list(SIDES)))
    there = half_of(thing, side)
    if there is None:
        return None
    return Question("position", "side", say("side", draw, thing=name, side=side), "Yes" if there else "No")


def half_of(thing: Centred, side: str) -> bool | None:
    """Whether the centre of a thing lies in the left, right, top or bottom half; None where it is near the middle."""
    across, low, high = SIDES[side]
    centre = thing.column if across else thing.row
    return None if abs(centre - 0.5) < 2 * UNCLEAR else low <= centre < high


def _in_order(pair: tuple[str, str], draw: Draw) -> tuple[str, str]:
    return pair if draw.random() < 0.5 else (pair[1], pair[0])


def _side_choice(scene: Scene, thing: Thing, name: str, draw: Draw) -> Question | None:
    first, second = _in_order((("left", "right"), ("top", "bottom"))[int(draw.integers(2))], draw)
    there = half_of(thing, first)
    if there is None:
        return None
    text = say("side choice", draw, thing=name, first=first, second=second)
    return Question("choice", "side", text, first if there else second)


def _relation_choice(scene: Scene, thing: Thing, name: str, draw: Draw) -> Question | None:
    first, second = _in_order((("left of", "right of"), ("above", "below"))[int(draw.integers(2))], draw)
    other, other_name = _other(scene, thing, first, draw)
    if other is None or other_name is None:
        return None
    across = "above" not in (first, second)
    words = {"first": first.removesuffix(" of"), "second": second.removesuffix(" of")}
    text = say("across choice" if across else "down choice", draw, thing=other_name, other=name, **words)
    return Question("choice", "relation", text, words["first" if lies(other, first, thing) else "second"])


def _description(scene: Scene, draw: Draw) -> Question:
    return Question("description", "open", say("description", draw), describe(scene))


def describe(scene: Scene) -> str:
    """One sentence that names all things from left to right."""
    *first, last = [with_article(thing.name) for thing in scene.things]
    return f"The image shows {', '.join(first)} and {last}." if first else f"The image shows {last}."


_ASKED: dict[str, Callable[[Scene, Draw], Question | None]] = {
    "existence": _existence,
    "colour": _colour,
    "shape": _shape,
    "count": _count,
    "position": _position,
    "description": _description,
}

_WHERE: dict[str, Callable[[Scene, Thing, str, Draw], Question | None]] = {
    "side": lambda scene, thing, name, draw: _side(thing, name, draw),
    "relation": _relation,
    "side choice": _side_choice,
    "relation choice": _relation_choice,
}
WHERE = tuple(_WHERE)
CHOICES = ("side choice", "relation choice")
