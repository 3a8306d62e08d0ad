"""An embedded weight set that is a folder: found, described, verified by its hash and by what the model computes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from attnkit.models import registry, verify
from attnkit.models.describe import describe
from attnkit.models.vlm.network import VlmNetwork
from attnkit.models.vlm.tiny_llava import make_model
from attnkit.models.weights import hash_weights


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A toy weight set in the place of the embedded ones, with its record."""
    entry = registry.get("tiny-llava")
    for name, value in entry.tiny.items():
        monkeypatch.setitem(entry.config, name, value)
    monkeypatch.setattr(registry, "EMBEDDED_FOLDER", tmp_path)
    torch.manual_seed(0)
    make_model(entry.config).to(torch.float16).save_pretrained(tmp_path / "tiny-llava")
    verify.write_golden("tiny-llava")
    return tmp_path / "tiny-llava"


def states() -> dict[str, str]:
    return {check.check: check.state for check in verify.verify("tiny-llava")}


def test_a_whole_folder_is_verified_and_described(folder: Path) -> None:
    assert states() == {"hash": "ok", "shapes": "ok", "golden": "ok"}
    told = describe("tiny-llava")
    assert told["format"] == "folder" and told["sha256"] == told["expected_sha256"] == hash_weights(folder)
    loaded = registry.load("tiny-llava")
    assert isinstance(loaded, VlmNetwork)
    assert told["parameters"] == loaded.count_parameters() == sum(value.size for value in loaded.arrays().values())


def test_a_changed_file_fails_by_its_hash(folder: Path) -> None:
    path = folder / "generation_config.json"
    path.write_text(path.read_text() + "\n")
    assert states() == {"hash": "failed"}


def test_changed_weights_fail_by_their_output_even_with_their_hash_recorded(folder: Path) -> None:
    path = folder / "model.safetensors"
    arrays = load_file(path)
    arrays = {name: value * 1.5 if "down_proj" in name else value for name, value in arrays.items()}
    save_file(arrays, path, metadata={"format": "pt"})
    record = folder.with_suffix(".json")
    record.write_text(json.dumps({**json.loads(record.read_text()), "sha256": hash_weights(folder)}))
    assert states() == {"hash": "ok", "shapes": "ok", "golden": "failed"}


def test_the_answer_depends_on_the_picture(folder: Path) -> None:
    model = registry.load("tiny-llava")
    picture = model.example(30, 40)
    first, other = (model.run(one)["logits"] for one in (picture, 255 - picture))
    assert not np.allclose(first, other, atol=1e-4)
