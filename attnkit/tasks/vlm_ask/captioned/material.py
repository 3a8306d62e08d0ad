"""What the projector is trained on: features of pictures, computed once and kept, and questions about each picture."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attnkit.runtime.errors import ItemError

from ..scenes.questions import Question
from ..scenes.render import patch_targets, render
from ..scenes.scene import COLOURS, HELD_OUT, SHAPES, make_scene
from ..training_batches import draw_more_questions
from .asking import ask_all
from .collage import SIDE, find_photographs, make_collage, patch_owners
from .cutouts import find_cutouts
from .easy_vqa import Asked, read_easy_vqa

# how often a picture of each source is drawn; in the validation collages are of held-out cut-outs, or of known ones in
# new places on new photographs
SHARES = {
    "train": {"collage": 0.6, "scene": 0.25, "easy-vqa": 0.15},
    "validation": {"collage": 0.25, "known collage": 0.35, "scene": 0.25, "easy-vqa": 0.15},
}
GRID = 8
BATCH = 32
# of 255, from which on a pixel of easy-VQA is not ground
DIFFERENT = 40
# raised when pictures or questions of a seed change
VERSION = 3


@dataclass(frozen=True)
class Plan:
    """Pictures of a material: how many for training and for validation, the seed, the layers kept, the precision."""

    pictures: int
    validation: int
    seed: int
    layers: tuple[int, ...]
    precision: str = "float32"


@dataclass(frozen=True)
class Drawn:
    """A picture [SIDE, SIDE, 3] uint8 and what it shows.

    names   the name of what lies in each patch, or ""
    counts  how many things of each name there are; empty where that is not known
    """

    source: str
    pixels: NDArray[np.uint8]
    questions: list[Question]
    names: list[str]
    counts: dict[str, int]


@dataclass(frozen=True)
class Material:
    """features float16 [pictures, GRID * GRID, D], mapped; and of each picture what `Drawn` says."""

    features: NDArray[np.float16]
    sources: list[str]
    questions: list[list[Question]]
    names: list[list[str]]
    counts: list[dict[str, int]]


class Drawing:
    """Draws the pictures of a data folder; what is held out is drawn from nothing that is trained on."""

    def __init__(self, data: Path, *, held_out: bool) -> None:
        self.held_out = held_out
        self.everything = find_cutouts(data)
        self.known = [one for one in self.everything if not one.held_out]
        # pictographs are drawings: what they teach is tested on stamps
        self.new = [one for one in self.everything if one.held_out and one.code is None]
        self.photographs = find_photographs(data / "photographs" / ("test" if held_out else "train"))
        self.easy_vqa = read_easy_vqa(data, "test" if held_out else "train")

    def draw(self, source: str, seed: int) -> Drawn:
        """The picture of a source and a seed."""
        draw = np.random.default_rng((seed, 13))
        if source.endswith("collage"):
            cutouts = self.new if self.held_out and source == "collage" else self.known
            collage = make_collage(seed + HELD_OUT * self.held_out, cutouts, self.photographs)
            names = [thing.cutout.name for thing in collage.things]
            owners = patch_owners(collage.owners, GRID)
            questions = ask_all(collage, self.everything if self.held_out else self.known, draw)
            patches = [names[one - 1] if one else "" for one in owners]
            return Drawn(source, collage.pixels, questions, patches, Counter(names))
        if source == "scene":
            scene = make_scene(seed + HELD_OUT * self.held_out)
            picture = render(scene, SIDE, float(draw.uniform(0.8, 1.8)))
            targets = patch_targets(scene, picture.owners, GRID)
            names = [f"{COLOURS[one[1] - 1]} {SHAPES[one[0] - 1]}" if one[0] else "" for one in targets.tolist()]
            counts = Counter(thing.name for thing in scene.things)
            return Drawn(source, picture.pixels, draw_more_questions(scene, draw), names, counts)
        asked: Asked = self.easy_vqa[seed % len(self.easy_vqa)]
        pixels = asked.pixels(SIDE)
        names = [asked.name if one else "" for one in patch_owners(_shape(pixels), GRID)]
        return Drawn(source, pixels, asked.some(draw), names, {asked.name: 1} if asked.name else {})


def _shape(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """1 where a pixel differs clearly from the corner, which is ground in easy-VQA."""
    away = np.abs(pixels.astype(np.int16) - pixels[0, 0].astype(np.int16)).max(-1)
    return (away > DIFFERENT).astype(np.uint8)


def drawn_sources(seed: int, part: str, count: int) -> list[str]:
    """The source of each picture of a part, train or validation."""
    draw = np.random.default_rng((seed, 17))
    return draw.choice(list(SHARES[part]), size=count, p=list(SHARES[part].values())).tolist()


def prepare(
    data: Path,
    folder: Path,
    plan: Plan,
    tower: Any,
    inputs: Callable[[NDArray[np.uint8]], Any],
    say: Callable[[str], None],
) -> tuple[Material, Material]:
    """Training and validation material, read from `folder` where it has been made from the same plan, else made there.

    ``tower`` is the vision tower, ``inputs`` turns pictures [B, SIDE, SIDE, 3] uint8 into its pixel values.
    """
    stamp = {"version": VERSION, **asdict(plan), "layers": list(plan.layers)}
    found = folder / "plan.json"
    if not found.is_file() or json.loads(found.read_text(encoding="utf-8")) != stamp:
        folder.mkdir(parents=True, exist_ok=True)
        found.unlink(missing_ok=True)
        for part, count in (("train", plan.pictures), ("validation", plan.validation)):
            drawing = Drawing(data, held_out=part == "validation")
            sources = drawn_sources(plan.seed, part, count)
            drawn = (drawing.draw(source, plan.seed * 10_000_000 + index) for index, source in enumerate(sources))
            _write(folder, part, drawn, count, plan, tower, inputs, say)
        found.write_text(json.dumps(stamp), encoding="utf-8")
    return _read(folder, "train"), _read(folder, "validation")


def features_of(tower: Any, pixels: Any, layers: tuple[int, ...]) -> torch.Tensor:
    """Hidden states [B, GRID * GRID, D] of the patches behind the given layers, side by side."""
    with torch.inference_mode():
        states = tower(pixels, output_hidden_states=True).hidden_states
    return torch.cat([states[layer][:, 1:].float() for layer in layers], -1)


def _write(
    folder: Path, part: str, drawn: Iterator[Drawn], count: int, plan: Plan, tower: Any, inputs: Any, say: Any
) -> None:
    width = tower.config.hidden_size * len(plan.layers)
    kept = np.lib.format.open_memmap(folder / f"{part}.npy", mode="w+", dtype=np.float16, shape=(count, GRID**2, width))
    with open(folder / f"{part}.jsonl.partial", "w", encoding="utf-8") as rows:
        for start in range(0, count, BATCH):
            some = [next(drawn) for _ in range(min(BATCH, count - start))]
            pixels = inputs(np.stack([one.pixels for one in some]))
            with torch.autocast(pixels.device.type, torch.bfloat16, enabled=plan.precision == "bfloat16"):
                kept[start : start + len(some)] = features_of(tower, pixels, plan.layers).cpu().numpy()
            for one in some:
                questions = [asdict(question) for question in one.questions]
                row = {"source": one.source, "names": one.names, "counts": one.counts, "questions": questions}
                rows.write(json.dumps(row) + "\n")
            if start // BATCH % 8 == 0:
                say(f"{part}: {start + len(some)} of {count} pictures")
    kept.flush()
    os.replace(folder / f"{part}.jsonl.partial", folder / f"{part}.jsonl")


def _read(folder: Path, part: str) -> Material:
    features = np.load(folder / f"{part}.npy", mmap_mode="r")
    lines = (folder / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()
    if len(lines) != len(features):
        raise ItemError(f"{folder}: {len(features)} pictures, {len(lines)} lines of questions; remove the folder")
    rows = [json.loads(line) for line in lines]
    return Material(
        features,
        [row["source"] for row in rows],
        [[Question(**question) for question in row["questions"]] for row in rows],
        [row["names"] for row in rows],
        [row["counts"] for row in rows],
    )


def fingerprint(material: Material) -> str:
    """SHA-256 of the questions, which stand for the material in a recipe."""
    texts = json.dumps([[asdict(one) for one in row] for row in material.questions])
    return hashlib.sha256(texts.encode()).hexdigest()
