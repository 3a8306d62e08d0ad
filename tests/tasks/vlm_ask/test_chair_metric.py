"""CHAIR: from captions to objects, and the scores of sums."""

import numpy as np
import pytest

from attnkit.tasks.vlm_ask.metrics.chair import Vocabulary, count, measures, mentions, tokens

# words of the sheet's hand cases and of no list
VOCABULARY = Vocabulary.of_lines(
    [
        ["person", "man", "woman", "baby", "adult", "passenger"],
        ["bird"],
        ["dog", "puppy"],
        ["cow", "calf", "ox"],
        ["mouse"],
        ["knife"],
        ["train"],
        ["chair", "seat"],
        ["toilet"],
        ["couch"],
        ["laptop", "computer", "laptop computer"],
        ["airplane", "jet", "plane"],
        ["hot dog"],
        ["wine glass"],
        ["tie", "bow", "bow tie"],
        ["traffic light", "street light", "traffic signal"],
        ["stop sign"],
        ["motorcycle", " motor bike"],
        ["bus"],
        ["scissors"],
        ["cell phone", "iPhone"],
    ]
)


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A baby bird sits on a toilet seat.", ["bird", "toilet"]),
        ("A passenger jet over a hot dog stand.", ["airplane", "hot dog"]),
        ("A seat next to the toilet.", ["toilet"]),
        ("Three women hold wine glasses and a bow tie.", ["person", "wine glass", "tie"]),
        ("A puppy and a dog sleep on a couch with a laptop computer.", ["dog", "dog", "couch", "laptop"]),
        ("Traffic lights and stop signs.", ["traffic light", "stop sign"]),
        ("A man riding a motor bike next to two street lights.", ["person", "traffic light"]),
        ("The baby's seat", ["person", "chair"]),
        ("Mice, calves, oxen, knives and puppies on buses", ["mouse", "cow", "cow", "knife", "dog", "bus"]),
        ("Train tracks", []),
        ("Scissors beside an iPhone", ["scissors"]),
        ("A hotdog", []),
        ("", []),
    ],
)
def test_objects_of_captions(caption, expected):
    assert [name for _, name in mentions(caption, VOCABULARY)] == expected


def test_words_are_kept_beside_their_class():
    assert mentions("Two puppies.", VOCABULARY) == [("puppy", "dog")]


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("It isn't a well-lit room, is it?", 10),
        ("The dog's ball.", 5),
        ("", 0),
        ("2.5 metres", 2),
    ],
)
def test_length_is_that_of_treebank_tokens(caption, expected):
    assert len(tokens(caption)) == expected


def test_scores_by_hand():
    # dog, dog, couch, laptop: one wrong mention of four; three distinct, two of them found; three present
    first = count([("puppy", "dog"), ("dog", "dog"), ("couch", "couch"), ("pc", "laptop")], {"dog", "couch", "tv"}, 10)
    assert first == (1, 1, 4, 1, 2, 3, 3, 10)
    # nothing named
    second = count([], {"person"}, 4)
    assert second == (1, 0, 0, 0, 0, 1, 0, 4)
    found = {key: float(value) for key, value in measures(np.sum([first, second], axis=0)).items()}
    assert found == pytest.approx(
        {
            "chair_s_percent": 50, "chair_i_percent": 25, "recall_percent": 50, "precision_percent": 200 / 3,
            "f1_percent": 400 / 7, "words": 7,
        }
    )  # fmt: skip


def test_mentions_are_counted_and_not_objects():
    assert count([("cat", "cat")] * 3, {"dog"}, 3)[2:4] == (3, 3)


def test_no_object_named_at_all():
    found = measures(np.array(count([], set(), 3)))
    assert found["chair_i_percent"] == 0 and np.isnan(found["recall_percent"]) and np.isnan(found["f1_percent"])


def test_lines_come_back():
    assert Vocabulary.of_lines(VOCABULARY.lines()).classes == VOCABULARY.classes
