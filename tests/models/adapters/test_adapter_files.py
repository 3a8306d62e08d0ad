"""Adapters in files, the refusals of files that do not fit, and updates that are merged into the weights."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted_models import STRONG, attached, logits, prompt_of
from tiny_vlms import tiny_vlm

from attnkit.models.adapters.attach import KINDS, attach
from attnkit.models.adapters.files import load_adapter, save_adapter
from attnkit.models.weights import read_description
from attnkit.runtime.errors import ItemError, UsageError


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_brings_back_the_same_bits(kind: str, tmp_path: Path) -> None:
    prompt, path = prompt_of("llava"), tmp_path / "adapter.safetensors"
    with attached("llava", kind) as attachment:
        changed = logits("llava", prompt)
        digest = save_adapter(path, attachment, base="tiny", provenance={"made_by": "a test"})
        assert (
            save_adapter(tmp_path / "again.safetensors", attachment, base="tiny", provenance={"made_by": "a test"})
            == digest
        )
    model = tiny_vlm("llava").model
    loaded = load_adapter(path, model)
    assert torch.equal(logits("llava", prompt), changed) and loaded.settings == STRONG[kind]
    with pytest.raises(UsageError, match=f"carries a {kind} already"):
        attach(model, "lora")
    loaded.detach()
    assert read_description(path)["architecture"] == kind
    half = copy.deepcopy(model).to(torch.bfloat16)
    load_adapter(path, half)
    with torch.inference_mode():
        inputs = {
            key: value.bfloat16() if value.is_floating_point() else value for key, value in prompt.inputs().items()
        }
        assert torch.isfinite(half(**inputs).logits).all()


def test_another_model_or_another_shape_is_refused_and_leaves_the_model(tmp_path: Path) -> None:
    path = tmp_path / "adapter.safetensors"
    with attached("llava", "lora") as attachment:
        save_adapter(path, attachment, base="tiny")
    model = copy.deepcopy(tiny_vlm("llava").model)
    prompt = prompt_of("llava")
    before = logits("llava", prompt)
    _rewrite(path, lambda document: document["config"]["settings"].update(rank=4))
    with pytest.raises(UsageError, match=r"lora of 4 layers: array '0.q_proj.a' has shape"):
        load_adapter(path, model)
    with torch.inference_mode():
        assert torch.equal(model(**prompt.inputs()).logits, before) and not hasattr(model, "attnkit_adapter")
        model.lm_head.weight.mul_(1.01)
    with pytest.raises(UsageError, match=r"was trained on tiny .* got a model with other weights"):
        load_adapter(path, model)
    _rewrite(path, lambda document: document["config"].pop("layers"))
    with pytest.raises(ItemError, match="its description lacks 'layers'"):
        load_adapter(path, model)
    _rewrite(path, lambda document: document.update(architecture="hsie"))
    with pytest.raises(UsageError, match="holds weights of 'hsie', expected an adapter"):
        load_adapter(path, model)


def _rewrite(path: Path, change: Any) -> None:
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    with safe_open(path, "pt") as opened:
        document = json.loads(opened.metadata()["attnkit"])
    change(document)
    save_file(load_file(path), path, metadata={"attnkit": json.dumps(document)})


def test_a_merged_update_is_the_adapted_model() -> None:
    prompt, model = prompt_of("llava"), copy.deepcopy(tiny_vlm("llava").model)
    with attached("llava", "lora") as attachment:
        changed, arrays = logits("llava", prompt), attachment.arrays()
        other = attach(model, "lora")
        other.load_arrays(arrays)
        other.merge()
    with torch.inference_mode():
        torch.testing.assert_close(model(**prompt.inputs()).logits, changed, rtol=1e-3, atol=1e-3)
    with (
        attached("llava", "adapter") as attachment,
        pytest.raises(UsageError, match="adapter is no update of weights"),
    ):
        attachment.merge()
