"""Questions as items: arguments, files of tasks, and rows of answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from attnkit.runtime.errors import UsageError
from attnkit.runtime.items import Item
from attnkit.tasks.vlm_ask.jobs import Job, item_of_pictures, read_tasks, split_arguments
from attnkit.tasks.vlm_ask.rows import compared, short_prompt


def tasks(folder: Path, *lines: object) -> Path:
    (folder / "a.png").write_bytes(b"first")
    (folder / "b.png").write_bytes(b"second")
    path = folder / "tasks.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def test_our_keys_and_those_of_pope(tmp_path: Path) -> None:
    path = tasks(
        tmp_path,
        {"id": "x/1", "image": "a.png", "question": "what?", "label": "red", "category": "colour", "more": 1},
        {"question_id": 7, "image": "b.png", "text": "is there a dog?", "label": "no"},
        {"image": ["a.png", "b.png"], "answer": "a dog"},
    )
    first, second, third = read_tasks(path, None, "which?")
    assert (first.name, first.stem) == ("x/1", "x-1") and first.payload.carried == {
        "label": "red",
        "category": "colour",
    }
    carried = {"label": "no", "category": None}
    assert second.payload == Job(7, ("b.png",), (tmp_path / "b.png",), "is there a dog?", carried)
    assert third.name == "3" and third.payload.question == "which?"
    assert third.payload.carried == {"label": "a dog", "category": None}
    assert third.files == (tmp_path / "a.png", tmp_path / "b.png")


def test_broken_lines_stay_in_their_place_as_items_that_fail(tmp_path: Path) -> None:
    path = tasks(
        tmp_path,
        {"id": 1, "image": "a.png", "question": "what?"},
        '{"id": 2, "image": ',
        {"id": 3, "image": "lost.png", "question": "what?"},
        {"id": 4, "image": "a.png"},
        {"id": 5, "question": "what?"},
        {"id": [6], "image": "a.png", "question": "what?"},
        {"id": 7, "image": "b.png", "question": "  "},
    )
    found = read_tasks(path, None, None)
    assert [item.name for item in found] == ["1", "line 2", "3", "4", "5", "[6]", "7"]
    assert found[0].problem is None
    words = ["line 2: not JSON", "lost.png: no such picture", "question is None", "image is None", "id is ", "'  '"]
    for item, text in zip(found[1:], words, strict=True):
        assert item.problem is not None and text in item.problem and str(path) in item.problem and not item.files


def test_pictures_are_looked_for_in_the_root(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    path = tasks(tmp_path / "there", {"id": 1, "image": "a.png", "question": "what?"}).rename(tmp_path / "t.jsonl")
    assert read_tasks(path, None, None)[0].problem is not None
    assert read_tasks(path, tmp_path / "there", None)[0].files == (tmp_path / "there/a.png",)


def test_a_file_without_a_task_is_a_usage_error(tmp_path: Path) -> None:
    for text in ("", "nothing of the kind", "[]"):
        (tmp_path / "t.jsonl").write_text(text)
        with pytest.raises(UsageError, match=r"--tasks .*t\.jsonl"):
            read_tasks(tmp_path / "t.jsonl", None, None)


def test_the_content_of_an_item_is_its_pictures_and_its_words(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.png", "b.png")]
    tasks(tmp_path)
    items = [Item(str(path), path.stem, "png", path) for path in paths]
    both = item_of_pictures(items, "what?")
    assert both.files == tuple(paths) and both.payload.sources == tuple(paths)
    prints = {
        item.fingerprint()
        for item in (both, item_of_pictures(items, "why?"), item_of_pictures(items[:1], "what?"), items[0])
    }
    assert len(prints) == 4 and both.fingerprint() == item_of_pictures(items, "what?").fingerprint()
    piped = item_of_pictures([Item("-", "stdin", "png", data=b"first"), items[1]], "what?")
    assert piped.payload.sources == (b"first", paths[1]) and piped.fingerprint() == both.fingerprint()


def test_the_last_argument_is_the_question(tmp_path: Path) -> None:
    assert split_arguments(["a.png", "b.png", " what? "], None) == (["a.png", "b.png"], "what?")
    assert split_arguments(["a.png", "b.png"], "what?") == (["a.png", "b.png"], "what?")
    (tmp_path / "c.png").touch()
    for inputs, question, text in (
        ([], None, "expected IMAGE"),
        (["a.png"], None, "got 'a.png' alone"),
        (["a.png", str(tmp_path / "c.png")], None, "in the place of the question"),
        (["a.png", "  "], None, "question: is empty"),
        (["a.png"], "", "question: is empty"),
        ([], "what?", "no image"),
        (["-", "-"], None, "one of them from standard input"),
        (["a.png", "is it?", "what?"], None, "'is it\\?': no such image; one question"),
    ):
        with pytest.raises(UsageError, match=text):
            split_arguments(inputs, question)
    assert split_arguments(["a.png", "why " * 200], None)[1].startswith("why why")
    found = str(tmp_path / "c.pn?")
    assert split_arguments([found, "what?"], None) == ([found], "what?")


def test_a_prompt_is_told_without_its_repetitions() -> None:
    text = "USER: <image><image><image>\nwhat? <image> <"
    assert short_prompt(text, "<image>") == "USER: <image>[3]\nwhat? <image>[1] <"


def test_a_line_of_a_comparison_sums_over_its_calibrations() -> None:
    reports = {
        "vhr": {"heads": [1]},
        "var": {"attention_moved": 0.5, "rows_changed": 2, "visual_sinks": {1: [3, 4], 2: [4]}},
    }
    line = compared({"answer": "two\n red", "first_token": "\x1b[2J", "reports": reports})
    assert line["answer"] == "two red" and line["attention_moved"] == 0.5
    assert (line["rows_changed"], line["visual_sinks"]) == (2, 2)
    assert line["first_token"] == "\ufffd[2J"
    plain = compared({"answer": "", "first_token": None, "reports": {}})
    assert plain["attention_moved"] is None and plain["visual_sinks"] is None
