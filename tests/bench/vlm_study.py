"""What the calibrations gain and lose: accuracy by kind of question for every arm, paired with the plain model.

    python tests/bench/vlm_study.py [--model tiny-llava] [--scenes 60] [--tasks FILE.jsonl] [--arms none,placebo,...]
                                    [--set var.tau=3] [--batch 8] [--json]

Without --tasks the questions are those of generated held-out scenes, --scenes of each clutter; with it they come from
a file in POPE's keys with `kind` (and `clutter`), pictures beside it. An answer is right when it is the label but for
capitals, spaces and the full stop. Differences to the plain model are means over scenes with 95 % bootstrap intervals
over scenes; a cell says "gained / lost" of its questions after them. `carve` also gives the entropy of attention over
the image tokens at the last step of its pass with the question: mean by clutter, and its rank correlation with it.
Printed as Markdown, for the cards.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from PIL import Image
from scipy.stats import spearmanr

from attnkit.models import registry
from attnkit.models.vlm.sinks import known_profile
from attnkit.runtime.values import parse_settings
from attnkit.scoring.bootstrap import bootstrap, scene_means
from attnkit.tasks.vlm_ask.calibrations.settings import arm_name, parse_calibrations, valid_settings
from attnkit.tasks.vlm_ask.scenes.held_out import held_out_tasks, is_right, read_lines
from attnkit.tasks.vlm_ask.scenes.render import render
from attnkit.tasks.vlm_ask.scenes.scene import make_scene
from attnkit.tasks.vlm_ask.task import Decoding, Request, ask

SIDE = 192
MOST_TOKENS = 32


def questions(tasks: Path | None, scenes: int) -> Iterator[tuple[Image.Image, dict[str, Any]]]:
    """Pictures with their tasks."""
    if tasks is None:
        for seed, clutter, asked in held_out_tasks(scenes):
            picture = Image.fromarray(render(make_scene(seed, clutter), SIDE).pixels)
            yield from ((picture, {**task, "scene": str(seed)}) for task in asked if task["kind"] != "description")
        return
    for task in read_lines(tasks):
        # "position (side)" and "position (place)" are one kind here
        kind = task["kind"].partition(" (")[0]
        yield Image.open(tasks.parent / task["image"]), {"clutter": 0, **task, "kind": kind, "scene": task["image"]}


def answered(
    vlm: Any,
    asked: Sequence[tuple[Image.Image, dict[str, Any]]],
    arm: tuple[str, ...],
    settings: dict[str, Any],
    batch: int,
) -> list[Any]:
    """Answers of one arm. Prompts of like length go together, so that little is padding."""
    order = sorted(range(len(asked)), key=lambda place: len(asked[place][1]["text"]))
    found: list[Any] = [None] * len(asked)
    profile = known_profile(vlm)
    for begin in range(0, len(order), batch):
        places = order[begin : begin + batch]
        requests = [Request((asked[place][0],), asked[place][1]["text"]) for place in places]
        made = ask(
            vlm, requests, arm=arm, settings=settings, decoding=Decoding(max_tokens=MOST_TOKENS), profile=profile
        )
        for place, answer in zip(places, made, strict=True):
            found[place] = answer
    return found


def cell(plain: Sequence[bool], other: Sequence[bool], scenes: Sequence[str], baseline: bool) -> str:
    """Per cent right; for arms that are not the plain one, the difference with its interval, and gains / losses."""
    share = f"{100 * np.mean(other):.1f}"
    if baseline:
        mean, low, high = bootstrap(scene_means([100.0 * one for one in other], scenes))
        return f"{share} ({low:.1f} to {high:.1f})"
    difference = [100.0 * (one - two) for one, two in zip(other, plain, strict=True)]
    mean, low, high = bootstrap(scene_means(difference, scenes))
    gained = sum(one and not two for one, two in zip(other, plain, strict=True))
    lost = sum(two and not one for one, two in zip(other, plain, strict=True))
    return f"{share}, {mean:+.1f} ({low:+.1f} to {high:+.1f}), {gained} / {lost}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny-llava")
    parser.add_argument("--scenes", type=int, default=60)
    parser.add_argument("--tasks", type=Path)
    parser.add_argument("--arms", default="none,placebo,var,act,vhr,paint,carve")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    arms = parse_calibrations(given.arms)
    if arms[0] != ():
        parser.error("--arms: the first must be none, which the others are compared with")
    settings = parse_settings(given.set, valid_settings())
    vlm = registry.open_model(given.model, task="vlm-ask")
    asked = list(questions(given.tasks, given.scenes))
    kinds = list(dict.fromkeys(task["kind"] for _, task in asked))
    right: dict[str, list[bool]] = {}
    facts: dict[str, dict[str, Any]] = {}
    for arm in arms:
        answers = answered(vlm, asked, arm, settings, given.batch)
        name = arm_name(arm)
        right[name] = [is_right(answer.text, task["label"]) for answer, (_, task) in zip(answers, asked, strict=True)]
        facts[name] = facts_of(arm, answers, [int(task["clutter"]) for _, task in asked])
    rows = {name: {kind: part(right, name, asked, kind) for kind in (*kinds, "all")} for name in right}
    if given.json:
        print(json.dumps({"model": given.model, "questions": len(asked), "accuracy": rows, "facts": facts}))
        return
    counts = [sum(task["kind"] == kind for _, task in asked) for kind in kinds]
    heads = [f"{kind} ({count})" for kind, count in zip(kinds, counts, strict=True)]
    print("| calibration | " + " | ".join([*heads, f"all ({len(asked)})"]) + " |")
    print("|---" * (len(kinds) + 2) + "|")
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(row[kind] for kind in (*kinds, "all")) + " |")
    for name, told in facts.items():
        print(f"\n{name}: {json.dumps(told)}")


def part(right: dict[str, list[bool]], name: str, asked: Sequence[Any], kind: str) -> str:
    chosen = [place for place, (_, task) in enumerate(asked) if kind in (task["kind"], "all")]
    plain, other = ([right[one][place] for place in chosen] for one in ("none", name))
    return cell(plain, other, [asked[place][1]["scene"] for place in chosen], name == "none")


def facts_of(arm: tuple[str, ...], answers: Sequence[Any], clutters: Sequence[int]) -> dict[str, Any]:
    """How often an arm did anything, and the entropy of attention by clutter where it is known."""
    reports = [answer.reports for answer in answers]
    told: dict[str, Any] = {
        "answers_changed_by_something": sum(all("warning" not in report for report in one.values()) for one in reports)
        if arm
        else 0
    }
    moved = [report["attention_moved"] for one in reports for report in one.values() if "attention_moved" in report]
    if moved:
        told["mean_attention_moved"] = round(float(np.mean(moved)), 4)
    entropies = [
        one["carve"]["pictures"][0]["entropy"] for one in reports if "carve" in one and one["carve"]["pictures"]
    ]
    if entropies and len(entropies) == len(clutters):
        told["entropy_by_clutter"] = {
            str(level): round(float(np.mean([e for e, c in zip(entropies, clutters, strict=True) if c == level])), 4)
            for level in sorted(set(clutters))
        }
        if len(set(clutters)) > 1:
            test = spearmanr(clutters, entropies)
            told["rank_correlation_with_clutter"] = [round(float(test.statistic), 4), float(f"{test.pvalue:.2g}")]
    return told


if __name__ == "__main__":
    main()
