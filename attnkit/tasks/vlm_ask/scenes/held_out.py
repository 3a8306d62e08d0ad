"""Held-out scenes as files: a folder of pictures with questions in POPE's keys, and how many were answered rightly.

python -m attnkit.tasks.vlm_ask.scenes.held_out write FOLDER [SCENES]
python -m attnkit.tasks.vlm_ask.scenes.held_out score FOLDER/tasks.jsonl ANSWERS.jsonl
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .questions import CHOICES, KINDS, Question, ask, ask_where
from .render import render
from .scene import CLUTTERS, HELD_OUT, make_scene

# twice the size that the embedded model sees: its processor makes them smaller, as it does with every picture
SIDE = 192
# how often a kind is asked of each scene; of those with yes and no as answers more
ASKED = {"existence": 2, "colour": 1, "shape": 1, "count": 1, "position": 2, "description": 1}
# seeds of one level of clutter
STRIDE = 100_000
# 95 %
WIDTH = 1.96


def held_out_tasks(
    scenes: int, clutters: Sequence[int] = CLUTTERS, *, choices: bool = False
) -> Iterator[tuple[int, int, list[dict[str, Any]]]]:
    """Seed, clutter and tasks of `scenes` scenes of each clutter; a task has POPE's keys, kind, form and clutter.

    With `choices` those of kind "choice" follow the others of a scene.
    """
    for clutter in clutters:
        for index in range(scenes):
            seed = HELD_OUT + STRIDE * clutter + index
            scene = make_scene(seed, clutter)
            draw = np.random.default_rng((seed, 2))
            found: dict[str, Question] = {}
            for kind in KINDS:
                for _ in range(ASKED[kind]):
                    question = ask(scene, kind, draw)
                    if question is not None:
                        found.setdefault(question.text, question)
            for form in CHOICES if choices else ():
                chosen = ask_where(scene, form, draw)
                if chosen is not None:
                    found.setdefault(chosen.text, chosen)
            yield (
                seed,
                clutter,
                [
                    {
                        "question_id": f"{seed}-{number}",
                        "image": f"{seed}.png",
                        "text": question.text,
                        "label": question.answer.lower() if question.answer in ("Yes", "No") else question.answer,
                        "kind": question.kind,
                        "form": question.form,
                        "clutter": clutter,
                    }
                    for number, question in enumerate(found.values())
                ],
            )


def write_held_out(folder: Path, scenes: int, clutters: Sequence[int] = CLUTTERS, side: int = SIDE) -> int:
    """Write pictures and tasks.jsonl into a folder, which is made; returns the number of questions."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    with open(folder / "tasks.jsonl", "w", encoding="utf-8") as stream:
        for seed, clutter, tasks in held_out_tasks(scenes, clutters, choices=True):
            Image.fromarray(render(make_scene(seed, clutter), side).pixels).save(folder / f"{seed}.png")
            stream.writelines(json.dumps(task) + "\n" for task in tasks)
            count += len(tasks)
    return count


def is_right(answer: str, label: str) -> bool:
    """Whether an answer is the label but for capitals, spaces and the full stop."""
    first, other = (" ".join(text.lower().split()).rstrip(".") for text in (answer, label))
    return first == other


def interval(right: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    share, square = right / count, WIDTH**2
    middle = (share + square / (2 * count)) / (1 + square / count)
    half = WIDTH / (1 + square / count) * math.sqrt(share * (1 - share) / count + square / (4 * count**2))
    # rounding leaves the limits of none and of all a hair outside
    return max(0.0, middle - half), min(1.0, middle + half)


def score(tasks: Iterable[Mapping[str, Any]], answers: Mapping[str, str]) -> dict[str, dict[str, tuple[int, int]]]:
    """Right answers and questions by kind and by "kind: form", then by clutter; `all` is the sum of either.

    KeyError where a task has no answer.
    """
    table: dict[str, dict[str, list[bool]]] = {}
    for task in tasks:
        right = is_right(answers[task["question_id"]], task["label"])
        for kind in (task["kind"], f"{task['kind']}: {task['form']}", "all"):
            for clutter in (str(task["clutter"]), "all"):
                table.setdefault(kind, {}).setdefault(clutter, []).append(right)
    return {kind: {clutter: (sum(flags), len(flags)) for clutter, flags in row.items()} for kind, row in table.items()}


def print_scores(scores: Mapping[str, Mapping[str, tuple[int, int]]]) -> str:
    """A Markdown table: per cent right with their interval, a row per kind and form, a column per clutter."""
    columns = sorted({column for row in scores.values() for column in row})
    lines = ["| kind | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    order = {kind: place for place, kind in enumerate((*KINDS, "choice", "all"))}
    for kind in sorted(scores, key=lambda name: (order[name.partition(":")[0]], name)):
        cells = []
        for column in columns:
            right, count = scores[kind].get(column, (0, 0))
            low, high = interval(right, count) if count else (0.0, 0.0)
            cells.append(f"{100 * right / count:.1f} ({100 * low:.1f}-{100 * high:.1f}), {count}" if count else "")
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Objects of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def main(arguments: Sequence[str]) -> None:
    """The two commands of the module's docstring."""
    if arguments[:1] == ["write"] and len(arguments) in (2, 3):
        scenes = int(arguments[2]) if len(arguments) == 3 else 100
        print(f"{write_held_out(Path(arguments[1]), scenes)} questions in {arguments[1]}/tasks.jsonl")
    elif arguments[:1] == ["score"] and len(arguments) == 3:
        answers = {str(one.get("question_id", one.get("id"))): one["answer"] for one in read_lines(Path(arguments[2]))}
        print(print_scores(score(read_lines(Path(arguments[1])), answers)))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
