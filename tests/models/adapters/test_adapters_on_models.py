"""Adapters on tiny models: off and on again, every way of running a model, and training."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from adapted_models import BOTH, STRONG, attached, logits, prompt_of
from tiny_vlms import NAMES, tiny_vlm
from torch import Tensor
from transformers import DynamicCache

from attnkit.models.adapters.attach import KINDS, attach, settings_of
from attnkit.models.adapters.p_laplacian import PAdapterSettings, propagate
from attnkit.models.vlm.processing import conversation
from attnkit.models.vlm.prompt import Prompt
from attnkit.runtime.errors import UsageError


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
