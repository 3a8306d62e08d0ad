"""VQA accuracy: how many of ten people gave the answer, each of them left out once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from .pope import share

if TYPE_CHECKING:
    from numpy.typing import NDArray

COLUMNS = ("accuracy", "questions")
MEASURES = {"accuracy_percent": ("accuracy (%)", 2)}

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {"none": "0"} | {word: str(at) for at, word in enumerate(_NUMBERS)}
_ARTICLES = frozenset({"a", "an", "the"})
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'


def _contractions() -> dict[str, str]:
    """Contractions that lost their apostrophe -> as they are written; those that are words themselves are left out."""
    endings = {
        "nt": "ai are ca could did does do had has have is might must need ought sha should was were wo would",
        "ve": "could might must not should they we what where who would you",
        "d": "he how it someone something there they where who you",
        "ll": "how it somebody someone something they what who why you",
        "s": "he how somebody someone that there what when where who why",
        "re": "there they what why you",
    }
    found = {}
    for ending, words in endings.items():
        written = "n't" if ending == "nt" else f"'{ending}"
        found.update({word + ending: word + written for word in words.split()})
    doubled = {
        "n't": "could had might should would",
        "'d": "he it she somebody someone something there they we who y'all you",
    }
    for word in [word + ending for ending, words in doubled.items() for word in words.split()]:
        head, _, tail = word.rpartition("'")
        found.update({f"{head}{tail}'ve": f"{word}'ve", f"{word}ve": f"{word}'ve"})
    return found | {"maam": "ma'am", "oclock": "o'clock", "twas": "'twas", "yall": "y'all"}


_CONTRACTIONS = _contractions()


# people say the same things again and again
@lru_cache(maxsize=1 << 18)
def normalise(answer: str) -> str:
    """An answer as answers are compared: punctuation, case, number words, articles and contractions made alike.

    A sign of punctuation that stands beside a blank, or in an answer with a comma between digits, is dropped; others
    become a blank. A full stop goes unless a digit follows. The words none and zero to ten become digits.

    Notes:
        Antol et al., "VQA: visual question answering", as its evaluation server does it. Answers of people are made
        alike too, those that all agree included.
    """
    text = answer.replace("\n", " ").replace("\t", " ").strip()
    in_number = re.search(r"\d,\d", text) is not None
    cleaned = text
    for sign in _PUNCTUATION:
        dropped = in_number or f"{sign} " in text or f" {sign}" in text
        cleaned = cleaned.replace(sign, "" if dropped else " ")
    cleaned = re.sub(r"\.(?!\d)", "", cleaned)
    words = [_DIGITS.get(word, word) for word in cleaned.lower().split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def consensus(answer: str, people: Sequence[str]) -> float:
    """min(1, matches / 3) among the others, averaged over leaving each of the people out; 0 to 1.

    With one person alone nobody is left to agree, so the answer counts by itself: 1 or 0.
    """
    said = normalise(answer)
    same = [normalise(other) == said for other in people]
    if len(same) == 1:
        return float(same[0])
    matches = sum(same)
    return sum(min(1.0, (matches - one) / 3) for one in same) / len(same)


def measures(sums: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Mean consensus in percent."""
    return {"accuracy_percent": 100 * share(sums[..., 0], sums[..., 1])}
