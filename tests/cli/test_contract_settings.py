"""The rules of the command line over every file command: defaults, models, devices, units, spaces, twins, extras."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from cli_cases import TONEMAP, Case, Run, every, finish, light, place, rows, tree, write_pfm

# lock, cron


@light
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
