"""The training of smol-llava: what a token may see, what is written, and that a stopped training goes on."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaModel

from attnkit.models.smol_llava.projector import merge, projector_state
from attnkit.tasks.vlm_ask.captioned.material import GRID, Material
from attnkit.tasks.vlm_ask.captioned.packing import ChatPacking
from attnkit.tasks.vlm_ask.captioned.training import Recipe, Towers, Trained, answer_logits, attach, steps
from attnkit.tasks.vlm_ask.scenes.questions import Question

TEXT = {
    "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
}  # fmt: skip
QUESTIONS = [Question("name", "whole", "abcd", "efg"), Question("count", "all", "hijkl", "m")]


def letters(text: str, **_: Any) -> Any:
    """A tokenizer of one token per letter; the marks of a turn are skipped."""
    return SimpleNamespace(input_ids=[ord(letter) - 94 for letter in text if letter in "abcdefghijklm"])


def tiny(implementation: str = "sdpa") -> tuple[Trained, Towers]:
    torch.manual_seed(0)
    language = LlamaModel(LlamaConfig(**TEXT)).eval().requires_grad_(False)
    language.set_attn_implementation(implementation)
    for parameter in language.parameters():
        parameter.mul_(4)
    tokenizer: Any = letters
    tokenizer.image_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id = 40, 2, 2
    trained = Trained(6, TEXT, rank=2)
    with torch.no_grad():
        for layer in trained.low_rank:
            for one in layer.values():  # type: ignore[operator]
                one.b.normal_()
    return trained, Towers(None, language, TEXT, tokenizer, None)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_answers_see_their_question_and_no_token_behind_them(implementation: str) -> None:
    trained, towers = tiny(implementation)
    attach(trained, towers.language)
    packing = ChatPacking(towers.tokenizer, 4, 60)
    features = torch.randn(1, 4, 6)
    with torch.no_grad():
        together = answer_logits(trained, towers, features, packing.pack([QUESTIONS]), packing.image_places)
        apart = [
            answer_logits(trained, towers, features, packing.pack([[one]]), packing.image_places) for one in QUESTIONS
        ]
        assert torch.allclose(together, torch.cat(apart), atol=1e-5)
        # another last letter of the answer, and the end behind it, move nothing before them
        other = packing.pack([[replace(QUESTIONS[0], answer="efm")]])
        changed = answer_logits(trained, towers, features, other, packing.image_places)
        assert torch.allclose(changed[:3], apart[0][:3], atol=1e-5) and not torch.allclose(
            changed[3], apart[0][3], atol=1e-2
        )
        blind = answer_logits(trained, towers, 0 * features, packing.pack([QUESTIONS]), packing.image_places)
        assert not torch.allclose(blind, together, atol=1e-2)


def test_what_is_written_gives_the_model_that_was_trained() -> None:
    trained, towers = tiny()
    arrays = trained.arrays()
    merged = LlamaModel(LlamaConfig(**TEXT)).eval()
    merged.load_state_dict(merge(towers.language.state_dict(), arrays))
    attach(trained, towers.language)
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        wanted, got = (model(input_ids=ids).last_hidden_state for model in (towers.language, merged))
    # half precision of the file
    assert (wanted - got).abs().max() < 2e-2 * wanted.abs().max()
    assert {name: tuple(value.shape) for name, value in projector_state(arrays).items()} == {
        "linear_1.weight": (16, 6), "linear_1.bias": (16,), "linear_2.weight": (16, 16), "linear_2.bias": (16,),
    }  # fmt: skip


def test_training_lowers_the_loss_and_goes_on_where_it_stopped() -> None:
    draw = np.random.default_rng(0)
    features = draw.normal(size=(6, GRID**2, 6)).astype(np.float16)
    rows = [[replace(QUESTIONS[0], answer="abcdef"[index])] for index in range(6)]
    material = Material(features, ["collage"] * 6, rows, [[""] * GRID**2] * 6)
    recipe = Recipe(minutes=10.0, batch=6, length=90, rank=2, rate=1e-2, warm=1, precision="float32")

    def run(count: int, state: Any) -> tuple[list[float], Any]:
        trained, towers = tiny()
        attach(trained, towers.language)
        losses = []
        last = None
        for step, loss, reached in steps(trained, towers, material, recipe, state):
            losses.append(loss)
            last = reached
            if step >= count:
                break
        return losses, last

    whole, _ = run(16, None)
    first, state = run(8, None)
    rest, _ = run(16, {name: value if name != "minutes" else 0.0 for name, value in state.items()})
    assert whole[-1] < 0.7 * whole[0]
    # the rate falls with the minutes, which no two runs share
    assert np.allclose([*first, *rest], whole, rtol=0.02)
