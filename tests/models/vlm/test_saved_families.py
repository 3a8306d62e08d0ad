"""Every family from a folder that its network, tokenizer and image processor were saved to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny_vlms import NAMES, picture, save_tiny, tiny_vlm

from attnkit.models import identity, registry
from attnkit.models.identity import model_identity
from attnkit.models.vlm.opening import VisionLanguageModel
from attnkit.runtime.errors import ItemError, UsageError
from attnkit.tasks.vlm_ask.task import Request, equals_plain, logits_of, prompt_of


def opened(folder: Path, **more: str) -> VisionLanguageModel:
    return registry.open_model(folder, task="vlm-ask", **more)


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_folder_answers_as_the_model_it_was_saved_from(name: str, tmp_path: Path) -> None:
    own, vlm = tiny_vlm(name), opened(save_tiny(name, tmp_path))
    requests = [Request((picture(),), "what is there"), Request((picture(60, 40, 1),), "how many circle")]
    prompts = [prompt_of(one, requests) for one in (own, vlm)]
    assert prompts[0].texts == prompts[1].texts and torch.equal(prompts[0].image_mask, prompts[1].image_mask)
    assert torch.equal(logits_of(own, prompts[0]), logits_of(vlm, prompts[1]))
    assert equals_plain(vlm, requests)


def test_the_dtype_is_the_one_asked_for(tmp_path: Path) -> None:
    save_tiny("llava", tmp_path)
    assert opened(tmp_path).dtype == "float32"
    assert opened(tmp_path, dtype="bfloat16").model.dtype == torch.bfloat16
    with pytest.raises(UsageError, match="--dtype: got int8"):
        opened(tmp_path, dtype="int8")


def test_a_family_by_name_asks_for_its_folder() -> None:
    with pytest.raises(UsageError, match=r"'qwen2-vl': a family .* give --model a folder"):
        registry.resolve("qwen2-vl")


def test_a_folder_of_another_family_names_those_known(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "blip-2"}))
    with pytest.raises(ItemError, match=r"kind 'blip-2', expected one of .*idefics3.*qwen3_vl") as caught:
        registry.resolve(tmp_path)
    assert all(name in str(caught.value) for name in NAMES)


def test_identity_is_that_of_the_content(tmp_path: Path) -> None:
    one, other = (save_tiny("llava", tmp_path / name) for name in ("a", "b"))
    assert model_identity(str(one)) == model_identity(str(other))
    (tmp_path / "c").mkdir()
    for path in one.iterdir():
        (tmp_path / "c" / path.name).write_bytes(path.read_bytes())
    weights = bytearray((one / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "c" / "model.safetensors").write_bytes(weights)
    assert model_identity(str(tmp_path / "c")) != model_identity(str(one))


def test_identity_of_a_large_folder_is_of_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "WHOLE_BYTES", 1000)
    names = set()
    for name, size, byte in (("a", 40_000_000, 0), ("b", 40_000_000, 1), ("c", 40_000_001, 0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text('{"model_type": "llava"}')
        with (tmp_path / name / "model.safetensors").open("wb") as stream:
            stream.truncate(size)
            stream.seek(size - 1)
            stream.write(bytes([byte]))
        names.add(model_identity(str(tmp_path / name)))
    assert len(names) == 3 and all(name.startswith("sampled:") for name in names)
