"""The rules of the command line over every file command: shape, inputs, and where outputs go."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_cases import CUBES, EVERY, PAIRS, TONEMAP, WORDS, Case, Run, every, files, finish, place, rows, tree

# shape


@every
def test_shape_options_follow_the_command(case: Case, run: Run, work: Path) -> None:
    ended = run("-q", case.command, case.good(work / "a"))
    assert ended.code == 2 and "-q" in ended.line


@every
def test_shape_short_options(case: Case, run: Run, work: Path) -> None:
    ended = run(case, case.good(work / "a"), "-n", "-o", place(case), "-j", "1", "-v")
    assert ended.code == 0 and "write" in ended.out
    assert run(case, work / f"a{case.suffix}", "-q", "-o", place(case)).code == 0


# inputs


@every
def test_inputs_file_folder_glob_and_stdin(case: Case, run: Run, work: Path) -> None:
    for at, name in enumerate(("d/b2", "d/b10", "d/sub/c"), 1):
        case.good(work / name, at)
    for given, expected in (
        (["d/b2" + case.suffix], ["b2"]),
        (["d"], ["b2", "b10"]),
        (["d", "--recursive"], ["b2", "b10", "c"]),
        (["d/*" + case.suffix], ["b2", "b10"]),
        (["d/**/*" + case.suffix], ["b2", "b10", "c"]),
        (["d", "d/b2" + case.suffix], ["b2", "b10"]),
        (["d", "--include", "b2*"], ["b2"]),
        (["d", "--exclude", "*10*", "--recursive"], ["b2", "c"]),
        (["d", "--limit", "1"], ["b2"]),
    ):
        ended = run(case, *given, "--dry-run", "--json", "--out", place(case))
        found = [Path(entry["item"]).stem for entry in json.loads(ended.out)["items"]]
        assert sorted(found) == sorted(expected), given
        # counting order inside a folder: 2 before 10
        assert found.index("b2") == 0


@pytest.mark.parametrize("case", [case for case in EVERY if case.values[0] is not PAIRS])
def test_inputs_standard_input(case: Case, start, work: Path) -> None:
    source = case.good(work / "a")
    with source.open("rb") as stream:
        ended = finish(start(case, "-", "--out", f"o{case.out_suffix}", stdin=stream))
    assert ended.code == 0, ended.err
    assert (work / f"o{case.out_suffix}").stat().st_size > 0


@every
def test_inputs_are_judged_by_content(case: Case, run: Run, work: Path) -> None:
    other = work / "d" / ("odd.head" if case is PAIRS else "odd.xyz")
    case.good(work / "d" / "a")
    case.good(other.with_suffix("")).rename(other)
    case.good(work / "d" / f".hidden{case.suffix}")
    (work / "d" / f"fake{case.suffix}").write_text("nothing of the kind")
    # an ENVI header has the suffix of Radiance pictures
    (work / "d" / "cube.hdr").write_text("ENVI\nsamples = 3\n")
    ended = run(case, "d", "--dry-run", "--json", "--out", place(case))
    found = {Path(entry["item"]).stem for entry in json.loads(ended.out)["items"]}
    assert found == {"a", "odd"} | ({"cube"} if case is CUBES else set())


def test_inputs_folder_gives_hdr_files_and_others_must_be_named(run: Run, work: Path) -> None:
    import cv2
    import numpy as np

    cv2.imwrite("d.png", np.zeros((2, 2, 3), np.uint8))
    (work / "d").mkdir()
    Path("d.png").rename("d/flat.png")
    TONEMAP.good(work / "d" / "a")
    ended = run(TONEMAP, "d", "-n", "--json", "--out", "o/")
    assert [entry["item"] for entry in json.loads(ended.out)["items"]] == ["d/a.pfm"]
    ended = run(TONEMAP, "d/*.png", "-n", "--json", "--out", "o/")
    assert [entry["item"] for entry in json.loads(ended.out)["items"]] == ["d/flat.png"]


def test_inputs_a_pair_is_one_item(run: Run, work: Path) -> None:
    PAIRS.good(work / "a")
    ended = run(PAIRS, "a.body", "a.head", "--json")
    assert ended.code == 0
    assert [entry["item"] for entry in json.loads(ended.out)["items"]] == ["a.head"]
    assert (work / "a_demo-pairs.body").read_text() == "TEXT 1!"


# --out


@files
def test_out_file_folder_and_slash(case: Case, run: Run, work: Path) -> None:
    source = case.good(work / "a")
    other = case.good(work / "b", 2)
    (work / "there").mkdir()
    for arguments, expected in (
        ([source, "--out", f"x{case.out_suffix}"], [f"x{case.out_suffix}"]),
        ([source, "--out", "there"], [f"there/a{case.out_suffix}"]),
        ([source, "--out", "new/"], [f"new/a{case.out_suffix}"]),
        ([source, other, "--out", "many"], [f"many/a{case.out_suffix}", f"many/b{case.out_suffix}"]),
    ):
        ended = run(case, *arguments)
        assert ended.code == 0, ended.err
        assert all((work / name).exists() for name in expected), expected


def test_out_suffix_picks_the_format(run: Run, work: Path) -> None:
    source = TONEMAP.good(work / "a")
    heads = {".png": b"\x89PNG", ".jpg": b"\xff\xd8", ".tif": b"II*\0", ".exr": b"\x76\x2f\x31\x01"}
    for suffix, head in heads.items():
        assert run(TONEMAP, source, "--out", f"x{suffix}").code == 0
        assert (work / f"x{suffix}").read_bytes().startswith(head)
    for wrong in ("x.bmp", "x.gif", "x"):
        ended = run(TONEMAP, source, "--out", wrong)
        assert ended.code == 2 and wrong in ended.line and ".png" in ended.line
    ended = run(TONEMAP, source, "--out", "y.png", "--format", "jpeg")
    assert ended.code == 2 and "--format" in ended.line


def test_out_dash_is_standard_output_for_one_item(start, work: Path) -> None:
    source = TONEMAP.good(work / "a")
    process = subprocess.run(
        [sys.executable, "-m", "attnkit", "tonemap", source, "--method", "linear", "--out", "-"], capture_output=True
    )
    assert process.returncode == 0 and process.stdout.startswith(b"\x89PNG") and process.stderr == b""
    assert list(work.glob("*_tonemap*")) == []


@every
def test_out_does_not_take_the_place_of_a_pipe_or_a_device(case: Case, run: Run, work: Path) -> None:
    source = case.good(work / "a")
    pipe = work / f"pipe{case.out_suffix}"
    os.mkfifo(pipe)
    ended = run(case, source, "--out", pipe, "--overwrite")
    assert ended.code == 2 and pipe.name in ended.line and "--out -" in ended.line and pipe.is_fifo()
    stream = work / f"stream{case.out_suffix}"
    stream.symlink_to("/proc/self/fd/1")
    ended = run(case, source, "--out", stream, "--overwrite")
    assert ended.code == 2 and "--out -" in ended.line and stream.is_symlink()


@files
def test_out_dash_refuses_several_items(case: Case, run: Run, work: Path) -> None:
    ended = run(case, case.good(work / "a"), case.good(work / "b"), "--out", "-")
    assert ended.code == 2 and "2 items" in ended.line and ended.out == ""


# no --out


@files
def test_no_out_goes_beside_the_input(case: Case, run: Run, work: Path) -> None:
    assert run(case, case.good(work / "deep" / "a")).code == 0
    assert (work / "deep" / f"a_{case.command}{case.out_suffix}").exists()


def test_no_out_prompt_and_table(run: Run, work: Path) -> None:
    assert run("demo-clips", "A red fox, running!").code == 0
    assert (work / "a-red-fox-running_demo-clips.clip").read_text() == "A red fox, running!\n"
    ended = run("demo-words", "--prompts", "one", "three")
    assert [json.loads(line)["letters"] for line in ended.out.splitlines()] == [3, 5]


# names


@files
def test_names_keep_sub_folders_with_recursive(case: Case, run: Run, work: Path) -> None:
    case.good(work / "in" / "x" / "a")
    case.good(work / "in" / "y" / "a")
    assert run(case, "in", "--recursive", "--out", "o/").code == 0
    assert (work / "o" / "x" / f"a{case.out_suffix}").exists() and (work / "o" / "y" / f"a{case.out_suffix}").exists()


@files
def test_names_two_items_on_one_path(case: Case, run: Run, work: Path) -> None:
    first, second = case.good(work / "x" / "a"), case.good(work / "y" / "a")
    before = tree(work)
    ended = run(case, first, second, "--out", "o/")
    assert ended.code == 2 and str(first) in ended.line and str(second) in ended.line
    assert tree(work) == before and not (work / "o").exists()


def test_names_a_table_holds_all_items(run: Run, work: Path) -> None:
    sources = [WORDS.good(work / name, at) for at, name in enumerate(("x/a", "y/a"), 1)]
    assert run(WORDS, *sources, "--out", "o.jsonl").code == 0
    assert [row["item"] for row in rows(work / "o.jsonl")] == [str(source) for source in sources]
    assert run(WORDS, *sources, "--out", "o.csv").code == 0
    assert (work / "o.csv").read_text().splitlines()[0] == "item,letters,share"


def test_names_of_results_beside_their_inputs_are_no_inputs(run: Run, work: Path) -> None:
    PAIRS.good(work / "d" / "a")
    for count in (1, 0):
        ended = run(PAIRS, "d", "--skip-existing", "--json")
        summary = json.loads(ended.out)["summary"]
        assert (summary["items"], summary["ok"]) == (1, count)


# --format


def test_format_is_the_main_outputs_and_input_format_the_inputs(run: Run, work: Path) -> None:
    source = TONEMAP.good(work / "a")
    assert run(TONEMAP, source, "--format", "jpeg", "--sheet", "s.png", "--baseline", "linear").code == 0
    assert (work / "a_tonemap.jpg").exists() and (work / "s.png").read_bytes().startswith(b"\x89PNG")
    ended = run(TONEMAP, source, "--input-format", "exr", "--out", "b.png")
    assert ended.code == 1 and "pfm" in ended.line and "exr" in ended.line
    ended = run(TONEMAP, source, "--input-format", "bmp", "--out", "b.png")
    assert ended.code == 2 and "radiance" in ended.line


# side outputs


@files
def test_side_outputs_file_for_one_folder_for_many(case: Case, run: Run, work: Path) -> None:
    assert case.side is not None
    option, suffix = case.side
    extra = ("--baseline", "linear") if case is TONEMAP else ()
    first, second = case.good(work / "a"), case.good(work / "b")
    assert run(case, first, option, f"side{suffix}", *extra, "--out", "o/").code == 0
    assert run(case, first, second, option, "sides", *extra, "--out", "p/").code == 0
    assert (work / f"side{suffix}").is_file()
    assert sorted(path.name for path in (work / "sides").iterdir()) == [f"a{suffix}", f"b{suffix}"]
    ended = run(case, first, option, "side.wrong", *extra, "--out", "q/")
    assert ended.code == 2 and option in ended.line and suffix in ended.line
