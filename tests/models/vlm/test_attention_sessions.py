"""The attention function and its sessions, over all seven families: nothing changes that no rule asked for."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from tiny_vlms import NAMES, network, picture, tiny_vlm
from torch import Tensor
from transformers import GenerationConfig

from attnkit.models.vlm.attention import Call, Rule, Session
from attnkit.models.vlm.processing import conversation
from attnkit.models.vlm.prompt import Prompt
from attnkit.tasks.vlm_ask.task import logits_of

QUESTION = "what is in the picture ?"


class Looking(Rule):
    """Sees every row and every hidden state, and changes nothing."""

    def __init__(self) -> None:
        self.calls: list[tuple[Call, Tensor]] = []
        self.hidden: dict[int, list[Tensor]] = {}

    def observe(self, layer: int, start: int, hidden: Tensor) -> None:
        self.hidden.setdefault(layer, []).append(hidden)

    def weights(self, call: Call, weights: Tensor) -> None:
        self.calls.append((call, weights))

    def heads(self, layer: int, start: int, outputs: Tensor) -> None:
        return None


class Same(Rule):
    """Hands back the weights as they are, so that the session mixes the values itself."""

    def weights(self, call: Call, weights: Tensor) -> Tensor:
        return weights.clone()


class Tail(Same):
    """As `Same`, for the last few rows of each call alone."""

    def rows(self, layer: int, start: int, stop: int, prompt: int) -> tuple[int, int]:
        return max(start, stop - 3), stop


class Scaled(Rule):
    def __init__(self, factor: float) -> None:
        self.factor = factor

    def heads(self, layer: int, start: int, outputs: Tensor) -> Tensor:
        return outputs * self.factor


def prompt_for(name: str, pictures: int = 1, question: str = QUESTION) -> Prompt:
    processor = tiny_vlm(name).processor
    shown = [picture(40, 28, seed) for seed in range(pictures)]
    return processor.prompt(conversation(question, pictures), shown)


def ruled(name: str, prompt: Prompt, *rules: Rule) -> Tensor:
    vlm = tiny_vlm(name)
    with Session(vlm.layers, prompt.length, rules):
        return logits_of(vlm, prompt)


def drawn(name: str, prompt: Prompt, rules: list[Rule], **options: Any) -> Any:
    vlm = tiny_vlm(name)
    if hasattr(vlm.model.model, "rope_deltas"):
        vlm.model.model.rope_deltas = None
    config = GenerationConfig(
        max_new_tokens=5, min_new_tokens=5, do_sample=False, pad_token_id=0, eos_token_id=2,
        output_logits=True, return_dict_in_generate=True, **options,
    )  # fmt: skip
    with torch.inference_mode(), Session(vlm.layers, prompt.length, rules):
        return vlm.model.generate(**prompt.inputs(), generation_config=config)


@pytest.mark.parametrize("name", NAMES)
def test_model_is_bit_equal_without_rules_and_with_those_that_only_look(name: str) -> None:
    prompt = prompt_for(name)
    plain = logits_of(tiny_vlm(name), prompt, "sdpa")
    assert torch.equal(logits_of(tiny_vlm(name), prompt), plain)
    looking = Looking()
    assert torch.equal(ruled(name, prompt, looking), plain)
    assert [call.layer for call, _ in looking.calls] == list(range(4))
    for call, weights in looking.calls:
        assert (call.start, call.rows, call.keys) == (0, prompt.length, prompt.length)
        torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights.sum(-1)))
        assert not weights.triu(1).any()
    # nothing is left behind: neither hooks nor state
    assert torch.equal(logits_of(tiny_vlm(name), prompt), plain)


@pytest.mark.parametrize("name", NAMES)
def test_rows_that_are_mixed_here_equal_the_models(name: str) -> None:
    prompt = prompt_for(name)
    eager, plain = logits_of(tiny_vlm(name), prompt, "eager"), logits_of(tiny_vlm(name), prompt)
    torch.testing.assert_close(ruled(name, prompt, Same()), eager, rtol=0, atol=2e-5)
    torch.testing.assert_close(ruled(name, prompt, Tail()), plain, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", NAMES)
def test_maps_are_those_of_the_eager_model(name: str) -> None:
    prompt, vlm, looking = prompt_for(name), tiny_vlm(name), Looking()
    ruled(name, prompt, looking)
    vlm.model.set_attn_implementation("eager")
    try:
        if hasattr(vlm.model.model, "rope_deltas"):
            vlm.model.model.rope_deltas = None
        with torch.inference_mode():
            wanted = vlm.model(**prompt.inputs(), output_attentions=True, output_hidden_states=True)
    finally:
        vlm.model.set_attn_implementation("attnkit")
    for index, (_, weights) in enumerate(looking.calls):
        torch.testing.assert_close(weights, wanted.attentions[index], rtol=0, atol=2e-5)
        # with deepstack the features of a picture are added to a layer's result after it was handed out
        if name != "qwen3_vl" or index in (0, 3):
            torch.testing.assert_close(looking.hidden[index][0], wanted.hidden_states[index], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_left_padded_prompt_equals_the_prompt_alone(name: str) -> None:
    short, long = prompt_for(name), prompt_for(name, question="how many red circle star blue one in the picture ?")
    batch = tiny_vlm(name).processor.batch([short, long])
    together = ruled(name, batch, Same())
    for row, alone in enumerate((short, long)):
        torch.testing.assert_close(together[row], ruled(name, alone, Same())[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("options", [{"use_cache": False}, {"cache_implementation": "static"}], ids=["none", "static"])
def test_cache_of_any_kind_gives_the_same_logits(name: str, options: dict[str, Any]) -> None:
    prompt = prompt_for(name)
    usual = Looking()
    wanted = drawn(name, prompt, [Same(), usual])
    other = drawn(name, prompt, [Same()], **options)
    assert torch.equal(other.sequences, wanted.sequences)
    for one, two in zip(other.logits, wanted.logits, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-4)
    starts = [call.start for call, _ in usual.calls if call.layer == 0]
    assert starts == [0, *range(prompt.length, prompt.length + 4)]
    assert [call.prefill for call, _ in usual.calls if call.layer == 0] == [True] + [False] * 4


@pytest.mark.parametrize("name", NAMES)
def test_several_pictures_and_beams(name: str) -> None:
    prompt = prompt_for(name, pictures=2)
    assert [len(views) for views in prompt.views] == [2]
    assert int(prompt.image_mask.sum()) == sum(view.tokens for view in prompt.views[0])
    plain = drawn(name, prompt, [], num_beams=3)
    torch.testing.assert_close(drawn(name, prompt, [Same()], num_beams=3).sequences, plain.sequences)


def test_head_outputs_are_what_the_projection_gets() -> None:
    """Scaling every head equals scaling the projection's weight."""
    vlm, prompt = tiny_vlm("llava"), prompt_for("llava")
    scaled = ruled("llava", prompt, Scaled(0.5))
    projections = [layer.self_attn.o_proj for layer in vlm.layers]
    with torch.no_grad():
        for projection in projections:
            projection.weight.mul_(0.5)
        try:
            wanted = logits_of(vlm, prompt)
        finally:
            for projection in projections:
                projection.weight.mul_(2)
    torch.testing.assert_close(scaled, wanted, rtol=0, atol=1e-6)


def test_session_is_taken_back_after_an_error() -> None:
    class Failing(Rule):
        def weights(self, call: Call, weights: Tensor) -> Tensor:
            raise RuntimeError("on purpose")

    vlm, prompt = tiny_vlm("llava"), prompt_for("llava")
    plain = logits_of(vlm, prompt)
    with pytest.raises(RuntimeError, match="on purpose"):
        ruled("llava", prompt, Failing(), Looking())
    assert torch.equal(logits_of(vlm, prompt), plain)
    assert not any(layer._forward_pre_hooks or layer.self_attn.o_proj._forward_pre_hooks for layer in vlm.layers)


def test_two_threads_keep_their_sessions_apart() -> None:
    prompt = prompt_for("llava")
    wanted = {factor: ruled("llava", prompt, Scaled(factor)) for factor in (0.5, 2.0)}
    results: dict[float, list[Tensor]] = {0.5: [], 2.0: []}
    barrier = threading.Barrier(2)

    def work(factor: float) -> None:
        barrier.wait()
        results[factor] += [ruled("llava", prompt, Scaled(factor)) for _ in range(10)]

    threads = [threading.Thread(target=work, args=(factor,)) for factor in results]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for factor, found in results.items():
        assert len(found) == 10
        for one in found:
            torch.testing.assert_close(one, wanted[factor], rtol=0, atol=1e-6)


def test_vision_layers_are_seen_in_order() -> None:
    class Eyes(Rule):
        vision_layers = frozenset({0, 2})

        def __init__(self) -> None:
            self.seen: list[tuple[int, tuple[int, ...]]] = []

        def vision(self, layer: int, weights: Tensor) -> None:
            torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights.sum(-1)))
            self.seen.append((layer, tuple(weights.shape)))

    eyes = Eyes()
    prompt = prompt_for("llava")
    assert torch.equal(ruled("llava", prompt, eyes), logits_of(tiny_vlm("llava"), prompt))
    # the class token and 4x4 patches, 4 heads
    assert eyes.seen == [(0, (1, 4, 17, 17)), (2, (1, 4, 17, 17))]


@pytest.mark.parametrize("name", NAMES)
def test_networks_are_shared_unchanged(name: str) -> None:
    """What the other tests build on: a fresh network of the family has the very weights of the shared one."""
    fresh = network.__wrapped__(name)
    for key, value in tiny_vlm(name).model.state_dict().items():
        assert torch.equal(value, fresh.state_dict()[key]), key
