"""Folders that cannot be opened: what is wrong with them is said in a line, before their weights are loaded."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from tiny_vlms import save_tiny
from transformers import AutoModelForImageTextToText

from attnkit.models.vlm.opening import open_vlm
from attnkit.runtime.errors import ItemError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_tiny("llava", tmp_path / "model")


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """No weights are loaded."""
    monkeypatch.delattr(AutoModelForImageTextToText, "from_pretrained")


@pytest.mark.usefixtures("unloaded")
@pytest.mark.parametrize(
    ("names", "text"),
    [
        (("tokenizer.json",), "no tokenizer.json or tokenizer.model in it"),
        (("processor_config.json", "preprocessor_config.json"), "no processor_config.json or preprocessor_config.json"),
    ],
)
def test_tokenizer_and_image_processor_must_be_there(names: tuple[str, ...], text: str, folder: Path) -> None:
    for name in names:
        (folder / name).unlink(missing_ok=True)
    with pytest.raises(ItemError, match=text):
        open_vlm(folder, device="cpu")


@pytest.mark.usefixtures("unloaded")
def test_weights_that_are_cut_off_or_damaged_say_how_many_bytes_are_there(folder: Path) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with pytest.raises(ItemError, match=rf"\({len(whole) - 10} bytes, its header says {len(whole)}\); fetch it again"):
        open_vlm(folder, device="cpu")
    for header in (b'{"a": 1}', b'["a"]   ', b'{"a":{}}'):
        path.write_bytes(len(header).to_bytes(8, "little") + header)
        with pytest.raises(ItemError, match=r"(no whole|not a) safetensors file"):
            open_vlm(folder, device="cpu")


class Calling:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("mark",)


def test_a_refused_pickle_is_named_without_the_advice_to_run_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (folder / "model.safetensors").unlink()
    torch.save({"weight": torch.zeros(2), "other": Calling()}, folder / "pytorch_model.bin")
    with pytest.raises(ItemError) as caught:
        open_vlm(folder, device="cpu")
    told = str(caught.value)
    assert "mkdir, and of pickles only tensors are read; expected model.safetensors" in told
    assert "weights_only" not in told
    assert not Path("mark").exists()
