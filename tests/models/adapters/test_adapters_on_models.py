"""Adapters on tiny models: off and on again, every way of running a model, training, files."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_vlms import NAMES, picture, tiny_vlm
from torch import Tensor
from transformers import DynamicCache

from attnkit.models.adapters.attach import KINDS, Attachment, attach, settings_of
from attnkit.models.adapters.files import load_adapter, save_adapter
from attnkit.models.adapters.p_laplacian import PAdapterSettings, propagate
from attnkit.models.vlm.processing import conversation
from attnkit.models.vlm.prompt import Prompt
from attnkit.models.weights import read_description
from attnkit.runtime.errors import ItemError, UsageError

STRONG = {
    "p-adapter": PAdapterSettings(image_tokens=5, zero_start=False),
    "adapter": settings_of("adapter", {"zero_start": False}),
    "lora": settings_of("lora"),
}
BOTH = ("llava", "qwen2_5_vl")


def prompt_of(name: str, question: str = "how many red circle ?", seed: int = 0, pictures: int = 1) -> Prompt:
    shown = [picture(seed=seed + number) for number in range(pictures)]
    return tiny_vlm(name).processor.prompt(conversation(question, pictures), shown)


def logits(name: str, prompt: Prompt, **more: Any) -> Tensor:
    model = tiny_vlm(name).model
    if hasattr(model.model, "rope_deltas"):
        model.model.rope_deltas = None
    with torch.inference_mode():
        return model(**prompt.inputs(), **more).logits


@contextmanager
def attached(name: str, kind: str, settings: Any = None) -> Iterator[Attachment]:
    """An adapter that changes what the model says; taken off in the end."""
    attachment = attach(tiny_vlm(name).model, kind, STRONG[kind] if settings is None else settings)
    with torch.no_grad():
        # a low-rank update begins at zero whatever its settings
        for parameter in attachment.parameters():
            if parameter.ndim > 1 and not parameter.any():
                parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(3))
    try:
        yield attachment
    finally:
        attachment.detach()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_on_at_zero_and_off_again_the_model_gives_the_same_bits(name: str, kind: str) -> None:
    prompt = prompt_of(name)
    before = logits(name, prompt)
    model = tiny_vlm(name).model
    names, trained = list(model.state_dict()), [value.requires_grad for value in model.parameters()]
    attachment = attach(model, kind)
    assert torch.equal(logits(name, prompt), before)
    assert list(model.state_dict()) == names and not any(value.requires_grad for value in model.parameters())
    attachment.detach()
    attachment.detach()
    with attached(name, kind) as strong:
        assert strong.count_parameters() == sum(value.size for value in strong.arrays().values())
        assert (logits(name, prompt) - before).abs().max() > 1e-3
    assert torch.equal(logits(name, prompt), before)
    assert [value.requires_grad for value in model.parameters()] == trained


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_bits_are_the_same_with_other_attention_implementations(implementation: str) -> None:
    model, prompt = copy.deepcopy(tiny_vlm("llava").model), prompt_of("llava")
    model.set_attn_implementation(implementation)
    with torch.inference_mode():
        before = model(**prompt.inputs()).logits
        attachment = attach(model, "p-adapter")
        assert torch.equal(model(**prompt.inputs()).logits, before)
        attachment.detach()
        attach(model, "p-adapter", STRONG["p-adapter"])
        changed = model(**prompt.inputs()).logits
    with attached("llava", "p-adapter"):
        torch.testing.assert_close(logits("llava", prompt), changed, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_reading_from_a_cache_is_reading_all_at_once(name: str, kind: str) -> None:
    model, prompt = tiny_vlm(name).model, prompt_of(name)
    with attached(name, kind):
        logits(name, prompt)
        with torch.inference_mode():
            # read again, a placeholder that was made would ask for another picture
            made = model.generate(
                **prompt.inputs(), max_new_tokens=5, min_new_tokens=5, do_sample=False, output_logits=True,
                return_dict_in_generate=True, suppress_tokens=[model.config.image_token_id],
            )  # fmt: skip
        ids = made.sequences
        whole = Prompt(prompt.texts, ids, torch.ones_like(ids), prompt.image_mask, dict(prompt.pixels))
        if "mm_token_type_ids" in whole.pixels:
            grown = torch.nn.functional.pad(whole.pixels["mm_token_type_ids"], (0, ids.shape[1] - prompt.length))
            whole.pixels["mm_token_type_ids"] = grown
        again = logits(name, whole)[:, prompt.length - 1 : -1]
        torch.testing.assert_close(torch.stack(made.logits, 1), again, rtol=1e-3, atol=1e-3)


def test_a_placeholder_that_was_generated_is_a_word() -> None:
    """With the embedding of a word, the placeholder read behind the prompt must do as the word does."""
    model, prompt = copy.deepcopy(tiny_vlm("llava").model), prompt_of("llava")
    word, placeholder = 40, model.config.image_token_id
    with torch.inference_mode():
        table = model.get_input_embeddings().weight
        table[placeholder] = table[word]
        attach(model, "p-adapter", STRONG["p-adapter"])
        ends = []
        for last in (word, placeholder):
            cache = model(**prompt.inputs(), use_cache=True).cache
            step = {"input_ids": torch.tensor([[last]]), "cache": cache}
            ends.append(model(**step, attention_mask=torch.ones(1, prompt.length + 1, dtype=torch.long)).logits)
    assert torch.equal(*ends)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", BOTH)
def test_prompts_in_a_batch_are_answered_as_alone(name: str, kind: str) -> None:
    vlm = tiny_vlm(name)
    prompts = [prompt_of(name), prompt_of(name, "is there a blue star left of the square in it ?", seed=4)]
    if name == "llava":
        # two pictures, and none
        prompts += [prompt_of(name, pictures=2), vlm.processor.prompt(conversation("what is it ?", 0))]
    batch = vlm.processor.batch(prompts)
    assert (batch.attention_mask == 0).any()
    with attached(name, kind):
        together = logits(name, batch, **_positions(name, batch))
        for row, prompt in zip(together, prompts, strict=True):
            alone = logits(name, prompt)[0]
            torch.testing.assert_close(row[-len(alone) :], alone, rtol=1e-3, atol=1e-3)
        with torch.inference_mode():
            ends = vlm.model.generate(**batch.inputs(), max_new_tokens=4, min_new_tokens=4, do_sample=False)
            for row, prompt in zip(ends, prompts, strict=True):
                alone = vlm.model.generate(**prompt.inputs(), max_new_tokens=4, min_new_tokens=4, do_sample=False)
                assert row[-4:].tolist() == alone[0, -4:].tolist()


def test_two_prompts_may_be_read_in_turns() -> None:
    """As calibrations do that read the question without its picture beside the answer."""
    model = tiny_vlm("llava").model
    prompts = [prompt_of("llava"), tiny_vlm("llava").processor.prompt(conversation("what is it ?", 0))]
    steps = torch.tensor([[30], [31]])

    def read(prompt: Prompt, cache: DynamicCache, last: Tensor | None = None) -> Tensor:
        inputs = prompt.inputs() if last is None else {"input_ids": last}
        length = cache.get_seq_length() + (prompt.length if last is None else 1)
        return model(**{**inputs, "attention_mask": torch.ones(1, length).long()}, cache=cache).logits[:, -1]

    with attached("llava", "p-adapter"), torch.inference_mode():
        alone = []
        for prompt in prompts:
            cache = DynamicCache()
            alone.append([read(prompt, cache), *(read(prompt, cache, step[None]) for step in steps)])
        caches = [DynamicCache(), DynamicCache()]
        turns = [list(map(read, prompts, caches))]
        turns += [
            [read(prompt, cache, step[None]) for prompt, cache in zip(prompts, caches, strict=True)] for step in steps
        ]
    assert all(torch.equal(turns[step][row], alone[row][step]) for step in range(3) for row in range(2))


def _positions(name: str, batch: Prompt) -> dict[str, Tensor]:
    """generate counts positions without the padding; a plain call of a LLaVA does not."""
    if name != "llava":
        return {}
    return {"position_ids": (batch.attention_mask.cumsum(1) - 1).clamp(min=0)}


def test_beams_and_a_static_cache_see_the_same_picture() -> None:
    model = tiny_vlm("llava").model
    batch = tiny_vlm("llava").processor.batch([prompt_of("llava"), prompt_of("llava", "what is it ?", seed=7)])
    fixed: dict[str, Any] = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
    with attached("llava", "p-adapter"), torch.inference_mode():
        plain = model.generate(**batch.inputs(), **fixed)
        static = model.generate(**batch.inputs(), **fixed, cache_implementation="static", disable_compile=True)
        assert torch.equal(plain, static)
        cached, recomputed = (
            model.generate(**batch.inputs(), **fixed, num_beams=3, use_cache=use_cache) for use_cache in (True, False)
        )
        assert torch.equal(cached, recomputed)


def test_the_message_is_that_of_text_rows_and_image_columns_of_the_map() -> None:
    """Against the map that transformers gives out: the first layer's, where all inputs are known."""
    model, prompt = copy.deepcopy(tiny_vlm("llava").model), prompt_of("llava")
    model.set_attn_implementation("eager")
    settings = PAdapterSettings(image_tokens=16, zero_start=False)
    block = model.model.language_model.layers[0].self_attn
    kept: dict[str, Tensor] = {}
    handles = [
        block.q_proj.register_forward_hook(lambda module, given, output: kept.update(queries=output)),
        block.v_proj.register_forward_hook(lambda module, given, output: kept.update(values=output)),
        block.o_proj.register_forward_hook(lambda module, given, output: kept.update(hidden=output)),
    ]
    with torch.inference_mode():
        weights = model(**prompt.inputs(), output_attentions=True).attentions[0]
        for handle in handles:
            handle.remove()
        adapter = attach(model, "p-adapter", settings, layers=[0]).modules[0].behind_attention
        block.o_proj.register_forward_hook(lambda module, given, output: kept.update(changed=output))
        model(**prompt.inputs())
        images, text = prompt.image_mask[0], ~prompt.image_mask[0]
        values = kept["values"][:, images].unflatten(-1, (2, -1)).repeat_interleave(2, 2).flatten(2)
        passed = propagate(
            weights[:, :, text][..., images],
            adapter.nodes(block.o_proj.forward(kept["queries"][:, text])),
            adapter.nodes(block.o_proj.forward(values)),
            p=1.25,
            mu=0.2,
        )
        gate = torch.nn.functional.gelu(adapter.gate(kept["hidden"][:, text]))
        wanted = kept["hidden"].clone()
        wanted[:, text] += adapter.up(gate * passed.transpose(1, 2).flatten(2))
    torch.testing.assert_close(kept["changed"], wanted, rtol=1e-4, atol=1e-4)
    assert torch.equal(kept["changed"][:, images], kept["hidden"][:, images])


@pytest.mark.parametrize("keep_mass", [True, False])
def test_averaging_image_tokens_keeps_their_mass_or_takes_the_mean(keep_mass: bool) -> None:
    from attnkit.models.adapters.text_image import Places

    images = torch.tensor([[False] * 2 + [True] * 7 + [False], [True, False] * 5])
    places = Places(images, 0, PAdapterSettings(image_tokens=3, keep_mass=keep_mass))
    attention = torch.rand(2, 4, 10, generator=torch.Generator().manual_seed(0)) * images[:, None]
    pooled = attention @ places.columns
    plain = torch.nn.functional.adaptive_avg_pool1d(attention[0][:, images[0]], 3)
    features = torch.arange(10.0).expand(2, 1, 10)
    torch.testing.assert_close(
        (places.averages @ features.mT)[0, :, 0], torch.nn.functional.adaptive_avg_pool1d(features[0, :, 2:9], 3)[0]
    )
    if keep_mass:
        torch.testing.assert_close(pooled.sum(-1), attention.sum(-1))
    else:
        torch.testing.assert_close(pooled[0], plain)
    # five tokens in the second row, in three nodes that overlap; with room for all each has its own
    roomy = Places(images, 0, PAdapterSettings(image_tokens=7, keep_mass=keep_mass))
    torch.testing.assert_close((attention @ roomy.columns)[1, :, :5], attention[1][:, images[1]])
    assert not (attention @ roomy.columns)[1, :, 5:].any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", BOTH)
def test_training_lowers_the_loss_and_moves_no_weight_of_the_model(name: str, kind: str) -> None:
    vlm, prompt = tiny_vlm(name), prompt_of(name)
    before = {key: value.clone() for key, value in vlm.model.state_dict().items()}
    labels = prompt.input_ids.masked_fill(prompt.image_mask, -100)
    attachment = attach(vlm.model, kind)
    optimiser = torch.optim.AdamW(attachment.parameters(), lr=1e-2)
    losses = []
    for _ in range(12):
        loss = vlm.model(**prompt.inputs(), labels=labels).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        attachment.constrain()
        losses.append(loss.item())
    attachment.detach()
    assert losses[-1] < 0.8 * losses[0]
    assert all(torch.equal(value, before[key]) for key, value in vlm.model.state_dict().items())
    assert all(parameter.grad is None for parameter in vlm.model.parameters())


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


def test_what_cannot_be_attached_is_refused_in_one_line() -> None:
    model = tiny_vlm("llava").model
    with pytest.raises(UsageError, match="--adapter: got 'prefix', expected p-adapter, adapter, lora"):
        attach(model, "prefix")
    with pytest.raises(UsageError, match=r"layers \[4\], expected some of 0 to 3"):
        attach(model, "lora", layers=[4])
    with pytest.raises(UsageError, match="lora: no setting 'ranks', expected one of rank, alpha"):
        settings_of("lora", {"ranks": 3})
    with pytest.raises(UsageError, match="lora: rank is '3', expected a value such as 8"):
        settings_of("lora", {"rank": "3"})
    broken = copy.deepcopy(model)
    broken.config.text_config._attn_implementation = "flex_attention"
    with pytest.raises(UsageError, match="attention implementation 'flex_attention', expected attnkit, sdpa, eager"):
        attach(broken, "p-adapter")
    assert not hasattr(broken, "attnkit_adapter")
