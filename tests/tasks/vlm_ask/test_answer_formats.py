"""Files of answers and references as those who publish them write them."""

import json
import pickle
import types

import pytest

from attnkit.runtime.errors import ItemError, UsageError
from attnkit.tasks.vlm_ask.answer_files import image_number, plain_question, read_answers
from attnkit.tasks.vlm_ask.object_table import read_objects, read_synonyms
from attnkit.tasks.vlm_ask.reference_files import read_pairs, read_people, read_yes_no


def answers_of(text):
    return read_answers(text.encode(), "answers")


def only(row):
    return answers_of(json.dumps(row)).answers[0]


def test_pope_keys_hold_question_label_and_answer():
    answer = only({"question_id": 7, "image": "a.jpg", "text": "Is there?", "label": "no", "answer": "No"})
    assert (answer.id, answer.text, answer.question, answer.truth) == ("7", "No", "Is there?", "no")


def test_llava_answers():
    answer = only({"question_id": 7, "prompt": "Is there?", "text": "Yes", "answer_id": "x", "metadata": {}})
    assert (answer.id, answer.text, answer.question, answer.truth) == ("7", "Yes", "Is there?", None)


def test_original_pope_answers_have_no_ids():
    answer = only({"question": "Is there?", "answer": ""})
    assert (answer.id, answer.text, answer.question) == (None, "", "Is there?")


def test_lmms_samples():
    sample = {
        "doc_id": 3, "target": "yes", "resps": [["Yes."]], "filtered_resps": ["Yes"],
        "doc": {"question_id": "9", "question": "Is there?", "answer": "no", "category": "popular",
                "image_source": "i"},
        "pope_accuracy": {"question_id": "9", "score": 0.0, "prediction": "yes", "ground_truth": "no"},
    }  # fmt: skip
    answer = only(sample)
    assert (answer.id, answer.text, answer.part, answer.truth, answer.image) == ("9", "Yes", "popular", "no", "i")
    del sample["doc"]
    answer = only(sample)
    assert (answer.id, answer.text, answer.truth) == ("9", "Yes", "no")


def test_chair_documents_and_lists():
    document = {"overall": {}, "imgToEval": {"5": {"image_id": 5, "caption": "A dog", "CIDEr": 1.0}}}
    for text in (
        json.dumps(document),
        json.dumps(document, indent=2),
        json.dumps([{"image_id": 5, "caption": "A dog"}]),
    ):
        assert [(answer.image, answer.text) for answer in answers_of(text).answers] == [("5", "A dog")]


def test_objects_one_after_another():
    rows = [{"image_id": at, "caption": f"line one\u2028{at}"} for at in range(3)]
    for separator, indent in (("", None), ("\n", 2), ("\n\n", None), ("\n", None)):
        text = separator.join(json.dumps(row, ensure_ascii=False, indent=indent) for row in rows)
        assert [answer.image for answer in answers_of(text).answers] == ["0", "1", "2"]


def test_broken_lines_are_named():
    found = answers_of(
        '{"question_id": 1\n\n{"question_id": 2, "answer": "no"}\n[3]\n{"question_id": 4}\n{"answer": {}}'
    )
    assert [answer.place for answer in found.answers] == ["line 3"]
    assert [line.partition(":")[0] for line in found.broken] == ["line 1", "line 4", "line 5", "line 6"]
    assert "not JSON" in found.broken[0] and "a list" in found.broken[1] and "has no answer" in found.broken[2]


@pytest.mark.parametrize("text", ["", " \n", "{", "[]", "[1, 2]", '{"a": ', "plain words", '{"question_id": 1}'])
def test_no_answer_at_all(text):
    with pytest.raises(ItemError, match="answers"):
        answers_of(text)


def test_not_utf8():
    with pytest.raises(ItemError, match="byte 2 is not UTF-8"):
        read_answers(b"{}\xff", "answers")


def test_numbers_of_images():
    names = ("COCO_val2014_000000310196.jpg", "310196", "000000310196", "val/310196.png")
    assert {image_number(name) for name in names} == {"310196"}
    assert image_number("cat.jpg") is None and image_number(None) is None


def test_prompts_are_no_part_of_a_question():
    asked = "Is it  a cat?"
    for prompt in ("", " Please answer yes or no.", "\nAnswer the question using a single word or phrase."):
        assert plain_question(asked + prompt) == "is it a cat?"


def test_pope_references(tmp_path):
    row = {"question_id": 1, "image": "a.jpg", "text": "Is there?", "label": "yes"}
    for split in ("random", "adversarial"):
        (tmp_path / f"coco_pope_{split}.json").write_text(
            json.dumps(row) + "\n" + json.dumps({**row, "question_id": 2})
        )
    assert [(one.part, one.id) for one in read_yes_no(tmp_path)] == [
        ("adversarial", "1"), ("adversarial", "2"), ("random", "1"), ("random", "2"),
    ]  # fmt: skip
    (tmp_path / "vqa.json").write_text(json.dumps({"annotations": [], "info": {}}))
    with pytest.raises(UsageError, match=r"vqa\.json: .*annotations.*label"):
        read_yes_no(tmp_path / "vqa.json")


def test_mme_references(tmp_path):
    results, release = tmp_path / "results", tmp_path / "release"
    (release / "count" / "questions_answers_YN").mkdir(parents=True)
    results.mkdir()
    (results / "count.txt").write_text("1.jpg\tIs it 1?\tYes\n1.jpg\tIs it 2?\tNo\n")
    (release / "count" / "questions_answers_YN" / "1.txt").write_text("Is it 1?\tYes\nIs it 2?\tNo\n")
    lines = [
        {"category": "count", "question_id": "count/1.jpg", "question": f"Is it {n}?", "answer": a}
        for n, a in ((1, "Yes"), (2, "No"))
    ]
    (tmp_path / "mme.jsonl").write_text("\n".join(map(json.dumps, lines)))
    for path in (results, release, tmp_path / "mme.jsonl", results / "count.txt"):
        assert [(one.part, one.text, one.truth) for one in read_pairs(path)] == [
            ("count", "Is it 1?", "yes"), ("count", "Is it 2?", "no"),
        ]  # fmt: skip
    (results / "count.txt").write_text("1.jpg\tIs it 1?\tperhaps\n")
    with pytest.raises(UsageError, match="line 1: got 'perhaps'"):
        read_pairs(results)


def test_vqa_references(tmp_path):
    annotation = {"question_id": 1, "image_id": 5, "answer_type": "other"}
    people = [{"answer": "red", "answer_id": at} for at in range(10)]
    (tmp_path / "v2_annotations.json").write_text(json.dumps({"annotations": [{**annotation, "answers": people}]}))
    (tmp_path / "v2_questions.json").write_text(json.dumps({"questions": [{"question_id": 1, "question": "?"}]}))
    [question] = read_people(tmp_path)
    assert (question.id, question.truth, question.part, question.image) == ("1", ("red",) * 10, "other", "5")
    for name, document in (
        ("textvqa", {"data": [{"question_id": 1, "answers": ["red"] * 10}]}),
        ("aokvqa", [{"question_id": 1, "direct_answers": ["red"] * 10}]),
    ):
        (tmp_path / name).write_text(json.dumps(document))
        assert read_people(tmp_path / name)[0].truth == ("red",) * 10
    (tmp_path / "vizwiz").write_text(json.dumps([{"image": "a.jpg", "answers": people}]))
    assert read_people(tmp_path / "vizwiz")[0].id == "a.jpg"
    task = {"question_id": "a-0", "image": "a.png", "text": "?", "label": "red", "kind": "colour"}
    (tmp_path / "tasks.jsonl").write_text(json.dumps(task))
    [question] = read_people(tmp_path / "tasks.jsonl")
    assert (question.id, question.truth, question.part, question.image) == ("a-0", ("red",), "colour", "a.png")
    (tmp_path / "other.json").write_text(json.dumps({"annotations": [{**annotation, "answers": [{"text": "red"}]}]}))
    for name in ("v2_questions.json", "other.json"):
        with pytest.raises(UsageError, match="give the annotations, not the questions"):
            read_people(tmp_path / name)


def coco(folder):
    folder.mkdir()
    categories = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}]
    for split, image in (("train2014", 1), ("val2014", 2)):
        objects = [{"image_id": image, "category_id": 18}]
        document = {"categories": categories, "annotations": objects, "images": [{"id": image}, {"id": 10 + image}]}
        (folder / f"instances_{split}.json").write_text(json.dumps(document))
        captions = {"annotations": [{"image_id": image, "caption": "Two boys and a puppy"}]}
        (folder / f"captions_{split}.json").write_text(json.dumps(captions))
    return folder


def test_objects_of_coco(tmp_path):
    folder = coco(tmp_path / "annotations")
    table = read_objects(folder)
    assert not table.synonyms and table.objects["1"] == {"dog"} and table.objects["11"] == frozenset()
    (tmp_path / "synonyms.txt").write_text("person, boy\ndog, puppy\n")
    table = read_objects(folder, tmp_path / "synonyms.txt")
    assert table.synonyms and table.objects == {
        "1": {"person", "dog"},
        "2": {"person", "dog"},
        "11": set(),
        "12": set(),
    }
    # a table made of them says the same
    (tmp_path / "objects.json").write_text(table.text())
    assert read_objects(tmp_path / "objects.json") == table
    assert read_objects(tmp_path / "objects.json", tmp_path / "synonyms.txt") == table
    (tmp_path / "other.txt").write_text("dog, hound\n")
    with pytest.raises(UsageError, match="made with its own words"):
        read_objects(tmp_path / "objects.json", tmp_path / "other.txt")
    (tmp_path / "plain.json").write_text(read_objects(folder).text())
    with pytest.raises(UsageError, match="made without any"):
        read_objects(tmp_path / "plain.json", tmp_path / "synonyms.txt")
    (tmp_path / "flowers.txt").write_text("rose, tea rose\ntulip, parrot\n")
    for reference in (folder, tmp_path / "bare.json"):
        (tmp_path / "bare.json").write_text('{"1": ["dog"]}')
        with pytest.raises(UsageError, match=r"--synonyms: has no .* such as 'dog'"):
            read_objects(reference, tmp_path / "flowers.txt")
    (folder / "captions_val2014.json").unlink()
    (folder / "captions_train2014.json").unlink()
    assert not read_objects(folder).captions


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("instances", {"image_id": 1, "category_id": 99}),
        ("instances", {"category_id": 18}),
        ("instances", "no object"),
        ("captions", {"image_id": 1}),
    ],
)
def test_annotations_that_are_not_cocos_are_one_line(name, row, tmp_path):
    path = coco(tmp_path / "annotations") / f"{name}_val2014.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "annotations": [*document["annotations"], row]}))
    with pytest.raises(UsageError, match=rf"{name}_val2014\.json: an entry is not as COCO has it"):
        read_objects(path.parent)


def test_objects_of_plain_tables(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"COCO_val2014_000000000007.jpg": ["dog", "dog"]}))
    (tmp_path / "b.jsonl").write_text(json.dumps({"image_id": 7, "objects": ["dog"]}))
    for name in ("a.json", "b.jsonl"):
        assert read_objects(tmp_path / name).objects == {"7": {"dog"}}
    (tmp_path / "c.json").write_text(json.dumps({"annotations": {}}))
    with pytest.raises(UsageError, match="expected the number of an image"):
        read_objects(tmp_path / "c.json")
    (tmp_path / "pope.json").write_text('{"question_id": 1, "label": "no"}\n{"question_id": 2, "label": "yes"}')
    with pytest.raises(UsageError, match="line 1: got the keys question_id, label, expected image_id and a list"):
        read_objects(tmp_path / "pope.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"no instances_\*\.json"):
        read_objects(tmp_path / "empty")


def test_a_pickle_is_read_without_running_it(tmp_path, monkeypatch):
    module = types.ModuleType("chair")
    exec("class CHAIR: pass", module.__dict__)
    monkeypatch.setitem(__import__("sys").modules, "chair", module)
    module.CHAIR.__module__ = "chair"
    stored = module.CHAIR()
    stored.imid_to_objects = {7: {"dog"}}
    stored.inverse_synonym_dict = {"dog": "dog", "puppy": "dog"}
    (tmp_path / "chair.pkl").write_bytes(pickle.dumps(stored))
    table = read_objects(tmp_path / "chair.pkl")
    assert table.objects == {"7": {"dog"}} and table.vocabulary.classes["puppy"] == "dog"
    stored.inverse_synonym_dict = print
    (tmp_path / "chair.pkl").write_bytes(pickle.dumps(stored))
    with pytest.raises(UsageError, match=r"names builtins\.print"):
        read_objects(tmp_path / "chair.pkl")


def test_synonyms_in_a_script_are_only_read(tmp_path):
    words = "\n".join(f"class{at}, word{at}, other{at}" for at in range(30))
    script = tmp_path / "chair.py"
    script.write_text(f"raise SystemExit\nsynonyms_txt = '''\n{words}\n'''\n")
    assert read_synonyms(script).classes["other7"] == "class7"
    script.write_text("x = 1\n")
    with pytest.raises(UsageError, match="expected the words of each class"):
        read_synonyms(script)
