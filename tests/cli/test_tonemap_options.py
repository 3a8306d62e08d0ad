"""Options of `tonemap` that reach beyond one picture: sequences, tables of colours, contact sheets, jobs."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from cli_cases import TONEMAP, Run, tree, write_pfm


def frames(work: Path, lights: list[float]) -> None:
    noise = np.random.default_rng(3).random(48 * 32) + 0.05
    (work / "f").mkdir(exist_ok=True)
    for number, light in enumerate(lights, 1):
        write_pfm(work / "f" / f"frame{number}.pfm", [float(value) for value in noise * light], 48)


def test_sequence_flickers_less_than_frame_by_frame(run: Run, work: Path) -> None:
    noise = np.random.default_rng(3).random(48 * 32) + 0.05
    (work / "f").mkdir()
    for number in range(8):
        # every other frame sees a lamp: alone it would darken all the rest
        values = noise.copy()
        values[:40] = 60.0 if number % 2 else 0.3
        write_pfm(work / "f" / f"frame{number}.pfm", [float(value) for value in values], 48)

    def flicker(folder: str) -> float:
        means = [cv2.imread(f"{folder}/frame{number}.png")[4:].mean() for number in range(8)]
        return float(np.abs(np.diff(means)).mean())

    assert run("tonemap", "f", "--method", "llf", "--out", "alone/").code == 0
    assert run("tonemap", "f", "--method", "llf", "--out", "together/", "--sequence").code == 0
    assert flicker("together") < 0.5 * flicker("alone")


def test_sequence_is_the_same_with_jobs_and_after_a_stop(run: Run, work: Path) -> None:
    frames(work, [0.5, 2.0, 0.5])
    assert run("tonemap", "f", "--method", "llf", "--out", "a/", "--sequence").code == 0
    assert run("tonemap", "f", "--method", "llf", "--out", "b/", "--sequence", "--jobs", "2").code == 0
    assert tree(work / "a") == tree(work / "b")
    (work / "b" / "frame2.png").unlink()
    assert run("tonemap", "f", "--method", "llf", "--out", "b/", "--sequence", "--skip-existing").code == 0
    assert tree(work / "a") == tree(work / "b")


def test_sequence_update_redoes_every_frame_when_one_changes(run: Run, work: Path) -> None:
    frames(work, [0.5, 2.0, 0.5])
    arguments = ("tonemap", "f", "--method", "llf", "--out", "a/", "--sequence", "--update", "--json")
    assert json.loads(run(*arguments).out)["summary"]["ok"] == 3
    assert json.loads(run(*arguments).out)["summary"]["skipped"] == 3
    write_pfm(work / "f" / "frame2.pfm", [3.0] * 16, 4)
    assert json.loads(run(*arguments).out)["summary"]["ok"] == 3


def test_sequence_with_a_broken_frame_does_the_others(run: Run, work: Path) -> None:
    frames(work, [0.5, 2.0, 0.5])
    broken = work / "f" / "frame2.pfm"
    broken.write_bytes(broken.read_bytes()[:-9])
    ended = run("tonemap", "f", "--method", "llf", "--out", "a/", "--sequence")
    assert ended.code == 3 and "frame2.pfm" in ended.err
    assert sorted(tree(work / "a")) == ["frame1.png", "frame3.png"]


def test_sequence_needs_a_method_with_parameters(run: Run, work: Path) -> None:
    ended = run(TONEMAP, TONEMAP.good(work / "a"), "--sequence")
    assert ended.code == 2 and "--sequence" in ended.line and "llf" in ended.line


def test_lut_is_applied_and_its_faults_are_named(run: Run, work: Path) -> None:
    source = TONEMAP.good(work / "a")
    corners = [f"{1 - red} {1 - green} {1 - blue}" for blue in (0, 1) for green in (0, 1) for red in (0, 1)]
    (work / "negative.cube").write_text("LUT_3D_SIZE 2\n" + "\n".join(corners) + "\n")
    run(TONEMAP, source, "--out", "plain.png")
    assert run(TONEMAP, source, "--lut", "negative.cube", "--out", "negative.png").code == 0
    plain, negative = cv2.imread("plain.png").astype(int), cv2.imread("negative.png").astype(int)
    assert np.abs(plain + negative - 255).max() <= 1
    (work / "short.cube").write_text("LUT_3D_SIZE 2\n0 0 0\n")
    ended = run(TONEMAP, source, "--lut", "short.cube", "--out", "o.png")
    assert ended.code == 2 and "short.cube" in ended.line
    ended = run(TONEMAP, source, "--lut", "missing.cube", "--out", "o.png")
    assert ended.code == 2 and "missing.cube" in ended.line


def test_lut_out_gives_the_global_part_back(run: Run, work: Path) -> None:
    values = np.geomspace(0.01, 40.0, 96 * 64)
    np.random.default_rng(1).shuffle(values)
    write_pfm(work / "a.pfm", [float(value) for value in values], 96)
    ended = run("tonemap", "a.pfm", "--lut-out", "a.cube", "--out", "a.png")
    assert ended.code == 0, ended.err
    text = (work / "a.cube").read_text()
    assert "LUT_3D_SIZE" in text and "attnkit settings" in text and str(work) not in text
    assert run("tonemap", "a.pfm", "--lut", "a.cube", "--out", "again.png").code == 0
    assert cv2.imread("again.png").shape == (64, 96, 3)
    ended = run(TONEMAP, "a.pfm", "--lut-out", "b.cube", "--out", "b.png")
    assert ended.code == 2 and "--lut-out" in ended.line


def test_default_method_holds_the_hash_of_its_model(run: Run, work: Path) -> None:
    from attnkit.pictures import read_settings

    write_pfm(work / "a.pfm", [0.01 * (at + 1) for at in range(96 * 64)], 96)
    assert run("tonemap", "a.pfm", "--out", "a.png").code == 0
    settings = read_settings("a.png")
    assert settings is not None and len(settings["options"]["model_sha256"]) == 64
    ended = run("tonemap", "a.pfm", "--out", "a.png", "--update", "--json")
    assert json.loads(ended.out)["summary"]["skipped"] == 1


def test_a_model_of_another_task_is_refused_before_any_work(run: Run, work: Path) -> None:
    write_pfm(work / "a.pfm", [0.01 * (at + 1) for at in range(96 * 64)], 96)
    ended = run("tonemap", "a.pfm", "--out", "a.png", "--model", "hsie", "--dry-run")
    assert ended.code == 2 and "made for 'hsi-enhance', expected one for 'tonemap': llf-lut" in ended.line


def test_sheet_shows_all_methods(run: Run, work: Path) -> None:
    write_pfm(work / "a.pfm", [0.01 * (at + 1) for at in range(96 * 64)], 96)
    assert run(TONEMAP, "a.pfm", "--sheet", "sheet.png", "--out", "o.png").code == 0
    few = ("--baseline", "reinhard")
    assert run(TONEMAP, "a.pfm", "--sheet", "two.png", *few, "--out", "p.png").code == 0
    whole, two = cv2.imread("sheet.png"), cv2.imread("two.png")
    assert whole.size > 2 * two.size and two.shape[1] > 96
    ended = run(TONEMAP, "a.pfm", "--sheet", "three.png", "--baseline", "fattal", "--out", "q.png")
    assert ended.code == 2 and "--baseline: got 'fattal'" in ended.line


def test_formats_depths_and_quality_that_do_not_fit(run: Run, work: Path) -> None:
    source = TONEMAP.good(work / "a")
    for options, word in (
        (("--format", "jpeg", "--depth", "16"), "--depth"),
        (("--format", "png", "--quality", "90"), "--quality"),
        (("--depth", "12"), "--depth"),
        (("--strength", "0.5"), "--strength"),
        (("--saturation", "-1"), "--saturation"),
    ):
        ended = run(TONEMAP, source, *options, "--out", "o/")
        assert ended.code == 2 and word in ended.line, options


@pytest.mark.parametrize(("suffix", "depth", "kind"), [(".png", 16, np.uint16), (".tif", 32, np.float32)])
def test_depths(suffix: str, depth: int, kind: type, run: Run, work: Path) -> None:
    write_pfm(work / "a.pfm", [at / 4096 for at in range(4096)], 64)
    assert run(TONEMAP, "a.pfm", "--depth", depth, "--out", f"o{suffix}").code == 0
    picture = cv2.imread(f"o{suffix}", cv2.IMREAD_UNCHANGED)
    assert picture.dtype == kind and len(np.unique(picture)) > 1000
