"""Generated scenes: answers agree with a recount of the description and with the pixels, seeds decide everything."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attnkit.tasks.vlm_ask.scenes.held_out import interval, is_right, print_scores, score, write_held_out
from attnkit.tasks.vlm_ask.scenes.questions import ABSENT, KINDS, WHERE, ask, ask_where, describe
from attnkit.tasks.vlm_ask.scenes.render import PAINTS, patch_targets, render, signed_distance
from attnkit.tasks.vlm_ask.scenes.scene import CLUTTERS, COLOURS, SHAPES, THINGS, Scene, Thing, make_scene

SCENES = [make_scene(seed) for seed in range(1500)]
WORD = re.compile(r"[a-z]+")
REFERENCE = re.compile(rf"the ((?:\w+ )?(?:{'|'.join(SHAPES)}|shape))\b")


def questions(kind: str) -> list[tuple[Scene, object]]:
    draw = np.random.default_rng(5)
    asked = [(scene, ask(scene, kind, draw)) for scene in SCENES]
    return [(scene, question) for scene, question in asked if question is not None]


def singular(word: str) -> str:
    return {"crosses": "cross"}.get(word, word.removesuffix("s"))


def named(text: str) -> tuple[set[str], set[str]]:
    """Shapes and colours that a text mentions, singular or plural."""
    words = WORD.findall(text.lower())
    return {singular(word) for word in words if singular(word) in SHAPES} | {
        word for word in words if word in SHAPES
    }, {word for word in words if word in COLOURS}


def test_existence_agrees_with_a_recount() -> None:
    for scene, question in questions("existence"):
        shapes, colours = named(question.text)
        found = [
            thing
            for thing in scene.things
            if (not shapes or thing.shape in shapes) and (not colours or thing.colour in colours)
        ]
        foreign = not shapes and not colours
        assert foreign == bool(set(WORD.findall(question.text)) & set(ABSENT) or not (shapes or colours))
        assert foreign == (question.form == "foreign")
        assert question.answer == ("Yes" if found and not foreign else "No"), question


def test_counts_agree_with_a_recount() -> None:
    numbers = Counter()
    for scene, question in questions("count"):
        shapes, colours = named(question.text.replace("shapes", "").replace("objects", ""))
        found = sum(
            (not shapes or thing.shape in shapes) and (not colours or thing.colour in colours) for thing in scene.things
        )
        assert question.answer == str(found), question
        numbers[found] += 1
    assert set(numbers) >= {0, 1, 2, 3, 4, 5}


@pytest.mark.parametrize(("kind", "other"), [("colour", "shape"), ("shape", "colour")])
def test_attributes_are_asked_of_one_thing_only(kind: str, other: str) -> None:
    for scene, question in questions(kind):
        (value,) = named(question.text)[0 if other == "shape" else 1]
        (thing,) = [one for one in scene.things if getattr(one, other) == value]
        assert question.answer == getattr(thing, kind)


def test_places_and_relations_follow_from_the_centres() -> None:
    checked = Counter()
    for scene, question in questions("position"):
        text = question.text.split("?")[0].split("\n")[0].lower()
        references = REFERENCE.findall(text)
        things = []
        for reference in references:
            shapes, colours = named(reference)
            found = [
                one
                for one in scene.things
                if (not shapes or one.shape in shapes) and (not colours or one.colour in colours)
            ]
            assert len(found) == 1, question
            things.append(found[0])
        if question.form == "place":
            rows = "top" if things[0].row < 1 / 3 else "bottom" if things[0].row > 2 / 3 else ""
            columns = "left" if things[0].column < 1 / 3 else "right" if things[0].column > 2 / 3 else ""
            assert question.answer == (f"{rows} {columns}".strip() or "middle")
        elif question.form == "side":
            inside = {
                "left": things[0].column < 0.5, "right": things[0].column > 0.5,
                "top": things[0].row < 0.5, "bottom": things[0].row > 0.5,
            }  # fmt: skip
            (side,) = [word for word in inside if word in WORD.findall(text)]
            assert question.answer == ("Yes" if inside[side] else "No")
        else:
            before = {
                "left": lambda one, other: one.column < other.column,
                "right": lambda one, other: one.column > other.column,
                "above": lambda one, other: one.row < other.row,
                "over": lambda one, other: one.row < other.row,
                "below": lambda one, other: one.row > other.row,
                "under": lambda one, other: one.row > other.row,
            }
            (word,) = [word for word in before if word in WORD.findall(text)]
            if question.form == "relation":
                assert question.answer == ("Yes" if before[word](*things) else "No")
            else:
                (one,) = [one for one in scene.things if one is not things[0] and before[word](one, things[0])]
                assert question.answer == one.name
        checked[question.form] += 1
    assert min(checked[form] for form in ("place", "side", "relation", "neighbour")) > 30


def test_choices_follow_from_the_centres_and_offer_both() -> None:
    draw = np.random.default_rng(6)
    answers: Counter[str] = Counter()
    first = 0
    for scene in SCENES:
        for form in ("side choice", "relation choice"):
            question = ask_where(scene, form, draw)
            if question is None:
                continue
            text = question.text.split("\n")[0].split(" Answer")[0].lower()
            things = [
                next(
                    one
                    for one in scene.things
                    if all(word in (one.shape, one.colour, "shape") for word in reference.split())
                )
                for reference in REFERENCE.findall(text)
            ]
            assert len(things) == (1 if form == "side choice" else 2), question
            row, column = (
                (things[0].row, things[0].column)
                if len(things) == 1
                else (0.5 + things[0].row - things[1].row, 0.5 + things[0].column - things[1].column)
            )
            # no answer hangs on a pixel
            assert (
                abs(row - 0.5) if question.answer in ("top", "bottom", "above", "below") else abs(column - 0.5)
            ) >= 0.08
            right = {
                "left": column < 0.5, "right": column > 0.5, "top": row < 0.5, "bottom": row > 0.5,
                "above": row < 0.5, "below": row > 0.5,
            }  # fmt: skip
            offered = [word for word in WORD.findall(text) if word in right]
            assert len(offered) == 2 and right[offered[0]] != right[offered[1]] and right[question.answer]
            answers[question.answer] += 1
            first += question.answer == offered[0]
    assert set(answers) == {"left", "right", "top", "bottom", "above", "below"}
    # neither the first nor the second is the better guess: three standard deviations
    assert abs(first - answers.total() / 2) < 1.5 * answers.total() ** 0.5


@pytest.mark.parametrize("form", WHERE[:2])
def test_every_side_and_relation_is_as_often_right_as_wrong(form: str) -> None:
    draw = np.random.default_rng(8)
    answers: dict[str, Counter[str]] = {}
    for scene in SCENES:
        question = ask_where(scene, form, draw)
        if question is not None:
            word = re.search(r"left|right|top|bottom|above|over|below|under", question.text)[0]
            answers.setdefault(word, Counter())[question.answer] += 1
    assert len(answers) >= 4
    for counts in answers.values():
        assert abs(counts["Yes"] - counts.total() / 2) < 1.75 * counts.total() ** 0.5


def test_a_description_names_everything_once_from_left_to_right() -> None:
    for scene in SCENES[:200]:
        pairs = re.findall(r"an? (\w+) (\w+)", describe(scene))
        assert pairs == [(thing.colour, thing.shape) for thing in sorted(scene.things, key=lambda one: one.column)]


@pytest.mark.parametrize("kind", ["existence", "position"])
def test_yes_and_no_are_equally_likely(kind: str) -> None:
    answers = Counter(question.answer for _, question in questions(kind) if question.answer in ("Yes", "No"))
    count = answers.total()
    # three standard deviations of a fair coin
    assert abs(answers["Yes"] - count / 2) < 1.5 * count**0.5


def test_some_negatives_are_plausible() -> None:
    forms = Counter(question.form for _, question in questions("existence") if question.answer == "No")
    assert all(forms[form] > 0.08 * forms.total() for form in ("random", "popular", "adversarial"))
    for scene, question in questions("existence"):
        if question.form == "adversarial":
            (shape,), (colour,) = named(question.text)
            assert shape in {one.shape for one in scene.things} and colour in {one.colour for one in scene.things}


def test_seeds_decide_scene_picture_and_questions() -> None:
    for seed in (3, 1_000_003):
        first, second = make_scene(seed, 3), make_scene(seed, 3)
        assert first == second
        assert np.array_equal(render(first).pixels, render(second).pixels)
        asked = [[ask(first, kind, np.random.default_rng(9)) for kind in KINDS] for _ in range(2)]
        assert asked[0] == asked[1]
    assert make_scene(3) != make_scene(4)


def test_clutter_sets_the_number_of_things_and_the_texture() -> None:
    rough = []
    for clutter in CLUTTERS:
        scenes = [make_scene(seed, clutter) for seed in range(20)]
        assert {scene.clutter for scene in scenes} == {clutter}
        assert all(1 <= len(scene.things) <= THINGS[clutter][1] for scene in scenes)
        free = []
        for scene in scenes:
            picture = render(scene)
            step = np.abs(np.diff(picture.pixels.astype(float), axis=1)).mean(2)
            free.append(step[(picture.owners[:, 1:] == 0) & (picture.owners[:, :-1] == 0)].mean())
        rough.append(np.mean(free))
    assert rough == sorted(rough) and rough[3] > 3 * rough[0]


def test_things_do_not_overlap_and_stay_inside() -> None:
    for scene in SCENES[:300]:
        for index, one in enumerate(scene.things):
            assert one.radius < min(one.row, one.column) and max(one.row, one.column) < 1 - one.radius
            for other in scene.things[:index]:
                assert np.hypot(one.row - other.row, one.column - other.column) > one.radius + other.radius


def test_pixels_show_what_the_scene_says() -> None:
    hues = {name: np.array([*PAINTS[name]]) for name in COLOURS}
    for seed in range(30):
        scene = make_scene(seed, 1)
        picture = render(scene, 192)
        for index, thing in enumerate(scene.things):
            inside = picture.owners == index + 1
            rows, columns = np.nonzero(inside)
            # each outline keeps its centre of mass near to its centre
            assert abs(rows.mean() / 192 - thing.row) < 0.25 * thing.radius
            assert abs(columns.mean() / 192 - thing.column) < 0.25 * thing.radius
            assert nearest_colour(picture.pixels[inside], hues) == thing.colour


def nearest_colour(pixels: np.ndarray, paints: dict[str, np.ndarray]) -> str:
    import colorsys

    mean = pixels.mean(0) / 255
    return min(paints, key=lambda name: np.abs(np.array(colorsys.hsv_to_rgb(*paints[name])) - mean).sum())


@pytest.mark.parametrize("shape", SHAPES)
def test_distance_to_an_outline_is_a_distance(shape: str) -> None:
    axis = np.linspace(-1.3, 1.3, 131, dtype=np.float32)
    distance = signed_distance(shape, axis[:, None], axis[None])
    step = axis[1] - axis[0]
    # no distance changes by more than the way gone
    assert np.abs(np.diff(distance, axis=0)).max() < step * 1.01
    inside = distance < 0
    assert 0.15 < inside.mean() * 2.6**2 / np.pi < 0.9
    # nothing of a shape is beyond its radius, so that things with space between their radii do not touch
    assert np.hypot(axis[:, None], axis[None])[inside].max() < 1.15


def test_patch_targets_count_the_pixels_of_a_patch() -> None:
    scene = Scene(0, 0, "plain", (Thing("square", "red", "large", 0.5, 0.5, 0.2, 0.0),))
    targets = patch_targets(scene, render(scene).owners, 8)
    # the square is 0.32 wide: 15.4 pixels to each side of 48, so all of four patches and 3.4 pixels of the next
    assert targets[:, 0].reshape(8, 8)[2:6, 2:6].tolist() == [[0, 2, 2, 0], [2, 2, 2, 2], [2, 2, 2, 2], [0, 2, 2, 0]]
    assert np.array_equal(targets[:, 0] > 0, targets[:, 1] > 0)
    assert targets[:, 2].nonzero()[0].tolist() == [4 * 8 + 4]


def test_a_test_set_is_written_with_popes_keys(tmp_path: Path) -> None:
    count = write_held_out(tmp_path, 2, side=64)
    tasks = [json.loads(line) for line in (tmp_path / "tasks.jsonl").read_text().splitlines()]
    assert count == len(tasks) == len({task["question_id"] for task in tasks})
    assert {task["clutter"] for task in tasks} == set(CLUTTERS)
    assert {task["kind"] for task in tasks} == {*KINDS, "choice"}
    assert {task["label"] for task in tasks if task["kind"] == "existence"} <= {"yes", "no"}
    for task in tasks:
        with Image.open(tmp_path / task["image"]) as picture:
            assert picture.size == (64, 64)


def test_scores_and_their_intervals() -> None:
    tasks = [
        {"question_id": str(index), "label": "red", "kind": "colour", "form": "open", "clutter": index % 2}
        for index in range(10)
    ]
    answers = {str(index): "Red." if index < 4 else "blue" for index in range(10)}
    scores = score(tasks, answers)
    assert scores["colour"] == {"0": (2, 5), "1": (2, 5), "all": (4, 10)} == scores["all"]
    assert "40.0" in print_scores(scores)
    # Wilson, 1927: 4 of 10
    assert interval(4, 10) == pytest.approx((0.1682, 0.6873), abs=1e-4)
    assert interval(0, 1)[0] == 0 and interval(7, 7)[1] == 1
    assert is_right("A red  square.", "a red square") and not is_right("red", "a red square")
