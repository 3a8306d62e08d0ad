"""Cubes that are stopped half way: nothing half written under a final name, and the rest done tile by tile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cli_cases import Run, tree

from attnkit.models import registry
from attnkit.tasks.hsi_enhance import journal
from attnkit.tasks.hsi_enhance.methods import bandwise, regions

# one row of the cubes here
TILE_SAMPLES = 20 * 9
# a process of its own that dies when its third tile is in the journal
DYING = """
import os, signal, sys
from attnkit import cli
from attnkit.tasks.hsi_enhance import journal
from attnkit.tasks.hsi_enhance.methods import bandwise, regions
regions.ROW_REGION_SAMPLES = int(sys.argv[1])
regions.BAND_BYTES_A_SAMPLE = 10**9
bandwise.GROUP_PIXELS = 1
add, count = journal.Journal.add, 0
def dying(self, region, clipped):
    global count
    add(self, region, clipped)
    count += 1
    if count == 3:
        os.kill(os.getpid(), signal.SIGKILL)
journal.Journal.add = dying
cli.main(sys.argv[2:])
"""


@pytest.fixture
def tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of one row, or one band for methods that work band by band."""
    monkeypatch.setattr(regions, "ROW_REGION_SAMPLES", TILE_SAMPLES)
    monkeypatch.setattr(bandwise, "GROUP_PIXELS", 1)


def write_cube(path: Path, seed: int = 1) -> np.ndarray:
    draw = np.random.default_rng(seed)
    smooth = np.linspace(50, 300, 20) * draw.uniform(0.5, 1.5, (16, 9, 1))
    cube = draw.poisson(smooth).astype(np.uint16)
    cube[3, 3, 7] = 60_000
    path.parent.mkdir(exist_ok=True)
    np.save(path, cube)
    return cube


def killed(*arguments: object) -> None:
    done = subprocess.run([sys.executable, "-c", DYING, str(TILE_SAMPLES), "hsi-enhance", *map(str, arguments)])
    assert done.returncode == -signal.SIGKILL


def hidden(folder: Path) -> list[str]:
    return [name for name in tree(folder) if "attnkit" in name and not name.endswith(".lock")]


@pytest.mark.parametrize("format", ["npy", "envi", "mat", "hdf5", "npz", "tiff"])
def test_a_killed_cube_goes_on_tile_by_tile_to_the_same_bytes(format: str, run: Run, work: Path, tiles) -> None:
    write_cube(work / "a.npy")
    options = ("--method", "gain", "--gain", 40, "--scale", 4095, "--format", format)
    assert run("hsi-enhance", "a.npy", *options, "--out", "whole/").code == 0
    killed("a.npy", *options, "--out", "o/")
    assert hidden(work / "o") and not any(not name.startswith(".") for name in tree(work / "o"))
    ended = run("hsi-enhance", "a.npy", *options, "--out", "o/", "--resume", "--record", "r.jsonl")
    assert ended.code == 0, ended.err
    record = read_items(work / "r.jsonl")[0]
    assert record["resumed_tiles"] == 3
    assert tree(work / "o") == tree(work / "whole")
    ended = run("hsi-enhance", "a.npy", *options, "--out", "again/", "--record", "r.jsonl")
    again = read_items(work / "r.jsonl")[1]
    for key in ("clipped_values", "spectral_angle_deg", "bands_changed_most", "saturated_samples"):
        assert record[key] == again[key]
    assert record["clipped_values"] > 0


@pytest.mark.parametrize("method", ["lowrank", "hsie", "hsie-lptn"])
def test_a_denoising_method_goes_on_too(method: str, run: Run, work: Path, tiles) -> None:
    write_cube(work / "a.npy")
    options = ("--method", "lowrank", "--preview", "p/", "--plot-spectra", "3,3")
    if method != "lowrank":
        registry.save(registry.build(method, tiny=True), method, work / f"stopped-{method}.safetensors")
        options = ("--model", f"stopped-{method}.safetensors", *options[2:])
    assert run("hsi-enhance", "a.npy", *options, "--out", "whole/").code == 0
    (work / "p/a.png").rename(work / "whole.png")
    killed("a.npy", *options, "--out", "o/")
    assert run("hsi-enhance", "a.npy", *options, "--out", "o/", "--resume").code == 0
    assert tree(work / "o") == tree(work / "whole")
    assert (work / "p/a.png").read_bytes() == (work / "whole.png").read_bytes()


@pytest.mark.parametrize("change", ["input", "options", "no --resume"])
def test_what_was_begun_for_something_else_is_begun_anew(change: str, run: Run, work: Path, tiles) -> None:
    write_cube(work / "a.npy")
    killed("a.npy", "--method", "gain", "--out", "o/")
    options = ["--method", "gain"]
    if change == "input":
        write_cube(work / "a.npy", 2)
    if change == "options":
        options += ["--gain", "3"]
    more = [] if change == "no --resume" else ["--resume"]
    ended = run("hsi-enhance", "a.npy", *options, "--out", "o/", *more, "--record", "r.jsonl")
    assert ended.code == 0 and "resumed_tiles" not in read_items(work / "r.jsonl")[0]
    assert run("hsi-enhance", "a.npy", *options, "--out", "whole/").code == 0
    assert tree(work / "o") == tree(work / "whole")


@pytest.mark.parametrize(("method", "resumed"), [("gain", 3), ("clahe", None)])
def test_another_memory_bound_matters_only_where_it_cuts_the_cube(
    method: str, resumed: int | None, run: Run, work: Path, tiles, monkeypatch
) -> None:
    # clahe: one band at a time
    monkeypatch.setattr(regions, "BAND_BYTES_A_SAMPLE", 10**9)
    write_cube(work / "a.npy")
    killed("a.npy", "--method", method, "--out", "o/")
    options = ("--method", method, "--memory", "2GB", "--record", "r.jsonl")
    assert run("hsi-enhance", "a.npy", *options, "--out", "o/", "--resume").code == 0
    assert read_items(work / "r.jsonl")[0].get("resumed_tiles") == resumed
    assert run("hsi-enhance", "a.npy", *options, "--out", "whole/").code == 0
    assert tree(work / "o") == tree(work / "whole")


def test_ctrl_c_inside_a_cube_then_skip_existing(run: Run, work: Path, tiles, monkeypatch) -> None:
    for number in (1, 2, 3):
        write_cube(work / f"d/{number}.npy", number)
    add, calls = journal.Journal.add, []

    def stopping(self: journal.Journal, region: regions.Region, clipped: int) -> None:
        add(self, region, clipped)
        calls.append(region)
        if len(calls) == 16 + 5:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(journal.Journal, "add", stopping)
        ended = run("hsi-enhance", "d", "--method", "gain", "--format", "envi", "--out", "o/")
    assert ended.code == 130 and "SIGINT" in ended.line and "1 of 3" in ended.line and "--resume" in ended.line
    assert sorted(name for name in tree(work / "o") if not name.startswith(".")) == ["1.hdr", "1.img"]
    assert len(calls) == 21 and hidden(work / "o")
    options = ("--method", "gain", "--format", "envi", "--out", "o/", "--skip-existing", "--resume", "--record", "r")
    assert run("hsi-enhance", "d", *options).code == 0
    assert [item.get("resumed_tiles") for item in read_items(work / "r")] == [None, 5, None]
    assert run("hsi-enhance", "d", "--method", "gain", "--format", "envi", "--out", "whole/").code == 0
    assert tree(work / "o") == tree(work / "whole")


def test_a_stop_while_a_whole_cube_takes_its_name_loses_no_tile(run: Run, work: Path, tiles, monkeypatch) -> None:
    write_cube(work / "a.npy")
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", lambda descriptor: signal.raise_signal(signal.SIGINT))
        assert run("hsi-enhance", "a.npy", "--method", "gain", "--out", "o/").code == 130
    assert not any(not name.startswith(".") for name in tree(work / "o"))
    assert run("hsi-enhance", "a.npy", "--method", "gain", "--out", "o/", "--resume", "--record", "r").code == 0
    assert read_items(work / "r")[0]["resumed_tiles"] == 16 and not hidden(work / "o")


def test_a_disk_that_fills_up_keeps_the_tiles_that_are_done(run: Run, work: Path, tiles, monkeypatch) -> None:
    from attnkit.cubes.tiles import CubeWriter

    write_cube(work / "a.npy")
    write, calls = CubeWriter.write, []

    def full(self: CubeWriter, *arguments: object) -> None:
        calls.append(1)
        if len(calls) == 4:
            raise OSError(28, os.strerror(28))
        write(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(CubeWriter, "write", full)
        ended = run("hsi-enhance", "a.npy", "--method", "gain", "--out", "o/")
    assert ended.code == 1 and "o/a.npy" in ended.line and "no space left" in ended.line
    assert run("hsi-enhance", "a.npy", "--method", "gain", "--out", "o/", "--resume", "--record", "r").code == 0
    assert read_items(work / "r")[0]["resumed_tiles"] == 3 and sorted(tree(work / "o")) == ["a.npy", "a.npy.json"]


def test_too_little_disk_is_said_before_any_work(run: Run, work: Path, monkeypatch) -> None:
    write_cube(work / "d/a.npy")
    write_cube(work / "d/b.npy", 2)
    size = 16 * 9 * 20 * 2
    usage = os.statvfs(work)

    def nearly_full(path: object) -> object:
        return type("usage", (), {"free": 2 * size - 1, "total": usage.f_blocks, "used": 0})()

    monkeypatch.setattr("shutil.disk_usage", nearly_full)
    for more in ((), ("--dry-run",)):
        ended = run("hsi-enhance", "d", "--method", "gain", "--out", "o/", *more)
        assert ended.code == 2 and str(2 * size - 1) in ended.line and str(2 * size) in ended.line
    assert not (work / "o").exists()
    assert run("hsi-enhance", "d/a.npy", "--method", "gain", "--out", "o/").code == 0
    # the second one fits once the first is replaced, but both at once do not grow the folder
    assert run("hsi-enhance", "d", "--method", "gain", "--out", "o/", "--overwrite").code == 0


def read_items(path: Path) -> list[dict]:
    import json

    return [line for line in map(json.loads, path.read_text().splitlines()) if line["record"] == "item"]
