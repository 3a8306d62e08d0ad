"""ACT: the oracles of its definition, a twin of the published code's rule, and whole answers of tiny models."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from calibration_cases import (
    REQUESTS,
    answers,
    asked_of,
    cache_changes_nothing,
    drawn,
    next_logits,
    prepared,
    static_cache_changes_nothing,
    together_as_alone,
)
from tiny_vlms import NAMES, tiny_vlm
from torch import Tensor

from attnkit.runtime.errors import ItemError, UsageError
from attnkit.tasks.vlm_ask.calibrations.act import attention_received, find_sinks, spread
from attnkit.tasks.vlm_ask.task import Decoding, ask

STRONG = {"act.threshold": 0.05, "act.layers": "0:4"}


def planted(places: tuple[int, ...] = (0, 9, 14), heads: int = 32, length: int = 24) -> Tensor:
    """Causal maps [1, H, N, N] with some columns that all rows look at."""
    draw = torch.Generator().manual_seed(0)
    scores = torch.randn(1, heads, length, length, generator=draw)
    scores[..., list(places)] += 3
    return scores.masked_fill(torch.ones(length, length).triu(1).bool(), -torch.inf).softmax(-1)


def everything(weights: Tensor) -> Tensor:
    return torch.ones(len(weights), weights.shape[-1], dtype=torch.bool)


def sinks_in(weights: Tensor, threshold: float, *, compat: bool = False, least: int = 1) -> Tensor:
    real = everything(weights)
    limits = torch.full((len(weights),), threshold)
    return find_sinks(attention_received(weights, real), real, limits, compat=compat, least_queries=least)


def published(weights: Tensor, chosen: list[int], keep: float, threshold: float) -> Tensor:
    """The rule as the published code has it, one head and one row at a time in float64."""
    result = weights.double().clone()
    length = weights.shape[-1]
    for head in chosen:
        a = weights[0, head].double()
        received = [float(a[place:, place].sum()) / (length - place) for place in range(length)]
        sinks = [place for place in range(length) if received[place] > threshold][1:]
        others = [place for place in range(length) if place not in sinks]
        for row in range(1, length):
            freed = (1 - keep) * a[row, sinks].sum()
            if freed > 0:
                result[0, head, row, sinks] = keep * a[row, sinks]
                result[0, head, row, others] = a[row, others] * (1 + freed / a[row, others].sum())
    return result


def test_planted_sinks_against_a_twin_of_the_published_rule() -> None:
    weights, chosen = planted(), [1, 4, 6, 10, 17, 20, 29, 31]
    sinks = sinks_in(weights, 0.1, compat=True)
    heads = torch.zeros(32, dtype=torch.bool)
    heads[chosen] = True
    sinks &= heads[:, None]
    changed, moved = spread(weights, sinks, 0.4)
    torch.testing.assert_close(changed.double(), published(weights, chosen, 0.4, 0.1), rtol=0, atol=1e-6)
    assert sinks[0, chosen].any(1).all()
    assert torch.equal(changed[:, ~heads], weights[:, ~heads])
    assert not moved[:, ~heads].any()
    torch.testing.assert_close(changed.sum(-1), torch.ones(1, 32, 24), rtol=0, atol=1e-6)
    assert not changed.triu(1).any()
    assert torch.equal(changed[:, :, 0], weights[:, :, 0])


def test_the_paper_spares_the_first_token_and_the_code_the_first_sink() -> None:
    both, late = planted((0, 9), heads=1), planted((9,), heads=1)
    assert torch.nonzero(sinks_in(both, 0.2)[0, 0]).flatten().tolist() == [9]
    assert torch.nonzero(sinks_in(both, 0.2, compat=True)[0, 0]).flatten().tolist() == [9]
    assert torch.nonzero(sinks_in(late, 0.3)[0, 0]).flatten().tolist() == [9]
    assert not sinks_in(late, 0.3, compat=True).any()


def test_hand_case_of_one_row() -> None:
    row = torch.tensor([[[[0.40, 0.30, 0.20, 0.10]]]])
    changed, moved = spread(row, torch.tensor([[[False, True, False, False]]]), 0.4)
    torch.testing.assert_close(changed, torch.tensor([[[[0.502857, 0.12, 0.251429, 0.125714]]]]), rtol=0, atol=1e-6)
    assert float(moved) == pytest.approx(0.18)


def test_attention_received_of_an_even_map() -> None:
    even = torch.tril(torch.ones(4, 4))
    even = (even / even.sum(1, keepdim=True))[None, None]
    wanted = torch.tensor([[[0.520833, 0.361111, 0.291667, 0.25]]])
    torch.testing.assert_close(attention_received(even, everything(even)), wanted, rtol=0, atol=1e-6)


def test_padding_neither_gives_nor_gets() -> None:
    weights = planted(heads=2)
    padded = torch.full((1, 2, 29, 29), 1 / 29)
    padded[..., 5:, :5] = 0
    padded[..., 5:, 5:] = weights
    real = torch.arange(29)[None] >= 5
    received = attention_received(padded, real)
    assert not received[..., :5].any()
    torch.testing.assert_close(received[..., 5:], attention_received(weights, everything(weights)))
    found = find_sinks(received, real, torch.tensor([0.1]))
    assert torch.equal(found[..., 5:], sinks_in(weights, 0.1))
    changed, moved = spread(padded, found, 0.4, real)
    assert torch.equal(changed[..., :5, :], padded[..., :5, :])
    torch.testing.assert_close(changed[..., 5:, 5:], spread(weights, sinks_in(weights, 0.1), 0.4)[0])
    assert not moved[..., :5].any()


def test_few_queries_make_no_sink_where_more_are_asked_for() -> None:
    weights = planted((), heads=4)
    last = weights.clone()
    last[..., -1, :] = 0
    last[..., -1, -1] = 1
    assert sinks_in(last, 0.5)[..., -1].all()
    assert not sinks_in(last, 0.5, least=2)[..., -1].any()


def test_keeping_nothing_is_the_row_without_its_sinks() -> None:
    weights = planted()
    sinks = sinks_in(weights, 0.1)
    changed, _ = spread(weights, sinks, 0.0)
    columns = sinks[:, :, None].expand_as(weights)
    rest = weights.masked_fill(columns, 0)
    assert not changed[columns].any()
    torch.testing.assert_close(changed, rest / rest.sum(-1, keepdim=True), rtol=0, atol=1e-6)


def test_order_of_other_tokens_does_not_matter() -> None:
    weights = planted(heads=4)
    sinks = sinks_in(weights, 0.1)
    first, second = torch.nonzero(~sinks.any(1)[0]).flatten()[1:3].tolist()
    order = torch.arange(24)
    order[[first, second]] = order[[second, first]]
    rows = weights[:, :, second:]
    values = torch.randn(24, 8, generator=torch.Generator().manual_seed(1))
    plain = spread(rows, sinks, 0.4)[0] @ values
    shuffled = spread(rows[..., order], sinks[..., order], 0.4)[0] @ values[order]
    torch.testing.assert_close(shuffled, plain, rtol=0, atol=1e-6)


@pytest.mark.parametrize("change", [{"act.keep": 1.0}, {"act.threshold": 1.5}, {"act.heads": "empty"}], ids=str)
def test_settings_under_which_nothing_may_change(change: dict[str, object], tmp_path: Path) -> None:
    if "act.heads" in change:
        (tmp_path / "empty.json").write_text("[]")
        change = {"act.heads": str(tmp_path / "empty.json")}
    for name in NAMES:
        calibration, asked = prepared(asked_of(name, REQUESTS), "act", {**STRONG, **change})
        assert torch.equal(next_logits(asked, [calibration]), next_logits(asked)), name


@pytest.mark.parametrize("name", NAMES)
def test_batch_gives_the_answers_of_each_alone(name: str) -> None:
    found = together_as_alone(name, "act", STRONG)
    assert all(one.reports["act"]["rows_changed"] > 0 for one in found)
    assert all(one.reports["act"]["attention_moved"] > 0 for one in found)
    assert all(min(places) > 0 for one in found for places in one.reports["act"]["sinks"].values())


@pytest.mark.parametrize("name", NAMES)
def test_cache_changes_nothing(name: str) -> None:
    cache_changes_nothing(name, "act", STRONG)


def test_static_cache_changes_nothing() -> None:
    static_cache_changes_nothing("llava", "act", STRONG)


def test_new_tokens_are_no_sinks_and_those_of_the_prompt_stay() -> None:
    calibration, asked = prepared(asked_of("llava", REQUESTS[:1]), "act", STRONG)
    next_logits(asked, [calibration])
    before = {layer: sinks.clone() for layer, sinks in calibration.sinks.items()}  # type: ignore[attr-defined]
    calibration, asked = prepared(asked, "act", STRONG)
    drawn(asked, [calibration])
    after = calibration.sinks  # type: ignore[attr-defined]
    assert before.keys() == after.keys() == {0, 1, 2, 3}
    assert all(torch.equal(before[layer], after[layer]) for layer in before)


def test_beams_have_the_sinks_of_their_prompt() -> None:
    vlm = tiny_vlm("qwen2_vl")
    greedy = answers("qwen2_vl", ("act",), STRONG, REQUESTS[:2])
    found = ask(vlm, REQUESTS[:2], arm=("act",), settings=STRONG, decoding=Decoding(max_tokens=3, beams=3))
    for one, two in zip(found, greedy, strict=True):
        assert one.reports["act"]["sinks"] == two.reports["act"]["sinks"]
        assert one.reports["act"]["attention_moved"] > two.reports["act"]["attention_moved"]


def test_default_threshold_follows_the_length_without_padding() -> None:
    found = answers("llava", ("act",), {}, REQUESTS)
    assert [one.reports["act"]["threshold"] for one in found] == [
        pytest.approx(5 / one.prompt_tokens, abs=1e-6) for one in found
    ]
    (code,) = answers("llava", ("act",), {"act.compat": True})
    assert code.reports["act"]["threshold"] == pytest.approx(0.1)


def test_what_changes_nothing_says_so() -> None:
    (answer,) = answers("llava", ("act",), {"act.threshold": 1.0})
    assert "act changed nothing: no token behind the first gets more than 1" in answer.reports["act"]["warning"]


def test_heads_of_a_file_alone_are_changed(tmp_path: Path) -> None:
    path = tmp_path / "heads.json"
    path.write_text(json.dumps([[1, 2], [3, 0]]))
    (answer,) = answers("llava", ("act",), {"act.threshold": 0.01, "act.heads": str(path)})
    assert answer.reports["act"]["heads_changed"] == {1: 1, 3: 1}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[9, 0]]", "layer 9, head 0; the model has 4 layers with 4 heads"),
        ("[[1]]", "expected \\[layer, head\\]"),
        ("[[1, 0.5]]", "expected \\[layer, head\\]"),
        ("{}", "holds a dict"),
        ("[", "is no JSON"),
        ('{"heads": [[1, 2]], "finished": false}', "is unfinished"),
        ('{"heads": [[1, 2]], "layers": 32, "heads_per_layer": 32}', "model with 32 layers of 32 heads"),
        (None, "no such file"),
    ],
)
def test_heads_files_are_checked(text: str | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "heads.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=f"--set act.heads: .*{said}"):
        answers("llava", ("act",), {"act.heads": str(path)})


def test_auto_takes_the_heads_in_the_folder_of_the_model(tmp_path: Path) -> None:
    vlm = replace(tiny_vlm("llava"), path=tmp_path)
    settings = {"act.threshold": 0.01, "act.heads": "auto"}
    with pytest.raises(UsageError, match=r"no act_heads\.json in .*; make it with 'attnkit models heads MODEL"):
        ask(vlm, REQUESTS[:1], arm=("act",), settings=settings, decoding=Decoding(max_tokens=1))
    record = {"heads": [[3, 1]], "finished": True, "layers": 4, "heads_per_layer": 4}
    (tmp_path / "act_heads.json").write_text(json.dumps(record))
    (answer,) = ask(vlm, REQUESTS[:1], arm=("act",), settings=settings, decoding=Decoding(max_tokens=1))
    assert answer.reports["act"]["heads_changed"] == {3: 1}


def test_a_prompt_in_pieces_is_refused() -> None:
    calibration, asked = prepared(asked_of("llava", REQUESTS[:1]), "act", STRONG)
    with pytest.raises(ItemError, match="act: needs the prompt in one piece"):
        drawn(asked, [calibration], prefill_chunk_size=8)
