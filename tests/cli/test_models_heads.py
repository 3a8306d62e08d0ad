"""`attnkit models heads` on a small random model, and the file that it writes in use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_cases import Run
from talking_vlm import save_talking
from tiny_vlms import picture

from attnkit import cli


@pytest.fixture(autouse=True)
def own_commands(clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of attnkit's, where the other tests of this folder have made-up ones."""
    monkeypatch.setattr(cli.Root, "table", cli.COMMANDS)


@pytest.fixture
def folder(work: Path) -> Path:
    """A random LLaVA beside a file of questions."""
    lines = []
    for at in range(4):
        picture(seed=at).save(work / f"{at}.png")
        lines.append(json.dumps({"id": at, "image": f"{at}.png", "question": "what is there", "answer": "star"}) + "\n")
    (work / "tasks.jsonl").write_text("".join(lines))
    return save_talking(work / "model")


def test_heads_are_chosen_and_used(run: Run, folder: Path, work: Path) -> None:
    options = ("--tasks", "tasks.jsonl", "--set", "act.threshold=0.08", "--max-tokens", 2)
    own = folder / "act_heads.json"
    ended = run("models", "heads", folder, *options, "--choose", "harmless", "--out", own)
    assert ended.code == 0, ended.err
    header, *lines = ended.out.splitlines()
    assert header.split() == ["layer", "head", "changed", "right", "gained", "lost", "chosen"]
    chosen = [[int(line.split()[0]), int(line.split()[1])] for line in lines if line.endswith("yes")]
    record = json.loads(own.read_text())
    assert len(lines) == 8 and chosen == record["heads"] != []
    assert (record["questions"], record["held_out_questions"], record["finished"]) == (3, 1, True)
    assert f"{len(chosen)} of 8 heads chosen" in ended.err and "held-out questions" in ended.err
    # the hash of the folder is another one with the file in it, the rest is not
    again = run("models", "heads", folder, *options, "--choose", "harmless", "--out", own, "--resume", "--json")
    assert again.code == 0 and json.loads(again.out)["result"]["measured"] == record["measured"]
    question = ("0.png", "what is there", "--model", folder, "--max-tokens", 2, "--calibrate", "act", "--json")
    used = json.loads(run("vlm-ask", *question, "--set", "act.heads=auto", "--set", "act.threshold=0.08").out)
    told = used["items"][0]["reports"]["act"]["heads_changed"]
    assert told and all(count <= sum(str(layer) == key for layer, _ in chosen) for key, count in told.items())


def test_other_heads_in_the_file_are_another_content(run: Run, folder: Path, work: Path) -> None:
    question = ("0.png", "what is there", "--model", folder, "--max-tokens", 1, "--calibrate", "act", "--update",
                "--set", "act.heads=heads.json", "--out", "answers.jsonl")  # fmt: skip
    done = []
    for heads in ("[[0, 0]]", "[[0, 0]]", "[[1, 0]]"):
        (work / "heads.json").write_text(heads)
        ended = run("vlm-ask", *question)
        assert ended.code == 0, ended.err
        done.append("1 left out" not in ended.err)
    assert done == [True, False, True]


def test_what_is_refused(run: Run, folder: Path, work: Path) -> None:
    (work / "there.json").write_text("kept")
    for options, said in (
        (("--tasks", "none.jsonl"), "--tasks none.jsonl: no such file"),
        (("--tasks", "tasks.jsonl", "--out", "there.json"), "--out there.json: exists"),
        (("--tasks", "tasks.jsonl", "--out", "no/heads.json"), "no folder no"),
        (("--tasks", "tasks.jsonl", "--resume"), "--resume: needs --out FILE"),
        (("--tasks", "tasks.jsonl", "--set", "act.heads=all"), "unknown key 'act.heads'"),
        (("--tasks", "tasks.jsonl", "--set", "var.tau=3"), "unknown key 'var.tau'"),
        (("--tasks", "tasks.jsonl", "--image-root", "none"), "--image-root none: no such folder"),
    ):
        ended = run("models", "heads", folder, *options)
        assert ended.code == 2 and said in ended.line, options
    assert (work / "there.json").read_text() == "kept"


def test_questions_that_cannot_be_asked_are_named_and_the_others_choose(run: Run, folder: Path, work: Path) -> None:
    with (work / "tasks.jsonl").open("a") as stream:
        stream.write("{broken\n")
    ended = run("models", "heads", folder, "--tasks", "tasks.jsonl", "--max-tokens", 1, "--out", "h.json", "--quiet")
    assert ended.code == 3 and "line 5" in ended.line and ended.out == ""
    assert json.loads((work / "h.json").read_text())["finished"]
