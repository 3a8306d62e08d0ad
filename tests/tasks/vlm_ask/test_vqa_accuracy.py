"""Answers made alike, and the consensus of ten people."""

import pytest

from attnkit.tasks.vlm_ask.metrics.vqa import consensus, normalise


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("The Dog", "dog"),
        ("a  cat\nand an owl", "cat and owl"),
        ("Two", "2"),
        ("none", "0"),
        ("ten.", "10"),
        ("3.5", "3.5"),
        ("v.3", "v.3"),
        ("red, white", "red white"),
        # no blank beside it: the comma becomes one
        ("red,white", "red white"),
        ("1,000", "1000"),
        # a comma between digits takes all signs out
        ("t-shirt 1,000", "tshirt 1000"),
        ("t-shirt", "t shirt"),
        ("what?", "what"),
        ("dont", "don't"),
        ("isnt it", "isn't it"),
        ("youre", "you're"),
        ("couldnt've", "couldn't've"),
        ("couldn'tve", "couldn't've"),
        ("oclock", "o'clock"),
        # words of their own
        ("ill", "ill"),
        ("its well", "its well"),
        ("shed", "shed"),
        ("", ""),
    ],
)
def test_normalise(answer, expected):
    assert normalise(answer) == expected


@pytest.mark.parametrize(("matches", "expected"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)])
def test_leave_one_out(matches, expected):
    people = ["yes"] * matches + [f"other {at}" for at in range(10 - matches)]
    assert consensus("Yes.", people) == pytest.approx(expected)


def test_people_are_normalised_too():
    assert consensus("2", ["two"] * 10) == 1
    assert consensus("the dog", ["a dog"] * 2 + ["cat"] * 8) == pytest.approx(0.6)


def test_one_person():
    assert (consensus("dog", ["Dog"]), consensus("cat", ["Dog"])) == (1, 0)
