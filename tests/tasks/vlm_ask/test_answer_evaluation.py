"""From matched answers to rows: intervals, paired differences, means and sums over parts."""

import json
from itertools import product

import numpy as np
import pytest
from scipy.stats import binomtest

from attnkit.runtime.errors import ItemError
from attnkit.scoring.bootstrap import bootstrap, resampled_sums
from attnkit.tasks.vlm_ask.answer_files import read_answers
from attnkit.tasks.vlm_ask.evaluate import ids_hash, mcnemar, summarise
from attnkit.tasks.vlm_ask.matching import match_mme, match_pope, match_vqa
from attnkit.tasks.vlm_ask.metrics.yes_no import PARSERS
from attnkit.tasks.vlm_ask.reference_files import Question


def file_of(rows, name="a.jsonl"):
    return read_answers("\n".join(map(json.dumps, rows)).encode(), name)


def pope_questions(split="random", number=12):
    return [Question(str(at), "yes" if at % 2 else "no", split, f"{at // 6}.jpg", f"{at}?") for at in range(number)]


def said(words, **more):
    return [{"question_id": at, "answer": word, **more} for at, word in enumerate(words)]


def matched(rows, questions, name="a.jsonl"):
    return match_pope(file_of(rows, name), questions, PARSERS["pope"])


@pytest.mark.parametrize(("first", "second"), [(0, 0), (5, 5), (0, 6), (10, 3), (300, 250), (4000, 3000)])
def test_mcnemar_is_the_exact_binomial_test(first, second):
    expected = binomtest(first, first + second).pvalue if first + second else 1.0
    assert mcnemar(first, second) == pytest.approx(expected, abs=1e-12)
    assert mcnemar(first, second) == mcnemar(second, first)


def test_resampled_sums_agree_with_the_bootstrap_of_means():
    values = np.random.default_rng(0).normal(size=40)
    groups = [f"{at:02}" for at in range(40)]
    sums = resampled_sums(np.stack([values, np.ones(40)], axis=1), groups, draws=4000)
    low, high = np.quantile(sums[:, 0] / sums[:, 1], [0.025, 0.975])
    assert (low, high) == pytest.approx(bootstrap(dict(zip(groups, values, strict=True)), draws=4000)[1:], abs=0.02)
    assert (sums[:, 1] == 40).all()


def test_resampled_sums_draw_whole_groups_and_are_paired():
    counts = np.array([[1.0], [10], [100]])
    sums = resampled_sums(counts, ["a", "b", "a"], draws=200)
    assert set(sums[:, 0]) == {20, 111, 202}
    # another order of the units, other counts: the same draws
    assert (resampled_sums(2 * counts[::-1], ["a", "b", "a"], draws=200) == 2 * sums).all()
    assert not (resampled_sums(counts, ["a", "b", "a"], draws=200, seed=1) == sums).all()


def test_pope_with_ids_and_in_order():
    words = ["No", "Yes"] * 5 + ["Yes", "maybe"]
    by_id = matched(said(words)[::-1], pope_questions())
    in_order = matched([{"question": f"{at}?", "answer": word} for at, word in enumerate(words)], pope_questions())
    for found in (by_id, in_order):
        assert found.parts[0].counts.sum(axis=0).tolist() == [6, 1, 5, 0, 0]
        assert (found.parts[0].unclear, found.parts[0].missing, found.lost) == (1, 0, [])
    with pytest.raises(ItemError, match="got 11 answers without question_id, expected 12"):
        matched([{"answer": word} for word in words[1:]], pope_questions())
    with pytest.raises(ItemError, match=r"line 1 answers 'other\?', expected '0\?'"):
        matched([{"question": "other?", "answer": word} for word in words], pope_questions())


def test_pope_lines_that_cannot_be_used():
    rows = [
        *said(["No", "Yes"]),
        {"question_id": 1, "answer": "No"},
        {"question_id": 99, "answer": "No"},
        {"answer": "x"},
    ]
    found = matched(rows, pope_questions())
    assert found.parts[0].counts.sum() == 2 and found.parts[0].missing == 10
    assert sorted(found.lost) == [
        "line 3: answered before, at line 2; the first answer counts",
        "line 4: got question_id 99, which the reference lacks",
        "line 5: got no question_id",
    ]
    with pytest.raises(ItemError, match="no answer is to a question of the reference"):
        matched([{"question_id": 99, "answer": "No"}], pope_questions())


def test_pope_splits_by_category_name_or_id():
    both = [*pope_questions("random"), *pope_questions("popular")]
    right = ["No", "Yes"] * 6
    rows = [*said(right, category="random"), *said(["Yes"] * 12, category="popular")]
    found = matched(rows, both)
    assert [(part.name, part.counts.sum(axis=0).tolist()[:4]) for part in found.parts] == [
        ("random", [6, 0, 6, 0]), ("popular", [6, 6, 0, 0]),
    ]  # fmt: skip
    rows = summarise("pope", [found], None, 0)
    assert [row["part"] for row in rows] == ["random", "popular", "mean of splits"]
    assert rows[2]["f1_percent"] == pytest.approx((100 + 200 / 3) / 2)
    # the same images in both splits are drawn together
    assert rows[2]["images"] == 2
    assert matched(said(right), both, "x_popular.jsonl").parts[0].name == "popular"
    with pytest.raises(ItemError, match="splits random, popular with the same ids"):
        matched(said(right), both)
    apart = [*pope_questions("random"), *(Question(f"p{q.id}", q.truth, "popular", q.image) for q in pope_questions())]
    assert [part.name for part in matched(said(right), apart).parts] == ["random"]


def test_pope_splits_in_one_file_are_told_apart_by_their_questions():
    def asked(split):
        return [
            Question(str(at), "yes" if at % 2 else "no", split, "0.jpg", f"Is {split} {at} there?") for at in range(4)
        ]

    both = [*asked("random"), *asked("popular")]
    words = {"popular": ["Yes"] * 4, "random": ["No", "Yes"] * 2}
    # LLaVA numbers the questions of all splits through
    lines = [
        {"question_id": 4 * at + number, "prompt": f"Is {split} {number} there?", "text": word}
        for at, split in enumerate(words)
        for number, word in enumerate(words[split])
    ]
    found = matched(lines, both)
    assert [(part.name, part.counts.sum(axis=0).tolist()) for part in found.parts] == [
        ("popular", [2, 2, 0, 0, 0]), ("random", [2, 0, 2, 0, 0]),
    ]  # fmt: skip
    assert found.lost == [] and matched(lines[4:], both).parts[0].name == "random"
    for broken in (lines[:-1], [*lines[:-1], {**lines[-1], "prompt": "Is it?"}], [*lines, *lines]):
        with pytest.raises(ItemError, match="splits random, popular with the same ids"):
            matched(broken, both)


def test_pope_answers_to_another_split_are_not_scored():
    # the ids are the same in all splits
    right = ["No", "Yes"] * 6
    rows = [*said(["Yes"] * 12, category="adversarial"), *said(right, category="random")]
    found = matched(rows, pope_questions("random"))
    assert found.parts[0].counts.sum(axis=0).tolist() == [6, 0, 6, 0, 0] and len(found.lost) == 12
    assert found.lost[0] == "line 1: of the split adversarial, the reference has random"
    asked = [{"question_id": at, "prompt": f"Question: {at}? Answer:", "text": word} for at, word in enumerate(right)]
    assert matched(asked, pope_questions()).lost == []
    asked[3]["prompt"] = "Is there an owl?"
    [problem] = matched(asked, pope_questions()).lost
    assert problem == "line 4: question_id 3 is 'Is there an owl?', in the reference '3?'; is it another split's?"
    owl = [Question("3", "yes", "random", "0.jpg", "Is there a owl?")]
    assert matched(asked[3:4], owl).lost == []
    for rows in (said(right, category="popular"), [{**row, "prompt": "Is there an owl?"} for row in asked]):
        with pytest.raises(ItemError, match=r"no answer is to a question of the reference: line 1: .*split"):
            matched(rows, pope_questions())


def test_pope_one_file_for_each_split():
    files = [
        matched(said(["No", "Yes"] * 6), pope_questions(split), f"{split}.jsonl") for split in ("random", "popular")
    ]
    assert [(row["item"], row["part"]) for row in summarise("pope", files, None, 0)][2:] == [("all", "mean of splits")]
    # two runs on one split are no splits
    assert len(summarise("pope", [files[0], files[0]], None, 0)) == 2


def test_paired_differences():
    questions = pope_questions(number=60)
    right = ["No", "Yes"] * 30
    wrong = ["Yes", "Yes"] * 30
    mine, other = matched(said(right), questions), matched(said(wrong), questions, "b.jsonl")
    [row] = summarise("pope", [mine], other, 0)
    assert (row["only_prediction_right"], row["only_baseline_right"], row["compared"]) == (30, 0, 60)
    assert row["accuracy_percent_difference"] == 50 and row["accuracy_percent_difference_low"] == 50
    assert row["mcnemar_p"] == pytest.approx(2**-29)
    [row] = summarise("pope", [mine], matched(said(wrong[:6]), questions), 0)
    assert row["compared"] == 6 and row["accuracy_percent"] == 100
    [row] = summarise("pope", [mine], mine, 0)
    assert (row["f1_percent_difference_low"], row["f1_percent_difference_high"], row["mcnemar_p"]) == (0, 0, 1)


def mme_questions(parts, images=2):
    return [
        Question(f"{part}/{image}.jpg", truth, part, f"{part}/{image}.jpg", f"{truth}?")
        for part, image, truth in product(parts, range(images), ("yes", "no"))
    ]


def test_mme_pairs_and_totals():
    parts = ("existence", "count", "position", "color")
    rows = [
        {"question_id": question.id, "prompt": f"{question.text} Please answer yes or no.", "text": "Yes"}
        if part == "count" and at == 1
        else {"question_id": question.id, "prompt": question.text, "text": question.truth}
        for part in parts
        for at, question in enumerate(mme_questions([part]))
    ]
    found = match_mme(file_of(rows), mme_questions(parts))
    summary = {row["part"]: row for row in summarise("mme", [found], None, 0)}
    assert list(summary) == [*parts, "hallucination"]
    assert summary["count"]["score"] == 125 and summary["existence"]["score"] == 200
    assert summary["hallucination"]["score"] == 725 and "accuracy_percent" not in summary["hallucination"]
    assert summary["hallucination"]["score_low"] < 725 < summary["hallucination"]["score_high"] + 1


def test_mme_without_words_goes_by_order_and_names_what_is_wrong():
    questions = mme_questions(["count"])
    rows = [{"question_id": question.id, "answer": "Yes"} for question in questions]
    rows += [{"question_id": "count/0.jpg", "answer": "Yes"}, {"question_id": "count/9.jpg", "answer": "No"}]
    found = match_mme(file_of(rows), questions)
    assert found.parts[0].counts.sum(axis=0).tolist() == [2, 4, 0, 2]
    assert ["answered before" in line for line in found.lost] == [True, False]
    # an image with one answer is no pair
    found = match_mme(file_of(rows[:3]), questions)
    assert found.parts[0].units == ("0",) and found.parts[0].missing == 1
    with pytest.raises(ItemError, match="has 1 questions in the reference, expected 2"):
        match_mme(file_of(rows), questions[:3])


def test_mme_text_tells_what_is_right():
    text = "1.jpg\tIs it 1?\tYes\tYes\n1.jpg\tIs it 2?\tNo\tIt is not\nbroken\n"
    found = match_mme(read_answers(text.encode(), "count.txt"), None)
    assert found.parts[0].name == "count" and found.parts[0].counts.tolist() == [[1, 2, 0, 1]]
    assert found.parts[0].unclear == 1 and found.lost[0].startswith("line 3: got 1 columns")


def test_vqa_by_type_of_answer():
    questions = [
        Question("1", ("red",) * 2 + ("blue",) * 8, "other", "5"),
        Question("2", ("yes",) * 10, "yes/no", "5"),
        Question("3", ("2",) * 10, "number", "6"),
    ]
    found = match_vqa(file_of([{"question_id": 1, "answer": "Red"}, {"question_id": 2, "answer": "yes."}]), questions)
    rows = {row["part"]: row for row in summarise("vqa", [found], None, 0)}
    assert {part: row["accuracy_percent"] for part, row in rows.items()} == pytest.approx(
        {"all": 80, "other": 60, "yes/no": 100}
    )
    assert (rows["all"]["missing"], rows["other"]["missing"], rows["all"]["images"]) == (1, 0, 1)


def test_hash_of_ids_is_of_the_choice_and_not_of_the_order():
    assert ids_hash(["10", "9"]) == ids_hash(["9", "10"]) != ids_hash(["9"])
