"""cli.md row by row, over every file command. Names of tests follow the first column of its table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_cases import CUBES, PAIRS, TONEMAP, WORDS, Case, Run, finish, tree, write_pfm

FILES = [pytest.param(case, id=case.command) for case in (TONEMAP, CUBES, PAIRS)]
EVERY = [*FILES, pytest.param(WORDS, id="demo-words")]
every = pytest.mark.parametrize("case", EVERY)
files = pytest.mark.parametrize("case", FILES)


def place(case: Case, name: str = "o") -> str:
    """An --out for several items."""
    return f"{name}{case.out_suffix}" if case.table else f"{name}/"


def rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


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
        assert [row["letters"] for row in rows(work / place(case))] == [5, 12]
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
    if case.table:
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


@every
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


# exit


@every
def test_exit_codes(case: Case, run: Run, work: Path) -> None:
    good, bad = case.good(work / "good"), case.bad(work / "bad")
    (work / "empty").mkdir()
    assert run(case, good, "--out", place(case, "a")).code == 0
    assert run(case, good, "--out", place(case, "a"), "--skip-existing").code == 0
    assert run(case, bad, "--out", place(case, "b")).code == 1
    assert run(case, "empty", "--out", place(case, "c")).code == 1
    assert run(case, "*.nothing", "--out", place(case, "c")).code == 1
    assert run(case, "missing", "--out", place(case, "c")).code == 2
    assert run(case, good, "missing", "--out", place(case, "c")).code == 2
    assert run(case, good, bad, "--out", place(case, "d")).code == 3
    assert run(case, good, "--jobs", "0").code == 2
    assert not (work / place(case, "c")).exists()


@every
def test_exit_fail_fast(case: Case, run: Run, work: Path) -> None:
    bad, good, later = case.bad(work / "1"), case.good(work / "2"), case.good(work / "3")
    assert run(case, bad, good, "--fail-fast", "--out", place(case, "a")).code == 1
    assert run(case, good, bad, later, "--fail-fast", "--out", place(case, "b")).code == 3
    ended = run(case, good, bad, later, "--fail-fast", "--out", place(case, "c"), "--json")
    assert json.loads(ended.out)["summary"]["not_run"] == 1


# errors


@every
def test_errors_are_one_line(case: Case, run: Run, work: Path) -> None:
    bad = case.bad(work / "bad")
    ended = run(case, bad, "--out", place(case))
    assert ended.line.startswith(f"attnkit {case.command}: ") and str(bad) in ended.line
    ended = run(case, bad, "--out", place(case, "p"), "--debug")
    assert "Traceback" in ended.err


def test_errors_nobody_foresaw_are_one_line_too(run: Run, work: Path) -> None:
    (work / "a.txt").write_text("TEXT break")
    ended = run(WORDS, "a.txt", "--out", "o.jsonl")
    assert ended.code == 1 and "RuntimeError: first line second line" in ended.line and "--debug" in ended.line


# --dry-run


@every
def test_dry_run_tells_all_and_writes_nothing(case: Case, run: Run, work: Path) -> None:
    source = case.good(work / "a")
    before = tree(work.parent)
    ended = run(case, source, "--dry-run", "--out", place(case), "--record", "r.jsonl", "--log-file", "log.txt")
    assert ended.code == 0 and "free" in ended.out and "device cpu" in ended.out and "write" in ended.out
    ended = run(case, source, "--dry-run", "--out", place(case), "--json")
    document = json.loads(ended.out)
    assert document["items"][0]["action"] == "write"
    assert {"free_bytes", "output_bytes", "method", "device", "seconds"} <= document["summary"].keys()
    assert tree(work.parent) == before and not (work / "o").exists()


@every
def test_dry_run_shows_the_refusal(case: Case, run: Run, work: Path) -> None:
    source = case.good(work / "a")
    run(case, source, "--out", place(case))
    ended = run(case, source, "--out", place(case), "--dry-run")
    assert ended.code == 2 and "refuse" in ended.out and "--overwrite" in ended.line


# streams


@every
def test_streams_quiet_says_nothing(case: Case, run: Run, work: Path) -> None:
    sources = [case.good(work / "a"), case.good(work / "b")]
    ended = run(case, *sources, "--out", place(case), "--quiet")
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    ended = run(case, case.bad(work / "c"), "--out", place(case, "p"), "--quiet")
    assert ended.code == 1 and "c" in ended.line


@every
def test_streams_talk_goes_to_stderr_and_to_the_log(case: Case, run: Run, work: Path) -> None:
    ended = run(case, case.good(work / "a"), case.good(work / "b"), "--out", place(case), "-v", "--log-file", "log")
    assert "2 done" in ended.err and "a" + case.suffix in ended.err
    # the table of scores is an answer; a command without one has nothing on standard output
    assert case is WORDS or ended.out == ""
    logged = (work / "log").read_text()
    assert all(line[4] == "-" and line.partition(" ")[2] in ended.err for line in logged.splitlines())
    run(case, work / f"a{case.suffix}", "--out", place(case, "p"), "--log-file", "log")
    assert (work / "log").read_text().startswith(logged)


@every
def test_streams_closed_pipe_ends_quietly(case: Case, start, work: Path) -> None:
    for at in range(4):
        case.good(work / "d" / f"a{at}")
    read, write = os.pipe()
    os.close(read)
    process = start(case, "d", "--out", place(case), "--jsonl", stdout=write)
    os.close(write)
    ended = finish(process)
    assert ended.err == "" and ended.code == 1
    assert not [name for name in tree(work) if ".attnkit" in name]
    # what was done before anyone could notice counts as done
    for flag in ("--json", "--jsonl"):
        read, write = os.pipe()
        os.close(read)
        process = start(case, f"d/a0{case.suffix}", "--out", place(case, flag[2:]), flag, stdout=write)
        os.close(write)
        ended = finish(process)
        assert ended.code == 0 and "Traceback" not in ended.err and "Broken" not in ended.err


# tables


def test_tables_piped_are_plain_and_never_cut(run: Run, work: Path) -> None:
    source = TONEMAP.good(work / ("long" * 30))
    ended = run(TONEMAP, source, "--out", "o/", "--score")
    head, line = ended.out.splitlines()
    assert head.split() == ["item", "TMQI", "S", "N"] and str(source) in line and "\x1b" not in ended.out


def test_tables_state_the_unit(run: Run, work: Path) -> None:
    source = TONEMAP.good(work / "a")
    assert run(TONEMAP, source, "--out", "r/a.png").code == 0
    ended = run(TONEMAP, source, "--out", "o/", "--reference", "r")
    assert "PSNR (dB)" in ended.out.splitlines()[0]
    ended = run(TONEMAP, source, "--out", "p/", "--reference", "r", "--json", "--exposure", "-1")
    assert 10 < json.loads(ended.out)["items"][0]["psnr_db"] < 60
    # a comparison that cannot be made costs no picture
    ended = run(TONEMAP, source, "--out", "q/", "--reference", "r", "--resize", "8")
    assert ended.code == 0 and "4x3, expected 8x6" in ended.err and (work / "q" / "a.png").exists()


# help


@every
def test_help_is_plain_when_piped(case: Case, run: Run) -> None:
    ended = run(case.command, "--help")
    assert ended.code == 0 and "--overwrite" in ended.out and "\x1b" not in ended.out and "╭" not in ended.out


# --json, --jsonl


@every
def test_json_document_and_lines(case: Case, run: Run, work: Path) -> None:
    good, bad = case.good(work / "good"), case.bad(work / "bad")
    ended = run(case, good, bad, "--out", place(case), "--json")
    assert ended.code == 3
    document = json.loads(ended.out, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert list(document) == ["schema", "version", "command", "options", "items", "summary"]
    assert document["command"] == case.command and isinstance(document["schema"], int)
    assert [item["status"] for item in document["items"]] == ["ok", "failed"]
    ended = run(case, good, bad, "--out", place(case, "p"), "--jsonl")
    lines = [json.loads(line) for line in ended.out.splitlines()]
    assert {line["item"]: line["status"] for line in lines} == {str(good): "ok", str(bad): "failed"}


@every
def test_json_is_printed_for_exit_1_and_not_for_2(case: Case, run: Run, work: Path) -> None:
    (work / "empty").mkdir()
    ended = run(case, "empty", "--json", "--out", place(case))
    assert ended.code == 1 and json.loads(ended.out)["items"] == []
    ended = run(case, "missing", "--json", "--out", place(case))
    assert ended.code == 2 and ended.out == ""


def test_json_has_null_for_nan(run: Run, work: Path) -> None:
    ended = run(WORDS, WORDS.good(work / "a"), "--out", "o.jsonl", "--json")
    assert json.loads(ended.out)["items"][0]["share"] is None
    assert rows(work / "o.jsonl")[0]["share"] is None


# --record


@every
def test_record_appends_items_and_runs(case: Case, run: Run, work: Path) -> None:
    good, bad = case.good(work / "good"), case.bad(work / "bad")
    run(case, good, bad, "--out", place(case), "--record", "r.jsonl", "--seed", "7")
    run(case, good, "--out", place(case), "--record", "r.jsonl", "--skip-existing")
    found = rows(work / "r.jsonl")
    assert [(line["record"], line["status"]) for line in found] == [
        ("item", "ok"),
        ("item", "failed"),
        ("run", "failed"),
        ("item", "skipped"),
        ("run", "ok"),
    ]
    first = found[0]
    assert first["time"].endswith("+00:00") and len(first["input_sha256"]) == 64
    assert first["device"] == "cpu" and first["seed"] == 7 and first["seconds"] >= 0


def test_record_survives_a_torn_line(run: Run, work: Path) -> None:
    (work / "r.jsonl").write_text('{"torn')
    run(WORDS, WORDS.good(work / "a"), "--out", "o.jsonl", "--record", "r.jsonl")
    lines = (work / "r.jsonl").read_text().splitlines()
    assert lines[0] == '{"torn' and json.loads(lines[1])["status"] == "ok"


# lock, cron


@every
def test_lock_leaves_nothing_behind_and_cron_needs_nothing(case: Case, start, work: Path) -> None:
    case.good(work / "a")
    environment = {"PATH": os.environ["PATH"]}
    ended = finish(start(case, f"a{case.suffix}", "--out", place(case), "--quiet", env=environment))
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    assert not [name for name in tree(work) if ".attnkit" in name]


# defaults


@every
def test_defaults_come_from_the_environment_and_files(case: Case, run: Run, work: Path, monkeypatch) -> None:
    bad, good = case.bad(work / "1"), case.good(work / "2")
    word = case.command.upper().replace("-", "_")
    monkeypatch.setenv(f"ATTNKIT_{word}_FAIL_FAST", "true")
    assert run(case, bad, good, "--out", place(case, "a")).code == 1
    assert run(case, bad, good, "--out", place(case, "b"), "--keep-going").code == 3
    (work / "my.toml").write_text(f"[{case.command}]\nskipexisting = true\n")
    ended = run(case, good, "--config", "my.toml")
    assert ended.code == 2 and "skip" in ended.line


# model, method


def test_model_and_method_settings_list_what_is_valid(run: Run, work: Path) -> None:
    source = TONEMAP.good(work / "a")
    ended = run("tonemap", source, "--method", "reinhard", "--set", "reinhard.nothing=1")
    assert ended.code == 2 and "reinhard.light_adapt" in ended.line
    ended = run("tonemap", source, "--method", "reinhardt")
    assert ended.code == 2 and "reinhard" in ended.line
    (work.parent / "junk.safetensors").write_text("junk")
    ended = run("tonemap", source, "--model", work.parent / "junk.safetensors")
    assert ended.code == 2 and "junk.safetensors" in ended.line
    ended = run("tonemap", source, "--model", "no-such-model")
    assert ended.code == 2 and "no-such-model" in ended.line
    assert list(work.iterdir()) == [source]


def test_model_that_cannot_be_loaded_is_said_once(run: Run, work: Path) -> None:
    from attnkit.models.weights import EMBEDDED_FOLDER

    whole = (EMBEDDED_FOLDER / "llf-lut.safetensors").read_bytes()
    (work / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    sources = [TONEMAP.good(work / name) for name in "ab"]
    ended = run("tonemap", *sources, "--model", "cut.safetensors", "--out", "o/")
    assert ended.code == 1 and ended.err.count("cut.safetensors") == 1 and "1 not begun" in ended.err
    assert not (work / "o").exists()


# device, seed


@every
def test_device_and_seed(case: Case, run: Run, work: Path) -> None:
    source = case.good(work / "a")
    ended = run(case, source, "--device", "cuda", "--out", place(case))
    assert ended.code == 2 and "cuda" in ended.line and "cpu" in ended.line
    run(case, source, "--out", place(case), "--seed", "random", "--record", "r.jsonl")
    assert isinstance(rows(work / "r.jsonl")[0]["seed"], int)


# units


def test_units_sizes_are_width_by_height(run: Run, work: Path) -> None:
    source = TONEMAP.good(work / "a")
    ended = run(TONEMAP, source, "--resize", "8x6", "--out", "o.png", "--json")
    assert json.loads(ended.out)["items"][0]["size"] == "8x6"
    for spec, size in (("50%", "2x2"), ("8", "8x6")):
        ended = run(TONEMAP, source, "--resize", spec, "--out", "o.png", "--dry-run", "--json", "--overwrite")
        assert json.loads(ended.out)["items"][0]["size"] == size
    assert run(TONEMAP, source, "--resize", "big", "--out", "p.png").code == 2


# space


def test_space_is_in_the_record(run: Run, work: Path) -> None:
    ended = run(TONEMAP, TONEMAP.good(work / "a"), "--out", "o.png", "--json", "--output-space", "display-p3")
    record = json.loads(ended.out)["items"][0]
    assert record["source_space"] == "rec709" and record["space"] == "display-p3" and record["transfer"]


# twins


def test_twins_baselines_are_scored_beside(run: Run, work: Path) -> None:
    write_pfm(work / "a.pfm", [0.001 * (at % 97) ** 2 for at in range(32 * 24)], 32)
    ended = run(TONEMAP, "a.pfm", "--score", "--baseline", "reinhard", "--out", "o.png")
    assert "TMQI reinhard" in ended.out and len(ended.out.splitlines()) == 2
    ended = run(TONEMAP, "a.pfm", "--baseline", "reinhard", "--out", "p.png")
    assert ended.code == 2 and "--score" in ended.line


# extras


@every
def test_extras_missing_package_is_one_line(case: Case, run: Run, work: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    ended = run(case, case.good(work / "a"), "--out", place(case), "--engine", "dask")
    assert ended.code == 1 and "pip install 'attnkit[cluster]'" in ended.line
