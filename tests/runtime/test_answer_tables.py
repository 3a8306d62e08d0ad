"""Answers of many items in one file."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from attnkit.runtime.errors import AttnkitError
from attnkit.runtime.tables import AnswerTable


def test_rows_are_whole_lines_and_end_in_the_order_of_the_items(tmp_path: Path) -> None:
    table = AnswerTable(tmp_path / "o.jsonl", "jsonl")
    table.start(fresh=True)
    table.add("b", [{"n": 2}], {"x": 1})
    table.add("a", [{"n": 1}, {"n": 11}], {"x": 1})
    assert [json.loads(line)["n"] for line in (tmp_path / "o.jsonl").read_text().splitlines()] == [2, 1, 11]
    table.finish(["a", "b"])
    assert [json.loads(line)["n"] for line in (tmp_path / "o.jsonl").read_text().splitlines()] == [1, 11, 2]


def test_redone_items_keep_their_old_rows_until_the_end(tmp_path: Path) -> None:
    table = AnswerTable(tmp_path / "o.jsonl", "jsonl")
    table.start(fresh=True)
    table.add("a", [{"n": 1}], {})
    table.add("b", [{"n": 2}], {})
    again = AnswerTable(tmp_path / "o.jsonl", "jsonl")
    assert set(again.read()) == {"a", "b"}
    again.start(fresh=False)
    again.forget(["a"])
    assert len((tmp_path / "o.jsonl").read_text().splitlines()) == 2
    again.add("a", [{"n": 10}], {})
    again.finish(["a", "b"])
    assert [json.loads(line)["n"] for line in (tmp_path / "o.jsonl").read_text().splitlines()] == [10, 2]


def test_csv_quotes_and_holds_the_settings_beside(tmp_path: Path) -> None:
    path = tmp_path / "o.csv"
    table = AnswerTable(path, "csv")
    table.start(fresh=True)
    table.add("a,b", [{"text": 'two\nlines, "quoted"', "list": [1, 2]}], {"method": "m"})
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert rows == [{"item": "a,b", "text": 'two\nlines, "quoted"', "list": "[1, 2]"}]
    assert json.loads((tmp_path / "o.csv.json").read_text()) == {"items": {"a,b": {"method": "m"}}}
    assert AnswerTable(path, "csv").read() == {"a,b": {"method": "m"}}


def test_csv_rows_without_settings_are_done_again(tmp_path: Path) -> None:
    path = tmp_path / "o.csv"
    table = AnswerTable(path, "csv")
    table.start(fresh=True)
    table.add("a", [{"n": 1}], {})
    with path.open("a") as stream:
        stream.write("b,2\n")
    again = AnswerTable(path, "csv")
    assert set(again.read()) == {"a"}
    again.start(fresh=False)
    assert path.read_text() == "item,n\na,1\n"


def test_csv_refuses_a_row_of_other_columns(tmp_path: Path) -> None:
    table = AnswerTable(tmp_path / "o.csv", "csv")
    table.start(fresh=True)
    table.add("a", [{"n": 1}], {})
    with pytest.raises(AttnkitError, match="its columns are item, n"):
        table.add("b", [{"m": 1}], {})
