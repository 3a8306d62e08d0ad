"""`attnkit eval vlm-ask` as a person runs it."""

import csv
import json
import os
import subprocess
import sys

import pytest


def run(*arguments, cwd, stdin=None):
    done = subprocess.run(
        [sys.executable, "-m", "attnkit", "eval", "vlm-ask", *map(str, arguments)],
        capture_output=True, text=True, cwd=cwd, input=stdin, env={**os.environ, "COLUMNS": "80"},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def scores(*arguments, cwd, code=0):
    ended = run(*arguments, "--json", cwd=cwd)
    assert ended[0] == code, ended
    return json.loads(ended[1])["result"]


def lines(path, rows):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


QUESTIONS = [
    {"question_id": at, "image": f"{at // 6}.jpg", "text": f"Is there {at}?", "label": ("no", "yes")[at % 2]}
    for at in range(12)
]


@pytest.fixture
def pope(tmp_path):
    """Twelve questions in pope/coco_pope_random.json; right.jsonl and, with a few slips, some.jsonl."""
    lines(tmp_path / "pope" / "coco_pope_random.json", QUESTIONS)
    lines(tmp_path / "right.jsonl", [{"question_id": row["question_id"], "answer": row["label"]} for row in QUESTIONS])
    said = ["No", "Yes", "Yes", "maybe", *["No", "Yes"] * 4]
    lines(tmp_path / "some.jsonl", [{**row, "answer": word} for row, word in zip(QUESTIONS, said, strict=True)])
    return tmp_path


REF = ("--ref", "pope/coco_pope_random.json")


def test_pope(pope):
    code, out, err = run("pope", "some.jsonl", "right.jsonl", *REF, "--baseline", "right.jsonl", cwd=pope)
    assert code == 0
    assert err == (
        "attnkit eval vlm-ask: some.jsonl: 1 answers say neither yes nor no; they count as no if their first sentence "
        "has No, not or no, else as yes\n"
    )
    whole, difference = out.split("\n\n")
    assert whole.splitlines()[0].split()[:5] == ["prediction", "images", "questions", "missing", "unclear"]
    assert "yes ratio (%), 95 % interval" in whole and "91.67 (83.33..100.00)" in whole
    assert difference.splitlines()[0] == "minus right.jsonl, paired" and "McNemar p" in difference
    assert run("pope", "right.jsonl", *REF, "--quiet", cwd=pope) == (0, "", "")


def test_calibrations_of_one_file_are_scored_apart(pope):
    said = {"none": "no", "var": None, "a+b": "yes"}
    rows = [
        {"question_id": row["question_id"], "calibration": arm, "answer": word or row["label"]}
        for row in QUESTIONS
        for arm, word in said.items()
    ]
    lines(pope / "arms.jsonl", [*rows, rows[0]])
    found = scores("pope", "arms.jsonl", *REF, "--baseline", "arms.jsonl", cwd=pope, code=3)
    keys = ("accuracy_percent", "accuracy_percent_difference")
    got = {row["item"]: tuple(row[key] for key in keys) for row in found["scores"]}
    assert got == {
        "arms.jsonl (none)": (50.0, 0.0), "arms.jsonl (var)": (100.0, 50.0), "arms.jsonl (a+b)": (50.0, 0.0),
    }  # fmt: skip
    assert [one["error"] for one in found["failed"]] == ["line 37: answered before, at line 1; the first answer counts"]
    lines(pope / "two.jsonl", [row for row in rows if row["calibration"] != "none"])
    code, _, err = run("pope", "some.jsonl", *REF, "--baseline", "two.jsonl", cwd=pope)
    assert code == 2 and "has answers of var, a+b; expected one, or none too" in err


def test_pope_parsers(pope):
    found = {
        parser: scores("pope", "some.jsonl", *REF, "--parser", parser, cwd=pope)["scores"][0]
        for parser in ("pope", "pai", "exact")
    }
    assert [round(found[parser]["accuracy_percent"], 2) for parser in found] == [91.67, 91.67, 83.33]
    assert found["exact"]["unclear"] == 1 and found["exact"]["yes_ratio_percent"] == 50


def test_answers_that_hold_their_labels_need_no_reference(pope):
    assert scores("pope", "some.jsonl", cwd=pope)["scores"][0]["questions"] == 12
    code, out, err = run("pope", "right.jsonl", cwd=pope)
    assert (code, out) == (1, "") and err.endswith("right.jsonl: line 1 does not say what is right; give --ref\n")


def test_files_of_all_kinds(pope):
    outputs = [f"t{suffix}" for suffix in (".csv", ".json", ".jsonl", ".md")]
    options = [part for path in outputs for part in ("--out", path)]
    arguments = ("pope", "some.jsonl", *REF, "--details", "d.jsonl", *options)
    assert run(*arguments, "-q", cwd=pope) == (0, "", "")
    with (pope / "t.csv").open() as stream:
        [row] = csv.DictReader(stream)
    assert row["part"] == "random" and float(row["accuracy_percent"]) == pytest.approx(1100 / 12)
    settings = json.loads((pope / "t.csv.json").read_text())
    assert settings["metric"] == "pope" and settings["parser"] == "pope" and settings["ref"] == REF[1]
    assert json.loads((pope / "t.json").read_text())["settings"] == settings
    assert json.loads((pope / "t.jsonl").read_text())["images"] == 2
    assert (pope / "t.md").read_text().startswith("| images | questions |")
    details = [json.loads(line) for line in (pope / "d.jsonl").read_text().splitlines()]
    assert len(details) == 12 and details[3]["said"] == "yes" and details[2]["right"] is False
    before = {path: (pope / path).read_bytes() for path in [*outputs, "d.jsonl"]}
    code, _, err = run(*arguments, cwd=pope)
    assert code == 2 and "t.csv: exists; add --overwrite" in err
    assert run(*arguments, "-q", "--overwrite", cwd=pope)[0] == 0
    assert {path: (pope / path).read_bytes() for path in before} == before


def test_standard_input_folder_and_dry_run(pope):
    text = (pope / "right.jsonl").read_text()
    code, out, _ = run("pope", "-", *REF, "--json", cwd=pope, stdin=text)
    assert code == 0 and json.loads(out)["result"]["scores"][0]["item"] == "-"
    (pope / "notes.txt").write_text("no answers")
    assert [row["item"] for row in scores("pope", ".", *REF, cwd=pope)["scores"]] == ["right.jsonl", "some.jsonl"]
    code, out, err = run("pope", ".", *REF, "-n", "--out", "t.csv", cwd=pope)
    assert (code, err) == (0, "") and "right.jsonl" in out and not (pope / "t.csv").exists()


def test_a_broken_line_fails_and_the_others_count(pope):
    text = (pope / "right.jsonl").read_text().splitlines()
    text[6] = text[6][:-5]
    (pope / "right.jsonl").write_text("\n".join([*text, text[2]]))
    code, out, err = run("pope", "right.jsonl", *REF, "--json", cwd=pope)
    assert code == 3
    result = json.loads(out)["result"]
    assert (result["scores"][0]["questions"], result["scores"][0]["missing"]) == (11, 1)
    assert [row["error"].partition(":")[0] for row in result["failed"]] == ["line 7", "line 13"]
    first, second, third = err.splitlines()
    assert first.startswith("attnkit eval vlm-ask: right.jsonl: line 7: not JSON")
    assert second.endswith("line 13: answered before, at line 3; the first answer counts")
    assert third.endswith("right.jsonl: 1 questions of the reference lack an answer; they are left out of the scores")
    code, _, err = run("pope", "right.jsonl", *REF, "--complete", cwd=pope)
    assert code == 1 and "right.jsonl: 1 questions of the reference lack an answer" in err


def test_exit_codes(pope):
    (pope / "empty.jsonl").write_text("")
    (pope / "other.jsonl").write_text('{"question_id": "x", "answer": "no"}\n')
    for inputs, expected, told in (
        (["right.jsonl", "empty.jsonl"], 3, "empty.jsonl: is empty"),
        (["empty.jsonl"], 1, "empty.jsonl: is empty"),
        (["other.jsonl"], 1, "question_id x, which the reference lacks"),
        (["missing.jsonl"], 2, "missing.jsonl: no such file"),
        (["*.nothing"], 1, "no answers found"),
    ):
        code, _, err = run("pope", *inputs, *REF, "-q", cwd=pope)
        assert (code, len(err.splitlines())) == (expected, 1) and told in err


def test_options_that_do_not_go_together(pope):
    (pope / "vqa.json").write_text('{"annotations": [{"question_id": 1, "answers": []}]}')
    for arguments, told in (
        (("pope", "right.jsonl", "--ref", "nowhere"), "--ref nowhere: no such file"),
        (("pope", "right.jsonl", "--ref", "vqa.json"), "expected a question with the label yes or no"),
        (("pope", "right.jsonl", *REF, "--baseline", "nowhere"), "--baseline nowhere: no such file"),
        (("pope", "right.jsonl", *REF, "--baseline", "vqa.json"), "--baseline vqa.json"),
        (("mme", "right.jsonl", *REF, "--parser", "pai"), "--parser: got pai with mme, expected pope"),
        (("pope", "right.jsonl", *REF, "--synonyms", "some.jsonl"), "--synonyms: got some.jsonl with pope"),
        (("chair", "right.jsonl"), "--ref: not given"),
        (("chair", "right.jsonl", "--ref", "pope"), "no instances_*.json in it"),
        (("chair", "right.jsonl", *REF), "expected image_id and a list of objects"),
        (("vqa", "right.jsonl", "--ref", "vqa.json"), "expected answers of people in a list"),
        (("pope", "right.jsonl", *REF, "--out", "t.txt"), "expected .csv"),
        (("pope", "right.jsonl", *REF, "--details", "t.csv"), "--details t.csv: got suffix .csv"),
        (("bleu", "right.jsonl"), "expected pope"),
        (("pope",), "PRED"),
    ):
        code, out, err = run(*arguments, cwd=pope)
        assert (code, out, len(err.splitlines())) == (2, "", 1) and told in err, (arguments, err)


def test_chair(tmp_path):
    objects = {"categories": [{"id": 18, "name": "dog"}, {"id": 62, "name": "chair"}], "annotations": []}
    objects["annotations"] = [{"image_id": image, "category_id": 18} for image in (1, 2, 3)]
    lines(tmp_path / "annotations" / "instances_val2014.json", [objects])
    captions = {"annotations": [{"image_id": 3, "caption": "A stool"}]}
    lines(tmp_path / "annotations" / "captions_val2014.json", [captions])
    (tmp_path / "synonyms.txt").write_text("dog, puppy\nchair, stool\n")
    said = ["Puppies on a stool.", "A dog.", "A stool"]
    lines(tmp_path / "a.jsonl", [{"image_id": at, "caption": text} for at, text in enumerate(said, 1)])
    lines(tmp_path / "b.jsonl", [{"image_id": at, "caption": text} for at, text in enumerate(said[:2], 1)])
    words = ("--synonyms", "synonyms.txt")
    arguments = ("chair", "a.jsonl", "--ref", "annotations", *words, "--objects-out", "objects.json")
    [row] = scores(*arguments, cwd=tmp_path)["scores"]
    # dog and chair, dog, chair: one of four mentions, one of three captions; four classes in three images
    keys = ("chair_i_percent", "chair_s_percent", "recall_percent", "precision_percent", "words")
    assert [row[key] for key in keys] == pytest.approx([25, 100 / 3, 75, 75, (5 + 3 + 2) / 3])
    assert (row["images"], row["captions"], len(row["ids_sha256"])) == (3, 3, 64)
    assert scores("chair", "a.jsonl", "--ref", "objects.json", cwd=tmp_path)["scores"] == [row]
    code, out, err = run("chair", "a.jsonl", "b.jsonl", "--ref", "objects.json", cwd=tmp_path)
    assert code == 0 and row["ids_sha256"][:12] in out and "recall (%), 95 % interval" in out
    assert err.endswith("the predictions are of different images: their scores cannot be compared with each other\n")
    code, _, err = run("chair", "a.jsonl", "--ref", "annotations", cwd=tmp_path)
    assert code == 0 and "no --synonyms: only the names of classes count" in err


def test_mme_folders(tmp_path):
    pairs = [f"{image}.jpg\tIs it {truth}?\t{truth}\tYes\n" for image in (1, 2) for truth in ("Yes", "No")]
    for run_name in ("one", "two"):
        (tmp_path / run_name).mkdir()
        for part in ("count", "color"):
            (tmp_path / run_name / f"{part}.txt").write_text("".join(pairs))
    (tmp_path / "two" / "color.txt").write_text("".join(pairs).replace("No\tYes", "No\tno"))
    found = scores("mme", "one", "two", "--baseline", "one", cwd=tmp_path)["scores"]
    assert [(row["item"], row["part"], row["score"]) for row in found] == [
        ("one", "color", 50), ("one", "count", 50), ("two", "color", 200), ("two", "count", 50),
    ]  # fmt: skip
    assert found[2]["score_difference"] == 150
    assert run("mme", "one/count.txt", "--ref", "one", cwd=tmp_path)[0] == 0


def test_vqa(tmp_path):
    people = [{"answer": word} for word in ["red"] * 3 + ["blue"] * 7]
    told = [{"question_id": 1, "image_id": 0, "answer_type": "other", "answers": people}]
    lines(tmp_path / "annotations.json", [{"annotations": told}])
    (tmp_path / "vqa.json").write_text(json.dumps([{"question_id": 1, "answer": "The Red."}]))
    found = scores("vqa", "vqa.json", "--ref", "annotations.json", cwd=tmp_path)["scores"]
    assert [(row["part"], row["accuracy_percent"]) for row in found] == [
        ("all", pytest.approx(90)), ("other", pytest.approx(90)),
    ]  # fmt: skip
