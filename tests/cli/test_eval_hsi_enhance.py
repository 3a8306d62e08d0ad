"""`attnkit eval hsi-enhance` as a person runs it."""

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from attnkit import cli
from attnkit.tasks.hsi_enhance.metrics import scores

CLEAN_KEYS = ("mpsnr_db", "mssim", "sam_degrees", "ergas")


def run(*arguments, cwd, **environment):
    done = subprocess.run(
        [sys.executable, "-m", "attnkit", "eval", "hsi-enhance", *map(str, arguments)],
        capture_output=True, text=True, cwd=cwd, env={**os.environ, "COLUMNS": "80", **environment},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def cubes(tmp_path):
    """clean.npy (stored 0..1000, rows 24, columns 20, bands 6), two noisy ones, and labels of two halves."""
    draw = np.random.default_rng(0)
    row, column = np.mgrid[:24, :20] / 8
    shares = np.stack([np.sin(row) ** 2 + (column > 1.25), np.cos(column) ** 2], axis=-1)
    clean = 1000 * (shares @ draw.uniform(0.1, 0.4, (2, 6))).astype(np.float32)
    np.save(tmp_path / "clean.npy", clean)
    for name, noise in (("good", 10), ("bad", 50)):
        np.save(tmp_path / f"{name}.npy", clean + (noise * draw.standard_normal(clean.shape)).astype(np.float32))
    # column-major, as files of other programs often are
    np.save(tmp_path / "labels.npy", np.asfortranarray(1 + (np.mgrid[:24, :20][1] > 9)))
    return tmp_path


def loaded(folder, name):
    return np.load(folder / f"{name}.npy").transpose(2, 0, 1) / 1000


def test_finished_cubes_against_one_reference(cubes):
    code, out, err = run("good.npy", "bad.npy", "--ref", "clean.npy", "--scale", 1000, "--json", cwd=cubes)
    assert (code, err) == (0, "")
    result = json.loads(out)["result"]
    assert [row["method"] for row in result["methods"]] == ["good", "bad"]
    for row in result["methods"]:
        expected = scores(loaded(cubes, row["method"]), loaded(cubes, "clean"))
        assert [row[key] for key in CLEAN_KEYS] == pytest.approx([expected[key] for key in CLEAN_KEYS])
    assert result["methods"][1]["mpsnr_db_difference_high"] < -10
    assert result["cubes"][0]["scale"] == 1000


def test_tables_for_people(cubes):
    arguments = ("good.npy", "bad.npy", "--ref", "clean.npy", "--best-scale", "--per-band")
    code, out, err = run(*arguments, cwd=cubes)
    assert (code, err) == (0, "")
    whole, difference, bands = out.split("\n\n")
    assert [line.split()[0] for line in whole.splitlines()] == ["scaling", "as", "as", "best", "best"]
    assert "MPSNR (dB), 95 % interval" in whole and "SAM (degrees), 95 % interval" in whole
    assert difference.splitlines()[0] == "minus good, paired" and len(difference.splitlines()) == 4
    assert bands.splitlines()[0] == "each band" and len(bands.splitlines()) == 2 + 4 * 6
    assert run(*arguments, "--quiet", cwd=cubes) == (0, "", "")


def test_a_folder_of_references_and_files_of_all_kinds(cubes):
    for folder in ("bright", "clean"):
        (cubes / folder).mkdir()
    for name in "ab":
        np.save(cubes / "bright" / f"{name}_hsi-enhance.npy", np.load(cubes / "good.npy"))
        np.save(cubes / "clean" / f"{name}.npy", np.load(cubes / "clean.npy"))
    outputs = [f"t{suffix}" for suffix in (".csv", ".json", ".jsonl", ".md")]
    options = [part for path in outputs for part in ("--out", path)]
    code, out, err = run(
        "bright", "--ref", "clean", "--per-band", "--plot", "p.png", "--quiet", *options, cwd=cubes
    )
    assert (code, out, err) == (0, "", "")
    with (cubes / "t.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["band"] for row in rows] == ["", "", *map(str, range(6)), *map(str, range(6))]
    settings = json.loads((cubes / "t.csv.json").read_text())
    assert settings["reference"] == "clean" and settings["blocks"] == 16
    document = json.loads((cubes / "t.json").read_text())
    assert [row["item"] for row in document["methods"]] == [row["item"] for row in document["cubes"]] + ["all"]
    assert document["settings"] == settings
    assert len((cubes / "t.jsonl").read_text().splitlines()) == 14
    assert (cubes / "t.md").read_text().startswith("| cube | method | MPSNR (dB), 95 % interval |")
    with Image.open(cubes / "p.png") as picture:
        assert picture.size == (1000, 560)
    before = (cubes / "t.csv").read_bytes()
    code, _, err = run("bright", "--ref", "clean", "--out", "t.csv", cwd=cubes)
    assert code == 2 and "t.csv: exists; add --overwrite" in err
    assert run("bright", "--ref", "clean", "--per-band", "-q", "--out", "t.csv", "--overwrite", cwd=cubes)[0] == 0
    assert (cubes / "t.csv").read_bytes() == before


def test_parts_of_cubes(cubes):
    part = ("--rows", "2:20", "--cols", "4:16", "--bands", "1:5")
    inside = np.s_[1:5, 2:20, 4:16]
    expected = scores(loaded(cubes, "good")[inside], loaded(cubes, "clean")[inside])
    # a cube that was enhanced in part is compared with that part
    np.save(cubes / "part.npy", np.load(cubes / "good.npy")[2:20, 4:16, 1:5])
    for name in ("good.npy", "part.npy"):
        code, out, _ = run(name, "--ref", "clean.npy", "--scale", 1000, *part, "--jsonl", cwd=cubes)
        assert code == 0
        row = json.loads(out)
        assert [row[key] for key in CLEAN_KEYS] == pytest.approx([expected[key] for key in CLEAN_KEYS])


def test_methods_on_darkened_cubes(cubes):
    arguments = ("clean.npy", "--methods", "gain,mnf", "--scale", 2000, "--exposure", "1/15,1/3", "--seeds", 2)
    arguments += ("--json",)
    code, out, err = run(*arguments, cwd=cubes)
    assert (code, err) == (0, "")
    result = json.loads(out)["result"]
    assert len(result["cubes"]) == 2 * 2 * 2 * 2
    keys = [(round(1 / row["exposure"]), row["scaling"], row["method"]) for row in result["methods"]]
    assert keys[:4] == [(15, scaling, method) for scaling in ("as it is", "best scalar") for method in ("gain", "mnf")]
    assert {row["seeds"] for row in result["methods"]} == {2}
    found = dict(zip(keys, result["methods"], strict=True))
    assert found[15, "as it is", "gain"]["mpsnr_db"] < found[3, "as it is", "gain"]["mpsnr_db"]
    again = json.loads(run(*arguments, cwd=cubes)[1])["result"]
    for one, other in zip(result["methods"], again["methods"], strict=True):
        assert {k: v for k, v in one.items() if "seconds" not in k} == {
            k: v for k, v in other.items() if "seconds" not in k
        }


def test_downstream(cubes):
    pytest.importorskip("sklearn")
    arguments = (
        "clean.npy", "--methods", "gain,mnf", "--seeds", 1, "--labels", "labels.npy", "--classifier", "lda",
        "--splits", 3, "--rows", "0:20",
    )  # fmt: skip
    code, out, err = run(*arguments, "--json", "--out", "t.md", cwd=cubes)
    assert (code, err) == (0, "")
    result = json.loads(out)["result"]
    found = {row["input"]: row for row in result["accuracy"]}
    assert list(found) == ["clean", "dark", "gain", "mnf"]
    assert found["clean"]["overall_accuracy_percent"] > found["dark"]["overall_accuracy_percent"]
    # a factor alone tells no classes apart
    assert found["gain"]["overall_accuracy_percent"] == pytest.approx(found["dark"]["overall_accuracy_percent"], abs=1)
    assert (found["gain"]["train_pixels"], found["gain"]["test_pixels"]) == (40, 360)
    assert len(result["splits"]) == 4 * 3
    text = (cubes / "t.md").read_text()
    assert "40 training pixels drawn at random in every class, 360 test pixels, 3 splits" in text


def test_samples_that_are_no_numbers_are_counted(cubes):
    broken = np.load(cubes / "good.npy")
    broken[3, 4, :2] = np.nan
    np.save(cubes / "broken.npy", broken)
    code, out, err = run("broken.npy", "--ref", "clean.npy", "--jsonl", cwd=cubes)
    assert code == 0
    assert json.loads(out)["missing_samples"] == 2
    assert "broken.npy: 2 samples are no numbers; they were scored as 0" in err


def test_broken_cubes_do_not_stop_the_others(cubes):
    np.save(cubes / "small.npy", np.load(cubes / "good.npy")[:, :19])
    code, out, err = run("small.npy", "good.npy", "--ref", "clean.npy", "--jsonl", cwd=cubes)
    assert code == 3
    (line,) = err.splitlines()
    assert "small.npy: is 19x24 with 6 bands, its reference clean.npy 20x24 with 6 bands" in line
    assert [("error" in json.loads(line)) for line in out.splitlines()] == [False, True]
    assert run("small.npy", "--ref", "clean.npy", cwd=cubes)[0] == 1


def test_predictions_without_a_partner_fail(cubes):
    (cubes / "other").mkdir()
    np.save(cubes / "other" / "clean.npy", np.load(cubes / "clean.npy"))
    code, _, err = run("good.npy", "--ref", "other", cwd=cubes)
    assert code == 1
    assert "no reference named good.* in other" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["good.npy"], "--methods or --ref: got neither"),
        (["good.npy", "--ref", "none.npy"], "--ref none.npy: no such file or folder"),
        (["missing.npy", "--ref", "clean.npy"], "missing.npy: no such file or folder"),
        (["clean.npy", "--methods", "fast"], "--methods: got 'fast', expected some of hsie, gain"),
        (["clean.npy", "--methods", ","], "--methods: got none"),
        (["clean.npy", "--methods", "gain", "--ref", "clean.npy"], "--ref: got --methods too"),
        (["good.npy", "--ref", "clean.npy", "--set", "mnf.components=3"], "--set: got no --methods"),
        (["clean.npy", "--methods", "mnf", "--set", "mnf.component=3"], "did you mean mnf.components"),
        (["clean.npy", "--methods", "gain", "--model", "x"], "--model: got no method in --methods that uses one"),
        (["clean.npy", "--methods", "gain", "--exposure", "2"], "--exposure: got '2', expected a share above 0"),
        (["clean.npy", "--methods", "gain", "--device", "cuda"], "--device: got cuda, expected cpu"),
        (["clean.npy", "--methods", "gain", "--cols", "5:40"], "--cols: got 5:40, expected a part of 0:20"),
        (["clean.npy", "--methods", "gain", "--scale", "x"], "--scale: got 'x', expected auto or a number above 0"),
        (["clean.npy", "--methods", "gain", "--out", "t.xls"], "got suffix .xls, expected .csv or .json"),
        (["clean.npy", "--methods", "gain", "--plot", "p.jpg"], "got suffix .jpg, expected .png"),
        (["good.npy", "--ref", "clean.npy", "--labels", "labels.npy"], "--labels: got no --methods"),
        (["clean.npy", "--methods", "gain", "--labels", "no.npy"], "--labels no.npy: no such file"),
        (["clean.npy", "bad.npy", "--methods", "gain", "--labels", "labels.npy"], "--labels: got 2 cubes"),
        (["clean.npy", "--methods", "gain", "--labels", "half.npy"], "got 20x12 pixels, the cube clean.npy has 20x24"),
        (["clean.npy", "--methods", "gain", "--labels", "clean.npy"], "got 6 bands, expected one"),
    ],
)
def test_usage_errors_are_one_line(cubes, arguments, message, run, monkeypatch):
    monkeypatch.chdir(cubes)
    # not those of the fixtures
    monkeypatch.setattr(cli.Root, "table", cli.COMMANDS)
    np.save("half.npy", np.load("labels.npy")[:12])
    ended = run("eval", "hsi-enhance", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert message in ended.err
    assert len(ended.err.splitlines()) == 1


def test_a_classifier_that_is_not_installed_is_said_first(cubes):
    (cubes / "hidden").mkdir()
    (cubes / "hidden" / "sklearn.py").write_text("raise ModuleNotFoundError('no', name='sklearn')")
    arguments = ("clean.npy", "--methods", "gain", "--labels", "labels.npy")
    code, out, err = run(*arguments, cwd=cubes, PYTHONPATH=str(cubes / "hidden"))
    assert (code, out) == (1, "")
    assert "needs the package sklearn" in err and "pip install 'attnkit[all]'" in err


def test_dry_run_scores_nothing(cubes):
    code, out, _ = run("clean.npy", "--methods", "gain,mnf", "--dry-run", "--out", "t.csv", cwd=cubes)
    assert code == 0
    assert not (cubes / "t.csv").exists()
    assert out.splitlines()[1].split() == ["clean.npy", "npy", "gain,", "mnf"]
