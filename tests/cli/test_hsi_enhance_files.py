"""What `hsi-enhance` reads, writes and carries, on the whole command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io
from cli_cases import Run, tree

from attnkit.cubes import open_cube
from attnkit.pictures import read_settings
from attnkit.runtime.progress import Talk
from attnkit.tasks.hsi_enhance.methods import regions
from attnkit.tasks.hsi_enhance.task import START_SHARE

GAIN = ("--method", "gain")
SUFFIXES = {"envi": ".hdr", "mat": ".mat", "hdf5": ".h5", "npy": ".npy", "npz": ".npz", "tiff": ".tif"}


def cube_of(seed: int = 1, shape: tuple[int, int, int] = (6, 5, 4)) -> np.ndarray:
    """Dark counts [rows, columns, bands] of a 12 bit sensor."""
    return np.random.default_rng(seed).integers(20, 250, shape).astype(np.uint16)


def write_envi(path: Path, cube: np.ndarray, laid: str = "bip", **fields: object) -> None:
    """A pair by hand: the outside of what the command reads."""
    order = {"bip": (0, 1, 2), "bil": (0, 2, 1), "bsq": (2, 0, 1)}[laid]
    code = {"u1": 1, "i2": 2, "f4": 4, "u2": 12}[cube.dtype.str[1:]]
    rows, columns, bands = cube.shape
    head = {"samples": columns, "lines": rows, "bands": bands, "data type": code, "interleave": laid}
    lines = [f"{name} = {value}" for name, value in {**head, "byte order": 0, **fields}.items()]
    path.write_text("\n".join(["ENVI", *lines, ""]))
    path.with_suffix(".dat").write_bytes(np.ascontiguousarray(cube.transpose(order)).tobytes())


def read(path: Path, **options: object) -> np.ndarray:
    """[rows, columns, bands]."""
    with open_cube(path, **options) as reader:
        return reader.read().transpose(1, 2, 0)


def item(run: Run, *arguments: object) -> dict:
    ended = run("hsi-enhance", *arguments, *GAIN, "--json")
    assert ended.code == 0, ended.err
    return json.loads(ended.out)["items"][0]


@pytest.mark.parametrize("kind", SUFFIXES)
def test_the_output_is_of_the_inputs_kind_and_scaled(kind: str, run: Run, work: Path) -> None:
    np.save("a.npy", cube_of())
    source = f"in{SUFFIXES[kind]}"
    assert run("hsi-enhance", "a.npy", *GAIN, "--gain", "1", "--out", source).code == 0
    record = item(run, source, "--gain", "3")
    assert (record["kind"], record["format"], record["dtype"], record["gain"]) == (kind, kind, "uint16", 3.0)
    np.testing.assert_array_equal(read(work / f"in_hsi-enhance{SUFFIXES[kind]}"), cube_of() * 3)
    # results beside their inputs are no inputs
    ended = run("hsi-enhance", ".", *GAIN, "--update", "--gain", "3", "--json")
    assert {entry["item"] for entry in json.loads(ended.out)["items"]} == {"a.npy", source}


@pytest.mark.parametrize("interleave", ["bsq", "bil", "bip"])
def test_an_envi_pair_is_one_item_and_its_header_is_carried(interleave: str, run: Run, work: Path) -> None:
    fields = {
        "description": "{outcrop}",
        "wavelength units": "Nanometers",
        "wavelength": "{450, 550, 650, 750}",
        "bbl": "{1, 1, 0, 1}",
        "map info": "{UTM, 1, 1, 500000, 4000000, 2, 2, 33, North}",
        "sensor type": "Fenix",
    }
    write_envi(work / "a.hdr", cube_of(), interleave, **fields)
    ended = run("hsi-enhance", "a.dat", "a.hdr", *GAIN, "--gain", 2, "--rows", "1:5", "--cols", "2:5", "--bands", "1:4")
    assert ended.code == 0
    assert sorted(path.name for path in work.glob("a_*")) == ["a_hsi-enhance.dat", "a_hsi-enhance.hdr"]
    np.testing.assert_array_equal(read(work / "a_hsi-enhance.hdr"), cube_of()[1:5, 2:5, 1:4] * 2)
    with open_cube(work / "a_hsi-enhance.hdr") as reader:
        info = reader.info
    assert info.wavelengths == (550, 650, 750) and info.bad_bands == (False, True, False)
    assert info.interleave == interleave and info.extra["sensor type"] == "Fenix"
    # the corner of the part lies two columns to the east and one row to the south
    assert [float(text) for text in info.extra["map info"][1:3]] == [-1, 0]
    assert info.description.startswith("outcrop") and "hsi-enhance: method gain, gain 2" in info.description


def test_an_envi_header_comes_last_and_holds_the_settings(run: Run, work: Path, monkeypatch) -> None:
    write_envi(work / "a.hdr", cube_of())
    renamed = []
    replace = Path.replace

    def watched(path: Path, target: Path) -> Path:
        renamed.append(Path(target).name)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", watched)
    assert run("hsi-enhance", "a.hdr", *GAIN).code == 0
    assert renamed == ["a_hsi-enhance.dat", "a_hsi-enhance.hdr"]
    text = (work / "a_hsi-enhance.hdr").read_text()
    assert '"input_sha256"' in text and str(work) not in text


def test_formats_by_suffix_and_option(run: Run, work: Path) -> None:
    write_envi(work / "a.hdr", cube_of())
    assert run("hsi-enhance", "a.hdr", *GAIN, "--gain", 2, "--out", "b.mat").code == 0
    stored = scipy.io.loadmat("b.mat")
    assert any(np.array_equal(value, cube_of() * 2) for value in stored.values() if isinstance(value, np.ndarray))
    assert run("hsi-enhance", "a.hdr", "b.mat", *GAIN, "--format", "npy", "--out", "o/").code == 0
    assert sorted(tree(work / "o")) == ["a.npy", "a.npy.json", "b.npy", "b.npy.json"]
    ended = run("hsi-enhance", "a.hdr", *GAIN, "--format", "npy", "--out", "c.tif")
    assert ended.code == 2 and "--format" in ended.line


def test_dtype_and_clipped_values(run: Run, work: Path) -> None:
    cube = cube_of()
    cube[0, 0, 0] = 4000
    np.save("a.npy", cube)
    record = item(run, "a.npy", "--scale", 4095, "--gain", 20, "--dtype", "same", "--out", "same.npy")
    assert record["clipped_values"] == 1 and record["saturated_samples"] == 0
    assert read(work / "same.npy")[0, 0, 0] == 65535
    record = item(run, "a.npy", "--scale", 4095, "--gain", 20, "--dtype", "float32", "--out", "float.npy")
    assert record["clipped_values"] == 0 and record["dtype"] == "float32"
    assert read(work / "float.npy")[0, 0, 0] == 80_000
    # shares of full exposure as whole numbers are times 10000, and the header says so
    np.save("unit.npy", (cube / 4095).astype(np.float32))
    record = item(run, "unit.npy", "--gain", 2, "--dtype", "uint16", "--out", "unit.hdr")
    assert record["output_scale"] == 10_000
    with open_cube(work / "unit.hdr") as reader:
        assert reader.info.reflectance_scale == 10_000
    np.testing.assert_allclose(read(work / "unit.hdr"), cube / 4095 * 2e4, atol=0.51)


def test_auto_scale_and_gain_are_reversible_and_recorded(run: Run, work: Path) -> None:
    dark = cube_of() // 5
    np.save("a.npy", dark)
    record = item(run, "a.npy", "--dtype", "float32")
    assert record["scale"] == 255 and record["scale_from"] == "largest value"
    back = read(work / "a_hsi-enhance.npy") / record["output_scale"] / record["gain"] * record["scale"]
    np.testing.assert_allclose(back, dark, rtol=1e-6)
    assert np.percentile(dark, 99.5) / 255 * record["gain"] == pytest.approx(0.9, rel=1e-3)


def test_dark_and_white_give_reflectance(run: Run, work: Path) -> None:
    draw = np.random.default_rng(5)
    reflectance = draw.uniform(0.1, 0.8, (6, 5, 4))
    dark, white = draw.uniform(90, 110, (1, 5, 4)), draw.uniform(900, 1000, (1, 5, 4))
    (work / "scans").mkdir()
    np.save("scans/a.npy", np.rint(dark + reflectance * (white - dark)).astype(np.uint16))
    write_envi(work / "scans/dark.hdr", np.broadcast_to(np.rint(dark), (3, 5, 4)).astype(np.uint16))
    np.savez("scans/white.npz", panel=np.rint(white).astype(np.uint16))
    options = ("--dark", "scans/dark.dat", "--white", "scans/white.npz", "--gain", 1, "--out", "o/")
    ended = run("hsi-enhance", "scans", *GAIN, *options, "--json")
    # the references beside the scans are no scans
    assert [entry["item"] for entry in json.loads(ended.out)["items"]] == ["scans/a.npy"]
    np.testing.assert_allclose(read(work / "o/a.npy") / 1e4, reflectance, atol=2e-3)
    assert run("hsi-enhance", "scans", *GAIN, *options, "--update", "--json").out.count('"skipped": 1') == 1
    # the data of a reference count, not only its header
    write_envi(work / "scans/dark.hdr", np.zeros((3, 5, 4), np.uint16))
    assert run("hsi-enhance", "scans", *GAIN, *options, "--update", "--json").out.count('"ok": 1') == 1


@pytest.mark.parametrize("bad", ["keep", "interpolate"])
def test_broken_bands_and_pixels_are_reported_and_kept_or_interpolated(bad: str, run: Run, work: Path) -> None:
    cube = np.broadcast_to(np.linspace(0.1, 0.5, 5), (8, 7, 5)).astype(np.float32)
    cube = cube * np.random.default_rng(0).uniform(0.9, 1.1, (8, 7, 1)).astype(np.float32)
    good = cube.copy()
    cube[:, :, 2] = 0.25
    cube[1, 2, 3] = np.nan
    cube[4, 4] = 0
    cube[5, 5, 1] = np.inf
    np.save("a.npy", cube)
    ended = run("hsi-enhance", "a.npy", *GAIN, "--gain", 2, "--bad", bad, "--record", "r.jsonl")
    assert ended.code == 0 and "1 dead band " in ended.err and "2 pixels with missing values" in ended.err
    record = json.loads((work / "r.jsonl").read_text().splitlines()[0])
    assert (record["dead_bands"], record["masked_pixels"], record["broken_pixels"]) == ([2], 1, 2)
    assert record["missing_samples"] == 2
    out = read(work / "a_hsi-enhance.npy")
    untouched = np.isfinite(cube) & (cube != 0)
    untouched[:, :, 2] = False
    np.testing.assert_allclose(out[untouched], 2 * cube[untouched], rtol=1e-6)
    if bad == "keep":
        np.testing.assert_array_equal(out[4, 4], 0)
        assert (out[:4, :, 2] == 0.25).all() and np.isnan(out[1, 2, 3]) and np.isnan(out[5, 5, 1])
    else:
        np.testing.assert_allclose(out[:4, :, 2], 2 * good[:4, :, 2], rtol=1e-5)
        np.testing.assert_allclose(out[1, 2], 2 * good[1, 2], rtol=1e-5)
        assert (out[4, 4] > 0).all()
    ended = run("hsi-enhance", "a.npy", *GAIN, "--bad", bad, "--out", "q.npy", "--quiet")
    assert (ended.out, ended.err) == ("", "")


def test_parts_keys_axes_and_wavelengths(run: Run, work: Path) -> None:
    scipy.io.savemat("a.mat", {"cube": cube_of(), "labels": np.zeros((6, 5, 3))})
    ended = run("hsi-enhance", "a.mat", *GAIN)
    assert ended.code == 1 and "cube" in ended.line and "labels" in ended.line and "--key" in ended.line
    ended = run("hsi-enhance", "a.mat", *GAIN, "--key", "cub")
    assert ended.code == 1 and "cub" in ended.line and "labels" in ended.line
    assert item(run, "a.mat", "--key", "cube")["size"] == "5x6"
    np.save("planes.npy", np.ascontiguousarray(cube_of().transpose(2, 0, 1)))
    record = item(run, "planes.npy", "--axis-order", "bands,rows,columns", "--rows", "2:4")
    assert (record["size"], record["bands"]) == ("5x2", 4)
    assert np.load("planes_hsi-enhance.npy").shape == (4, 2, 5)
    (work / "nm.txt").write_text("400\n500\n600\n700\n")
    assert item(run, "planes.npy", "--axis-order", "bands,rows,columns", "--wavelengths", "nm.txt", "--out", "w.hdr")
    with open_cube(work / "w.hdr") as reader:
        assert reader.info.wavelengths_nm == (400, 500, 600, 700)


def test_options_that_a_kind_of_file_has_no_use_for_are_told(run: Run, work: Path) -> None:
    write_envi(work / "a.hdr", cube_of())
    np.savez("b.npz", cube=cube_of(), other=cube_of(2))
    ended = run("hsi-enhance", "a.hdr", "b.npz", *GAIN, "--key", "cube", "--out", "o/", "--record", "r.jsonl")
    assert ended.code == 0 and ended.err.count("--key cube: not used") == 1
    first, second = [json.loads(line) for line in (work / "r.jsonl").read_text().splitlines()[:2]]
    assert "envi" in first["warnings"][0] and "warnings" not in second
    ended = run("hsi-enhance", "a.hdr", *GAIN, "--axis-order", "bands,rows,columns", "--quiet")
    assert (ended.code, ended.err) == (0, "")


def test_preview_shows_true_colours_or_the_bands_asked_for(run: Run, work: Path) -> None:
    cube = np.zeros((4, 6, 4), np.uint16)
    for band, column in enumerate((0, 1, 2)):
        cube[:, column, band] = 1000
    cube[:, 3:] = 300
    write_envi(work / "a.hdr", cube, "bsq", wavelength="{460, 550, 640, 900}")
    assert run("hsi-enhance", "a.hdr", *GAIN, "--preview", "p.png", "--out", "o/").code == 0
    picture = cv2.imread("p.png")
    # OpenCV's order is blue, green, red
    assert picture.shape == (4, 6, 3) and np.argmax(picture[0, :3], axis=1).tolist() == [0, 1, 2]
    options = ("--preview", "q.png", "--preview-bands", "1,0,3", "--bands", "0:4", "--out", "q/")
    assert run("hsi-enhance", "a.hdr", *GAIN, *options).code == 0
    assert cv2.imread("q.png")[0, :2].argmax(axis=1).tolist() == [1, 2]
    assert read_settings(work / "p.png")["command"] == "hsi-enhance"
    ended = run("hsi-enhance", "a.hdr", *GAIN, "--preview", "r.png", "--preview-bands", "1,0,9", "--out", "r/")
    assert ended.code == 1 and "--preview-bands" in ended.line and "0:4" in ended.line and not (work / "r.png").exists()


def test_values_that_are_none_do_not_darken_the_preview(run: Run, work: Path) -> None:
    cube = np.random.default_rng(2).integers(100, 1000, (20, 20, 3)).astype(np.int16)
    write_envi(work / "a.hdr", cube)
    cube[:3] = -9999
    write_envi(work / "b.hdr", cube, **{"data ignore value": -9999})
    for name in "ab":
        options = ("--gain", 2, "--rows", "3:20" if name == "a" else "0:20", "--out", "o/")
        assert run("hsi-enhance", f"{name}.hdr", *GAIN, *options, "--preview", f"{name}.png").code == 0
    whole, part = cv2.imread("b.png"), cv2.imread("a.png")
    assert not whole[:3].any()
    np.testing.assert_array_equal(whole[3:], part)


def test_the_record_says_how_much_spectra_have_changed(run: Run, work: Path) -> None:
    light = np.random.default_rng(0).uniform(200, 2000, (16, 12, 1))
    np.save("a.npy", np.random.default_rng(1).poisson(light * np.linspace(0.2, 1, 8)).astype(np.uint16))
    records = []
    for method in ("gain", "lowrank"):
        ended = run("hsi-enhance", "a.npy", "--method", method, "--bands", "2:8", "--out", f"{method}.npy", "--json")
        records.append(json.loads(ended.out)["items"][0])
    assert (records[0]["spectral_angle_deg"], records[0]["bands_changed_most"]) == (0, [])
    assert records[1]["spectral_angle_deg"] > 0.5
    # by their numbers in the file
    assert {entry["band"] for entry in records[1]["bands_changed_most"]} <= set(range(2, 8))


def test_spectra_are_drawn_beside_the_output_or_where_plot_says(run: Run, work: Path) -> None:
    np.save("a.npy", cube_of())
    assert run("hsi-enhance", "a.npy", *GAIN, "--plot-spectra", "5,4").code == 0
    assert cv2.imread("a_hsi-enhance_spectra.png").shape[1] > 500
    # pixels are those of the file, whatever part of it is worked on
    options = ("--rows", "4:6", "--plot-spectra", "5,4", "--plot", "same/", "--out", "o/")
    assert run("hsi-enhance", "a.npy", *GAIN, *options).code == 0
    assert (work / "same/a.png").exists() and not list((work / "o").glob("*.png"))
    ended = run("hsi-enhance", "a.npy", *GAIN, "--plot-spectra", "6,0", "--out", "p/")
    assert ended.code == 1 and "--plot-spectra" in ended.line and "0:6" in ended.line
    ended = run("hsi-enhance", "a.npy", *GAIN, "--plot-spectra", "6", "--out", "p/")
    assert ended.code == 2 and "--plot-spectra" in ended.line and not (work / "p").exists()


def test_dry_run_tells_bytes_disk_tiles_time_and_memory(run: Run, work: Path) -> None:
    np.save("a.npy", cube_of())
    np.save("b.npy", cube_of(2))
    options = ("--dry-run", "--dtype", "float32", "--memory", "1.6GB", "--jobs", 2, "--out", "o/")
    ended = run("hsi-enhance", "a.npy", "b.npy", *GAIN, *options, "--json")
    document = json.loads(ended.out)
    first = document["items"][0]
    assert (first["output_bytes"], first["tiles"], first["memory_bytes"]) == (480, 1, 800_000_000)
    assert document["summary"]["memory_bytes"] == 1_600_000_000 and document["summary"]["free_bytes"] > 0
    assert first["seconds"] > 0 and list(work.glob("o*")) == []
    ended = run("hsi-enhance", "a.npy", "b.npy", *GAIN, *options)
    assert "1.6 GB of memory" in ended.out and "5x6, 4 bands" in ended.out
    # a method that cuts a cube by memory, of which 65 MB are for arrays: 32 MB a band
    np.save("wide.npy", np.zeros((1000, 1600, 3), np.uint8))
    ended = run("hsi-enhance", "wide.npy", "--method", "clahe", "--dry-run", "--memory", "465MB", "--json")
    assert json.loads(ended.out)["items"][0]["tiles"] == 2


def test_standard_streams(run: Run, work: Path) -> None:
    np.save("a.npy", cube_of())
    command = [sys.executable, "-m", "attnkit", "hsi-enhance", "-", *GAIN, "--gain", "2"]
    done = subprocess.run(command, input=(work / "a.npy").read_bytes(), capture_output=True, cwd=work)
    assert (done.returncode, done.stderr) == (0, b"")
    (work / "b.npy").write_bytes(done.stdout)
    np.testing.assert_array_equal(np.load("b.npy"), cube_of() * 2)
    assert sorted(path.name for path in work.iterdir()) == ["a.npy", "b.npy"]
    write_envi(work / "a.hdr", cube_of())
    ended = run("hsi-enhance", "a.hdr", *GAIN, "--out", "-")
    assert ended.code == 2 and "--format npy" in ended.line and ended.out == ""


def test_notices_of_a_method_are_told_and_recorded(run: Run, work: Path, monkeypatch) -> None:
    from attnkit.tasks.hsi_enhance.methods import gain

    plain = gain.run_gain

    def noticing(source: object, *, facts: dict, **more: object) -> object:
        facts.update(rank=3, notices=["window filled by reflection"])
        return plain(source, facts=facts, **more)

    monkeypatch.setattr(gain, "run_gain", noticing)
    np.save("a.npy", cube_of())
    ended = run("hsi-enhance", "a.npy", *GAIN, "--record", "r.jsonl")
    assert ended.err.count("window filled by reflection") == 1
    record = json.loads((work / "r.jsonl").read_text().splitlines()[0])
    assert record["rank"] == 3 and "window filled by reflection" in record["warnings"] and "notices" not in record


def test_an_output_stays_beside_what_its_format_needs(run: Run, work: Path) -> None:
    np.save("a.npy", cube_of())
    write_envi(work / "scan.hdr", cube_of(2))
    (work / "scan.hdr").rename(work / "scan.dat.hdr")
    before = tree(work)
    # the data of the result would take the place of an input, or of somebody's file
    ended = run("hsi-enhance", "scan.dat.hdr", *GAIN, "--out", "scan.hdr", "--overwrite")
    assert ended.code == 2 and "scan.dat" in ended.line and "input" in ended.line
    (work / "b.img").write_text("kept")
    ended = run("hsi-enhance", "a.npy", *GAIN, "--out", "b.hdr")
    assert ended.code == 2 and "b.img" in ended.line and (work / "b.img").read_text() == "kept"
    (work / "b.img").unlink()
    assert tree(work) == before


def test_jobs_and_dask_give_the_same_bytes(run: Run, work: Path) -> None:
    for number in (1, 2, 3):
        write_envi(work / f"d{number}.hdr", cube_of(number), "bil")
    for name, more in (("one", ()), ("two", ("--jobs", 2)), ("dask", ("--engine", "dask", "--jobs", 2))):
        ended = run("hsi-enhance", "d*.hdr", *GAIN, "--preview", f"{name}/p", *more, "--out", f"{name}/")
        assert ended.code == 0, ended.err
    assert tree(work / "one") == tree(work / "two") == tree(work / "dask") and len(tree(work / "one")) == 9


def test_methods_without_a_model_import_no_torch(work: Path) -> None:
    np.save("a.npy", cube_of())
    code = "import sys; from attnkit import cli; print(cli.run(sys.argv[1:]), 'torch' in sys.modules)"
    for method in ("gain", "mnf", "lowrank", "clahe"):
        done = subprocess.run(
            [sys.executable, "-c", code, "hsi-enhance", "a.npy", "--method", method, "--out", f"{method}.npy"],
            capture_output=True, text=True, cwd=work,
        )  # fmt: skip
        assert done.stdout.split() == ["0", "False"], (method, done.stderr)


def test_a_real_scan_keeps_its_header(run: Run, work: Path, shared: Path) -> None:
    source = shared / "data/hsi/fenix_envi/image.hdr"
    record = item(run, source, "--out", "o.hdr")
    assert (record["scale_from"], record["scale"]) == ("reflectance scale factor", 65535.0)
    with open_cube(source) as before, open_cube(work / "o.hdr") as after:
        assert after.info.extra == before.info.extra and after.info.wavelengths == before.info.wavelengths
        clipped = np.minimum(np.rint(before.read().astype(np.float32) * np.float32(record["gain"])), 65535)
        assert np.abs(after.read() - clipped).max() <= 1


@pytest.mark.parametrize("method", ["gain", "lowrank"])
def test_a_run_tells_how_far_it_is_inside_a_cube(method: str, run: Run, work: Path, monkeypatch) -> None:
    told = []
    monkeypatch.setattr(Talk, "inside", lambda self, share: told.append(share))
    # a row
    monkeypatch.setattr(regions, "ROW_REGION_SAMPLES", 12 * 8)
    light = np.random.default_rng(0).uniform(200, 2000, (16, 12, 1))
    np.save("a.npy", np.random.default_rng(1).poisson(light * np.linspace(0.2, 1, 8)).astype(np.uint16))
    assert run("hsi-enhance", "a.npy", "--method", method).code == 0
    # the last one begins the next item
    shares = told[:-1]
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1) and len(set(shares)) >= 16
    if method == "lowrank":
        assert shares[-16 - 1] == pytest.approx(START_SHARE)
