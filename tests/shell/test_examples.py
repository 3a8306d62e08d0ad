"""The examples of every help text run as they stand, in a folder that has the files they speak of."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import torch

from attnkit import cli
from attnkit.models.weights import EMBEDDED_FOLDER
from attnkit.runtime import manual

WEIGHTS = EMBEDDED_FOLDER / "llf-lut.safetensors"
EXAMPLES = manual.CHECKOUT / "examples"
Run = Callable[[str], None]
# what a test cannot have: hours, a checkpoint of somebody else, a cluster
OUT_OF_REACH = {
    "attnkit train": "a training takes minutes and a folder of panoramas",
    "attnkit models import": "a published checkpoint is not ours to give away",
    "llava-1.5-7b-hf": "14 GB of weights of somebody else",
    "--write-golden": "it writes into the installation",
    "pfs:": "pfstools is not installed",
    "--scheduler": "there is no cluster here; tests/runtime starts one",
}
if shutil.which("pfstmo_reinhard02"):
    del OUT_OF_REACH["pfs:"]
COMMANDS = [command for page in manual.pages() for command in page.example_commands]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """room.hdr, room.exr, photos/, examples/: real pictures; a weight file; made-up cubes and answers about images."""
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    (tmp_path / "photos").mkdir()
    shutil.copy(EXAMPLES / "hdr/interior_view.hdr", tmp_path / "room.hdr")
    shutil.copy(EXAMPLES / "hdr/city.exr", tmp_path / "room.exr")
    for name in ("courtyard_view.hdr", "sunset_view.hdr"):
        shutil.copy(EXAMPLES / "hdr" / name, tmp_path / "photos")
    # what `attnkit models import` would have made
    shutil.copy(WEIGHTS, tmp_path / "hdrplus-480p.safetensors")
    write_cubes(tmp_path)
    write_answers(tmp_path)
    return tmp_path


def write_cubes(folder: Path) -> None:
    """Dark scans as ENVI, MATLAB and HDF5, a folder of them, references, bright scans, one with labels."""
    draw = np.random.default_rng(0)

    def cube(level: float, rows: int = 12, bands: int = 16) -> np.ndarray:
        shape = draw.uniform(0.5, 1.5, (rows, 9, 1)) * np.linspace(1, 2, bands)
        return draw.poisson(level * shape).astype(np.uint16)

    def envi(path: Path, values: np.ndarray) -> None:
        path.parent.mkdir(exist_ok=True)
        nm = ", ".join(map(str, range(450, 450 + 20 * values.shape[2], 20)))
        size = f"samples = 9\nlines = {len(values)}\nbands = {values.shape[2]}\n"
        light = f"wavelength units = nm\nwavelength = {{{nm}}}\n"
        path.write_text(f"ENVI\n{size}data type = 12\ninterleave = bip\nbyte order = 0\n{light}")
        path.with_suffix(".dat").write_bytes(values.tobytes())

    for name in ("outcrop", "scan", "cubes/1", "cubes/2"):
        envi(folder / f"{name}.hdr", 100 + cube(60))
    for name in ("clean/outcrop", "bright/outcrop"):
        envi(folder / f"{name}.hdr", cube(3000))
    envi(folder / "dark.hdr", 100 + cube(0, rows=3))
    envi(folder / "white.hdr", 100 + cube(900, rows=3))
    scipy.io.savemat(folder / "scan.mat", {"cube": cube(60)})
    # two crops side by side
    crops = np.repeat([1, 2], 10) * np.ones((12, 1), int)
    fields = cube(3000, bands=6)[:, :1] * np.where(crops[..., None] == 1, 1.0, np.linspace(0.5, 1.2, 6))
    np.savez(folder / "fields.npz", cube=fields.astype(np.uint16), labels=crops)
    with h5py.File(folder / "scan.h5", "w") as file:
        file["cube"] = cube(60, rows=200, bands=150)


def write_answers(folder: Path) -> None:
    """Answers about a few images, and what is right: splits of POPE, two images of COCO, a subtask of MME, VQA."""

    def lines(path: str, rows: list[dict[str, object]]) -> None:
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text("".join(json.dumps(row) + "\n" for row in rows))

    asked = [{"question_id": at, "image": f"{at // 6}.jpg", "text": "Is there a dog?"} for at in range(12)]
    for split in ("random", "popular"):
        lines(f"pope/coco_pope_{split}.json", [row | {"label": ("no", "yes")[at % 2]} for at, row in enumerate(asked)])
        for name in (f"var_{split}.jsonl", f"plain/{split}.jsonl"):
            lines(name, [row | {"answer": ("No", "Yes")[at % 3 % 2]} for at, row in enumerate(asked)])
    shutil.copy(folder / "var_random.jsonl", folder / "answers.jsonl")
    categories = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}]
    objects = [{"image_id": at, "category_id": 18} for at in (1, 2)]
    lines("annotations/instances_val2014.json", [{"categories": categories, "annotations": objects}])
    named = [{"image_id": at, "caption": "A boy with a puppy"} for at in (1, 2)]
    lines("annotations/captions_val2014.json", [{"annotations": named[:1]}])
    lines("captions.jsonl", named)
    (folder / "synonyms.txt").write_text("person, boy\ndog, puppy\n")
    pairs = [f"{image}.jpg\tIs it {truth}?\t{truth}" for image in range(3) for truth in ("Yes", "No")]
    for name, more in (("mme", ""), ("results", "\tYes")):
        (folder / name).mkdir()
        (folder / name / "count.txt").write_text("".join(f"{pair}{more}\n" for pair in pairs))
    people = [{"answer": "red"}] * 7 + [{"answer": "blue"}] * 3
    told = [{"question_id": 1, "image_id": 1, "answer_type": "other", "answers": people}]
    lines("v2_mscoco_val2014_annotations.json", [{"annotations": told}])
    (folder / "vqa.json").write_text(json.dumps([{"question_id": 1, "answer": "Blue"}]))


@pytest.fixture
def attnkit(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Runs a command line in the folder and in this process, which has imported what most of them need."""
    monkeypatch.chdir(folder)
    threads = torch.get_num_threads()

    def run(command: str) -> None:
        program, *words = shlex.split(command)
        assert program == "attnkit"
        code = cli.run(words)
        assert code == 0, capfd.readouterr().err

    yield run
    torch.set_num_threads(threads)


def test_there_are_examples() -> None:
    assert sum(command.startswith("attnkit tonemap ") for command in COMMANDS) >= 3
    assert all(command.startswith("attnkit ") for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_example(command: str, folder: Path, attnkit: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for part, reason in OUT_OF_REACH.items():
        if part in command:
            pytest.skip(reason)
    if command.startswith("attnkit eval"):
        # of a light probe it would measure many large views
        (folder / "examples/hdr/city.exr").unlink()
    if command.startswith("attnkit vlm-ask"):
        # answers of another command, which this one would not add to
        (folder / "answers.jsonl").unlink()
    if command.startswith("attnkit bench-kernel") and ("--sweep" in command or "--baseline" in command):
        # as few rounds as give an interval; memory takes processes of its own, which tests/cli has
        monkeypatch.setenv("ATTNKIT_BENCH_KERNEL_REPEATS", "5")
        monkeypatch.setenv("ATTNKIT_BENCH_KERNEL_MEMORY", "false")
    if "out/*.png" in command:
        attnkit("attnkit tonemap examples/hdr --out out/ --method linear")
    attnkit(command)


def test_readme_pictures_are_free_to_give_away() -> None:
    licence = (EXAMPLES / "hdr/LICENSE.txt").read_text()
    pictures = [path.name for path in (EXAMPLES / "hdr").iterdir() if path.suffix in (".hdr", ".exr")]
    assert len(pictures) >= 3
    assert all(name in licence for name in pictures)
    assert "CC0 1.0" in licence
