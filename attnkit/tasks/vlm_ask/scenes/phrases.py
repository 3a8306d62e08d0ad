"""How a question is said: several wordings of each, in British and American spelling."""

from __future__ import annotations

import numpy as np

PICTURES = ("image", "picture")
PHRASES = {
    "existence": (
        "Is there {thing} in the {picture}?",
        "Is there {thing}?",
        "Is there {thing} in this {picture}?",
        "Do you see {thing}?",
        "Can you see {thing} in the {picture}?",
        "Does the {picture} contain {thing}?",
        "Does the {picture} show {thing}?",
    ),
    "anything": (
        "Is there {thing} in the {picture}?",
        "Is there {thing}?",
        "Do you see {thing}?",
        "Can you see {thing} in the {picture}?",
    ),
    "colour": (
        "What {colour_word} is the {thing}?",
        "What is the {colour_word} of the {thing}?",
        "Which {colour_word} is the {thing}?",
        "Which {colour_word} does the {thing} have?",
        "What {colour_word} is the {thing} in the {picture}?",
    ),
    "shape": (
        "What shape is {colour}?",
        "Which shape is {colour}?",
        "What is the {colour} shape?",
        "What shape is the {colour} object?",
        "What is the shape of the {colour} object?",
        "What {colour} object is in the {picture}?",
    ),
    "count": (
        "How many {things} are there?",
        "How many {things} are in the {picture}?",
        "How many {things} are there in the {picture}?",
        "How many {things} do you see?",
        "How many {things} can you see?",
        "What is the number of {things}?",
        "Count the {things}.",
    ),
    "place": (
        "Where is the {thing}?",
        "Where is the {thing} in the {picture}?",
        "Where in the {picture} is the {thing}?",
        "In which part of the {picture} is the {thing}?",
        "What is the position of the {thing}?",
    ),
    "side": (
        "Is the {thing} on the {side} of the {picture}?",
        "Is the {thing} on the {side} side of the {picture}?",
        "Is the {thing} in the {side} half of the {picture}?",
    ),
    "relation": (
        "Is the {thing} {relation} the {other}?",
        "Does the {thing} lie {relation} the {other}?",
    ),
    "side choice": (
        "Is the {thing} on the {first} or on the {second}?",
        "Is the {thing} on the {first} or the {second} of the {picture}?",
        "Is the {thing} on the {first} or on the {second} side of the {picture}?",
        "Is the {thing} in the {first} or in the {second} half of the {picture}?",
        "Which side of the {picture} is the {thing} on, {first} or {second}?",
    ),
    "across choice": (
        "Is the {thing} {first} or {second} of the {other}?",
        "Is the {thing} to the {first} or to the {second} of the {other}?",
        "Is the {thing} on the {first} or on the {second} of the {other}?",
        "Does the {thing} lie {first} or {second} of the {other}?",
    ),
    "down choice": (
        "Is the {thing} {first} or {second} the {other}?",
        "Does the {thing} lie {first} or {second} the {other}?",
    ),
    "neighbour": (
        "What is {relation} the {thing}?",
        "What object is {relation} the {thing}?",
        "What lies {relation} the {thing}?",
    ),
    "description": (
        "Describe the {picture}.",
        "Describe this {picture}.",
        "Please describe the {picture}.",
        "Describe the {picture} in one sentence.",
        "What is in the {picture}?",
        "What do you see?",
        "What does the {picture} show?",
        "What objects are in the {picture}?",
    ),
}
# how benchmarks ask for short answers
YES_OR_NO = (" Answer yes or no.", " Please answer yes or no.", " Please answer this question with yes or no.")
ONE_WORD = (" Answer in one word.", "\nAnswer the question using a single word or phrase.")
# some people write so
OTHER_RELATIONS = {
    "left of": ("to the left of", "on the left of"),
    "right of": ("to the right of", "on the right of"),
    "below": ("under",),
    "above": ("over",),
}


def say(phrase: str, draw: np.random.Generator, **parts: str) -> str:
    """A wording of a kind of question, with its parts filled in; spelling, capitals and the last mark vary."""
    options = PHRASES[phrase]
    text = options[int(draw.integers(len(options)))]
    if "relation" in parts and draw.random() < 0.5:
        others = OTHER_RELATIONS[parts["relation"]]
        parts = {**parts, "relation": others[int(draw.integers(len(others)))]}
    colour_word = "colour" if draw.random() < 0.5 else "color"
    said = text.format(picture=PICTURES[int(draw.random() < 0.3)], colour_word=colour_word, **parts)
    careless = draw.random()
    if careless < 0.08:
        return said[0].lower() + said[1:]
    return said[:-1] if careless < 0.16 else said


def hint(answer: str, draw: np.random.Generator) -> str:
    """Now and then a request for a short answer, to follow the question; none for answers that are sentences."""
    if draw.random() > 0.15 or answer.endswith("."):
        return ""
    options = YES_OR_NO if answer in ("Yes", "No") else ONE_WORD
    return options[int(draw.integers(len(options)))]


def plural(shape: str) -> str:
    """The plural of a shape's name."""
    return f"{shape}es" if shape.endswith("s") else f"{shape}s"


def with_article(name: str) -> str:
    """A name with its indefinite article."""
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
