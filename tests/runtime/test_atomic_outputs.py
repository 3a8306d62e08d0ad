"""Whole files only."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from attnkit.runtime.errors import ItemError
from attnkit.runtime.outputs import TEMPORARY_PREFIX, Outputs, sweep


def outputs(folder: Path, **paths: Path | None) -> Outputs:
    return Outputs(paths or {"main": folder / "o.png"}, "png", {}, "cafe0123", 4)


def test_nothing_shows_before_the_commit_and_all_after(tmp_path: Path) -> None:
    made = outputs(tmp_path)
    made.write("main", b"whole")
    assert [path.name for path in tmp_path.iterdir()] == [f"{TEMPORARY_PREFIX}cafe0123-4-main.png"]
    made.commit()
    assert [path.name for path in tmp_path.iterdir()] == ["o.png"]
    assert (tmp_path / "o.png").read_bytes() == b"whole"


def test_discard_leaves_nothing(tmp_path: Path) -> None:
    made = outputs(tmp_path)
    made.write("main", b"half")
    made.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "o.png").write_bytes(b"old")
    made = outputs(tmp_path)
    made.write("main", b"new")

    def full(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ItemError, match=r"cannot write .*o\.png: no space left"):
        made.commit()
    made.discard()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"o.png": b"old"}


def test_the_main_file_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = outputs(tmp_path, main=tmp_path / "cube.hdr", preview=tmp_path / "cube.png")
    made.path("main").write_text("header")
    made.path("main", ".img").write_text("data")
    made.path("preview").write_text("picture")
    order = []
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda path, target: order.append(target.name) or replace(path, target))
    made.commit()
    # whoever skips by the name of the main file may then trust the others
    assert order == ["cube.png", "cube.img", "cube.hdr"]


def test_files_of_one_output_share_a_stem_while_they_are_written(tmp_path: Path) -> None:
    made = outputs(tmp_path, main=tmp_path / "cube.hdr")
    assert made.path("main").with_suffix(".img") == made.path("main", ".img")


def test_an_orphan_writes_nothing(tmp_path: Path) -> None:
    made = outputs(tmp_path)
    made.write("main", b"late")
    with pytest.raises(ItemError, match="gone"):
        made.commit(allowed=lambda: False)
    made.discard()
    assert list(tmp_path.iterdir()) == []


def test_outputs_that_are_to_stay_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "o.png").write_bytes(b"old")
    made = Outputs({"main": tmp_path / "o.png"}, "png", {}, "cafe0123", 0, frozenset({"main"}))
    assert not made.wants("main")
    made.write("main", b"new")
    made.commit()
    made.discard()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"o.png": b"old"}


def test_standard_output_takes_bytes_and_files(tmp_path: Path) -> None:
    made = outputs(tmp_path, main=None)
    made.write("main", b"bytes")
    made.commit()
    assert made.standard_output == b"bytes"
    made = outputs(tmp_path, main=None)
    made.path("main").write_bytes(b"a file")
    scratch = made.path("main")
    made.commit()
    made.discard()
    assert made.standard_output == b"a file" and not scratch.exists()


def test_sweep_takes_temporary_files_of_one_run_or_of_all(tmp_path: Path) -> None:
    for name in (".attnkit-aaaa0000-1-main.png", ".attnkit-bbbb0000-1-main.png", "o.png", ".other"):
        (tmp_path / name).touch()
    assert sweep([tmp_path, tmp_path / "missing"], "aaaa0000") == 1
    assert sweep([tmp_path]) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other", "o.png"]


def test_a_large_output_is_built_under_a_lasting_name_and_adopted(tmp_path: Path) -> None:
    made = outputs(tmp_path / "new", main=tmp_path / "new" / "cube.hdr")
    header, data = made.partial(), made.partial("main", ".img")
    assert header is not None and data is not None and header.name.startswith(".cube.hdr")
    # the next run finds it again
    assert outputs(tmp_path, main=tmp_path / "new" / "cube.hdr").partial() == header
    journal = header.with_name("journal")
    for path in (header, data, journal):
        path.write_text(path.name)
    made.adopt(data, "main", ".img", lasting=True)
    made.adopt(header, lasting=True, needless=journal)
    made.discard()
    assert len(list(header.parent.iterdir())) == 3
    made.adopt(data, "main", ".img", lasting=True)
    made.adopt(header, lasting=True, needless=journal)
    made.commit()
    assert sorted(path.name for path in header.parent.iterdir()) == ["cube.hdr", "cube.img"]
    assert outputs(tmp_path, main=None).partial() is None


def test_what_does_not_last_goes_with_a_discard(tmp_path: Path) -> None:
    made = outputs(tmp_path)
    path = made.partial()
    assert path is not None
    path.write_text("whole, but of no use to a later run")
    made.adopt(path)
    made.discard()
    assert list(tmp_path.iterdir()) == []
