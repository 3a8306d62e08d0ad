"""Bad cubes on the whole command: one line each, the right exit code, nothing half written."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
from cli_cases import Run, finish, tree
from test_hsi_enhance_files import GAIN, cube_of, read, write_envi

from attnkit.cubes import open_cube
from attnkit.models import registry


def refused(run: Run, work: Path, *arguments: object, code: int = 1) -> str:
    """The one line of a command that fails and leaves nothing behind."""
    before = tree(work)
    ended = run("hsi-enhance", *arguments, *GAIN, "--out", "o/")
    assert ended.code == code and ended.out == ""
    assert tree(work) == before and not (work / "o").exists()
    return ended.line


def test_a_header_that_does_not_fit_its_data_names_both_sizes(run: Run, work: Path) -> None:
    for name, lines in (("short", 7), ("long", 5)):
        write_envi(work / f"{name}.hdr", cube_of(), lines=lines)
        line = refused(run, work, f"{name}.hdr")
        assert f"{name}.dat" in line and "240" in line and str(lines * 40) in line


@pytest.mark.parametrize("suffix", [".hdr", ".mat", ".h5", ".npy", ".npz", ".tif"])
def test_truncated_files_fail(suffix: str, run: Run, work: Path) -> None:
    np.save("whole.npy", cube_of(shape=(40, 30, 20)))
    assert run("hsi-enhance", "whole.npy", *GAIN, "--out", f"a{suffix}").code == 0
    data = work / ("a.img" if suffix == ".hdr" else f"a{suffix}")
    data.write_bytes(data.read_bytes()[: data.stat().st_size * 2 // 3])
    assert data.stem in refused(run, work, f"a{suffix}")


def test_headers_with_mistakes(run: Run, work: Path) -> None:
    for field, value, word in (
        ("interleave", "bxl", "bxl"),
        ("data type", 6, "complex"),
        ("data type", 77, "77"),
        ("bands", "many", "many"),
        ("wavelength", "{1, 2}", "wavelength"),
        ("description", "{open", "header"),
    ):
        cube = cube_of().astype(np.uint16)
        write_envi(work / "a.hdr", cube, **{field: value})
        if value == 6:
            (work / "a.dat").write_bytes(bytes(960))
        assert word in refused(run, work, "a.hdr"), field


def test_a_wrong_interleave_is_told_where_the_name_shows_it(run: Run, work: Path) -> None:
    write_envi(work / "a.hdr", cube_of(), "bip", interleave="bsq")
    (work / "a.dat").rename(work / "a.bip")
    line = refused(run, work, "a.hdr")
    assert "a.bip" in line and "bsq" in line


def test_half_of_a_pair_is_missing(run: Run, work: Path) -> None:
    write_envi(work / "a.hdr", cube_of())
    (work / "a.dat").rename(work / "b.dat")
    assert "data file is missing" in refused(run, work, "a.hdr")
    assert "b.dat" in refused(run, work, "b.dat")


@pytest.mark.parametrize("suffix", [".mat", ".npy", ".h5"])
def test_what_is_no_cube_of_numbers(suffix: str, run: Run, work: Path) -> None:
    def write(values: np.ndarray) -> None:
        if suffix == ".mat":
            scipy.io.savemat("a.mat", {"cube": values})
        elif suffix == ".npy":
            np.save("a.npy", values)
        else:
            with h5py.File("a.h5", "w") as file:
                file["cube"] = values

    write(cube_of().astype(np.complex64))
    assert "complex" in refused(run, work, f"a{suffix}", *([] if suffix == ".npy" else ["--key", "cube"]))
    write(np.zeros((2, 2, 2, 2)))
    assert "2" in refused(run, work, f"a{suffix}", *([] if suffix == ".npy" else ["--key", "cube"]))
    (work / f"a{suffix}").write_bytes(b"")
    assert f"a{suffix}" in refused(run, work, f"a{suffix}")


@pytest.mark.parametrize("method", ["gain", "mnf", "lowrank", "clahe", "hsie", "hsie-lptn"])
@pytest.mark.parametrize("case", ["one band", "two bands", "one pixel", "one row", "zero", "flat", "holes"])
def test_degenerate_cubes_are_done(case: str, method: str, run: Run, work: Path) -> None:
    cube = {
        "one band": cube_of(shape=(9, 8, 1)),
        "two bands": cube_of(shape=(9, 8, 2)),
        "one pixel": cube_of(shape=(1, 1, 6)),
        "one row": cube_of(shape=(1, 9, 6)),
        "zero": np.zeros((6, 5, 4), np.uint16),
        "flat": np.full((6, 5, 4), 9, np.uint16),
        "holes": np.where(np.random.default_rng(1).random((9, 8, 5)) < 0.2, np.nan, cube_of(shape=(9, 8, 5))),
    }[case]
    np.save("a.npy", cube)
    options = ("--method", method)
    if method.startswith("hsie"):
        registry.save(registry.build(method, tiny=True), method, work / f"{method}.safetensors")
        options = ("--model", f"{method}.safetensors")
    ended = run("hsi-enhance", "a.npy", *options, "--json")
    assert ended.code == 0, ended.err
    out = read(work / "a_hsi-enhance.npy")
    assert out.shape == cube.shape
    np.testing.assert_array_equal(np.isnan(out), np.isnan(cube))
    if (method, case) == ("hsie-lptn", "one band"):
        assert "reflect" in ended.err and "reflect" in json.loads(ended.out)["items"][0]["warnings"][0]
    if case == "zero":
        assert not out.any() and "every value is 0" in ended.err
    if case == "flat":
        assert np.ptp(out) == 0


def test_a_flat_image_without_bands_is_one_band(run: Run, work: Path) -> None:
    np.save("a.npy", cube_of()[:, :, 0])
    assert run("hsi-enhance", "a.npy", *GAIN, "--gain", 2).code == 0
    np.testing.assert_array_equal(np.load("a_hsi-enhance.npy"), cube_of()[:, :, 0] * 2)


def test_a_cube_without_a_number_fails(run: Run, work: Path) -> None:
    np.save("a.npy", np.full((3, 4, 5), np.nan, np.float32))
    assert "no finite value" in refused(run, work, "a.npy")


def test_values_above_the_scale_are_counted(run: Run, work: Path) -> None:
    cube = cube_of()
    cube[2, 3, 1], cube[0, 0, 2] = 5000, 4095
    np.save("a.npy", cube)
    ended = run("hsi-enhance", "a.npy", *GAIN, "--scale", 4095, "--json")
    record = json.loads(ended.out)["items"][0]
    assert (record["saturated_samples"], record["saturated_bands"]) == (2, [1, 2])
    assert "2 saturated values" in ended.err
    # the full scale of a sensor that is met is found without being told
    np.save("a.npy", np.minimum(cube, 4095))
    ended = run("hsi-enhance", "a.npy", *GAIN, "--json", "--overwrite")
    record = json.loads(ended.out)["items"][0]
    assert record["saturated_samples"] == 2 and record["scale"] == 4095


def test_the_ignore_value_is_kept(run: Run, work: Path) -> None:
    cube = cube_of().astype(np.int16)
    cube[1, 1] = -9999
    cube[2, 2, 3] = -9999
    write_envi(work / "a.hdr", cube, **{"data ignore value": -9999})
    for dtype in ("same", "float32", "uint16"):
        ended = run("hsi-enhance", "a.hdr", *GAIN, "--gain", 2, "--dtype", dtype, "--out", f"{dtype}.hdr", "--json")
        record = json.loads(ended.out)["items"][0]
        assert (record["masked_pixels"], record["broken_pixels"], record["clipped_values"]) == (1, 1, 0)
        out = read(work / f"{dtype}.hdr")
        # a type without negative numbers says it with 0
        kept = 0 if dtype == "uint16" else -9999
        assert (out[1, 1] == kept).all() and out[2, 2, 3] == kept and out[0, 0, 0] == 2 * cube[0, 0, 0]


def test_references_that_do_not_fit(run: Run, work: Path) -> None:
    np.save("a.npy", cube_of())
    np.save("bands.npy", cube_of(shape=(3, 5, 7)))
    np.save("columns.npy", cube_of(shape=(3, 9, 4)))
    np.save("low.npy", np.zeros((3, 5, 4), np.uint16))
    line = refused(run, work, "a.npy", "--dark", "bands.npy")
    assert "--dark bands.npy" in line and "7 bands" in line and "4" in line
    assert "9 columns" in refused(run, work, "a.npy", "--white", "columns.npy")
    assert "nowhere above" in refused(run, work, "a.npy", "--white", "low.npy")
    assert "no such file" in refused(run, work, "a.npy", "--white", "missing.npy", code=2)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--scale", "bright"), "--scale"),
        (("--gain", "0"), "--gain"),
        (("--rows", "5"), "--rows"),
        (("--cols", "3:1"), "--cols"),
        (("--bands", "-1:2"), "--bands"),
        (("--axis-order", "x,y,z"), "--axis-order"),
        (("--memory", "much"), "--memory"),
        (("--preview-bands", "1,2,3"), "--preview"),
        (("--preview", "p.png", "--preview-bands", "1,2"), "--preview-bands"),
        (("--wavelengths", "missing.txt"), "missing.txt"),
        (("--set", "mnf.nothing=1"), "mnf.components"),
        (("--set", "mnf.components=-1"), "mnf.components"),
        (("--model", "hsie"), "--model"),
        (("--device", "cuda"), "--device"),
        (("--input-format", "png"), "envi"),
    ],
)
def test_bad_values_are_refused_before_any_work(options: tuple[str, ...], word: str, run: Run, work: Path) -> None:
    np.save("a.npy", cube_of())
    assert word in refused(run, work, "a.npy", *options, code=2)


def test_parts_that_are_not_in_the_cube(run: Run, work: Path) -> None:
    np.save("a.npy", cube_of())
    for option, limit in (("--rows", "0:6"), ("--cols", "0:5"), ("--bands", "0:4")):
        line = refused(run, work, "a.npy", option, "2:70")
        assert option in line and "2:70" in line and limit in line


def test_a_missing_file_two_items_with_one_output_and_other_plans(run: Run, work: Path, monkeypatch) -> None:
    write_envi(work / "x.hdr", cube_of())
    (work / "y").mkdir()
    write_envi(work / "y" / "x.hdr", cube_of())
    assert "missing.hdr" in refused(run, work, "x.hdr", "missing.hdr", code=2)
    line = refused(run, work, "x.hdr", "y/x.hdr", code=2)
    assert "x.hdr" in line and "y/x.hdr" in line
    # permissions do not stop root, who runs many a container
    monkeypatch.setattr(os, "access", lambda *arguments: False)
    assert "permission" in refused(run, work, "x.hdr", code=2)


@pytest.mark.parametrize("format", ["envi", "mat", "hdf5", "npy", "npz", "tiff"])
def test_a_full_disk_leaves_nothing(format: str, start, run: Run, work: Path) -> None:
    np.save("a.npy", cube_of(shape=(60, 50, 20)))
    before = tree(work)

    def tiny() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    ended = finish(start("hsi-enhance", "a.npy", *GAIN, "--format", format, "--out", "o/", preexec_fn=tiny))
    assert ended.code == 1 and "cannot write o/a" in ended.line, ended.err
    assert tree(work) == before and not (work / "o").exists()


def test_a_bad_cube_costs_the_others_nothing(run: Run, work: Path) -> None:
    write_envi(work / "d1.hdr", cube_of())
    write_envi(work / "d2.hdr", cube_of(), lines=9)
    write_envi(work / "d3.hdr", cube_of(2))
    ended = run("hsi-enhance", "d*.hdr", *GAIN, "--out", "o/")
    assert ended.code == 3 and "2 done, 0 left out, 1 failed" in ended.err
    assert sorted(tree(work / "o")) == ["d1.dat", "d1.hdr", "d3.dat", "d3.hdr"]
    with open_cube(work / "o/d3.hdr") as reader:
        assert reader.info.rows == 6


def test_models_that_are_none(run: Run, work: Path) -> None:
    np.save("a.npy", cube_of())
    (work / "junk.safetensors").write_text("junk")
    before = tree(work)
    for model in ("junk.safetensors", "no-such-model", "llf-lut"):
        ended = run("hsi-enhance", "a.npy", "--model", model, "--out", "o/")
        assert ended.code in (1, 2) and model in ended.line, ended.err
    assert tree(work) == before
