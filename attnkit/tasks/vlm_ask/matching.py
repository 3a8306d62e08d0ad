"""Answers beside what is right: the counts of each question, pair of questions or caption."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from attnkit.runtime.errors import ItemError

from .answer_files import SPLITS, Answer, AnswerFile, image_number, plain_question, split_of, unique_by
from .metrics import chair, mme, pope, vqa
from .metrics.yes_no import Said, is_clear
from .metrics.yes_no import mme as mme_parser
from .reference_files import Question, by_part, image_stem, match_key, paired, questions_within

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .object_table import ObjectTable

WHOLE = "all"


@dataclass(frozen=True)
class Part:
    """The counts of one part of a prediction: a split, a subtask, a type of question, or all of it.

    units      name of each question, pair or caption
    groups     image of each
    counts     [units, columns of the metric]
    missing    units of the reference that were not answered
    unclear    answers that say neither yes nor no
    """

    name: str
    units: tuple[str, ...]
    groups: tuple[str, ...]
    counts: NDArray[np.float64]
    missing: int = 0
    unclear: int = 0

    def only(self, units: Sequence[str]) -> Part:
        """The same part with these units, in this order."""
        places = {unit: at for at, unit in enumerate(self.units)}
        rows = [places[unit] for unit in units]
        return Part(self.name, tuple(units), tuple(self.groups[row] for row in rows), self.counts[rows])


@dataclass
class Matched:
    """The parts of a prediction, a line on each answer that could not be used, and a record of each that was."""

    item: str
    parts: list[Part] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    details: list[dict[str, Any]] = field(default_factory=list)

    def add(self, name: str, units: Mapping[str, tuple[str, Sequence[float]]], missing: int, unclear: int = 0) -> None:
        import numpy as np

        if units:
            groups, counts = zip(*units.values(), strict=True)
            self.parts.append(Part(name, tuple(units), groups, np.array(counts, np.float64), missing, unclear))


def match_pope(file: AnswerFile, questions: Sequence[Question] | None, parse: Callable[[str], Said]) -> Matched:
    """Every answer beside its label, split by split. Raises ItemError where it is not plain what answers what."""
    if questions is None:
        questions = questions_within(file.answers, file.name, people=False)
    found = Matched(file.name, lost=list(file.broken))
    splits = by_part(questions)
    for name, answers in _by_split(file, splits, found).items():
        asked = _answered(file, answers, splits[name], found)
        units = {}
        unclear = 0
        for question, answer in asked:
            said = parse(answer.text)
            unclear += not is_clear(answer.text)
            unit = question.id if question.id is not None else answer.place
            units[unit] = (question.image, pope.count(str(question.truth), said))
            found.details.append(
                {"split": name, "id": unit, "image": question.image, "answer": answer.text, "said": said}
                | {"label": question.truth, "right": said == question.truth}
            )
        number = len({question.id for question in splits[name]}) if splits[name][0].id else len(splits[name])
        found.add(name, units, number - len(units), unclear)
    return _checked(found, file, "a question")


def _by_split(file: AnswerFile, splits: Mapping[str, Sequence[Question]], lost: Matched) -> dict[str, list[Answer]]:
    if len(splits) == 1:
        [name] = splits
        # the ids of one split are those of the others too
        others = set(SPLITS) - {name} if name in SPLITS else set()
        lost.lost += [
            f"{one.place}: of the split {one.part}, the reference has {name}"
            for one in file.answers
            if one.part in others
        ]
        kept = [answer for answer in file.answers if answer.part not in others]
        return {name: kept} if kept else {}
    told = {answer.part for answer in file.answers}
    if told <= set(splits):
        return {name: [answer for answer in file.answers if answer.part == name] for name in splits if name in told}
    stem = PurePath(file.name).stem
    named = next((name for name in (split_of(file.name), stem) if name in splits), None)
    if named is not None:
        return {named: file.answers}
    ids = Counter(question.id for questions in splits.values() for question in questions)
    if None in ids or max(ids.values()) > 1:
        in_turn = _in_turn(file.answers, splits)
        if in_turn:
            return in_turn
        raise ItemError(
            f"{file.name}: got answers without a category, and --ref has the splits {', '.join(splits)} with the same "
            "ids; name the file after its split, or give the file of the split as --ref"
        )
    split = {question.id: name for name, questions in splits.items() for question in questions}
    found: dict[str, list[Answer]] = {}
    for answer in file.answers:
        # an unknown id is told of where the answers are matched
        found.setdefault(split.get(answer.id, next(iter(splits))), []).append(answer)
    return found


def _in_turn(answers: Sequence[Answer], splits: Mapping[str, Sequence[Question]]) -> dict[str, list[Answer]]:
    """Whole splits one after another, told apart by the words of the questions; empty where they are not.

    LLaVA asks all of them in one file, under ids of its own, which are left out here.
    """
    found: dict[str, list[Answer]] = {}
    at = 0
    while at < len(answers):
        for name, questions in splits.items():
            part = answers[at : at + len(questions)]
            if name not in found and len(part) == len(questions) and all(map(_asks, part, questions)):
                found[name] = [replace(answer, id=None) for answer in part]
                at += len(part)
                break
        else:
            return {}
    return found


def _asks(answer: Answer, question: Question) -> bool:
    return bool(answer.question and question.text) and _same_question(answer.question, question.text)


def _answered(
    file: AnswerFile, answers: Sequence[Answer], questions: Sequence[Question], found: Matched
) -> list[tuple[Question, Answer]]:
    """Questions with their answers: by id, or in the order of the questions where answers have none."""
    if all(answer.id is None for answer in answers) or all(question.id is None for question in questions):
        return _in_order(file, answers, questions)
    known = {question.id: question for question in questions}
    with_id = []
    for answer in answers:
        if answer.id is None or answer.id not in known:
            got = "no question_id" if answer.id is None else f"question_id {answer.id}, which the reference lacks"
            found.lost.append(f"{answer.place}: got {got}")
        elif not _same_question(answer.question, known[answer.id].text):
            found.lost.append(
                f"{answer.place}: question_id {answer.id} is {(answer.question or '')[:60]!r}, in the reference "
                f"{known[answer.id].text[:60]!r}; is it another split's?"
            )
        else:
            with_id.append(answer)
    kept, again = unique_by(with_id, [answer.id for answer in with_id])
    found.lost += again
    return [(known[key], answer) for key, answer in kept.items()]


def _same_question(one: str | None, other: str) -> bool:
    """Whether two texts can be the same question: one may have a prompt around it, or a for an; an absent one can."""
    first, second = (re.sub(r"\ban? ", "", plain_question(text)) for text in (one, other))
    return first in second or second in first


def _in_order(
    file: AnswerFile, answers: Sequence[Answer], questions: Sequence[Question]
) -> list[tuple[Question, Answer]]:
    if file.broken:
        raise ItemError(
            f"{file.name}: {file.broken[0]}; answers without question_id go by their order, so none is sure"
        )
    if len(answers) != len(questions):
        raise ItemError(
            f"{file.name}: got {len(answers)} answers without question_id, expected {len(questions)}, in the order of "
            "the questions"
        )
    for answer, question in zip(answers, questions, strict=True):
        if answer.question and question.text and plain_question(answer.question) != plain_question(question.text):
            raise ItemError(
                f"{file.name}: {answer.place} answers {answer.question[:60]!r}, expected {question.text[:60]!r}; "
                "answers without question_id go by the order of the questions"
            )
    return list(zip(questions, answers, strict=True))


def match_mme(file: AnswerFile, questions: Sequence[Question] | None) -> Matched:
    """Both answers about each image of each subtask; an image that lacks one is missing."""
    if questions is None:
        questions = questions_within(file.answers, file.name, people=False)
    found = Matched(file.name, lost=list(file.broken))
    pairs = {(part, image_stem(image)): asked for (part, image), asked in paired(questions).items()}
    for (part, image), asked in pairs.items():
        if len(asked) != 2:
            raise ItemError(
                f"{file.name}: image {image} of {part} has {len(asked)} questions in the reference, expected 2"
            )
    said: dict[tuple[str, str], dict[int, Answer]] = {}
    parts = {part for part, _ in pairs}
    for answer in file.answers:
        key, at, problem = _pair_of(answer, pairs, parts, said)
        if problem:
            found.lost.append(f"{answer.place}: {problem}")
        else:
            said.setdefault(key, {})[at] = answer
    for name in dict.fromkeys(part for part, _ in pairs):
        units = {}
        unclear = 0
        images = [image for part, image in pairs if part == name]
        for image in images:
            answers = said.get((name, image), {})
            right = []
            for at, question in enumerate(pairs[name, image]):
                if at not in answers:
                    continue
                heard = mme_parser(answers[at].text)
                unclear += heard == "other"
                right.append(heard == question.truth)
                found.details.append(
                    {"subtask": name, "image": image, "question": question.text, "answer": answers[at].text}
                    | {"said": heard, "label": question.truth, "right": heard == question.truth}
                )
            if len(right) == 2:
                units[image] = (f"{name}/{image}", mme.count((right[0], right[1])))
        found.add(name, units, len(images) - len(units), unclear)
    return _checked(found, file, "an image of a subtask")


def _pair_of(
    answer: Answer,
    pairs: Mapping[tuple[str, str], Sequence[Question]],
    parts: set[str],
    said: Mapping[tuple[str, str], Mapping[int, Answer]],
) -> tuple[tuple[str, str], int, str]:
    """Which pair an answer belongs to, which of its questions it answers, and what is wrong where it is none."""
    told = answer.id or ""
    part = answer.part or told.rpartition("/")[0] or (next(iter(parts)) if len(parts) == 1 else "")
    key = (part, image_stem(answer.image or told))
    if key not in pairs:
        return key, 0, f"image {key[1] or 'none'} of subtask {part or 'none'}: the reference has no such questions"
    heard = said.get(key, {})
    if answer.question:
        words = plain_question(answer.question)
        # where both questions were the same words, order decides
        fits = [at for at, question in enumerate(pairs[key]) if match_key(question)[1] == words]
        if not fits and any(question.text for question in pairs[key]):
            return key, 0, f"{answer.question[:60]!r}: the reference has other questions about image {key[1]} of {part}"
    else:
        fits = [0, 1]
    free = [at for at in fits or [0, 1] if at not in heard]
    return (key, free[0], "") if free else (key, 0, f"image {key[1]} of {part}: answered before; the first counts")


def match_vqa(file: AnswerFile, questions: Sequence[Question] | None) -> Matched:
    """The consensus with the answers of people, over all questions and over each type of answer."""
    if questions is None:
        questions = questions_within(file.answers, file.name, people=True)
    found = Matched(file.name, lost=list(file.broken))
    asked = _answered(file, file.answers, questions, found)
    kinds: dict[str, dict[str, tuple[str, Sequence[float]]]] = {WHOLE: {}}
    for question, answer in asked:
        score = vqa.consensus(answer.text, question.truth)
        unit = question.id if question.id is not None else answer.place
        for kind in dict.fromkeys((WHOLE, question.part or WHOLE)):
            kinds.setdefault(kind, {})[unit] = (question.image, (score, 1.0))
        found.details.append(
            {"id": unit, "image": question.image, "answer": answer.text, "normalised": vqa.normalise(answer.text)}
            | {"accuracy_percent": 100 * score}
        )
    numbers = Counter(question.part for question in questions)
    for kind in sorted(kinds, key=lambda kind: (kind != WHOLE, kind)):
        number = len(questions) if kind == WHOLE else numbers[kind]
        found.add(kind, kinds[kind], number - len(kinds[kind]))
    return _checked(found, file, "a question")


def match_chair(file: AnswerFile, table: ObjectTable) -> Matched:
    """The objects that captions name, beside those of their images."""
    found = Matched(file.name, lost=list(file.broken))
    known, numbers = [], []
    for answer in file.answers:
        number = image_number(answer.image if answer.image is not None else answer.id)
        if number is None or number not in table.objects:
            got = "no image_id" if number is None else f"image {number}, which the reference lacks"
            found.lost.append(f"{answer.place}: got {got}")
        else:
            known.append(answer)
            numbers.append(number)
    kept, again = unique_by(known, numbers)
    found.lost += again
    units = {}
    for number, answer in kept.items():
        named = chair.mentions(answer.text, table.vocabulary)
        present = table.objects[number]
        units[number] = (number, chair.count(named, present, len(chair.tokens(answer.text))))
        found.details.append(
            {"image_id": int(number), "caption": answer.text, "named": named, "present": sorted(present)}
            | {"hallucinated": [pair for pair in named if pair[1] not in present]}
        )
    found.add(WHOLE, units, 0)
    return _checked(found, file, "an image")


def _checked(found: Matched, file: AnswerFile, what: str) -> Matched:
    if not found.parts:
        first = found.lost[0] if found.lost else "nothing was answered"
        raise ItemError(f"{file.name}: no answer is to {what} of the reference: {first}; is it another data set's?")
    return found
