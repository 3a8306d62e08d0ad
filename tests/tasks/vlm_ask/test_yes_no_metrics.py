"""POPE and MME: what counts as yes and no, and the scores of sums."""

import numpy as np
import pytest

from attnkit.tasks.vlm_ask.metrics import mme, pope, yes_no


@pytest.mark.parametrize(
    ("answer", "by_pope", "by_pai", "by_exact", "by_mme"),
    [
        ("Yes", "yes", "yes", "yes", "yes"),
        ("No, there is no dog.", "no", "no", "other", "no"),
        (" NO ", "yes", "no", "no", "no"),
        ("Nope", "yes", "yes", "other", "no"),
        ("There are none", "yes", "yes", "other", "other"),
        ("I cannot see it", "yes", "yes", "other", "other"),
        ("There isn't one", "yes", "no", "other", "other"),
        ("Not sure", "yes", "yes", "other", "no"),
        ("", "yes", "yes", "other", "other"),
        ("Yes, no doubt", "no", "no", "other", "yes"),
        ("Yes. No", "yes", "no", "other", "yes"),
        ("It is not,I think", "yes", "yes", "other", "other"),
        ("no.", "no", "no", "other", "no"),
        ("Y.", "yes", "yes", "other", "yes"),
        ("n", "yes", "yes", "other", "no"),
    ],
)
def test_what_an_answer_counts_as(answer, by_pope, by_pai, by_exact, by_mme):
    said = (yes_no.pope(answer), yes_no.pai(answer), yes_no.exact(answer), yes_no.mme(answer))
    assert said == (by_pope, by_pai, by_exact, by_mme)


def test_clear_answers():
    assert yes_no.is_clear("NO") and yes_no.is_clear("Yes.")
    assert not any(map(yes_no.is_clear, ("", "none", "yesterday", "not sure")))


def test_published_pope_scores():
    # LLaVA-1.5 on the random split of 2910 questions
    found = pope.measures(np.array([1183.0, 31, 1379, 317, 0]))
    assert found["accuracy_percent"] == pytest.approx(88.04123711)
    assert found["precision_percent"] == pytest.approx(97.44645799)
    assert found["recall_percent"] == pytest.approx(78.86666667)
    assert found["f1_percent"] == pytest.approx(87.17759764)
    assert found["yes_ratio_percent"] == pytest.approx(41.71821306)


def test_pope_without_a_yes_and_with_answers_that_are_neither():
    found = pope.measures(np.array([[0.0, 0, 3, 1, 0], [1, 0, 1, 0, 2]]))
    assert found["precision_percent"].tolist() == [0, 100]
    assert found["f1_percent"].tolist() == [0, 100]
    assert found["accuracy_percent"].tolist() == [75, 50]
    assert found["yes_ratio_percent"].tolist() == [0, 25]


def test_pope_counts():
    assert [pope.count(label, said).index(1) for label, said in (("yes", "yes"), ("no", "yes"))] == [0, 1]
    assert [pope.count(label, said).index(1) for label, said in (("no", "no"), ("yes", "no"))] == [2, 3]
    assert pope.count("yes", "other") == (0, 0, 0, 0, 1)


def test_mme_pair_counts_only_if_both_are_right():
    sums = np.sum([mme.count((True, True)), mme.count((True, False))], axis=0)
    found = mme.measures(sums)
    assert {key: float(value) for key, value in found.items()} == {
        "accuracy_percent": 75, "accuracy_plus_percent": 50, "score": 125,
    }  # fmt: skip


def test_mme_totals_are_of_the_right_size():
    assert {name: 200 * len(parts) for name, parts in mme.TOTALS.items()} == {
        "perception": 2000, "cognition": 800, "hallucination": 800,
    }  # fmt: skip
