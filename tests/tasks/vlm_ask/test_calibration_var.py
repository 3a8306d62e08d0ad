"""VAR: the oracles of its definition, a twin of the published code's rule, and whole answers of tiny models."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny_vlms import NAMES, network, picture, tiny_vlm
from torch import Tensor

from attnkit.models.vlm.sinks import SinkProfile, sink_scores
from attnkit.runtime.errors import UsageError
from attnkit.tasks.vlm_ask.calibrations.settings import (
    arm_name,
    parse_calibrations,
    parse_layers,
    settings_for,
    valid_settings,
)
from attnkit.tasks.vlm_ask.calibrations.var import Redistribution
from attnkit.tasks.vlm_ask.task import Answer, Decoding, Request, ask, equals_plain, prompt_of

QUESTIONS = ("what is in the picture ?", "how many red circle star blue in the picture ?")
DIMENSION = 5


def mask(length: int, *places: int) -> Tensor:
    found = torch.zeros(1, length, dtype=torch.bool)
    found[0, list(places)] = True
    return found


def move(weights: Tensor, image: Tensor, sinks: Tensor, *, rho: float, recycle: float, mass: float = 0.2) -> Tensor:
    rule = Redistribution.of(image, sinks, mass=mass, rho=rho, recycle=recycle)
    return rule.apply_(weights.clone(), *rule.choose(weights))


def planted(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """A causal map [1, 4, 26, 26], image tokens 5..16, sinks at 0 (text), 7 and 11."""
    draw = torch.Generator().manual_seed(seed)
    scores = torch.randn(1, 4, 26, 26, generator=draw)
    scores[..., [0, 7, 11]] += 2 * torch.rand(1, 4, 26, 3, generator=draw)
    scores = scores.masked_fill(torch.ones(26, 26).triu(1).bool(), -torch.inf)
    return scores.softmax(-1), mask(26, *range(5, 17)), mask(26, 0, 7, 11)


def by_rows(weights: Tensor, image: Tensor, sinks: Tensor, *, kept: float, rho: float, mass: float) -> Tensor:
    """The rule as the published code has it, one row at a time in float64: `kept` and `rho` are its p and rho."""
    result = weights.double().clone()
    visual, others = image[0] & sinks[0], image[0] & ~sinks[0]
    for head in range(weights.shape[1]):
        for row in range(weights.shape[2]):
            a = weights[0, head, row].double()
            whole = a[image[0]].sum()
            share = a[visual].sum() / (a[image[0]] + 1e-6).sum()
            if whole < mass or share > rho or a[others].sum() == 0:
                continue
            freed = (1 - kept) * a[sinks[0]].sum()
            result[0, head, row, sinks[0]] = kept * a[sinks[0]]
            result[0, head, row, others] = a[others] * (1 + freed / a[others].sum())
    return result


def test_hand_case_of_one_row() -> None:
    row = torch.tensor([[[[0.30, 0.10, 0.20, 0.25, 0.15]]]])
    image, sinks = mask(5, 2, 3, 4), mask(5, 0, 2)
    moved = move(row, image, sinks, rho=0.5, recycle=0.6)
    torch.testing.assert_close(moved, torch.tensor([[[[0.12, 0.10, 0.08, 0.4375, 0.2625]]]]))
    assert torch.equal(move(row, image, sinks, rho=0.8, recycle=0.6), row)


def test_planted_sinks_against_a_twin_of_the_published_rule() -> None:
    weights, image, sinks = planted()
    rule = Redistribution.of(image, sinks, mass=0.2, rho=0.5, recycle=0.4, compat=True)
    left, found = rule.choose(weights)
    moved = rule.apply_(weights.clone(), left, found)
    wanted = by_rows(weights, image, sinks, kept=0.6, rho=0.5, mass=0.2)
    torch.testing.assert_close(moved.double(), wanted, rtol=0, atol=1e-6)
    changed = (wanted != weights.double()).any(-1)
    assert torch.equal(changed, ~left[..., 0])
    assert 0 < int(changed.sum()) < changed.numel()


def test_rows_keep_their_sum_and_text_its_bits() -> None:
    weights, image, sinks = planted(1)
    moved = move(weights, image, sinks, rho=0.3, recycle=0.6, mass=0.0)
    assert not torch.equal(moved, weights)
    torch.testing.assert_close(moved.sum(-1), weights.sum(-1), rtol=0, atol=1e-6)
    assert (moved >= 0).all()
    text = ~image[0] & ~sinks[0]
    assert torch.equal(moved[..., text], weights[..., text])


@pytest.mark.parametrize(
    ("image", "sinks", "recycle", "mass"),
    [
        (range(5, 17), (), 0.6, 0.0),
        (range(5, 17), (7, 11), 0.0, 0.0),
        (range(5, 17), (7, 11), 0.6, 1.5),
        (range(5, 17), (0, 20), 0.6, 0.0),
        # all image tokens are sinks: there is nothing to hand their attention to
        (range(5, 17), tuple(range(5, 17)), 0.6, 0.0),
    ],
    ids=["no sink", "nothing recycled", "mass out of reach", "sinks in the text alone", "all are sinks"],
)
def test_settings_under_which_nothing_may_change(
    image: range, sinks: tuple[int, ...], recycle: float, mass: float
) -> None:
    weights = planted(2)[0]
    moved = move(weights, mask(26, *image), mask(26, *sinks), rho=0.0, recycle=recycle, mass=mass)
    assert torch.equal(moved, weights)


def test_recycling_all_leaves_nothing_on_sinks() -> None:
    weights, image, sinks = planted(3)
    moved = move(weights, image, sinks, rho=0.0, recycle=1.0, mass=0.0)
    left, _ = Redistribution.of(image, sinks, mass=0.0, rho=0.0, recycle=1.0).choose(weights)
    chosen = ~left[..., 0]
    assert chosen.any()
    assert (moved[chosen][:, sinks[0]] == 0).all()


def test_order_of_the_other_image_tokens_does_not_matter() -> None:
    weights, image, sinks = planted(4)
    weights = weights[:, :, 20:]
    values = torch.randn(26, 8, generator=torch.Generator().manual_seed(5))
    order = torch.arange(26)
    others = torch.nonzero(image[0] & ~sinks[0]).flatten()
    order[others] = others[torch.randperm(len(others), generator=torch.Generator().manual_seed(6))]
    plain = move(weights, image, sinks, rho=0.0, recycle=0.6, mass=0.0) @ values
    shuffled = move(weights[..., order], image, sinks, rho=0.0, recycle=0.6, mass=0.0) @ values[order]
    torch.testing.assert_close(shuffled, plain, rtol=0, atol=1e-6)


def test_sink_score_is_a_ratio_to_the_root_mean_square() -> None:
    hidden = torch.tensor([[[3.0, 0.0, 0.0, 4.0], [1.0, 1.0, 1.0, -1.0]]])
    # root mean squares 2.5 and 1
    torch.testing.assert_close(sink_scores(hidden, [0, 3]), torch.tensor([[1.6, 1.0]]), rtol=1e-5, atol=0)
    torch.testing.assert_close(sink_scores(1e4 * hidden.half(), [3]), torch.tensor([[1.6, 1.0]]), rtol=1e-3, atol=0)
    one = torch.zeros(1, 1, 64)
    one[..., 9] = 7.0
    # no score can exceed sqrt(D): a threshold of 20 means nothing to a model of 64 dimensions
    assert float(sink_scores(one, [9])) == pytest.approx(8.0, rel=1e-6)


def planted_model(name: str) -> Any:
    """A tiny model in which the first token and one image token are huge in one dimension from the first layer on."""
    vlm = tiny_vlm(name)
    fresh = network.__wrapped__(name)
    made = replace(vlm, model=fresh, layers=vlm.family.decoder_layers(fresh))
    fresh.set_attn_implementation("attnkit")

    def plant(layer: Any, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        hidden = (given[0] if given else named["hidden_states"]).clone()
        for place in made.planted:
            if hidden.shape[1] > place:
                hidden[:, place, DIMENSION] = 60 * hidden[:, place].square().mean().sqrt()
        if given:
            return (hidden, *given[1:]), named
        return given, {**named, "hidden_states": hidden}

    made.planted = []
    made.layers[0].register_forward_pre_hook(plant, with_kwargs=True)
    return made


@pytest.fixture(scope="module")
def with_sinks() -> Any:
    made = {name: planted_model(name) for name in NAMES}
    for vlm in made.values():
        prompt = prompt_of(vlm, [Request((picture(),), QUESTIONS[0])])
        vlm.planted[:] = [0, int(torch.nonzero(prompt.image_mask[0])[2])]
    return made


PROFILE = SinkProfile((DIMENSION,), 5.0, 64, "planted", "test")
MOVING = {"var.rho": 0.0, "var.mass": 0.0}


def answers(
    vlm: Any, questions: tuple[str, ...] = QUESTIONS[:1], arm: tuple[str, ...] = ("var",), **settings: Any
) -> list[Answer]:
    requests = [Request((picture(),), question) for question in questions]
    given = {**{key.replace("var", arm[0]): value for key, value in MOVING.items()}, **settings} if arm else {}
    return ask(vlm, requests, arm=arm, settings=given, decoding=Decoding(max_tokens=4), profile=PROFILE)


def probabilities(found: list[Answer]) -> list[list[float]]:
    return [[token.probability for token in answer.tokens] for answer in found]


@pytest.mark.parametrize("name", NAMES)
def test_planted_sinks_are_found_and_their_attention_moved(name: str, with_sinks: Any) -> None:
    vlm = with_sinks[name]
    (answer,) = answers(vlm)
    report = answer.reports["var"]
    assert report["sinks"][0] == vlm.planted
    assert report["visual_sinks"][0] == [2]
    assert report["rows_changed"] > 0
    assert report["attention_moved"] > 0
    assert "warning" not in report
    # the last layer is left alone, as the paper says
    assert 3 not in report["sinks"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("change", [{"var.tau": 1e9}, {"var.recycle": 0.0}, {"var.mass": 1.1}], ids=str)
def test_neutral_settings_give_the_plain_model(name: str, change: dict[str, float], with_sinks: Any) -> None:
    vlm = with_sinks[name]
    plain, neutral = answers(vlm, arm=()), answers(vlm, **change)
    assert [answer.text for answer in neutral] == [answer.text for answer in plain]
    assert probabilities(neutral) == probabilities(plain)
    if "var.tau" in change:
        assert "var changed nothing" in neutral[0].reports["var"]["warning"]


@pytest.mark.parametrize("name", NAMES)
def test_no_state_is_left_from_one_question_to_the_next(name: str, with_sinks: Any) -> None:
    vlm = with_sinks[name]
    first = answers(vlm)
    answers(vlm, QUESTIONS[1:])
    assert probabilities(answers(vlm)) == probabilities(first)


@pytest.mark.parametrize("name", NAMES)
def test_batch_gives_the_answers_of_each_alone(name: str) -> None:
    """Sinks as they come, by a low threshold: what is planted by place would move with the padding."""
    vlm = tiny_vlm(name)
    alone = [answers(vlm, (question,), **{"var.tau": 0.8})[0] for question in QUESTIONS]
    together = answers(vlm, QUESTIONS, **{"var.tau": 0.8})
    for one, two in zip(together, alone, strict=True):
        assert one.text == two.text
        assert probabilities([one])[0] == pytest.approx(probabilities([two])[0], abs=1e-4)
        assert one.reports["var"]["sinks"] == two.reports["var"]["sinks"]
        assert two.reports["var"]["rows_changed"] > 0


def test_model_without_known_sinks_says_the_largest_score_seen() -> None:
    vlm = tiny_vlm("llava")
    profile = SinkProfile((), 0.0, 64, "none", "test")
    (answer,) = ask(
        vlm, [Request((picture(),), QUESTIONS[0])], arm=("var",), decoding=Decoding(max_tokens=2), profile=profile
    )
    report = answer.reports["var"]
    # of 64 numbers the largest is 2 to 4 times their root mean square
    assert 1.5 < report["largest_score"] < 8
    assert "no sink dimension is known" in report["warning"]
    assert f"largest score {report['largest_score']:g}" in report["warning"]
    assert report["sinks"] == {} and report["rows_changed"] == 0


def test_sinks_of_the_text_alone_say_the_largest_score_of_an_image_token(with_sinks: Any) -> None:
    vlm = with_sinks["llava"]
    request = [Request((picture(),), QUESTIONS[0])]
    (seen,) = ask(vlm, request, arm=("var",), decoding=Decoding(max_tokens=2), profile=PROFILE)
    highest = seen.reports["var"]["largest_image_score"]
    assert PROFILE.tau < highest <= seen.reports["var"]["largest_score"]
    above = {"var.tau": highest + 0.01}
    (answer,) = ask(vlm, request, arm=("var",), settings=above, decoding=Decoding(max_tokens=2), profile=PROFILE)
    report = answer.reports["var"]
    assert report["visual_sinks"] == {} and report["largest_image_score"] == highest
    assert f"(largest score of one {highest:g})" in report["warning"]


def test_beams_and_samples_run_with_the_same_sinks(with_sinks: Any) -> None:
    vlm = with_sinks["llava"]
    request = [Request((picture(),), QUESTIONS[0])]
    for decoding in (Decoding(max_tokens=3, beams=3), Decoding(max_tokens=3, temperature=0.8, seed=4)):
        found = [ask(vlm, request, arm=("var",), settings=MOVING, decoding=decoding, profile=PROFILE)[0] for _ in "ab"]
        assert found[0].text == found[1].text
        assert found[0].reports["var"]["visual_sinks"][0] == [2]
        assert found[0].reports["var"]["rows_changed"] > 0


def test_placebo_moves_as_much_but_not_from_the_sinks(with_sinks: Any) -> None:
    vlm = with_sinks["llava"]
    (real,), (placebo,) = answers(vlm), answers(vlm, arm=("placebo",))
    assert placebo.reports["placebo"]["attention_moved"] <= real.reports["var"]["attention_moved"] + 1e-4
    assert placebo.reports["placebo"]["attention_moved"] > 0
    assert probabilities([placebo]) != probabilities([real])
    assert probabilities(answers(vlm, arm=("placebo",))) == probabilities([placebo])


def test_compat_reads_its_settings_as_the_published_code(with_sinks: Any) -> None:
    """Its p is the share that is kept, and the last layer is changed too."""
    vlm = with_sinks["llava"]
    (ours,) = answers(vlm, **{"var.recycle": 0.4, "var.rho": 0.5, "var.layers": "2:4"})
    (code,) = answers(vlm, **{"var.recycle": 0.6, "var.rho": 0.5, "var.compat": True})
    assert probabilities([code])[0] == pytest.approx(probabilities([ours])[0], abs=1e-5)
    assert set(code.reports["var"]["sinks"]) <= {2, 3}


def test_no_calibration_is_bit_equal_to_the_plain_model() -> None:
    for name in NAMES:
        assert equals_plain(tiny_vlm(name), [Request((picture(),), QUESTIONS[0])]), name


def test_arms_and_settings_are_checked() -> None:
    assert parse_calibrations("none,var,carve+vhr") == [(), ("var",), ("carve", "vhr")]
    assert [arm_name(arm) for arm in parse_calibrations("none,carve+var")] == ["none", "carve+var"]
    for text, said in (
        ("vra", "got 'vra'"),
        ("var+act", "move the same attention"),
        ("none+var", "none goes with nothing else"),
        ("var,var", "names var twice"),
        ("var+var", "one calibration twice"),
    ):
        with pytest.raises(UsageError, match=said):
            parse_calibrations(text)
    assert {"var.tau", "carve.keep", "act.heads"} <= set(valid_settings())
    assert settings_for("var", {"var.tau": 3.0, "act.keep": 0.1}).tau == 3.0
    with pytest.raises(UsageError, match="got 2, expected 0 to 1"):
        settings_for("var", {"var.recycle": 2})
    assert parse_layers("1,3:", 5, (), "--set") == {1, 3, 4}
    assert parse_layers("auto", 5, range(4), "--set") == {0, 1, 2, 3}
    assert parse_layers("all", 5, range(4), "--set") == {0, 1, 2, 3, 4} and parse_layers(":2", 5, (), "--set") == {0, 1}
    for text in ("5", "3:2", "a", "-1", "", "1,", "1,,2"):
        with pytest.raises(UsageError, match="--set"):
            parse_layers(text, 5, (), "--set")
    with pytest.raises(UsageError, match="--heads: got 9, expected heads from 0 to 4, rising"):
        parse_layers("0,9", 5, (), "--heads", "heads")
