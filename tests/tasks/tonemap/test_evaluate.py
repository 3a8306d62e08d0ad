"""`attnkit eval tonemap` as a person runs it, and the parts of its table."""

import csv
import json
import math
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from frames import ordinary

from attnkit.runtime.errors import AttnkitError, UsageError
from attnkit.tasks.tonemap import evaluate, external
from attnkit.tasks.tonemap.task import TonemapRequest, tonemap


def run(*arguments, cwd=None):
    done = subprocess.run(
        [sys.executable, "-m", "attnkit", "eval", "tonemap", *map(str, arguments)],
        capture_output=True, text=True, cwd=cwd, env={**os.environ, "COLUMNS": "80"},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def scenes(tmp_path):
    """Two Radiance files and what is no scene in one folder."""
    folder = tmp_path / "scenes"
    folder.mkdir()
    for name, seed in (("a", 0), ("b", 1)):
        cv2.imwrite(str(folder / f"{name}.hdr"), ordinary(60, 80, seed)[..., ::-1])
    (folder / "notes.txt").write_text("not a picture")
    return folder


def test_table_of_methods(scenes):
    code, out, err = run(scenes, "--methods", "llf,drago,linear")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert len(lines) == 4
    assert lines[0].split()[:4] == ["method", "scenes", "pictures", "TMQI"]
    assert "minus llf (95 % interval)" in lines[0]
    assert "s/MP" in lines[0]
    assert "hue error (degrees)" in lines[0]
    assert [line.split()[0] for line in lines[1:]] == ["llf", "drago", "linear"]


def test_files_hold_every_picture_and_the_settings(scenes, tmp_path):
    outputs = [tmp_path / f"scores{suffix}" for suffix in (".csv", ".json", ".jsonl", ".md")]
    options = [part for path in outputs for part in ("--out", path)]
    code, out, err = run(scenes, "--methods", "drago,reinhard", "--quiet", *options)
    assert (code, out, err) == (0, "", "")
    with outputs[0].open() as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["method"], row["item"].endswith(".hdr")) for row in rows] == [("drago", True), ("reinhard", True)] * 2
    assert all(0 < float(row["tmqi"]) < 1 and float(row["dark_noise_gain"]) > 0 for row in rows)
    settings = json.loads((tmp_path / "scores.csv.json").read_text())
    assert settings["methods"] == ["drago", "reinhard"]
    whole = json.loads(outputs[1].read_text())
    assert whole["settings"] == settings
    assert len(whole["pictures"]) == 4
    summary = {row["method"]: row for row in whole["summary"]}
    of_drago = [float(row["tmqi"]) for row in rows if row["method"] == "drago"]
    assert summary["drago"]["tmqi"] == pytest.approx(np.mean(of_drago))
    assert summary["reinhard"]["tmqi_difference"] == pytest.approx(
        summary["reinhard"]["tmqi"] - summary["drago"]["tmqi"]
    )
    assert len(outputs[2].read_text().splitlines()) == 4
    assert outputs[3].read_text().startswith("| method | scenes |")
    code, _, err = run(scenes, "--methods", "drago", "--out", outputs[0])
    assert code == 2
    assert "exists; add --overwrite" in err
    assert run(scenes, "--methods", "drago", "--out", outputs[0], "--overwrite", "--quiet")[0] == 0


def test_scores_do_not_change_from_run_to_run(scenes, tmp_path):
    tables = []
    for name in ("one.csv", "two.csv"):
        assert run(scenes, "--methods", "drago", "--quiet", "--out", tmp_path / name)[0] == 0
        with (tmp_path / name).open() as stream:
            tables.append([{k: v for k, v in row.items() if "seconds" not in k} for row in csv.DictReader(stream)])
    assert tables[0] == tables[1]


def test_json_on_standard_output(scenes):
    code, out, _ = run(scenes, "--methods", "linear", "--json")
    document = json.loads(out)
    assert code == 0
    assert document["command"] == "eval tonemap"
    assert document["summary"] == {"pictures": 2, "failed": 0}
    assert document["result"]["methods"][0]["scenes"] == 2


def test_panoramas_are_cut_into_views(tmp_path):
    cv2.imwrite(str(tmp_path / "round.hdr"), ordinary(64, 128)[..., ::-1])
    code, out, _ = run(tmp_path, "--methods", "drago", "--views", 3, "--size", 64, "--jsonl")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [row["item"].rpartition("#")[2] for row in rows] == ["0", "1", "2"]
    assert len({row["scene"] for row in rows}) == 1
    assert len({row["tmqi"] for row in rows}) == 3
    assert len(run(tmp_path, "--methods", "drago", "--views", 0, "--jsonl")[1].splitlines()) == 1


def test_finished_pictures_against_references(scenes, tmp_path):
    done, references = tmp_path / "done", tmp_path / "references"
    done.mkdir()
    references.mkdir()
    scene = cv2.imread(str(scenes / "a.hdr"), cv2.IMREAD_UNCHANGED)[..., ::-1]
    shown = tonemap(TonemapRequest(scene, method="drago", depth=8)).display
    other = tonemap(TonemapRequest(scene, method="reinhard", depth=8)).display
    cv2.imwrite(str(done / "a_tonemap.png"), shown[..., ::-1])
    cv2.imwrite(str(references / "a.png"), other[..., ::-1])
    (references / "a.hdr").write_bytes((scenes / "a.hdr").read_bytes())
    code, out, err = run(done, "--ref", references, "--jsonl")
    assert (code, err) == (0, "")
    row = json.loads(out)
    from attnkit.tasks.tonemap.metrics import psnr, ssim, tmqi

    # exact: the codes of an 8-bit file survive the way through linear light
    assert row["psnr_db"] == pytest.approx(psnr(shown, other), abs=1e-9)
    assert row["ssim"] == pytest.approx(ssim(shown, other), abs=1e-9)
    assert row["tmqi"] == pytest.approx(tmqi(scene, shown).q, abs=1e-9)


def test_methods_with_references(scenes, tmp_path):
    references = tmp_path / "references"
    references.mkdir()
    for name in "ab":
        scene = cv2.imread(str(scenes / f"{name}.hdr"), cv2.IMREAD_UNCHANGED)[..., ::-1]
        shown = tonemap(TonemapRequest(np.ascontiguousarray(scene), method="drago", depth=8)).display
        cv2.imwrite(str(references / f"{name}.png"), shown[..., ::-1])
    code, out, _ = run(scenes, "--methods", "drago,reinhard", "--ref", references, "--json")
    methods = {row["method"]: row for row in json.loads(out)["result"]["methods"]}
    assert code == 0
    assert methods["drago"]["ssim"] == pytest.approx(1.0)
    assert 10 < methods["reinhard"]["psnr_db"] < 60


def test_broken_files_do_not_stop_the_others(scenes):
    (scenes / "c.hdr").write_bytes((scenes / "a.hdr").read_bytes()[:2000])
    code, out, err = run(scenes, "--methods", "drago", "--jsonl")
    assert code == 3
    assert len(err.splitlines()) == 1
    assert "c.hdr" in err
    assert [("error" in json.loads(line)) for line in out.splitlines()] == [False, False, True]
    (scenes / "a.hdr").unlink()
    (scenes / "b.hdr").unlink()
    assert run(scenes, "--methods", "drago")[0] == 1


@pytest.mark.parametrize(
    ("arguments", "message", "expected"),
    [
        (["."], "--methods or --ref: got neither", 2),
        ([".", "--methods", "fast"], "--methods: got 'fast', expected some of llf-lut, llf", 2),
        ([".", "--methods", ","], "--methods: got none", 2),
        ([".", "--methods", "pfs:nothing"], "unknown pfstools operator 'nothing'", 2),
        ([".", "--methods", "drago", "--out", "t.xls"], "got suffix .xls, expected .csv or .json", 2),
        ([".", "--methods", "drago", "--out", "none/t.csv"], "no folder none", 2),
        ([".", "--methods", "drago", "--set", "drago.bios=1"], "unknown key 'drago.bios'; did you mean drago.bias", 2),
        ([".", "--methods", "drago", "--set", "drago.bias=7"], "--set drago.bias: got 7.0, expected 0.01 to 0.99", 2),
        ([".", "--methods", "drago", "--model", "x"], "got no method llf-lut", 2),
        ([".", "--ref", "none"], "--ref none: no such folder", 2),
        (["missing.hdr", "--methods", "drago"], "missing.hdr: no such file or folder", 2),
        (["empty", "--methods", "drago"], "empty: no picture to score found", 1),
    ],
)
def test_errors_are_one_line(scenes, arguments, message, expected):
    (scenes / "empty").mkdir()
    code, out, err = run(*arguments, cwd=scenes)
    assert (code, out) == (expected, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_predictions_without_a_partner_fail(scenes, tmp_path):
    cv2.imwrite(str(tmp_path / "z.png"), np.zeros((4, 4, 3), np.uint8))
    code, _, err = run(tmp_path / "z.png", "--ref", scenes)
    assert code == 1
    assert "no reference named z.*" in err


def test_dry_run_scores_nothing(scenes):
    code, out, _ = run(scenes, "--methods", "drago", "--dry-run", "--out", scenes / "t.csv")
    assert code == 0
    assert not (scenes / "t.csv").exists()
    assert out.splitlines()[1].split()[1:] == ["radiance", "drago"]


def test_summary_of_unequal_scenes_is_paired():
    rows = [
        {"method": "x", "scene": "1", "tmqi": 0.8},
        {"method": "x", "scene": "2", "tmqi": 0.6},
        {"method": "y", "scene": "1", "tmqi": 0.9},
        {"method": "y", "scene": "2", "tmqi": 0.7},
        {"method": "y", "scene": "3", "tmqi": math.nan},
    ]
    second = evaluate.summarise(rows, 0)[1]
    assert second["tmqi_difference"] == pytest.approx(0.1)
    # both scenes differ by the same amount, so resampling changes nothing though the scenes are far apart
    assert (second["tmqi_difference_low"], second["tmqi_difference_high"]) == pytest.approx((0.1, 0.1))
    headers, cells = evaluate.table_of(evaluate.summarise(rows, 0))
    assert all(len(line) == len(headers) for line in cells)


def test_ambiguous_references_are_refused(tmp_path):
    for name in ("p.png", "p.jpg"):
        cv2.imwrite(str(tmp_path / name), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(AttnkitError, match=r"both p\.jpg and p\.png could be its reference"):
        evaluate.references_of(tmp_path / "elsewhere" / "p.png", tmp_path)


def test_pfstools_beside_ours():
    if "reinhard02" not in external.pfstools_operators():
        pytest.skip("pfstools with pfstmo_reinhard02 is not installed")
    scene = ordinary(60, 80)
    shown = external.pfstools_render(scene, "reinhard02")
    assert shown.shape == scene.shape
    # upright and in RGB order: the picture follows the scene
    for channel in range(3):
        ranks = [np.argsort(np.argsort(values[..., channel].ravel())) for values in (scene, shown)]
        assert np.corrcoef(*ranks)[0, 1] > 0.95


def test_pfstools_that_are_not_there(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match="needs pfstmo_reinhard02, which is not installed"):
        external.check_pfstools("reinhard02")
