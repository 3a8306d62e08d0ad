"""Held-out questions as files: `python -m attnkit.tasks.vlm_ask.captioned.held_out --data DIR --out FOLDER`.

Writes pictures and one file of tasks per split, in POPE's keys with `kind`, for `attnkit vlm-ask --tasks`:

    collage-new   stamps that no training sees, on photographs that none sees
    collage-seen  stamps and pictographs of the training, on such photographs, as they are not in it
    easy-vqa      test pictures of easy-VQA
    blind         the questions of collage-new about a grey picture: what is right without looking
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..scenes.questions import Question
from .asking import ask_all
from .collage import SIDE, find_photographs, make_collage
from .cutouts import find_cutouts
from .easy_vqa import read_easy_vqa

# behind all seeds of training and validation
FIRST = 2_000_000_000
GREY = 127


def held_out(data: Path, split: str, pictures: int) -> Iterator[tuple[NDArray[np.uint8], list[Question]]]:
    """Pictures [SIDE, SIDE, 3] uint8 of a split with their questions, descriptions left out; the same every time."""
    if split == "easy-vqa":
        asked = read_easy_vqa(data, "test")
        for index in np.random.default_rng(FIRST).permutation(len(asked))[:pictures]:
            yield asked[index].pixels(SIDE), asked[index].some(np.random.default_rng((FIRST, int(index))))
        return
    everything = find_cutouts(data)
    new = split == "collage-new"
    cutouts = [one for one in everything if one.held_out == new and (one.code is None or not new)]
    photographs = find_photographs(data / "photographs" / "test")
    for index in range(pictures):
        collage = make_collage(FIRST + index, cutouts, photographs)
        questions = ask_all(collage, everything, np.random.default_rng((FIRST, index)))
        yield collage.pixels, [question for question in questions if question.kind != "description"]


def write_tasks(data: Path, out: Path, pictures: int) -> dict[str, int]:
    """Write the splits into a folder; returns the number of questions of each."""
    from PIL import Image

    counts = {}
    (out / "pictures").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (SIDE, SIDE), (GREY, GREY, GREY)).save(out / "pictures" / "grey.png")
    for split in ("collage-new", "collage-seen", "easy-vqa"):
        rows: list[dict[str, Any]] = []
        for index, (pixels, questions) in enumerate(held_out(data, split, pictures)):
            name = f"pictures/{split}-{index:04}.png"
            Image.fromarray(pixels).save(out / name)
            for question in questions:
                kind = _kind(question)
                rows.append({"image": name, "text": question.text, "label": question.answer, "kind": kind})
        counts[split] = _write(out, split, rows)
        if split == "collage-new":
            counts["blind"] = _write(out, "blind", [{**row, "image": "pictures/grey.png"} for row in rows])
    return counts


def _kind(question: Question) -> str:
    """Kind, parted where the forms differ in what is right by chance."""
    parted = question.kind in ("position", "name") and question.form != "easy-vqa"
    return f"{question.kind} ({question.form})" if parted else question.kind


def _write(out: Path, split: str, rows: list[dict[str, Any]]) -> int:
    lines = [json.dumps({"question_id": index, **row}) for index, row in enumerate(rows)]
    (out / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(lines)


def main() -> None:
    """Parse the command line and write the files."""
    parser = argparse.ArgumentParser(prog="python -m attnkit.tasks.vlm_ask.captioned.held_out", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--pictures", type=int, default=100, help="of each split")
    given = parser.parse_args()
    print(json.dumps(write_tasks(given.data, given.out, given.pictures)))


if __name__ == "__main__":
    main()
