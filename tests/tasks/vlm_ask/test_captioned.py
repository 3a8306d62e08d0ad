"""The material of smol-llava's training: names, collages, questions that are true, and what is kept for tests."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from attnkit.runtime.errors import UsageError
from attnkit.tasks.vlm_ask.captioned.asking import NUMBERS, ask, colour_of, describe
from attnkit.tasks.vlm_ask.captioned.collage import SIDE, Collage, Placed, find_photographs, make_collage, patch_owners
from attnkit.tasks.vlm_ask.captioned.cutouts import Cutout, find_cutouts, name_in, plural, read_cutout
from attnkit.tasks.vlm_ask.captioned.easy_vqa import read_easy_vqa
from attnkit.tasks.vlm_ask.captioned.grounding import Grounding, ground, patch_places
from attnkit.tasks.vlm_ask.captioned.held_out import held_out
from attnkit.tasks.vlm_ask.captioned.material import GRID, Drawing
from attnkit.tasks.vlm_ask.captioned.references import References
from attnkit.tasks.vlm_ask.scenes.questions import PLACES

THINGS = {
    "food/fruit/apple": ("A red apple.", "red"), "food/fruit/lemon": ("A yellow lemon!", "yellow"),
    "animals/birds/heron": ("A great blue heron.", "blue"), "animals/mammals/cat": ("A cat.", "black"),
    "vehicles/bus": ("A green bus.", "green"), "clothes/hats/hat": ("A hat—or a cap.", "purple"),
    "household/mug": ("A mug.", "white"), "food/nuts/nut": ("A walnut.", "orange"),
    "symbols/letter": ("A letter.", "black"), "town/flags/flag": ("This flag has no name", "red"),
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder in small: drawn stamps, two photographs, two pictures of easy-VQA."""
    root = tmp_path_factory.mktemp("data")
    for place, (caption, colour) in THINGS.items():
        picture = root / "stamps" / f"{place}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        canvas = Image.new("RGBA", (150, 120), (0, 0, 0, 0))
        ImageDraw.Draw(canvas).ellipse((20, 10, 130, 110), fill=colour)
        canvas.save(picture)
        picture.with_suffix(".txt").write_text(f"{caption}\nde.utf8=Ein Ding.\n", encoding="utf-8")
    for part in ("train", "test"):
        (root / "photographs" / part).mkdir(parents=True)
        noise = np.random.default_rng(len(part)).integers(0, 255, (90, 120, 3), np.uint8)
        Image.fromarray(noise).resize((480, 360)).save(root / "photographs" / part / f"{part}.png")
        images = root / "easy_vqa" / part / "images"
        images.mkdir(parents=True)
        for index in range(2):
            Image.new("RGB", (64, 64), "white").save(images / f"{index}.png")
        asked = [
            ["is there a circle?", "yes", 0],
            ["what color is the shape?", "teal", 0],
            ["what shape is it?", "circle", 1],
        ]
        (images.parent / "questions.json").write_text(json.dumps(asked))
    return root


@pytest.mark.parametrize(
    ("caption", "name"),
    [
        ("A brown hen.", "brown hen"),
        ("A peacock (a male peafowl).", "peacock"),
        ("A “Granny Smith” apple.", "granny smith apple"),
        ("A hat—or a cap.", "hat"),
        ("Eat your broccoli!", None),
        ("A ripe, red tomato!", None),
        ("A glass of water.", None),
        ("The baby of a gnu.", None),
        ("A hoverfly resembles a honeybee drone.", None),
        ("", None),
    ],
)
def test_captions_that_are_names(caption: str, name: str | None) -> None:
    assert name_in(caption) == name


def test_plurals() -> None:
    names = ("bus", "cherry", "toy", "moon wrasse", "clownfish", "mouse", "peach", "box")
    assert [plural(name) for name in names] == [
        "buses", "cherries", "toys", "moon wrasses", "clownfish", "mice", "peaches", "boxes",
    ]  # fmt: skip


def test_cutouts_have_names_groups_and_no_border(data: Path) -> None:
    cutouts = {one.name: one for one in find_cutouts(data)}
    assert set(cutouts) == {"red apple", "yellow lemon", "great blue heron", "cat", "green bus", "hat", "mug", "walnut"}
    assert cutouts["great blue heron"].groups == {"bird", "animal"} and cutouts["walnut"].groups == {"food"}
    seen = read_cutout(cutouts["green bus"])
    assert max(seen.shape[:2]) == 104 and seen[..., 3].any(0).all() and seen[..., 3].any(1).all()
    assert {name: colour_of(read_cutout(one)) for name, one in cutouts.items()} == {
        "red apple": "red", "yellow lemon": "yellow", "great blue heron": "blue", "cat": "black", "green bus": "green",
        "hat": "purple", "mug": "white", "walnut": "orange",
    }  # fmt: skip
    with pytest.raises(UsageError, match="no captioned cut-outs"):
        find_cutouts(data / "photographs")


def test_what_is_held_out_depends_on_the_file_name_alone(data: Path, tmp_path: Path) -> None:
    here = [Cutout("x", None, "x", data / f"{index}.png") for index in range(400)]
    there = [replace(one, path=tmp_path / one.path.name, name="y") for one in here]
    assert [one.held_out for one in here] == [one.held_out for one in there]
    assert 0.12 < np.mean([one.held_out for one in here]) < 0.28


def test_held_out_splits_share_no_cutout(data: Path) -> None:
    names = {split: set() for split in ("collage-new", "collage-seen")}
    for split, found in names.items():
        for _, questions in held_out(data, split, 12):
            found |= {question.answer for question in questions if question.kind == "name"}
    assert names["collage-new"] and names["collage-seen"] and not names["collage-new"] & names["collage-seen"]


def test_collage_is_reproducible_and_says_where_things_are(data: Path) -> None:
    cutouts, photographs = find_cutouts(data), find_photographs(data / "photographs" / "train")
    for seed in range(8):
        one, other = (make_collage(seed, cutouts, photographs) for _ in range(2))
        assert np.array_equal(one.pixels, other.pixels) and one.things == other.things
        assert 1 <= len(one.things) <= 5 and one.pixels.shape == (SIDE, SIDE, 3)
        for index, thing in enumerate(one.things):
            rows, columns = np.nonzero(one.owners == index + 1)
            # pixels on a box's edge belong to it by half
            box = np.array([thing.top, thing.left, thing.bottom, thing.right]) * SIDE
            seen = np.array([rows.min(), columns.min(), rows.max() + 1, columns.max() + 1])
            assert np.abs(box - seen).max() <= 0.1 * SIDE


def test_owners_of_patches() -> None:
    owners = np.zeros((16, 16), np.uint8)
    owners[:6, :8] = 1
    owners[6:8, :8] = 2
    owners[8:, 8:] = 2
    owners[0, 8] = 3
    assert patch_owners(owners, 2).tolist() == [1, 0, 0, 2]


def scene_of(*placed: tuple[str, str, float, float]) -> Collage:
    """A collage of things given by name, group, row and column; its pixels do not matter."""
    things = tuple(
        Placed(
            Cutout(name, group, f"{group}/{name}", Path(f"{name}.png")),
            row - 0.1,
            column - 0.1,
            row + 0.1,
            column + 0.1,
        )
        for name, group, row, column in placed
    )
    return Collage(np.zeros((SIDE, SIDE, 3), np.uint8), things, np.zeros((SIDE, SIDE), np.uint8))


def test_answers_follow_from_what_was_pasted() -> None:
    collage = scene_of(("cat", "animal", 0.15, 0.15), ("pear", "fruit", 0.85, 0.5), ("pear", "fruit", 0.85, 0.85))
    others = [Cutout(name, "animal", f"animal/{name}", Path(name)) for name in ("dog", "frog", "wild cat")]
    assert describe(collage) == "The image shows a cat and two pears."
    draw = np.random.default_rng(0)
    seen: dict[str, set[Any]] = {}
    for kind in ("existence", "count", "name", "position", "choice", "description"):
        for _ in range(80):
            question = ask(collage, kind, others, draw)
            if question is None:
                continue
            said = question.text.lower()
            seen.setdefault(kind, set()).add(question.answer)
            if kind == "count":
                wanted = "1" if "cats" in said else "2" if "pears" in said else "3"
                assert question.answer == wanted
            if kind == "existence":
                # what shares its noun with something pasted is not asked for as absent
                assert "wild cat" not in said
                there = any(word in said for word in (" cat", "pear", "fruit", "food", "an animal"))
                assert question.answer == ("Yes" if there else "No")
            if kind == "position" and question.form == "place":
                assert "cat" in said and question.answer == "top left"
            if question.form == "side" and kind != "name":
                # yes or no for what is asked, else the side itself
                sides = {word for word in ("left", "right", "top", "bottom") if word in said.split("cat ")[-1] + said}
                assert kind == "choice" or (question.answer == "Yes") == bool(sides & {"left", "top"})
                assert kind == "position" or question.answer in {"left", "top"} & sides
            if kind == "name" and question.form == "group":
                assert question.answer == ("cat" if "animal" in said else "pear")
    assert seen["choice"] == {"left", "top"}
    assert seen["existence"] == {"Yes", "No"} and {"cat", "pear"} <= seen["name"] and seen["position"] >= {"Yes", "No"}
    assert NUMBERS[2] == "two"


def test_relations_follow_from_where_two_things_lie() -> None:
    collage = scene_of(("cat", "animal", 0.5, 0.2), ("pear", "fruit", 0.55, 0.7))
    draw = np.random.default_rng(0)
    asked = [ask(collage, kind, [], draw) for kind in ("position", "choice") for _ in range(200)]
    found = [question for question in asked if question is not None and question.form == "relation"]
    seen = set()
    for question in found:
        said = question.text.lower()
        # too near to say which is above
        assert not re.search("above|below|over|under", said)
        cat_first = said.index("cat") < said.index("pear")
        if question.kind == "choice":
            assert question.answer == ("left" if cat_first else "right")
        else:
            assert question.answer == ("Yes" if cat_first == ("left" in said) else "No")
        seen.add((question.kind, question.answer))
    assert seen == {("position", "Yes"), ("position", "No"), ("choice", "left"), ("choice", "right")}


def test_easy_vqa_is_read_by_picture(data: Path) -> None:
    first, second = read_easy_vqa(data, "train")
    assert [(one.kind, one.text, one.answer) for one in first.questions] == [
        ("existence", "Is there a circle?", "Yes"),
        ("colour", "What color is the shape?", "teal"),
    ]
    assert second.questions[0].kind == "shape" and second.pixels(SIDE).shape == (SIDE, SIDE, 3)


def test_grounding_puts_patches_where_their_words_are() -> None:
    draw = torch.Generator().manual_seed(0)
    names = ["four", "one", "three", "two"]
    directions, words = torch.randn(5, 24, generator=draw), torch.randn(20, 16, generator=draw)
    labels = torch.randint(0, 5, (60, GRID**2), generator=draw)
    labels[0] = 0
    # a patch shows what it holds, and a little of where it lies
    features = directions[labels] + 0.05 * torch.randn(60, GRID**2, 24, generator=draw)
    features += 0.4 * torch.randn(9, 24, generator=draw)[patch_places()]
    material: Any = SimpleNamespace(
        features=features.half().numpy(), names=[[(["", *names])[one] for one in row] for row in labels.tolist()]
    )
    known = ["background", *names, *(place for row in PLACES for place in row)]
    index = {f" {name}": place for place, name in enumerate(known)}
    tokenizer = lambda text, **_: SimpleNamespace(input_ids=[index[text]])  # noqa: E731
    grounding = Grounding.of(material, tokenizer, words)
    assert (grounding.labels[0] == -1).all() and np.array_equal(grounding.labels[1:], labels[1:])

    class Projector(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear_1, self.linear_2 = torch.nn.Linear(24, 32), torch.nn.Linear(32, 16)
            self.projector = list(self.parameters())

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.linear_2(torch.nn.functional.gelu(self.linear_1(inputs)))

    trained = Projector()
    ground(trained, material, grounding, 150, 1e-2, 0, print)
    with torch.no_grad():
        tokens = trained(features[1:]).flatten(0, 1) - words.mean(0)
    for told, wanted in ((grounding.names, labels[1:]), (grounding.places, torch.tensor(patch_places()).repeat(59, 1))):
        nearest = (
            torch.nn.functional.normalize(tokens, dim=-1) @ torch.nn.functional.normalize(told, dim=-1).T
        ).argmax(-1)
        assert (nearest == wanted.flatten()).float().mean() > 0.9
    assert grounding.right(trained, SimpleNamespace(**vars(material), sources=["scene"] * 60))["scene"] > 0.9
    # a batch in which nothing is named costs nothing
    nothing = torch.zeros(0, dtype=torch.long)
    assert grounding.loss(torch.zeros(0, 16), nothing, nothing) == 0


def test_references_find_names_and_where_they_lie() -> None:
    letters: Any = lambda text, **_: SimpleNamespace(input_ids=list(text))  # noqa: E731
    references = References(["red circle", "hen", "brown hen", "bird", "doe"], letters)
    patches = [""] * GRID**2
    patches[GRID + 2] = patches[GRID + 3] = "brown hen"
    patches[-1] = patches[0] = "red circle"

    counts = {"brown hen": 1, "red circle": 2}

    def told(text: str) -> list[tuple[str, tuple[int, int, int]]]:
        return [(text[: place + 1], target) for place, target in references.of(text, patches, counts)]

    assert told("Where is the brown hen?") == [("Where is the brown hen", (1, 1, 2))]
    # a name of fewer words means what has more of them; two in far places have no middle
    assert told("Are there hens or circles?") == [
        ("Are there hens", (1, 1, 2)),
        ("Are there hens or circles", (2, -100, -100)),
    ]
    assert told("Is there a square?") == [("Is there a square", (0, -100, -100))]
    assert told("How many objects?") == [("How many objects", (3, -100, -100))]
    assert told("Where are the red shapes?") == [("Where are the red shapes", (2, -100, -100))]
    # a group is no name, even where something is called so; nor is a verb; "hen" is a part of another word
    assert told("Does it show a bird?") == [] and told("Then?") == []
    # of a picture whose things are not known nothing is said
    assert references.of("Is there a hen?", patches, {}) == []


def test_validation_draws_known_things_apart_from_new_ones(data: Path) -> None:
    training, validation = Drawing(data, held_out=False), Drawing(data, held_out=True)
    held = {source: {name for seed in range(12) for name in validation.draw(source, seed).names} - {""}
            for source in ("collage", "known collage")}  # fmt: skip
    assert held["known collage"] == {name for seed in range(12) for name in training.draw("collage", seed).names} - {""}
    assert held["collage"] and not held["collage"] & held["known collage"]
    assert not np.array_equal(validation.draw("known collage", 3).pixels, training.draw("collage", 3).pixels)
