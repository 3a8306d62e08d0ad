"""What three adapters of a similar size learn of easy-VQA beside a frozen model, and what they take from it.

    python -m pip download --no-deps easy-vqa==1.0 && unzip easy_vqa-1.0-py3-none-any.whl -d easy
    python tests/bench/adapters.py easy/easy_vqa/data

easy-VQA (MIT): one shape of eight colours on a plain picture of 64 x 64 pixels, with words and phrasings that the
generated scenes of the embedded model do not have. Training is on pictures of its training part, scores are of its test
part and of held-out scenes; each answer is generated greedily and must be the expected words. Intervals are Wilson's of
95 %; the questions of one picture are not independent, so they are somewhat too narrow.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from attnkit.models import registry
from attnkit.models.adapters.files import load_adapter
from attnkit.tasks.vlm_ask.adapter_training import AdapterRecipe, train_adapter
from attnkit.tasks.vlm_ask.scenes.held_out import held_out_tasks, interval, is_right
from attnkit.tasks.vlm_ask.scenes.render import render
from attnkit.tasks.vlm_ask.scenes.scene import make_scene
from attnkit.tasks.vlm_ask.task import Decoding, Request, ask

# about 95,000 parameters each on the embedded model
ADAPTERS: dict[str, dict[str, Any]] = {
    "p-adapter": {},
    "adapter": {"reduction": 6},
    "lora": {"rank": 37, "alpha": 74.0},
}
SHAPES = ("circle", "rectangle", "triangle")
BATCH, SIDE = 32, 192

Task = tuple[Image.Image, str, str, str]


def easy_questions(data: Path, part: str, pictures: int) -> list[tuple[Path, str, str]]:
    """Picture, question and answer of the first pictures of a part of easy-VQA."""
    rows = json.loads((data / part / "questions.json").read_text())
    folder = data / part / "images"
    return [(folder / f"{number}.png", question, answer) for question, answer, number in rows if number < pictures]


def group(answer: str) -> str:
    return "yes / no" if answer in ("yes", "no") else "shape" if answer in SHAPES else "colour"


def easy_tasks(data: Path, pictures: int) -> list[Task]:
    rows = easy_questions(data, "test", pictures)
    return [(Image.open(path).convert("RGB"), question, answer, group(answer)) for path, question, answer in rows]


def scene_tasks(scenes: int) -> list[Task]:
    """Held-out scenes of the two plainer levels of clutter."""
    found = []
    for seed, clutter, tasks in held_out_tasks(scenes, (0, 1)):
        picture = Image.fromarray(render(make_scene(seed, clutter), SIDE).pixels)
        found += [(picture, task["text"], task["label"], "scenes") for task in tasks]
    return found


def right(vlm: Any, tasks: Sequence[Task]) -> dict[str, list[bool]]:
    """Whether each answer was right, by group."""
    found: dict[str, list[bool]] = defaultdict(list)
    for start in range(0, len(tasks), BATCH):
        part = tasks[start : start + BATCH]
        requests = [Request((picture,), question) for picture, question, _, _ in part]
        answers = ask(vlm, requests, decoding=Decoding(max_tokens=40))
        for answer, (_, _, wanted, name) in zip(answers, part, strict=True):
            found[name].append(is_right(answer.text, wanted))
    return found


def by_words(data: Path, training: Sequence[tuple[Path, str, str]], pictures: int) -> dict[str, list[bool]]:
    """The answer that was most frequent for the same words of the question, whatever the picture."""
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for _, question, answer in training:
        answers[question][answer] += 1
    found: dict[str, list[bool]] = defaultdict(list)
    for _, question, wanted in easy_questions(data, "test", pictures):
        best = answers[question].most_common(1)
        found[group(wanted)].append(bool(best) and best[0][0] == wanted)
    return found


def cell(flags: Sequence[bool]) -> str:
    if not flags:
        return ""
    low, high = interval(sum(flags), len(flags))
    return f"{100 * np.mean(flags):.1f} ({100 * max(low, 0):.1f}-{100 * min(high, 1):.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="tiny-llava")
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--minutes", type=float, default=3.0, help="most for each")
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--pictures", type=int, default=500, help="to train on")
    parser.add_argument("--test-pictures", type=int, default=60)
    parser.add_argument("--scenes", type=int, default=30, help="of each of two levels of clutter")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--adapters", default=",".join(ADAPTERS))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    vlm = registry.open_model(given.model, task="vlm-ask")
    easy, scenes = easy_tasks(given.data, given.test_pictures), scene_tasks(given.scenes)
    training = easy_questions(given.data, "train", given.pictures)
    print(
        f"{len(training)} questions on {given.pictures} pictures to train on; {len(easy)} on {given.test_pictures} and "
        f"{len(scenes)} on {2 * given.scenes} scenes to score; {given.steps} steps of 16, rate {given.rate:g}\n"
    )
    names = ("yes / no", "colour", "shape", "all", "scenes")
    print("| adapter | parameters | minutes | " + " | ".join(names) + " |\n|" + "---|" * (len(names) + 3), flush=True)

    def row(name: str, parameters: int | str, minutes: float | str, flags: dict[str, list[bool]]) -> None:
        flags["all"] = [one for group, found in flags.items() if group != "scenes" for one in found]
        cells = " | ".join(cell(flags[group]) for group in names)
        print(f"| {name} | {parameters} | {minutes} | {cells} |", flush=True)

    row("by words alone", "", "", by_words(given.data, training, given.test_pictures))
    row("none", 0, 0, {**right(vlm, easy), **right(vlm, scenes)})
    with tempfile.TemporaryDirectory() as folder:
        questions = Path(folder) / "questions.jsonl"
        lines = ({"image": str(path.resolve()), "question": text, "answer": answer} for path, text, answer in training)
        questions.write_text("\n".join(json.dumps(line) for line in lines))
        for kind in given.adapters.split(","):
            out = Path(folder) / f"{kind}.safetensors"
            recipe = AdapterRecipe(
                kind=kind, settings=ADAPTERS[kind], seed=given.seed, steps=given.steps, minutes=given.minutes,
                rate=given.rate, held_out=0.02,
            )  # fmt: skip
            made = train_adapter(vlm, questions, out, recipe, base=given.model)
            attachment = load_adapter(out, vlm.model)
            try:
                row(kind, made["parameters"], made["minutes"], {**right(vlm, easy), **right(vlm, scenes)})
            finally:
                attachment.detach()


if __name__ == "__main__":
    main()
