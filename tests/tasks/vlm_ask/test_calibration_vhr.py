"""VHR: the oracles of its definition, a layer-by-layer twin of two separate runs, and whole answers of tiny models."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from calibration_cases import (
    QUESTION,
    REQUESTS,
    answers,
    asked_of,
    cache_changes_nothing,
    drawn,
    longer,
    next_logits,
    prepared,
    probabilities,
    static_cache_changes_nothing,
    together_as_alone,
)
from tiny_vlms import NAMES, picture, tiny_vlm
from torch import Tensor

from attnkit.runtime.errors import ItemError
from attnkit.tasks.vlm_ask.calibrations.vhr import (
    aware_heads,
    head_divergence,
    late_layers,
    reinforced,
    token_divergence,
    without_outliers,
)
from attnkit.tasks.vlm_ask.task import Decoding, Request, ask, logits_of, prompt_of


def row(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float32)


def chosen_by_hand(name: str, request: Request, layers: tuple[int, ...], factor: float) -> dict[int, list[int]]:
    """Heads out of a run with the picture and one without it, each alone, one layer after another.

    Layers that come before are reinforced in both runs.
    """
    vlm = tiny_vlm(name)
    found: dict[int, list[int]] = {}

    def scaled(heads: list[int], projection: Any, given: tuple[Tensor, ...]) -> tuple[Tensor]:
        wide = given[0].unflatten(-1, (4, 16)).clone()
        wide[..., heads, :] *= factor
        return (wide.flatten(-2),)

    for layer in layers:
        outputs = []
        for asked in (request, replace(request, pictures=())):
            seen: list[Tensor] = []
            hooks = [
                vlm.layers[done].self_attn.o_proj.register_forward_pre_hook(partial(scaled, heads))  # type: ignore[union-attr]
                for done, heads in found.items()
            ]
            watched: Any = vlm.layers[layer].self_attn.o_proj  # type: ignore[union-attr]
            hooks.append(watched.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(given[0][0, -1])))
            try:
                logits_of(vlm, prompt_of(vlm, [asked]))
            finally:
                for hook in hooks:
                    hook.remove()
            outputs.append(seen[0].double().view(4, 16))
        distance = [float((outputs[0][head] - outputs[1][head]).square().sum() ** 0.5) for head in range(4)]
        middle = sum(sorted(distance)[1:3]) / 2
        found[layer] = [head for head in range(4) if distance[head] > middle]
    return found


@pytest.mark.parametrize(
    ("activation", "left", "heads"),
    [((1, 1, 1, 9), (1, 2, 3, 0), [1, 2]), ((9, 1, 1, 1), (1, 2, 3, 10), [2, 3])],
)
def test_hand_cases_of_outliers(activation: tuple[float, ...], left: tuple[float, ...], heads: list[int]) -> None:
    cleaned = without_outliers(row(1, 2, 3, 10), row(*activation))
    assert torch.equal(cleaned, row(*left))
    assert torch.nonzero(aware_heads(cleaned)[0]).flatten().tolist() == heads


def test_half_of_the_heads_are_aware_whatever_the_values() -> None:
    for seed in range(20):
        values = torch.rand(3, 8, generator=torch.Generator().manual_seed(seed))
        assert aware_heads(values).sum(1).tolist() == [4, 4, 4]
    assert not aware_heads(torch.zeros(1, 8)).any()


def test_divergence_is_the_distance_of_outputs() -> None:
    seeing, blind = torch.tensor([[[3.0, 4.0], [1.0, 1.0]]]), torch.tensor([[[0.0, 0.0], [1.0, 1.0]]])
    assert torch.equal(head_divergence(seeing, blind), row(5, 0))


def test_token_divergence_sums_the_largest_of_each_layer() -> None:
    values = torch.tensor([[[1.0, 5.0, 3.0]], [[2.0, 2.0, 7.0]]])
    assert float(token_divergence(values, 1)) == 12
    assert float(token_divergence(values, 2)) == 17
    assert float(token_divergence(values, 3)) == float(values.sum())


def test_reinforcing_a_head_adds_its_share_of_the_projection() -> None:
    projection: Any = tiny_vlm("llava").layers[1].self_attn.o_proj  # type: ignore[union-attr]
    outputs = torch.randn(2, 5, 4, 16, generator=torch.Generator().manual_seed(0))
    chosen = torch.tensor([[True, False, False, True], [False, True, False, False]])
    factor = 1.7
    scaled = projection(reinforced(outputs, chosen, factor).flatten(-2))
    alone = (outputs * chosen[:, None, :, None]).flatten(-2)
    wanted = projection(outputs.flatten(-2)) + (factor - 1) * alone @ projection.weight.T
    torch.testing.assert_close(scaled, wanted, rtol=1e-6, atol=1e-5)


def test_a_head_that_grows_turns_the_sum_towards_itself() -> None:
    draw = torch.Generator().manual_seed(1)
    others, head = torch.randn(200, 16, generator=draw).double(), torch.randn(200, 16, generator=draw).double()
    cosine = torch.nn.functional.cosine_similarity
    before = cosine(others, head, dim=-1)
    for factor in (0.5, 1.5, 4.0):
        after = cosine(others + (factor - 1) * head, head, dim=-1)
        assert ((after > before) == (factor > 1)).all()


@pytest.mark.parametrize("name", NAMES)
def test_heads_are_those_of_two_separate_runs(name: str) -> None:
    """One batch of two rows, left padded, one of them without pixels, is the same as each run alone."""
    settings = {"vhr.layers": "1,3", "vhr.outliers": False}
    for request in REQUESTS[:2]:
        (answer,) = answers(name, ("vhr",), settings, [request], tokens=1)
        assert answer.reports["vhr"]["heads"] == chosen_by_hand(name, request, (1, 3), 2.0)


def test_later_layers_are_judged_with_the_earlier_ones_reinforced() -> None:
    differing = 0
    for seed in range(6):
        request = Request((picture(seed=seed),), QUESTION)
        one = answers("llava", ("vhr",), {"vhr.layers": "1,3", "vhr.factor": 3.0}, [request], tokens=1)
        other = answers("llava", ("vhr",), {"vhr.layers": "3", "vhr.factor": 3.0}, [request], tokens=1)
        differing += one[0].reports["vhr"]["heads"][3] != other[0].reports["vhr"]["heads"][3]
    assert differing > 0


@pytest.mark.parametrize("name", NAMES)
def test_factor_of_one_and_questions_without_a_picture_are_the_plain_model(name: str) -> None:
    for settings, requests in (({"vhr.factor": 1.0}, REQUESTS), ({}, REQUESTS[2:])):
        calibration, asked = prepared(asked_of(name, requests), "vhr", settings)
        assert torch.equal(next_logits(asked, [calibration]), next_logits(asked))
    assert "the question is about no picture" in calibration.report(0)["warning"]


def test_a_question_without_a_picture_has_no_heads_in_a_batch_either() -> None:
    found = answers("llava", ("vhr",), {}, REQUESTS)
    assert all(found[0].reports["vhr"]["heads"].values())
    assert not found[2].reports["vhr"]["heads"]
    (plain,) = answers("llava", (), {}, REQUESTS[2:])
    assert probabilities(found[2]) == pytest.approx(probabilities(plain), abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_batch_gives_the_answers_of_each_alone(name: str) -> None:
    found = together_as_alone(name, "vhr", {})
    assert set(found[0].reports["vhr"]["heads"]) == {1, 2, 3}
    assert found[0].reports["vhr"]["divergence_of_first_token"] > 0


@pytest.mark.parametrize("name", NAMES)
def test_cache_changes_nothing(name: str) -> None:
    cache_changes_nothing(name, "vhr", {})


def test_static_cache_changes_nothing() -> None:
    static_cache_changes_nothing("llava", "vhr", {})


def test_beams_have_the_heads_of_their_prompt() -> None:
    vlm, decoding = tiny_vlm("llava"), Decoding(max_tokens=3, beams=3)
    together = ask(vlm, REQUESTS, arm=("vhr",), decoding=decoding)
    for request, one in zip(REQUESTS, together, strict=True):
        (alone,) = ask(vlm, [request], arm=("vhr",), decoding=decoding)
        assert one.text == alone.text
        assert one.reports["vhr"]["heads"] == alone.reports["vhr"]["heads"]


def divergence_by_hand(name: str, request: Request, ids: list[int], layers: tuple[int, ...]) -> float:
    """Of the token behind ids, from a run of the plain model with the picture and one without it, each alone."""
    vlm, outputs = tiny_vlm(name), []
    for asked in (request, replace(request, pictures=())):
        seen: list[Tensor] = []
        watched: list[Any] = [vlm.layers[layer].self_attn.o_proj for layer in layers]  # type: ignore[union-attr]
        hooks = [
            one.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(given[0][0, -1])) for one in watched
        ]
        try:
            logits_of(vlm, longer(prompt_of(vlm, [asked]), torch.tensor([ids], dtype=torch.long)))
        finally:
            for hook in hooks:
                hook.remove()
        outputs.append(torch.stack(seen).double().view(-1, 4, 16))
    return float((outputs[0] - outputs[1]).square().sum(-1).sqrt().sum())


@pytest.mark.parametrize("name", NAMES)
def test_divergence_of_each_token_is_that_of_separate_runs(name: str) -> None:
    """One pass over the whole answer, left padded, gives what a run for each token gives."""
    settings = {"vhr.factor": 1.0, "vhr.layers": "1,3", "vhr.outliers": False, "vhr.each_token": True}
    calibration, asked = prepared(asked_of(name, REQUESTS[:1]), "vhr", settings)
    made = drawn(asked, [calibration], calibration.processors())
    ids = made.sequences[0, asked.prompt.length :].tolist()
    found = calibration.report(0)["divergence_of_tokens"]
    wanted = [divergence_by_hand(name, REQUESTS[0], ids[:count], (1, 3)) for count in range(3)]
    assert found == pytest.approx(wanted, rel=1e-4)


def test_divergence_of_tokens_begins_with_the_first_ones_and_changes_no_answer() -> None:
    told = {"vhr.each_token": True}
    told_of, plain_ones = together_as_alone("llava", "vhr", told), answers("llava", ("vhr",), {}, REQUESTS)
    assert "divergence_of_tokens" not in told_of[2].reports["vhr"]
    for found, plain in zip(told_of[:2], plain_ones[:2], strict=True):
        assert (found.text, probabilities(found)) == (plain.text, probabilities(plain))
        report = found.reports["vhr"]
        assert len(report["divergence_of_tokens"]) == len(found.tokens) + found.finished
        assert report["divergence_of_tokens"][0] == pytest.approx(report["divergence_of_first_token"], rel=1e-4)
        assert "divergence_of_tokens" not in plain.reports["vhr"]


def test_only_the_largest_heads_count_where_that_is_asked_for() -> None:
    sums = []
    for top in (1, 2, 4, 0):
        (answer,) = answers("llava", ("vhr",), {"vhr.each_token": True, "vhr.top": top})
        sums.append(answer.reports["vhr"]["divergence_of_tokens"])
    assert all(one < two < three == every for one, two, three, every in zip(*sums, strict=True))


def test_divergence_of_tokens_is_not_for_beams() -> None:
    decoding = Decoding(max_tokens=2, beams=2)
    with pytest.raises(ItemError, match=r"vhr\.each_token: rows of beams are mixed; use --beams 1"):
        ask(tiny_vlm("llava"), REQUESTS[:1], arm=("vhr",), settings={"vhr.each_token": True}, decoding=decoding)


def test_layers_scale_with_the_depth() -> None:
    """Of 32 layers the second and the last 14; the same share of others."""
    assert late_layers(32) == [1, *range(18, 32)]
    assert late_layers(4) == [1, 2, 3]
    assert late_layers(2) == [1]
    assert late_layers(1) == [0]
