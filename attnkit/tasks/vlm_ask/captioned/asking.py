"""Questions about a collage whose answers follow from what was pasted, in the wordings of the generated scenes."""

from __future__ import annotations

import colorsys
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..scenes.phrases import hint, say, with_article
from ..scenes.questions import RELATIONS, SIDES, Question, half_of, lies, place_of
from .collage import Collage, Placed
from .cutouts import Cutout, plural, read_cutout

KINDS = ("existence", "name", "count", "position", "choice", "colour", "description")
# how often a kind is asked of each picture
TURNS = {"existence": 2.6, "name": 1.6, "count": 1.2, "position": 1.8, "choice": 1.6, "colour": 0.8, "description": 0.8}
NAMING = (
    "What is this?",
    "What is in the {picture}?",
    "What can you see in the {picture}?",
    "What object is in the {picture}?",
    "What is the name of the thing in the {picture}?",
)
NUMBERS = ("no", "one", "two", "three", "four", "five")
# hue in degrees up to which a colour reaches
HUES = (
    (14, "red"),
    (42, "orange"),
    (68, "yellow"),
    (165, "green"),
    (262, "blue"),
    (320, "purple"),
    (346, "pink"),
    (361, "red"),
)
# share of what is seen of a thing that must have one colour, so that it is called by it
CERTAIN = 0.72


def ask_all(collage: Collage, others: Sequence[Cutout], draw: np.random.Generator) -> list[Question]:
    """Questions of all kinds about a collage, none twice, in any order; `others` are what it could have held."""
    found: dict[str, Question] = {}
    for kind, often in TURNS.items():
        for _ in range(int(often) + (draw.random() < often % 1)):
            question = ask(collage, kind, others, draw)
            if question is not None:
                found.setdefault(question.text, question)
    questions = list(found.values())
    return [questions[index] for index in draw.permutation(len(questions))]


def ask(collage: Collage, kind: str, others: Sequence[Cutout], draw: np.random.Generator) -> Question | None:
    """One question of a kind of KINDS, or None where the collage allows none."""
    if not collage.things:
        return None
    question = _existence(collage, others, draw) if kind == "existence" else _ASKED[kind](collage, draw)
    if question is None:
        return None
    return Question(question.kind, question.form, question.text + hint(question.answer, draw), question.answer)


def colour_of(stamp: NDArray[np.uint8]) -> str | None:
    """The colour that a cut-out [rows, columns, 4] has nearly all over, or None where it is not certain."""
    seen = stamp[stamp[..., 3] > 200][::7, :3] / 255
    if len(seen) < 12:
        return None
    names = Counter(_colour_name(*pixel) for pixel in seen.tolist())
    name, count = names.most_common(1)[0]
    return name if name is not None and count >= CERTAIN * len(seen) else None


def describe(collage: Collage) -> str:
    """One sentence that names all kinds of things with their numbers, from left to right."""
    parts = [
        with_article(name) if count == 1 else f"{NUMBERS[count]} {plural(name)}"
        for name, count in _counts(collage).items()
    ]
    *first, last = parts
    return f"The image shows {', '.join(first)} and {last}." if first else f"The image shows {last}."


def _colour_name(red: float, green: float, blue: float) -> str | None:
    hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
    if value < 0.2:
        return "black"
    if saturation < 0.12:
        return "white" if value > 0.85 else ("gray" if 0.3 < value < 0.75 else None)
    if saturation < 0.35 or value < 0.35:
        return None
    name = next(name for end, name in HUES if hue * 360 < end)
    if name == "orange":
        # between orange, brown and gold opinions differ
        return "orange" if value > 0.85 and saturation > 0.7 else ("brown" if value < 0.55 else None)
    return name


def _counts(collage: Collage) -> Counter[str]:
    return Counter(thing.cutout.name for thing in sorted(collage.things, key=lambda thing: thing.column))


def _singles(collage: Collage, draw: np.random.Generator) -> list[Placed]:
    """The things whose name means just them, in any order."""
    counts = _counts(collage)
    found = [thing for thing in collage.things if counts[thing.cutout.name] == 1]
    return [found[index] for index in draw.permutation(len(found))]


def _single(collage: Collage, draw: np.random.Generator) -> Placed | None:
    found = _singles(collage, draw)
    return found[0] if found else None


def _existence(collage: Collage, others: Sequence[Cutout], draw: np.random.Generator) -> Question | None:
    present = [thing.cutout for thing in collage.things]
    yes, by_group = draw.random() < 0.5, draw.random() < 0.3
    groups = {word for cutout in present for word in cutout.groups}
    if yes:
        chosen = present[int(draw.integers(len(present)))]
        words = sorted(chosen.groups) if by_group else [chosen.name]
        form = "group" if by_group else "name"
    elif by_group:
        words = sorted({word for cutout in others for word in cutout.groups} - groups)
        form = "random group"
    else:
        nouns, families = {one.name.split()[-1] for one in present}, {one.family for one in present}
        absent = [one for one in others if one.family not in families and one.name.split()[-1] not in nouns]
        form = "adversarial" if draw.random() < 0.5 else "random"
        if form == "adversarial":
            absent = [one for one in absent if one.groups & groups]
        words = sorted({one.name for one in absent})
    if not words:
        return None
    thing = words[int(draw.integers(len(words)))]
    article = thing if thing == "food" else with_article(thing)
    return Question("existence", form, say("existence", draw, thing=article), "Yes" if yes else "No")


def _name(collage: Collage, draw: np.random.Generator) -> Question | None:
    counts = _counts(collage)
    level = draw.random()
    if level < 0.35 and len(counts) == 1 and len(collage.things) == 1:
        text = NAMING[int(draw.integers(len(NAMING)))].format(picture="image" if draw.random() < 0.7 else "picture")
        return Question("name", "whole", text, next(iter(counts)))
    if level < 0.75:
        owners: dict[str, set[str]] = {}
        for thing in collage.things:
            for word in thing.cutout.groups:
                owners.setdefault(word, set()).add(thing.cutout.name)
        single = sorted(word for word, names in owners.items() if len(names) == 1 and word != "thing in space")
        if not single:
            return None
        word = single[int(draw.integers(len(single)))]
        return Question("name", "group", f"What {word} is in the image?", next(iter(owners[word])))
    side = str(draw.choice(list(SIDES)))
    halves = [half_of(thing, side) for thing in collage.things]
    there = {thing.cutout.name for thing, inside in zip(collage.things, halves, strict=True) if inside}
    if None in halves or len(there) != 1:
        return None
    place = f"on the {side}" if SIDES[side][0] else f"at the {side}"
    return Question("name", "side", f"What is {place} of the image?", there.pop())


def _count(collage: Collage, draw: np.random.Generator) -> Question | None:
    counts = _counts(collage)
    if draw.random() < 0.3:
        things = "objects" if draw.random() < 0.5 else "things"
        return Question("count", "all", say("count", draw, things=things), str(len(collage.things)))
    name = list(counts)[int(draw.integers(len(counts)))]
    return Question("count", "name", say("count", draw, things=plural(name)), str(counts[name]))


def _position(collage: Collage, draw: np.random.Generator) -> Question | None:
    singles = _singles(collage, draw)
    if not singles:
        return None
    thing, *others = singles
    level = draw.random()
    if level < 0.3 and others:
        relation = str(draw.choice(list(RELATIONS)))
        there = lies(thing, relation, others[0])
        names = {"thing": thing.cutout.name, "other": others[0].cutout.name}
        text = say("relation", draw, relation=relation, **names)
        return None if there is None else Question("position", "relation", text, "Yes" if there else "No")
    if level < 0.6:
        side = str(draw.choice(list(SIDES)))
        there = half_of(thing, side)
        text = say("side", draw, thing=thing.cutout.name, side=side)
        return None if there is None else Question("position", "side", text, "Yes" if there else "No")
    place = place_of(thing)
    return None if place is None else Question("position", "place", say("place", draw, thing=thing.cutout.name), place)


def _choice(collage: Collage, draw: np.random.Generator) -> Question | None:
    singles = _singles(collage, draw)
    if not singles:
        return None
    thing, *others = singles
    is_across = draw.random() < 0.5
    name = thing.cutout.name
    if others and draw.random() < 0.6:
        words, phrase = (("left", "right"), "across choice") if is_across else (("above", "below"), "down choice")
        form, names = "relation", {"thing": name, "other": others[0].cutout.name}
        there = lies(thing, "left of" if is_across else "above", others[0])
    else:
        words, phrase = ("left", "right") if is_across else ("top", "bottom"), "side choice"
        form, names = "side", {"thing": name}
        there = half_of(thing, words[0])
    if there is None:
        return None
    first, second = words if draw.random() < 0.5 else words[::-1]
    text = say(phrase, draw, first=first, second=second, **names)
    return Question("choice", form, text, words[0] if there else words[1])


def _colour(collage: Collage, draw: np.random.Generator) -> Question | None:
    thing = _single(collage, draw)
    colour = colour_of(read_cutout(thing.cutout)) if thing is not None else None
    if thing is None or colour is None or set(thing.cutout.name.split()) & {name for _, name in HUES}:
        return None
    return Question("colour", "open", say("colour", draw, thing=thing.cutout.name), colour)


def _description(collage: Collage, draw: np.random.Generator) -> Question:
    return Question("description", "open", say("description", draw), describe(collage))


_ASKED = {
    "name": _name,
    "count": _count,
    "position": _position,
    "choice": _choice,
    "colour": _colour,
    "description": _description,
}
