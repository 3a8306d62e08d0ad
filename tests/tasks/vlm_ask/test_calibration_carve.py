"""CARVE: the oracles of its definition on planted maps, and whole answers of tiny models."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from calibration_cases import (
    QUESTION,
    REQUESTS,
    answers,
    asked_of,
    drawn,
    longer,
    prepared,
    probabilities,
    together_as_alone,
)
from numpy.typing import NDArray
from PIL import Image
from scipy.optimize import minimize
from tiny_vlms import NAMES, picture, tiny_vlm

from attnkit.models.vlm.attention import Session
from attnkit.models.vlm.prompt import Tile
from attnkit.runtime.errors import UsageError
from attnkit.tasks.vlm_ask.calibrations.carve import NEUTRAL, LastRows, _Written, image_attention, written_attention
from attnkit.tasks.vlm_ask.calibrations.carve_maps import (
    attention_entropy,
    blackened,
    colour_complexity,
    contrast,
    fuse,
    on_picture,
    part_of_picture,
    refined,
    strongest_part,
    texture_complexity,
)
from attnkit.tasks.vlm_ask.task import Request, logits_of

QUICK = {"carve.tokens": 2, "carve.layers": "2:4"}
WHOLE = (Tile(4, 4, (0, 0, 40, 32)),)


def planted(peak: float = 10.0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Maps of question and neutral instruction, 3 steps, 6 layers, 4 x 4 tokens; token 5 attracts the question."""
    neutral = np.full((3, 6, 16), 0.01)
    question = neutral.copy()
    question[..., 5] *= peak
    return question, neutral


def scores_of(question: NDArray[np.float64], neutral: NDArray[np.float64]) -> NDArray[np.float64]:
    return on_picture(fuse(contrast(question, neutral, 1e-8), "all"), WHOLE, 40, 32)


def test_equal_maps_attract_nothing() -> None:
    _, neutral = planted()
    scores = scores_of(neutral, neutral)
    np.testing.assert_allclose(scores, 36, rtol=2e-5)
    assert strongest_part(scores, 0.2, 3) is None
    noisy = neutral * np.random.default_rng(0).uniform(0.5, 2, neutral.shape)
    assert strongest_part(scores_of(noisy, noisy), 0.2, 3) is None


def test_planted_token_is_cut_out() -> None:
    scores = scores_of(*planted())
    assert np.unravel_index(scores.argmax(), scores.shape) == (11, 14)
    part = strongest_part(scores, 0.2, 3)
    assert part is not None
    assert part.box == (5, 4, 25, 20)
    assert part.regions == 1
    assert part.share == pytest.approx(0.206, abs=5e-4)
    assert refined(picture(40, 32), part).size == (40, 32)


def test_scale_of_the_maps() -> None:
    question, neutral = planted()
    plain = scores_of(question, neutral)
    np.testing.assert_allclose(scores_of(3 * question, 3 * neutral), plain, rtol=1e-5)
    larger = scores_of(4 * question, neutral)
    np.testing.assert_allclose(larger, 4 * plain, rtol=1e-12)
    one, two = strongest_part(plain, 0.2, 3), strongest_part(larger, 0.2, 3)
    assert one is not None and two is not None
    assert np.array_equal(one.mask, two.mask)


def test_contrast_minimises_its_objective() -> None:
    draw = np.random.default_rng(1)
    for weight in (0.01, 0.5):
        question, neutral = draw.uniform(0.1, 1, (2, 6))

        def objective(
            a: NDArray[np.float64],
            question: NDArray[np.float64] = question,
            neutral: NDArray[np.float64] = neutral,
            weight: float = weight,
        ) -> float:
            return float(((a * neutral - question) ** 2 + weight * a**2 * neutral).sum())

        found = minimize(objective, np.ones(6), tol=1e-14).x
        np.testing.assert_allclose(contrast(question, neutral, weight), found, rtol=1e-5)


def test_weights_of_steps() -> None:
    maps = np.ones((2, 6, 4))
    assert fuse(maps, "all").tolist() == [18] * 4
    assert fuse(maps, "first").tolist() == fuse(maps, "last").tolist() == [6] * 4
    maps[1] *= 5
    assert [float(fuse(maps, steps)[0]) for steps in ("first", "last", "all")] == [6, 30, 66]


def test_regions_that_touch_at_a_corner_are_two() -> None:
    scores = np.zeros((12, 12))
    scores[1:4, 1:4], scores[4:8, 4:8], scores[10, 10] = 5, 2, 9
    part = strongest_part(scores, 26 / 144, 1)
    assert part is not None
    # by the sum of scores: 45, 32 and 9
    assert part.box == (1, 1, 4, 4)
    part = strongest_part(scores, 26 / 144, 2)
    assert part is not None
    assert (part.box, part.regions, int(part.mask.sum())) == ((1, 1, 8, 8), 2, 25)


def test_outside_is_black_and_inside_untouched() -> None:
    part = strongest_part(scores_of(*planted()), 0.2, 3)
    assert part is not None
    before, after = np.asarray(picture(40, 32)), np.asarray(blackened(picture(40, 32), part))
    assert not after[~part.mask].any()
    assert np.array_equal(after[part.mask], before[part.mask])


def test_enlarged_part_covers_the_picture_or_stays_within_bounds() -> None:
    scores = np.zeros((200, 300))
    scores[50:60, 100:140] = 1
    part = strongest_part(scores, 0.005, 1)
    assert part is not None
    assert refined(picture(300, 200), part).size == (800, 200)
    scores[:] = 0
    scores[:, 5] = 1
    part = strongest_part(scores, 0.003, 1)
    assert part is not None
    width, height = refined(picture(300, 200), part).size
    assert width * height <= 4.1 * 300 * 200


def test_what_no_tile_has_seen_is_never_kept() -> None:
    """A square crop from the middle of a wide picture."""
    question, neutral = planted()
    maps = fuse(contrast(question, neutral, 1e-8), "last")
    scores = on_picture(maps, (Tile(4, 4, (4.0, 0.0, 36.0, 32.0)),), 40, 32)
    assert np.isnan(scores[:, [0, 3, 36, 39]]).all()
    part = strongest_part(scores, 1.0, 3)
    assert part is not None
    assert part.box == (4, 0, 36, 32)


def test_part_of_a_large_picture_is_that_of_its_small_map() -> None:
    question, neutral = planted()
    maps = fuse(contrast(question, neutral, 1e-8), "last")
    tiles = (Tile(4, 4, (0.0, 0.0, 400.0, 320.0)),)
    whole = part_of_picture(maps, tiles, 400, 320, keep=0.2, regions=3)
    coarse = part_of_picture(maps, tiles, 400, 320, keep=0.2, regions=3, largest=1280)
    assert whole is not None and coarse is not None
    # ten pixels to one
    assert coarse.box == (50, 40, 250, 200)
    assert (whole.mask & coarse.mask).sum() / (whole.mask | coarse.mask).sum() > 0.9
    assert coarse.share == pytest.approx(whole.share, abs=0.01)


def test_entropy_of_maps() -> None:
    assert attention_entropy(np.full((3, 50), 0.002)) == pytest.approx(math.log(50))
    assert attention_entropy(np.eye(50)) == 0
    half = np.array([[0.1, 0.1, 0, 0], [0.1, 0.1, 0.1, 0.1]])
    assert attention_entropy(half) == pytest.approx((math.log(2) + math.log(4)) / 2)


def test_complexity_of_pictures() -> None:
    hues = np.zeros((10, 180, 3), np.uint8)
    cv2 = pytest.importorskip("cv2")
    hues[..., 0], hues[..., 1:] = np.arange(180), 255
    ramp = Image.fromarray(cv2.cvtColor(hues, cv2.COLOR_HSV2RGB))
    # some hues of the ramp fall together in 8 bits
    assert colour_complexity(ramp) == pytest.approx(1, abs=0.02)
    flat = Image.new("RGB", (64, 64), (200, 30, 30))
    assert colour_complexity(flat) == texture_complexity(flat) == 0
    square = np.zeros((64, 64, 3), np.uint8)
    square[16:48, 16:48] = 255
    edges = texture_complexity(Image.fromarray(square))
    # an outline of 32 x 32 pixels, one or two pixels wide
    assert 120 / 4096 <= edges <= 260 / 4096


@pytest.mark.parametrize("name", NAMES)
def test_batch_gives_the_answers_of_each_alone(name: str) -> None:
    found = together_as_alone(name, "carve", QUICK)
    for request, one in zip(REQUESTS, found, strict=True):
        report = one.reports["carve"]
        assert [part["size"] for part in report["pictures"]] == [list(shown.size) for shown in request.pictures]
        views = asked_of(name, [request]).prompt.views[0]
        for part, view in zip(report["pictures"], views, strict=True):
            left, top, right, bottom = part["box"]
            assert 0 <= left < right <= part["size"][0] and 0 <= top < bottom <= part["size"][1]
            # what lies beyond the middle of an outer cell is even, and kept as a whole
            assert 0 < part["kept_share"] <= 0.3
            assert 0 < part["entropy"] <= math.log(view.tokens)
    assert "the question is about no picture" in found[2].reports["carve"]["warning"]


@pytest.mark.parametrize("name", NAMES)
def test_maps_with_a_cache_are_those_of_the_whole_text(name: str) -> None:
    """And only those of the chosen layers, over image tokens alone, mean over heads."""
    asked = asked_of(name, REQUESTS[:2])
    rule = LastRows(frozenset({1, 3}))
    made = drawn(asked, [rule])
    found = image_attention(rule, asked.prompt, [3, 2])
    assert [one.shape for one in found] == [
        (steps, 2, int(mask.sum())) for steps, mask in zip((3, 2), asked.prompt.image_mask, strict=True)
    ]
    length = asked.prompt.length
    for step in range(3):
        whole = LastRows(frozenset({1, 3}))
        with Session(asked.vlm.layers, length, [whole]):
            logits_of(asked.vlm, longer(asked.prompt, made.sequences[:, length : length + step]))
        wanted = image_attention(whole, asked.prompt, [1, 1])
        for row in range(2 if step < 2 else 1):
            np.testing.assert_allclose(found[row][step], wanted[row][0], atol=2e-5)


@pytest.mark.parametrize("name", NAMES)
def test_asking_for_the_neutral_description_changes_nothing(name: str) -> None:
    """Both passes are the same then: the map is flat, and the answer has the bits of the plain model's."""
    request = replace(REQUESTS[0], question=NEUTRAL)
    (answer,) = answers(name, ("carve",), QUICK, [request])
    (plain,) = answers(name, (), {}, [request])
    assert probabilities(answer) == probabilities(plain)
    report = answer.reports["carve"]
    assert report["pictures"][0]["box"] is None
    assert "the question attracts all of the picture alike" in report["warning"]


def test_pictures_that_the_last_pass_sees() -> None:
    for settings, count in ((QUICK, 2), ({**QUICK, "carve.pictures": "both"}, 4)):
        (answer,) = answers("llava", ("carve",), settings, REQUESTS[1:2])
        assert len(answer.views) == count
    # the originals come first, each before its own part
    sizes = [(view.width, view.height) for view in answer.views]
    assert [sizes[0], sizes[2]] == [shown.size for shown in REQUESTS[1].pictures]
    assert answer.image_tokens == 4 * 16


def test_each_picture_is_cut_by_its_own_tokens() -> None:
    """The same maps, with the tokens of the two pictures told apart by hand."""
    calibration, _ = prepared(asked_of("qwen2_vl", REQUESTS[1:2]), "carve", {**QUICK, "carve.steps": "first"})
    found = []
    for question in (REQUESTS[1].question, NEUTRAL):
        said = f"{question} Answer the question using a single word or phrase."
        one = asked_of("qwen2_vl", [replace(REQUESTS[1], question=said)])
        rule = LastRows(frozenset({2, 3}))
        drawn(one, [rule])
        found.append(image_attention(rule, one.prompt, [1])[0][0].astype(np.float64))
    first, second = (view.tokens for view in one.prompt.views[0])
    quotient = (found[0] / (found[1] + 1e-8)).sum(0)
    assert len(quotient) == first + second
    maps = calibration.maps[0]  # type: ignore[attr-defined]
    np.testing.assert_allclose(maps[0], quotient[:first], rtol=1e-4)
    np.testing.assert_allclose(maps[1], quotient[first:], rtol=1e-4)


def test_rules_that_look_at_the_prompt_see_the_refined_one() -> None:
    """Whatever the order in which they are named."""
    settings = {**QUICK, "carve.pictures": "both", "act.threshold": 0.05, "act.layers": "0:4"}
    for arm in (("act", "carve"), ("carve", "act")):
        (answer,) = answers("llava", arm, settings)
        assert answer.image_tokens == 32
        assert answer.calibration == "+".join(arm)
        found = answers("llava", ("carve", "act"), settings)[0]
        assert probabilities(answer) == probabilities(found)


def test_layers_are_the_papers_share_of_the_depth() -> None:
    (answer,) = answers("llava", ("carve",), {"carve.tokens": 1})
    assert answer.reports["carve"]["layers"] == [3]


def test_settings_are_checked() -> None:
    for key, value, said in (
        ("carve.steps", "some", "--set carve.steps: got 'some', expected first or last or all"),
        ("carve.pictures", "none", "--set carve.pictures: got 'none', expected refined or both"),
        ("carve.layers", "7", "--set carve.layers"),
    ):
        with pytest.raises(UsageError, match=said):
            answers("llava", ("carve",), {key: value})


def test_questions_about_one_picture_share_the_neutral_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = (picture(seed=7),)
    requests = [Request(shown, QUESTION), Request(shown, "how many ?")]
    vlm, rows = tiny_vlm("llava"), []
    plain = vlm.model.generate
    monkeypatch.setattr(vlm.model, "generate", lambda **given: rows.append(len(given["input_ids"])) or plain(**given))
    found = answers("llava", ("carve",), QUICK, requests)
    assert rows == [2, 1, 2]
    monkeypatch.undo()
    for request, one in zip(requests, found, strict=True):
        (alone,) = answers("llava", ("carve",), QUICK, [request])
        assert probabilities(one) == pytest.approx(probabilities(alone), abs=1e-4)


def test_maps_are_kept_on_the_cpu_in_single_precision() -> None:
    asked = asked_of("llava", REQUESTS[:1])
    rule = LastRows(frozenset({0}))
    drawn(asked, [rule])
    assert [tuple(one.shape) for one in rule.maps[0]] == [(1, asked.prompt.length)] * 3
    assert all(one.dtype == torch.float32 and one.device.type == "cpu" for one in rule.maps[0])


@pytest.mark.parametrize("name", NAMES)
def test_a_pass_that_ends_early_has_the_maps_of_the_whole_one(name: str) -> None:
    """Bit for bit; nothing behind the last map is computed, and the model is as it was."""
    vlm, prompt, layers = tiny_vlm(name), asked_of(name, REQUESTS[:2]).prompt, frozenset({1, 2})
    before, ran = logits_of(vlm, prompt), list[str]()
    watched = {"third": vlm.layers[2], "fourth": vlm.layers[3], "head": vlm.model.lm_head}
    for tokens in (1, 3):
        wanted = written_attention(vlm, prompt, layers, tokens, whole=True)
        hooks = [one.register_forward_pre_hook(lambda *_, key=key: ran.append(key)) for key, one in watched.items()]
        try:
            found = written_attention(vlm, prompt, layers, tokens)
        finally:
            for hook in hooks:
                hook.remove()
        most = max(map(len, found))
        assert ran == [*watched] * (most - 1) + (["third"] if most == tokens else [*watched])
        ran.clear()
        assert all(np.array_equal(one, other) for one, other in zip(found, wanted, strict=True))
    assert torch.equal(logits_of(vlm, prompt), before)


def test_an_answer_that_ends_before_its_most_tokens_is_followed_to_its_end() -> None:
    """Rows that end at steps of their own, one of them at the last, which is not run to its end."""
    ends, written = torch.tensor([2, 5]), _Written(torch.tensor([2, 5]), 3)
    said = torch.tensor([[7, 2, 7], [2, 2, 7], [5, 7, 7]])
    for tokens in said:
        written(tokens[:, None], torch.nn.functional.one_hot(tokens, 9).float())
    wanted = [next((step for step, one in enumerate(row) if one in ends), -1) for row in said.T.tolist()]
    assert written.steps.tolist() == wanted == [1, 0, -1]
