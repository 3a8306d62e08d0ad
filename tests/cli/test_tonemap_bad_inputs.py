"""Bad pictures on the whole command: one line each, the right exit code, nothing lost and no half file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from cli_cases import TONEMAP, Run, tree, write_pfm

CLASSICAL = ["linear", "drago", "reinhard", "mantiuk", "llf"]


def shown(path: Path) -> np.ndarray:
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert picture is not None
    return picture


def ramp(count: int = 64) -> list[float]:
    return [0.01 * (at + 1) for at in range(count)]


@pytest.mark.parametrize("method", CLASSICAL)
def test_nan_and_inf_pixels_are_repaired_and_counted(method: str, run: Run, work: Path) -> None:
    values = ramp()
    values[9], values[20], values[41] = float("nan"), float("inf"), -3.0
    write_pfm(work / "a.pfm", values, 8)
    ended = run("tonemap", "a.pfm", "--method", method, "--json", "--out", "o.png")
    assert ended.code == 0
    assert json.loads(ended.out)["items"][0]["repaired_pixels"] == {"nan": 1, "inf": 1, "negative": 1}
    assert "3 pixels repaired (1 nan, 1 inf, 1 negative)" in ended.err
    assert shown(work / "o.png").shape == (8, 8, 3) and shown(work / "o.png").max() > 100


@pytest.mark.parametrize("method", CLASSICAL)
@pytest.mark.parametrize("values", [[0.0] * 16, [0.5] * 16, [0.7]], ids=["black", "constant", "one pixel"])
def test_degenerate_frames_give_a_flat_picture(method: str, values: list[float], run: Run, work: Path) -> None:
    write_pfm(work / "a.pfm", values, 4 if len(values) > 1 else 1)
    assert run("tonemap", "a.pfm", "--method", method, "--out", "o.png").code == 0
    picture = shown(work / "o.png")
    assert np.ptp(picture) <= 1 and (picture.max() == 0) == (values[0] == 0)


def test_grey_pictures_stay_grey(run: Run, work: Path) -> None:
    cv2.imwrite("a.png", np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000)
    ended = run("tonemap", "a.png", "--method", "reinhard", "--json", "--out", "o.png")
    assert ended.code == 0 and json.loads(ended.out)["items"][0]["grey"] is True
    assert shown(work / "o.png").ndim == 2


def test_alpha_is_passed_through(run: Run, work: Path) -> None:
    picture = np.full((8, 8, 4), 90, np.uint8)
    picture[..., 3] = np.arange(64).reshape(8, 8)
    cv2.imwrite("a.png", picture)
    assert run("tonemap", "a.png", "--method", "linear", "--out", "o.png").code == 0
    assert (shown(work / "o.png")[..., 3] == picture[..., 3]).all()


@pytest.mark.parametrize("suffix", [".hdr", ".pfm", ".png", ".tiff", ".jpg", ".exr"])
def test_truncated_files_are_errors_never_black_pictures(suffix: str, run: Run, work: Path) -> None:
    source = work / f"a{suffix}"
    noise = np.random.default_rng(0).random((32, 32, 3), np.float32)
    if suffix == ".exr":
        write_pfm(work / "whole.pfm", [float(value) for value in noise[..., 0].ravel()], 32)
        run("tonemap", "whole.pfm", "--method", "linear", "--out", source)
    else:
        cv2.imwrite(str(source), noise if suffix in (".hdr", ".pfm") else (noise * 255).astype(np.uint8))
    source.write_bytes(source.read_bytes()[: source.stat().st_size * 2 // 3])
    ended = run("tonemap", source, "--method", "linear", "--out", "o/")
    assert ended.code == 1 and source.name in ended.line
    assert not (work / "o").exists()


def test_a_wrong_extension_is_no_problem(run: Run, work: Path) -> None:
    write_pfm(work / "a.jpg", ramp(), 8)
    assert run("tonemap", "a.jpg", "--method", "linear", "--out", "o.png").code == 0


def test_what_is_no_picture_is_an_error(run: Run, work: Path) -> None:
    (work / "notes.hdr").write_text("to do")
    (work / "empty.exr").write_bytes(b"")
    (work / "cube.hdr").write_text("ENVI\nsamples = 4\n")
    (work / "photo.nef").write_bytes(b"II*\0" + bytes(60))
    for name, word in (("notes.hdr", "no known picture"), ("empty.exr", "empty"), ("cube.hdr", "ENVI")):
        ended = run("tonemap", name, "--method", "linear")
        assert ended.code == 1 and name in ended.line and word in ended.line
    ended = run("tonemap", "photo.nef", "--method", "linear")
    assert ended.code == 1 and "photo.nef" in ended.line


def test_a_missing_file_stops_before_any_work(run: Run, work: Path) -> None:
    good = TONEMAP.good(work / "a")
    before = tree(work)
    ended = run(TONEMAP, good, "b.hdr", "--out", "o/")
    assert ended.code == 2 and "b.hdr" in ended.line and tree(work) == before
    (work / "lost.hdr").symlink_to("nowhere")
    ended = run(TONEMAP, "lost.hdr")
    assert ended.code == 2 and "nowhere" in ended.line


def test_an_unreadable_folder_is_one_line(run: Run, work: Path, monkeypatch) -> None:
    (work / "closed").mkdir()
    scan = os.scandir

    def refuse(folder: object) -> object:
        if Path(str(folder)).name == "closed":
            raise PermissionError(13, os.strerror(13), str(folder))
        return scan(folder)  # type: ignore[arg-type]

    # permissions do not stop root, who runs many a container
    monkeypatch.setattr(os, "scandir", refuse)
    ended = run(TONEMAP, "closed", "--out", "o/")
    assert ended.code == 2 and "closed" in ended.line and "Permission denied" in ended.line


def test_an_unreadable_file_fails_alone(run: Run, work: Path, monkeypatch) -> None:
    closed, good = TONEMAP.good(work / "closed"), TONEMAP.good(work / "good")
    read = Path.open

    def refuse(path: Path, *arguments: object, **settings: object) -> object:
        if path.name == closed.name:
            raise PermissionError(13, os.strerror(13), str(path))
        return read(path, *arguments, **settings)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", refuse)
    ended = run(TONEMAP, closed, good, "--out", "o/")
    assert ended.code == 3 and "closed.pfm" in ended.err and (work / "o" / "good.png").exists()


def test_an_output_folder_that_cannot_be_written(run: Run, work: Path) -> None:
    source = TONEMAP.good(work / "a")
    (work / "file").write_text("kept")
    ended = run(TONEMAP, source, "--out", "file/sub/")
    assert ended.code == 2 and "file" in ended.line and (work / "file").read_text() == "kept"
    (work / "taken.png").mkdir()
    (work / "d" / "a.png").mkdir(parents=True)
    ended = run(TONEMAP, source, "--out", "d")
    assert ended.code == 2 and "d/a.png" in ended.line


def test_clashes_of_same_named_files_name_both_and_recursive_keeps_them_apart(run: Run, work: Path) -> None:
    first, second = TONEMAP.good(work / "p" / "x" / "a"), TONEMAP.good(work / "p" / "y" / "a", 2)
    ended = run(TONEMAP, "p/x", "p/y", "--out", "o/")
    assert ended.code == 2 and str(first.relative_to(work)) in ended.line and "p/y/a.pfm" in ended.line
    assert second.exists() and not (work / "o").exists()
    assert run(TONEMAP, "p", "--recursive", "--out", "o/").code == 0
    assert shown(work / "o/x/a.png").shape == shown(work / "o/y/a.png").shape


def test_results_are_no_inputs_of_the_next_run(run: Run, work: Path) -> None:
    TONEMAP.good(work / "d" / "a")
    assert run(TONEMAP, "d", "--format", "exr").code == 0
    ended = run(TONEMAP, "d", "--format", "exr", "--skip-existing", "--json")
    assert json.loads(ended.out)["summary"] | {"seconds": 0} == {
        "items": 1, "ok": 0, "skipped": 1, "failed": 0, "not_run": 0, "seconds": 0
    }  # fmt: skip
