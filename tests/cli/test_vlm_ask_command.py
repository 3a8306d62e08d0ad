"""`attnkit vlm-ask` on pictures and tasks, with a small random model whose answers mean nothing."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from cli_cases import Ended, Run, rows, tree
from PIL import Image
from talking_vlm import save_talking
from tiny_vlms import picture

from attnkit.tasks.vlm_ask.answer_files import read_answers

QUESTION = "what is there in the picture"
ADAPTED = ("--adapter", "l.safetensors")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random LLaVA that is not trained at all, and says words only."""
    return save_talking(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture
def asked(run: Run, folder: Path, work: Path):
    """Runs vlm-ask with that model, short answers, beside a.png, b.png and c.png."""
    for seed, name in enumerate("abc"):
        picture(40 + seed, 28, seed).save(work / f"{name}.png")

    def asked(*arguments: object) -> Ended:
        return run("vlm-ask", *arguments, "--model", folder, "--max-tokens", 4)

    return asked


def write_tasks(path: Path, count: int = 3) -> Path:
    lines = [
        {"question_id": 10 + at, "image": f"{'abc'[at % 3]}.png", "text": f"{QUESTION} {at}", "label": "no"}
        for at in range(count)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def document(ended: Ended) -> list[dict]:
    assert ended.code in (0, 3), ended.err
    return json.loads(ended.out)["items"]


def test_one_answer_is_printed_bare_and_several_by_name(asked, work: Path) -> None:
    alone = asked("a.png", QUESTION)
    assert (alone.code, alone.err) == (0, "")
    wanted = {}
    for name in ("a.png", "b.png"):
        (item,) = document(asked(name, QUESTION, "--json"))
        wanted[name] = item["answer"]
    assert alone.out == wanted["a.png"] + "\n" and wanted["a.png"] != wanted["b.png"]
    ended = asked("a.png", "b.png", QUESTION, "--each")
    assert ended.out == "".join(f"{name}\t{answer}\n" for name, answer in wanted.items())
    assert asked(".", "--question", QUESTION, "--exclude", "c*").out.splitlines() == ended.out.splitlines()


def test_several_images_are_one_question_about_all_of_them(asked) -> None:
    (item,) = document(asked("a.png", "b.png", QUESTION, "--json"))
    assert item["item"] == "a.png+b.png" and item["image"] == ["a.png", "b.png"]
    assert [one["width"] for one in item["images"]] == [40, 41]
    assert item["image_tokens"] == sum(one["tokens"] for one in item["images"]) == 32
    assert item["prompt_text"].count("<image>[16]") == 2
    (item,) = document(asked("a.png", "b.png", "./a.png", QUESTION, "--json"))
    assert item["image"] == ["a.png", "b.png", "a.png"] and item["image_tokens"] == 48


def test_image_and_question_from_standard_input(asked, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pipe(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    named = asked("a.png", QUESTION).out
    pipe((work / "a.png").read_bytes())
    assert asked("-", QUESTION).out == named
    pipe(QUESTION.encode())
    assert asked("a.png", "-").out == named
    pipe(QUESTION.encode())
    assert asked("a.png", "--question", "-").out == named


def test_tasks_keep_ids_and_labels_and_are_taken_up_again(asked, work: Path) -> None:
    tasks = write_tasks(work / "pope.jsonl")
    whole = asked("--tasks", tasks, "--out", "o.jsonl")
    assert whole.code == 0 and whole.out == ""
    found = rows(work / "o.jsonl")
    assert [row["id"] for row in found] == [10, 11, 12] and {row["label"] for row in found} == {"no"}
    assert [row["image"] for row in found] == ["a.png", "b.png", "c.png"]
    data = (work / "o.jsonl").read_bytes()
    assert b"seconds" not in data and str(work).encode() not in data
    assert asked("--tasks", tasks, "--out", "o.jsonl").code == 2
    (work / "o.jsonl").write_bytes(data[: data.find(b"\n") + 20])
    again = asked("--tasks", tasks, "--out", "o.jsonl", "--skip-existing")
    assert again.code == 0 and "2 done, 1 left out" in again.err and (work / "o.jsonl").read_bytes() == data
    # another question is another content
    tasks.write_text(tasks.read_text().replace("picture 1", "image"))
    assert "1 done, 2 left out" in asked("--tasks", tasks, "--out", "o.jsonl", "--update").err
    assert asked("--tasks", tasks, "--limit", 1).out.startswith(rows(work / "o.jsonl")[0]["answer"])


def test_answers_are_read_by_the_evaluation(asked, work: Path) -> None:
    tasks = write_tasks(work / "pope.jsonl")
    assert asked("--tasks", tasks, "--out", "answers.jsonl", "--record", "log.jsonl", "--quiet").code == 0
    for name in ("answers.jsonl", "log.jsonl"):
        found = read_answers(work / name, name).answers
        assert [(one.id, one.truth, one.image) for one in found] == [
            (str(10 + at), "no", f"{letter}.png") for at, letter in enumerate("abc")
        ]
        assert [one.text for one in found] == [row["answer"] for row in rows(work / "answers.jsonl")]
        assert [one.question for one in found] == [f"{QUESTION} {at}" for at in range(3)]


def test_a_batch_answers_as_one_by_one(asked, work: Path) -> None:
    tasks = write_tasks(work / "t.jsonl", 5)
    (work / "b.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    alone, batch = (
        asked("--tasks", tasks, "--batch-size", size, "--json", "--calibrate", "none,var") for size in (1, 4)
    )
    assert (alone.code, batch.code) == (3, 3)
    for one, other in zip(document(alone), document(batch), strict=True):
        assert one["status"] == other["status"]
        for left, right in zip(one.get("answers", ()), other.get("answers", ()), strict=True):
            assert left["answer"] == right["answer"] and left["prompt_tokens"] == right["prompt_tokens"]
            assert left["mean_probability"] == pytest.approx(right["mean_probability"], rel=1e-3)


def test_the_seed_of_sample_k_is_seed_plus_k(asked, work: Path) -> None:
    draw = ("--temperature", 2, "--json")
    first = document(asked("a.png", "b.png", QUESTION, "--each", *draw, "--seed", 5, "--batch-size", 2))
    second = document(asked("b.png", QUESTION, *draw, "--seed", 6))
    assert [item["seed"] for item in first] == [5, 6] and first[1]["answer"] == second[0]["answer"]
    others = {document(asked("b.png", QUESTION, *draw, "--seed", seed))[0]["answer"] for seed in (7, 8, 9)}
    assert len({*others, second[0]["answer"]}) > 1


def test_calibrations_answer_each_and_compare_shows_them(asked, folder: Path, work: Path) -> None:
    pairs = ("dims=3", "tau=2", "mass=0", "rho=0")
    sinks = [word for pair in pairs for word in ("--set", f"var.{pair}")]
    both = asked("a.png", QUESTION, "--calibrate", "none,var", *sinks)
    plain = asked("a.png", QUESTION).out.strip()
    assert [line.partition("\t")[0] for line in both.out.splitlines()] == ["none", "var"]
    assert both.out.splitlines()[0] == f"none\t{plain}"
    ended = asked("a.png", QUESTION, "--compare", *sinks, "--probs", "--out", "o.jsonl")
    head, *lines = ended.out.splitlines()
    assert head.split("  ")[0] == "item" and [line.split()[1] for line in lines] == ["none", "var"]
    for row, line in zip(rows(work / "o.jsonl"), lines, strict=True):
        assert f"{row['first_probability']:.4f}" in line and f"{row['mean_probability']:.4f}" in line
        for token in row["tokens"]:
            assert token["alternatives"][0][1] == pytest.approx(token["probability"], abs=1e-5)
    report = rows(work / "o.jsonl")[1]["reports"]["var"]
    assert report["rows_changed"] > 0 and f"{report['attention_moved']:.4f}" in lines[1]


def test_a_calibration_that_changed_nothing_says_so(asked, work: Path) -> None:
    ended = asked("a.png", QUESTION, "--calibrate", "var", "--out", "o.jsonl")
    assert ended.code == 0 and "var changed nothing" in ended.err
    assert "var changed nothing" in rows(work / "o.jsonl")[0]["warnings"][0]
    assert asked("a.png", QUESTION).out.strip() == rows(work / "o.jsonl")[0]["answer"]


def test_the_profile_is_that_of_the_option_or_of_the_folder(asked, folder: Path, work: Path) -> None:
    profile = {"schema": 1, "dims": [3, 9], "tau": 1.2, "hidden_size": 64, "model": "m", "source": "s"}
    (work / "p.json").write_text(json.dumps(profile))
    ask = ("a.png", QUESTION, "--calibrate", "var", "--json")
    (given,) = document(asked(*ask, "--profile", "p.json"))
    assert given["reports"]["var"]["dims"] == [3, 9] and given["reports"]["var"]["sinks"]
    (folder / "sinks.json").write_text(json.dumps(profile | {"dims": [3]}))
    try:
        assert document(asked(*ask))[0]["reports"]["var"]["dims"] == [3]
    finally:
        (folder / "sinks.json").unlink()
    (work / "p.json").write_text(json.dumps(profile | {"hidden_size": 4096}))
    ended = asked(*ask, "--profile", "p.json")
    assert ended.code == 1 and "4096 hidden dimensions, the model has 64" in ended.err


def test_verify_proves_the_plain_model_and_fails_where_it_is_not(asked, monkeypatch: pytest.MonkeyPatch) -> None:
    assert document(asked("a.png", QUESTION, "--verify", "--json"))[0]["verified"] is True
    from attnkit.models.vlm import attention

    whole = attention.sdpa_attention_forward

    def other(*arguments: object, **options: object) -> object:
        output, weights = whole(*arguments, **options)
        return output * (1 + 1e-6), weights

    monkeypatch.setattr(attention, "sdpa_attention_forward", other)
    ended = asked("a.png", QUESTION, "--verify")
    assert ended.code == 1 and "--verify: the model without calibration differs" in ended.line


def test_overlay_and_map_of_one_and_of_many(asked, work: Path) -> None:
    ended = asked(
        "a.png",
        QUESTION,
        "--out",
        "o.jsonl",
        "--overlay",
        "look.png",
        "--map",
        "m.npz",
        "--layers",
        "1:3",
        "--heads",
        2,
    )
    assert ended.code == 0
    with np.load(work / "m.npz") as found:
        assert (
            found["attention"].shape[1:3] == (2, 1)
            and found["attention"].shape[3] == rows(work / "o.jsonl")[0]["prompt_tokens"]
        )
        assert found["attention"].astype(float).sum(-1).max() <= 1.01
    assert Image.open(work / "look.png").width == 512
    many = asked("a.png", "b.png", QUESTION, "--each", "--overlay", "looks/", "--calibrate", "none,var")
    assert many.code == 0 and sorted(tree(work / "looks")) == ["a.png", "b.png"]
    # overlays beside pictures are no pictures to ask about
    (work / "look.png").rename(work / "d.png")
    assert len(asked(".", "--question", QUESTION).out.splitlines()) == 3


def test_csv_has_one_line_for_each_answer(asked, work: Path) -> None:
    import csv

    tasks = write_tasks(work / "t.jsonl")
    assert asked("--tasks", tasks, "--calibrate", "none,var", "--probs", "--out", "o.csv").code == 0
    with (work / "o.csv").open(newline="") as stream:
        found = list(csv.DictReader(stream))
    assert [row["calibration"] for row in found] == ["none", "var"] * 3 and found[0]["label"] == "no"
    assert json.loads(found[0]["images"])[0]["width"] == 40


def test_dry_run_and_max_pixels_and_system(asked, work: Path) -> None:
    ended = asked("a.png", QUESTION, "--dry-run", "--json")
    assert json.loads(ended.out)["items"][0]["size"] == "40x28"
    (small,) = document(asked("a.png", QUESTION, "--max-pixels", 100, "--system", "answer yes or no", "--json"))
    assert small["images"][0]["width"] == 40 and "answer yes or no" in small["prompt_text"]


def test_beams_answer(asked) -> None:
    (item,) = document(asked("a.png", QUESTION, "--beams", 3, "--json", "--probs"))
    (greedy,) = document(asked("a.png", QUESTION, "--json", "--probs"))
    total = [np.prod([token["probability"] for token in one["tokens"]]) for one in (item, greedy)]
    assert total[0] >= total[1] - 1e-6


def test_an_adapter_answers_and_is_gone_afterwards(asked, folder: Path, work: Path) -> None:
    from attnkit.models import registry
    from attnkit.models.adapters.attach import attach
    from attnkit.models.adapters.files import save_adapter

    vlm = registry.open_model(folder, task="vlm-ask")
    attachment = attach(vlm.model, "lora", seed=1)
    draw = np.random.default_rng(0)
    attachment.load_arrays({name: draw.normal(0, 1, value.shape) for name, value in attachment.arrays().items()})
    save_adapter(work / "l.safetensors", attachment, base="small")
    plain, adapted = (document(asked("a.png", QUESTION, "--json", *more))[0] for more in ((), ADAPTED))
    assert adapted["first_probability"] != plain["first_probability"]
    (work / "adapters").mkdir()
    copied = shutil.copy(work / ADAPTED[1], work / "adapters")
    (again,) = document(asked("a.png", QUESTION, "--json", "--adapter", "adapters"))
    assert again["first_probability"] == adapted["first_probability"]
    shutil.copy(copied, work / "adapters/second.safetensors")
    assert "got 2 files (l.safetensors, second.safetensors)" in asked("a.png", QUESTION, "--adapter", "adapters").line
    assert document(asked("a.png", QUESTION, "--verify", "--json", *ADAPTED))[0]["verified"] is True
    assert document(asked("a.png", QUESTION, "--json"))[0]["first_probability"] == plain["first_probability"]
