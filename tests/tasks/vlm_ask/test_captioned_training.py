"""The training of smol-llava: what a token may see, what is written, and that a stopped training goes on."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaModel

from attnkit.models import training_loop
from attnkit.models.checkpoint import load_checkpoint
from attnkit.models.smol_llava.projector import merge, projector_state
from attnkit.runtime.errors import ItemError
from attnkit.tasks.vlm_ask.captioned.grounding import Grounding
from attnkit.tasks.vlm_ask.captioned.material import GRID, Material
from attnkit.tasks.vlm_ask.captioned.packing import ChatPacking
from attnkit.tasks.vlm_ask.captioned.trained import Trained, attach
from attnkit.tasks.vlm_ask.captioned.training import Recipe, Towers, answer_logits, training_of
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

    def logits(features: torch.Tensor, rows: Any) -> torch.Tensor:
        return answer_logits(trained(features), towers, packing.pack(rows), packing.image_places)[0]

    with torch.no_grad():
        together = logits(features, [QUESTIONS])
        apart = [logits(features, [[one]]) for one in QUESTIONS]
        assert torch.allclose(together, torch.cat(apart), atol=1e-5)
        # another last letter of the answer, and the end behind it, move nothing before them
        changed = logits(features, [[replace(QUESTIONS[0], answer="efm")]])
        assert torch.allclose(changed[:3], apart[0][:3], atol=1e-5) and not torch.allclose(
            changed[3], apart[0][3], atol=1e-2
        )
        blind = logits(0 * features, [QUESTIONS])
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


def test_training_begins_with_what_was_written() -> None:
    trained, _ = tiny()
    arrays = trained.arrays()
    torch.manual_seed(9)
    again = Trained(6, TEXT, 2)
    again.begin_with(arrays, "first")
    for name, value in again.arrays().items():
        assert np.array_equal(value, arrays[name]), name
    with pytest.raises(ItemError, match=r"first: lora\.layers\.0\.self_attn\.q_proj\.in of shape 2x16, expected 4x16"):
        Trained(6, TEXT, 4).begin_with(arrays, "first")
    with pytest.raises(ItemError, match=r"projector\.linear_1\.weight of shape none, expected 16x6"):
        again.begin_with({}, "first")


def grounding_for(pictures: int) -> Grounding:
    """Two names; the first patch of each picture holds the second."""
    draw = torch.Generator().manual_seed(1)
    labels = np.zeros((pictures, GRID**2), np.int64)
    labels[:, 0] = 1
    return Grounding(
        {}, torch.randn(2, 16, generator=draw), torch.randn(9, 16, generator=draw), torch.zeros(16), labels
    )


def test_training_lowers_the_loss_and_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    features = draw.normal(size=(6, GRID**2, 6)).astype(np.float16)
    rows = [[replace(QUESTIONS[0], answer="abcdef"[index])] for index in range(6)]
    material = Material(features, ["collage"] * 6, rows, [[""] * GRID**2] * 6, [{}] * 6)
    recipe = Recipe(steps=16, minutes=60.0, batch=6, length=90, rank=2, rate=1e-2, warm=1, precision="float32")
    whole = tmp_path / "whole.checkpoint"
    losses: list[float] = []

    def go_on(checkpoint: Path, steps: int, before: Any) -> Trained:
        trained, towers = tiny()
        attach(trained, towers.language)
        training = training_of(trained, towers, material, recipe, grounding_for(6))

        def loss(step: int, progress: float) -> Any:
            if step == steps:
                raise InterruptedError
            parts = training.loss(step, progress)
            losses.append(parts["loss"].item())  # type: ignore[union-attr]
            return parts

        with suppress(InterruptedError):
            training_loop.run(replace(training, loss=loss), asdict(recipe), checkpoint, before, print)
        return trained

    monkeypatch.setattr(training_loop, "CHECKPOINT_MINUTES", 0.0)
    trained = go_on(whole, 16, None)
    assert len(losses) == 16 and losses[-1] < 0.8 * losses[0]
    stopped = tmp_path / "stopped.checkpoint"
    go_on(stopped, 8, None)
    again = go_on(stopped, 16, load_checkpoint(stopped, asdict(recipe), "cpu"))
    assert len(losses) == 32 and losses[16:] == pytest.approx(losses[:16])
    for name, value in trained.state_dict().items():
        assert torch.allclose(value, again.state_dict()[name], atol=1e-5), name
    # nothing is left to do but to score and write it again
    go_on(whole, 16, load_checkpoint(whole, asdict(recipe), "cpu"))
    assert len(losses) == 32


def test_both_groups_of_parameters_have_a_rate_of_their_own() -> None:
    trained, towers = tiny()
    material = Material(np.zeros((1, GRID**2, 6), np.float16), ["scene"], [QUESTIONS], [[""] * GRID**2], [{}])
    training = training_of(trained, towers, material, Recipe(rank=2, warm=10), grounding_for(1))
    projector, others = (group["params"] for group in training.optimiser.param_groups)
    assert {id(one) for one in projector} == {id(one) for one in trained.projector}
    heads: torch.nn.Module = training.kept["heads"]  # type: ignore[assignment]
    assert {id(one) for one in others} == {id(one) for one in [*trained.low_rank.parameters(), *heads.parameters()]}
    for step, progress, wanted in ((0, 0.0, 1e-4), (9, 0.0, 1e-3), (99, 1.0, 3e-5)):
        assert training.rates(step, progress) == pytest.approx([0.3 * wanted, wanted])


def test_help_is_given_at_the_last_token_of_a_name() -> None:
    _, towers = tiny()
    packing = ChatPacking(towers.tokenizer, 4, 60)
    named = lambda row, text: [(len(text) - 1, (1, row, 2))] if text == "abcd" else []  # noqa: E731
    rows = packing.pack([QUESTIONS, QUESTIONS], named)
    places = (rows["named"][..., 0] >= 0).nonzero().tolist()
    assert [rows["ids"][row, place].item() for row, place in places] == letters("dd").input_ids
    assert [rows["named"][row, place].tolist() for row, place in places] == [[1, 0, 2], [1, 1, 2]]
