"""Commands whose answers are words: what they print, and items that fail or are done together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from attnkit.runtime.batch import run_files
from attnkit.runtime.command import FileCommand
from attnkit.runtime.errors import UsageError
from attnkit.runtime.items import Column, Context, Item
from attnkit.runtime.options import BatchOptions
from attnkit.runtime.outputs import Outputs


@dataclass(frozen=True)
class Echo(FileCommand):
    """Says each word twice, on lines of their own; `lost` is an item with a problem."""

    size: int = 1
    table: bool = False

    name = "echo"
    layout = "table"
    speaks = True
    formats: ClassVar = {".jsonl": "jsonl"}

    @property
    def together(self) -> int:  # type: ignore[override]
        return self.size

    def items(self, inputs: Sequence[str], batch: BatchOptions) -> list[Item]:
        return [
            Item(word, word, payload=word, words=word, problem="nobody knows it" if word == "lost" else None)
            for word in inputs
        ]

    def columns(self) -> tuple[Column, ...]:
        return (Column("said", "said"),) if self.table else ()

    def table_rows(self, record: Any) -> Sequence[Any]:
        return [{"said": part} for part in record.get("parts", ())]

    def say(self, row: Any) -> str | None:
        return None if self.table else row["said"]

    def open(self, context: Context) -> Echo:
        return self

    def run(self, item: Item, outputs: Outputs) -> dict[str, Any]:
        told = {"warnings": ["beware"]} if "danger" in item.name else {}
        outputs.row(said=f"{item.payload}\n{item.payload}", group=[one.name for one in item.group])
        return {"parts": [item.payload, item.payload.upper()], "group": [one.name for one in item.group], **told}


def run(capsys: pytest.CaptureFixture[str], command: Echo, words: str, **options: Any) -> tuple[int, str, str]:
    code = run_files(command, words.split(), BatchOptions(**options))
    return code, *capsys.readouterr()


def test_one_answer_is_bare_and_several_are_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, Echo(), "a") == (0, "a\na\n", "")
    code, out, err = run(capsys, Echo(), "a b")
    assert (code, out) == (0, "a\ta a\nb\tb b\n") and "2 done" in err


def test_documents_and_out_take_the_place_of_the_words(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    _, out, _ = run(capsys, Echo(), "a b", json=True)
    assert [item["parts"] for item in json.loads(out)["items"]] == [["a", "A"], ["b", "B"]]
    assert [json.loads(line)["item"] for line in run(capsys, Echo(), "a b", jsonl=True)[1].splitlines()] == ["a", "b"]
    assert json.loads(run(capsys, Echo(), "a", out="-")[1])["said"] == "a\na"
    assert run(capsys, Echo(), "a", out=str(tmp_path / "o.jsonl"))[1] == ""
    assert json.loads((tmp_path / "o.jsonl").read_text())["said"] == "a\na"
    with pytest.raises(UsageError, match="--out -"):
        run(capsys, Echo(), "a", out="-", json=True)


def test_a_table_may_stand_for_the_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, Echo(table=True), "a b")[1].splitlines() == [
        "item  said",
        "a     a",
        "a     A",
        "b     b",
        "b     B",
    ]


def test_an_item_with_a_problem_fails_in_its_place_without_a_worker(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, Echo(), "a lost b")
    assert (code, out) == (3, "a\ta a\nb\tb b\n") and "lost: nobody knows it" in err
    assert run(capsys, Echo(), "lost")[0] == 1
    planned = json.loads(run(capsys, Echo(), "a lost", dry_run=True, json=True)[1])["items"]
    assert [item.get("problem") for item in planned] == [None, "nobody knows it"]


def test_items_know_those_that_can_be_done_with_them(capsys: pytest.CaptureFixture[str]) -> None:
    groups = [item.get("group") for item in json.loads(run(capsys, Echo(2), "a lost b c", json=True)[1])["items"]]
    assert groups == [["a", "b"], None, ["a", "b"], ["c"]]
    assert json.loads(run(capsys, Echo(), "a", json=True)[1])["items"][0]["group"] == []


def test_notices_of_many_items_are_cut_short(capsys: pytest.CaptureFixture[str]) -> None:
    words = " ".join(f"danger{at}" for at in range(23))
    err = run(capsys, Echo(), words)[2]
    assert err.count("beware") == 20 and "3 more notices; --verbose shows them" in err
    err = run(capsys, Echo(), words, verbose=True)[2]
    assert err.count("beware") == 23 and "more notices" not in err


def test_words_are_part_of_an_items_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    prints = {Item("a", "a", path=tmp_path / "a", words=words).fingerprint() for words in (None, "", "x", "y")}
    assert len(prints) == 4
    assert Item("a", "a", data=b"a").fingerprint() == Item("a", "a", path=tmp_path / "a").fingerprint()
