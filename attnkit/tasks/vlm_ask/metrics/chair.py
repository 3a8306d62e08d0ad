"""CHAIR: objects that a caption names and the image does not have."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from .pope import share

if TYPE_CHECKING:
    from numpy.typing import NDArray

COLUMNS = ("captions", "hallucinated_captions", "mentions", "hallucinated", "found", "present", "named", "words")
MEASURES = {
    "chair_s_percent": ("CHAIR_S (%)", 2),
    "chair_i_percent": ("CHAIR_I (%)", 2),
    "recall_percent": ("recall (%)", 2),
    "precision_percent": ("precision (%)", 2),
    "f1_percent": ("F1 (%)", 2),
    "words": ("words", 1),
}
# beside these, words that also mean people say how old the animal is, or what the vehicle is for
_ANIMALS = ("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "animal", "cub")
_RULES = {f"{age} {animal}": animal for age in ("baby", "adult") for animal in _ANIMALS}
_RULES |= {f"passenger {vehicle}": vehicle for vehicle in ("jet", "train")}
_RULES |= {"bow tie": "tie", "toilet seat": "toilet"}
# no object at all: they keep a plate and a train from counting
_RULES |= {name: name for name in ("home plate", "train track")}
_IRREGULAR = {
    "children": "child", "feet": "foot", "geese": "goose", "mice": "mouse", "oxen": "ox", "people": "person",
    "teeth": "tooth",
}  # fmt: skip
# as treebanks cut text: contractions in two, signs alone, words with their inner hyphens and points
_TOKEN = re.compile(r"\w+?(?=n't\b)|n't\b|'(?:s|m|d|re|ve|ll)\b|\w+(?:[-./&]\w+)*|[^\w\s]")


@dataclass(frozen=True)
class Vocabulary:
    """The words that name objects.

    classes    word as it stands in the list of synonyms -> class; a blank before a word stays, so that it never counts
    """

    classes: Mapping[str, str]

    @classmethod
    def of_lines(cls, lines: Iterable[Sequence[str]]) -> Vocabulary:
        """From the words of each class, of which the first is the class."""
        return cls({word: words[0] for words in lines for word in words})

    @cached_property
    def pairs(self) -> Mapping[str, str]:
        """Two words that are read as one name -> that name."""
        stripped = [word.strip() for word in self.classes]
        return {word: word for word in stripped if word.count(" ") == 1} | _RULES

    @cached_property
    def known(self) -> frozenset[str]:
        return frozenset([*self.classes, *(part for pair in self.pairs for part in pair.split())])

    def lines(self) -> list[list[str]]:
        """The words of each class, the class first."""
        found: dict[str, list[str]] = {}
        for word, name in self.classes.items():
            found.setdefault(name, [name])
            if word != name:
                found[name].append(word)
        return list(found.values())


def tokens(caption: str) -> list[str]:
    """Words and signs of a caption, in lower case; their number is the length of the caption."""
    return _TOKEN.findall(caption.lower())


def mentions(caption: str, vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """(word, class) of every object that a caption names, in order; the same object may be named again.

    Notes:
        Rohrbach et al., "Object hallucination in image captioning", section 3. Plurals are made singular only where
        that gives a word of the vocabulary, where the paper asks a dictionary.
    """
    words = [_singular(token, vocabulary.known) for token in tokens(caption)]
    merged = []
    at = 0
    while at < len(words):
        pair = " ".join(words[at : at + 2])
        merged.append(vocabulary.pairs.get(pair, words[at]))
        at += 2 if pair in vocabulary.pairs else 1
    if "toilet" in merged:
        merged = [word for word in merged if word != "seat"]
    return [(word, vocabulary.classes[word]) for word in merged if word in vocabulary.classes]


def _singular(word: str, known: Collection[str]) -> str:
    if word in known:
        return word
    found = [_IRREGULAR.get(word, word)]
    for plural, singulars in (("men", ["man"]), ("ves", ["f", "fe"]), ("ies", ["y"]), ("es", [""]), ("s", [""])):
        if word.endswith(plural):
            found += [word.removesuffix(plural) + singular for singular in singulars]
    return next((one for one in found if one in known), word)


def count(named: Sequence[tuple[str, str]], present: Collection[str], words: int) -> tuple[int, ...]:
    """The counts of one caption.

    named      what `mentions` gives
    present    classes that the image has
    words      length of the caption
    """
    wrong = sum(name not in present for _, name in named)
    distinct = {name for _, name in named}
    found = len(distinct & set(present))
    return (1, int(wrong > 0), len(named), wrong, found, len(set(present)), len(distinct), words)


def measures(sums: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Percent of captions with a hallucination and of mentions that are one; recall, precision, F1; mean length.

    CHAIR_I counts mentions, the same object as often as it is named. Recall and precision count distinct classes, and
    are ratios of sums over all captions. Precision, F1 and CHAIR_I are 0 where no object is named.

    Notes:
        Rohrbach et al., "Object hallucination in image captioning", equations 1 and 2; recall, precision and F1 as
        those who calibrate attention report them.
    """
    captions, wrong_captions, named, wrong, found, present, distinct, words = (
        sums[..., at] for at in range(len(COLUMNS))
    )
    recall, precision = share(found, present), share(found, distinct, empty=0.0)
    return {
        "chair_s_percent": 100 * share(wrong_captions, captions),
        "chair_i_percent": 100 * share(wrong, named, empty=0.0),
        "recall_percent": 100 * recall,
        "precision_percent": 100 * precision,
        "f1_percent": 100 * share(2 * precision * recall, precision + recall, empty=0.0),
        "words": share(words, captions),
    }


def right(counts: NDArray[Any]) -> NDArray[Any]:
    """Which of the captions [captions, columns] have no hallucination."""
    return counts[:, 1] == 0
