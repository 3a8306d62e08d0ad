"""PAINT: the oracles of its definition, vision towers of all families, guidance, and answers of tiny models."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from calibration_cases import (
    REQUESTS,
    answers,
    asked_of,
    cache_changes_nothing,
    longer,
    next_logits,
    prepared,
    probabilities,
    static_cache_changes_nothing,
    together_as_alone,
)
from tiny_vlms import NAMES, tiny_vlm
from torch import Tensor

from attnkit.models.vlm.attention import Call, Rule, Session
from attnkit.models.vlm.prompt import Tile
from attnkit.tasks.vlm_ask.calibrations.paint import boosted, choose_tokens
from attnkit.tasks.vlm_ask.calibrations.text_branch import TextBranch, guided
from attnkit.tasks.vlm_ask.calibrations.vision_attention import block_means, token_scores, unwindowed
from attnkit.tasks.vlm_ask.task import Decoding, ask, logits_of

BOOST = {"paint.guidance": 1.0, "paint.layers": "1:4", "paint.local": 2.0, "paint.summary": 1.0}
NEUTRAL = {"paint.guidance": 1.0, "paint.local": 0.0, "paint.summary": 0.0}
CLASSLESS = tuple(name for name in NAMES if name not in ("llava", "internvl"))


class Whole(Rule):
    """Keeps the maps of all rows, and has the session mix all values itself."""

    def __init__(self) -> None:
        self.maps: dict[int, Tensor] = {}

    def weights(self, call: Call, weights: Tensor) -> Tensor:
        self.maps[call.layer] = weights.clone()
        return weights.clone()


class Scaled(Rule):
    def heads(self, layer: int, start: int, outputs: Tensor) -> Tensor:
        return 3 * outputs


def row(*values: float) -> Tensor:
    return torch.tensor([[[values]]], dtype=torch.float32)


def test_hand_case_of_one_row() -> None:
    raised = boosted(row(1, -1, 0, 2), torch.tensor([[0.7, 0.4, 0, 0]]))
    torch.testing.assert_close(raised, row(1.7, -0.6, 0, 2))
    wanted = row(0.3798, 0.0381, 0.0694, 0.5127)
    torch.testing.assert_close(raised.softmax(-1), wanted, rtol=0, atol=5e-5)


def test_it_is_no_bias() -> None:
    gain = torch.tensor([[0.7, 0.7, 0]])
    assert float(boosted(row(0, 1, 2), gain)[..., 0]) == 0
    shifted, plain = boosted(row(3, 4, 5), gain).softmax(-1), boosted(row(0, 1, 2), gain).softmax(-1)
    assert not torch.allclose(shifted, plain, atol=0.05)


@pytest.mark.parametrize("low", [-math.inf, torch.finfo(torch.float32).min])
def test_masked_scores_stay_masked(low: float) -> None:
    raised = boosted(row(low, 1, low), torch.tensor([[1.5, 1.5, 0]]))
    assert torch.equal(raised, row(low, 2.5, low))


def test_heads_have_gains_of_their_own() -> None:
    scores = torch.ones(1, 3, 1, 2)
    raised = boosted(scores, torch.tensor([[0.5, 0.0]]), torch.tensor([0.0, 1.0, 2.0]))
    assert raised[0, :, 0].tolist() == [[1, 1], [1.5, 1], [2, 1]]


def test_choice_of_tokens() -> None:
    draw = torch.Generator().manual_seed(0)
    local = torch.rand(576, generator=draw)
    flat, outlying = torch.full((576,), 0.2), torch.rand(576, generator=draw)
    chosen, summary = choose_tokens(local, flat, 0.25)
    assert int(chosen.sum()) == 144
    assert float(local[chosen].min()) >= float(local[~chosen].max())
    assert not summary.any()
    best = int(local.argmax())
    outlying[best] += 10
    chosen, summary = choose_tokens(local, outlying, 0.25)
    assert torch.nonzero(summary).flatten().tolist() == [best]
    # a token that would be both counts as summary
    assert int(chosen.sum()) == 143
    assert not (chosen & summary).any()
    spatial, _ = choose_tokens(local, flat, 0.25, -local, 0.05)
    assert int(spatial.sum()) == 144 + 28


@pytest.mark.parametrize("name", ["llava", "internvl"])
def test_class_token_looks_as_in_the_eager_tower(name: str) -> None:
    """The class token's row of the first and the last but one layer, patch by patch, from the model's own maps."""
    vlm, asked = tiny_vlm(name), asked_of(name, REQUESTS[:2])
    found = token_scores(vlm, asked.prompt)
    tower: Any = vlm.model.get_submodule(vlm.family.vision)
    vlm.model.set_attn_implementation("eager")
    try:
        with torch.inference_mode():
            maps = tower(pixel_values=asked.prompt.pixels["pixel_values"], output_attentions=True).attentions
    finally:
        vlm.model.set_attn_implementation("attnkit")
    tiles = [tile for views in asked.prompt.views for view in views for tile in view.tiles]
    side = 1 if name == "llava" else 2
    for number, (scores, tile) in enumerate(zip(found, tiles, strict=True)):
        for ours, layer in ((scores.local, 0), (scores.summary, 1)):
            looked = maps[layer][number, :, 0, 1:].sum(0).view(tile.rows * side, tile.columns * side)
            wanted = [
                float(looked[side * down : side * down + side, side * across : side * across + side].mean())
                for down in range(tile.rows)
                for across in range(tile.columns)
            ]
            assert ours.tolist() == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("name", CLASSLESS)
def test_attention_received_is_on_average_an_even_share(name: str) -> None:
    """Over each window, and so over each picture and tile; one score for each image token of the batch."""
    asked = asked_of(name, REQUESTS)
    found = token_scores(asked.vlm, asked.prompt)
    assert sum(len(one.local) for one in found) == int(asked.prompt.image_mask.sum())
    for one in found:
        assert float(one.received.mean()) == pytest.approx(1, abs=1e-5)
        assert float(one.summary.mean()) == pytest.approx(1, abs=1e-5)
        assert float(one.received.std()) > 0


@pytest.mark.parametrize(("rows", "columns"), [(4, 6), (5, 3), (2, 2)])
def test_windows_are_put_back_in_their_order(rows: int, columns: int) -> None:
    vision_utils = pytest.importorskip("transformers.vision_utils")
    index, _ = vision_utils.get_vision_window_index(torch.tensor([[1, 2 * rows, 2 * columns]]), 2, 56, 14)
    found = unwindowed(index.float(), Tile(rows, columns, (0, 0, 1, 1)), 2)
    assert found.tolist() == list(range(rows * columns))


@pytest.mark.parametrize("name", ["smolvlm", "idefics3", "internvl"])
def test_blocks_are_the_patches_that_the_models_shuffle_together(name: str) -> None:
    model, places = tiny_vlm(name).model.model, torch.arange(16.0)
    if name == "internvl":
        shuffled = model.pixel_shuffle(places.view(1, 4, 4, 1), 0.5).reshape(4, 4)
    else:
        shuffled = model.connector.pixel_shuffle(places.view(1, 16, 1), 2)[0]
    assert block_means(places, Tile(2, 2, (0, 0, 1, 1)), 2).tolist() == shuffled.mean(1).tolist()


def test_identical_branches_leave_the_log_probabilities_above_the_cut() -> None:
    logits = torch.tensor([[3.0, 2.5, 1.0, 0.5]])
    likely = logits.log_softmax(-1)
    for weight in (1.0, 1.1, 3.0):
        found = guided(logits, logits, weight, 0.1)
        # e^-2.5 is less than a tenth, e^-2 is more
        torch.testing.assert_close(found[:, :3], likely[:, :3])
        assert float(found[0, 3]) == -math.inf
    torch.testing.assert_close(guided(logits, logits.flip(1), 1.0, 0.0), likely)
    torch.testing.assert_close(guided(logits, logits.flip(1), 0.0, 0.0), likely.flip(1))


@pytest.mark.parametrize("name", NAMES)
def test_text_branch_is_the_plain_model_of_the_words_alone(name: str) -> None:
    """With its cache, rows in any order, and in the middle of a session of others."""
    asked = asked_of(name, REQUESTS[:2])
    words = asked.text_only()
    branch = TextBranch(asked.vlm, words, 5)
    draw = torch.Generator().manual_seed(0)
    answer = torch.zeros(4, 0, dtype=torch.long)
    for _ in range(3):
        with torch.inference_mode(), Session(asked.vlm.layers, 5, [Scaled()]):
            found = branch.logits(torch.cat([torch.ones(4, 5, dtype=torch.long), answer], 1))
        rows = [0, 0, 1, 1]
        words_of_each = type(words)(words.texts, words.input_ids[rows], words.attention_mask[rows], words.image_mask)
        wanted = logits_of(asked.vlm, longer(words_of_each, answer))
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=2e-4)
        # beams of each prompt change places, as a beam search has them
        answer = torch.cat([answer[[1, 0, 2, 2]], torch.randint(20, 60, (4, 1), generator=draw)], 1)


@pytest.mark.parametrize("name", NAMES)
def test_guided_answers_are_those_of_two_whole_readings(name: str) -> None:
    settings = {**NEUTRAL, "paint.guidance": 1.6, "paint.cut": 0.02}
    request = REQUESTS[1]
    (answer,) = answers(name, ("paint",), settings, [request])
    asked = asked_of(name, [request])
    words, said, likely = asked.text_only(), torch.zeros(1, 0, dtype=torch.long), []
    for _ in answer.tokens:
        logits = [logits_of(asked.vlm, longer(prompt, said)) for prompt in (asked.prompt, words)]
        p, q = (one.double().softmax(-1) for one in logits)
        mixed = p * (p / q) ** 0.6 * (p >= 0.02 * p.max())
        best = mixed.argmax(-1, keepdim=True)
        likely.append(float(mixed.max() / mixed.sum()))
        said = torch.cat([said, best], 1)
    assert "".join(token.text for token in answer.tokens) == "".join(
        asked.vlm.processor.tokenizer.decode([one]) for one in said[0]
    )
    assert probabilities(answer) == pytest.approx(likely, abs=1e-4)


def test_only_the_last_row_of_the_prompt_changes() -> None:
    """Though another rule has asked for all rows."""
    calibration, asked = prepared(asked_of("llava", REQUESTS[:2]), "paint", BOOST)
    plain, changed = Whole(), Whole()
    next_logits(asked, [plain])
    next_logits(asked, [calibration, changed])
    for layer in range(4):
        assert torch.equal(changed.maps[layer][:, :, :-1], plain.maps[layer][:, :, :-1])
        assert torch.equal(changed.maps[layer], plain.maps[layer]) == (layer == 0)


def test_gains_of_a_file_choose_heads(tmp_path: Path) -> None:
    path = tmp_path / "gains.json"
    path.write_text(json.dumps([[1, 0, 0], [1, 2, 0.0], [1, 3, 0]]))
    calibration, asked = prepared(
        asked_of("llava", REQUESTS[:1]), "paint", {**BOOST, "paint.layers": "1", "paint.gains": str(path)}
    )
    plain, changed = Whole(), Whole()
    next_logits(asked, [plain])
    next_logits(asked, [calibration, changed])
    differing = (changed.maps[1] != plain.maps[1]).any(-1)[0, :, -1]
    assert differing.tolist() == [False, True, False, False]


@pytest.mark.parametrize("name", NAMES)
def test_neutral_settings_and_no_picture_are_the_plain_model(name: str) -> None:
    for settings, requests in ((NEUTRAL, REQUESTS), ({}, REQUESTS[2:])):
        calibration, asked = prepared(asked_of(name, requests), "paint", settings)
        assert torch.equal(next_logits(asked, [calibration]), next_logits(asked))
        assert calibration.processors() == []
    assert "the question is about no picture" in calibration.report(0)["warning"]


@pytest.mark.parametrize("name", NAMES)
def test_batch_gives_the_answers_of_each_alone(name: str) -> None:
    """With guidance, which leaves the question without a picture as it is."""
    found = together_as_alone(name, "paint", {**BOOST, "paint.guidance": 1.3})
    for one in found[:2]:
        assert one.reports["paint"]["local_tokens"]
        assert one.reports["paint"]["attention_moved"] > 0
    (plain,) = answers(name, (), {}, REQUESTS[2:])
    assert probabilities(found[2]) == pytest.approx(probabilities(plain), abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_cache_changes_nothing(name: str) -> None:
    cache_changes_nothing(name, "paint", BOOST)


def test_static_cache_changes_nothing() -> None:
    static_cache_changes_nothing("llava", "paint", {**BOOST, "paint.guidance": 1.3})


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
def test_beams_keep_their_text_branch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    vlm, settings, decoding = tiny_vlm(name), {**BOOST, "paint.guidance": 1.5}, Decoding(max_tokens=3, beams=3)
    found = ask(vlm, REQUESTS[:1], arm=("paint",), settings=settings, decoding=decoding)
    monkeypatch.setattr(TextBranch, "_follows", lambda self, answer: False)
    anew = ask(vlm, REQUESTS[:1], arm=("paint",), settings=settings, decoding=decoding)
    assert [one.text for one in found] == [one.text for one in anew]
    assert probabilities(found[0]) == pytest.approx(probabilities(anew[0]), abs=1e-4)


def test_beams_are_told_apart_by_probabilities() -> None:
    """Guidance gives no log-probabilities, and sums of what it gives would favour some beams and exceed 1."""
    vlm, settings = tiny_vlm("llava"), {**BOOST, "paint.guidance": 3.0, "paint.cut": 0.0}
    found = [
        ask(vlm, REQUESTS[:1], arm=("paint",), settings=settings, decoding=Decoding(max_tokens=1, beams=beams))[0]
        for beams in (1, 3)
    ]
    assert found[0].text == found[1].text
    assert probabilities(found[1]) == pytest.approx(probabilities(found[0]), abs=1e-5)
