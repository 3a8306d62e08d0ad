"""Yes or no: what an answer in words counts as, by the rules of those who published scores."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Literal

Said = Literal["yes", "no", "other"]


def pope(answer: str) -> Said:
    """No if the first sentence has the word No, not or no; all else is yes, an empty answer too.

    Notes:
        Li et al., "Evaluating object hallucination in large vision-language models", as its scripts and those of
        LLaVA do it: "NO", "Nope" and "cannot see it" are yes, "Yes, no doubt" is no.
    """
    words = answer.partition(".")[0].replace(",", "").split(" ")
    return "no" if any(word in ("No", "not", "no") for word in words) else "yes"


def pai(answer: str) -> Said:
    """As PAI and PAINT read it: the whole answer, with NO and words in n't among those that deny."""
    words = answer.replace(".", "").replace(",", "").split(" ")
    return "no" if any(word in ("No", "not", "no", "NO") or word.endswith("n't") for word in words) else "yes"


def exact(answer: str) -> Said:
    """As lmms-eval reads POPE: the whole answer is yes or no in any case, or it is neither."""
    said = answer.lower().strip()
    return said if said in ("yes", "no") else "other"  # type: ignore[return-value]


def mme(answer: str) -> Said:
    """As lmms-eval reads MME: yes or no alone, y or n, or within the first four characters; else neither."""
    said = answer.lower().strip().replace(".", "")
    if len(said) == 1:
        return {"y": "yes", "n": "no"}.get(said, "other")  # type: ignore[return-value]
    return "yes" if "yes" in said[:4] else "no" if "no" in said[:4] else "other"


PARSERS: Mapping[str, Callable[[str], Said]] = {"pope": pope, "pai": pai, "exact": exact}


def is_clear(answer: str) -> bool:
    """Whether an answer has the word yes or the word no, whatever the rules make of it."""
    return re.search(r"\b(yes|no)\b", answer.lower()) is not None
