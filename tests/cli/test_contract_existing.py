"""The rules of the command line over every file command: outputs that exist, settings, resuming."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from cli_cases import PAIRS, TONEMAP, WORDS, Case, Run, every, files, light, place, rows, tree

# existing


@every
def test_existing_is_refused_then_overwritten(case: Case, run: Run, work: Path) -> None:
    source = case.good(work / "a")
    out = f"o{case.out_suffix}"
    assert run(case, source, "--out", out).code == 0
    (work / out).write_text("kept")
    before = tree(work)
    ended = run(case, source, "--out", out)
    assert ended.code == 2 and out in ended.line and "--overwrite" in ended.line
    assert tree(work) == before
    assert run(case, source, "--out", out, "--overwrite").code == 0
    assert (work / out).read_bytes() != b"kept"


@every
def test_existing_refused_for_one_item_stops_all(case: Case, run: Run, work: Path) -> None:
    first, second = case.good(work / "a"), case.good(work / "b")
    run(case, first, "--out", place(case))
    before = tree(work)
    assert run(case, first, second, "--out", place(case)).code == 2
    assert tree(work) == before


@every
def test_existing_skip_by_name(case: Case, run: Run, work: Path) -> None:
    sources = [case.good(work / name, at) for at, name in enumerate(("a", "b"), 1)]
    assert run(case, sources[0], "--out", place(case)).code == 0
    before = tree(work)
    ended = run(case, *sources, "--out", place(case), "--skip-existing", *case.change)
    assert ended.code == 0 and "1 left out" in ended.err
    after = tree(work)
    if case.table:
        whole = (work / place(case)).read_bytes()
        assert whole.startswith(before[place(case)]) and len(rows(work / place(case))) == 2
    else:
        assert {name: after[name] for name in before} == before and f"o/b{case.out_suffix}" in after


@every
def test_existing_update_redoes_what_has_changed(case: Case, run: Run, work: Path) -> None:
    sources = [case.good(work / name, at) for at, name in enumerate(("a", "b"), 1)]

    def update(*options: str) -> tuple[int, int]:
        ended = run(case, *sources, "--out", place(case), "--update", "--json", *options)
        summary = json.loads(ended.out)["summary"]
        assert ended.code == 0
        return summary["ok"], summary["skipped"]

    assert update() == (2, 0)
    os.utime(sources[0], (1, 1))
    assert update() == (0, 2)
    assert update(*case.change) == (2, 0)
    assert update(*case.change) == (0, 2)
    case.good(sources[1], 3)
    assert update(*case.change) == (1, 1)
    if case is WORDS:
        assert [row["letters"] for row in rows(work / place(case))] == [10, 14]


@every
def test_existing_ways_exclude_each_other(case: Case, run: Run, work: Path) -> None:
    ended = run(case, case.good(work / "a"), "--overwrite", "--update")
    assert ended.code == 2 and "--overwrite" in ended.line and "--update" in ended.line


def test_existing_side_output_alone_is_completed_by_skip_existing(run: Run, work: Path) -> None:
    PAIRS.good(work / "a")
    assert run(PAIRS, "a.head", "--out", "o/").code == 0
    made = (work / "o" / "a.body").stat().st_mtime_ns
    assert run(PAIRS, "a.head", "--out", "o/", "--skip-existing", "--preview", "p/").code == 0
    assert (work / "p" / "a.txt").exists() and (work / "o" / "a.body").stat().st_mtime_ns == made


@files
def test_existing_output_equal_to_input(case: Case, run: Run, work: Path) -> None:
    source = case.good(work / "a")
    alias = work / f"alias{case.out_suffix}"
    alias.symlink_to(source)
    hard = work / f"hard{case.out_suffix}"
    os.link(source, hard)
    before = tree(work)
    for out in (alias, hard):
        ended = run(case, source, "--out", out, "--overwrite")
        assert ended.code == 2 and "input" in ended.line
    ended = run(case, source, "--out", "o/", "--record", source)
    assert ended.code == 2 and "--record" in ended.line
    assert tree(work) == before


# settings


@light
def test_settings_make_two_runs_equal_byte_for_byte(case: Case, run: Run, work: Path) -> None:
    case.good(work / "one" / "a")
    case.good(work / "one" / "b", 2)
    runs = []
    for name, jobs in (("x", 1), ("y", 2)):
        assert run(case, "one", "--out", place(case, name), "--jobs", jobs, *case.change).code == 0
        runs.append((work / f"x{case.out_suffix}").read_bytes() if case.table else tree(work / name))
    assert runs[0] == runs[1]
    stored = repr(runs[0])
    assert "input_sha256" in stored and str(work) not in stored and os.uname().nodename not in stored


def test_settings_are_read_back(run: Run, work: Path) -> None:
    from attnkit.pictures import read_settings

    source = TONEMAP.good(work / "a")
    for suffix in (".png", ".jpg", ".tif", ".exr"):
        run(TONEMAP, source, "--out", f"o{suffix}", "--saturation", "0.5")
        settings = read_settings(work / f"o{suffix}")
        assert settings is not None and settings["options"]["saturation"] == 0.5 and settings["command"] == "tonemap"


# resume


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_resume_drops_a_torn_line_and_skips_what_is_done(suffix: str, run: Run, work: Path) -> None:
    sources = [WORDS.good(work / name, at) for at, name in enumerate(("a", "b", "c"), 1)]
    assert run(WORDS, *sources, "--out", f"whole{suffix}").code == 0
    assert run(WORDS, sources[0], "--out", f"o{suffix}").code == 0
    with (work / f"o{suffix}").open("a") as stream:
        stream.write('{"item": "to' if suffix == ".jsonl" else "b.txt,")
    ended = run(WORDS, *sources, "--out", f"o{suffix}", "--skip-existing", "--json")
    assert json.loads(ended.out)["summary"]["skipped"] == 1
    assert (work / f"o{suffix}").read_bytes() == (work / f"whole{suffix}").read_bytes()


def test_resume_refuses_a_table_that_is_not_ours(run: Run, work: Path) -> None:
    (work / "o.jsonl").write_text('{"name": "other"}\n')
    ended = run(WORDS, WORDS.good(work / "a"), "--out", "o.jsonl", "--skip-existing")
    assert ended.code == 1 and "o.jsonl: line 1" in ended.line
    assert (work / "o.jsonl").read_text() == '{"name": "other"}\n'
