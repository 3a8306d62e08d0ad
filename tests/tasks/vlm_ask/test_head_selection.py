"""The heads that ACT calibrates: each tried alone, against answers asked one by one; files that are taken up again."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from calibration_cases import REQUESTS, asked_of, next_logits
from tiny_vlms import picture, save_tiny, tiny_vlm

from attnkit.runtime.errors import ItemError, UsageError
from attnkit.runtime.progress import Talk
from attnkit.tasks.vlm_ask.calibrations.act_heads import (
    HeadScore,
    HeadsOnly,
    HeadTrial,
    Labelled,
    SinkSearch,
    hold_out,
    is_right,
)
from attnkit.tasks.vlm_ask.calibrations.act_selection import Selection, choose_heads
from attnkit.tasks.vlm_ask.calibrations.settings import ActSettings
from attnkit.tasks.vlm_ask.task import Decoding, Request, ask

SETTINGS = ActSettings(threshold=0.08, keep=0.0)
OWN = {"act.threshold": 0.08, "act.keep": 0.0}
TASKS = 6


@cache
def requests() -> tuple[Request, ...]:
    return (
        *REQUESTS,
        *(Request((picture(seed=seed),), f"what is the {word}") for seed, word in ((5, "red"), (6, "star"))),
    )


def said(heads: list[list[int]], folder: Path) -> list[str]:
    """Answers with some heads calibrated, each question alone, by way of a file of heads."""
    path = folder / "heads.json"
    path.write_text(json.dumps(heads))
    settings = {**OWN, "act.heads": str(path)}
    found = [
        ask(tiny_vlm("llava"), [one], arm=("act",), settings=settings, decoding=Decoding(max_tokens=2))
        for one in requests()
    ]
    return [answer.text for (answer,) in found]


def labelled(labels: list[str]) -> list[Labelled]:
    return [
        Labelled(one, label, (str(place),)) for place, (one, label) in enumerate(zip(requests(), labels, strict=True))
    ]


def test_each_head_scores_as_its_file_does(tmp_path: Path) -> None:
    """Labels are what one head makes the model say, so it must be right in all, and the plain model where it agrees."""
    plain = said([], tmp_path)
    alone = {(layer, head): said([[layer, head]], tmp_path) for layer in (2, 3) for head in range(4)}
    best = max(alone, key=lambda one: sum(a != b for a, b in zip(alone[one], plain, strict=True)))
    labels = alone[best]
    before = [is_right(answer, label) for answer, label in zip(plain, labels, strict=True)]
    assert not all(before)
    trial = HeadTrial(tiny_vlm("llava"), labelled(labels), SETTINGS, batch_size=2, max_tokens=2)
    assert trial.right == before
    assert list(trial.candidates()) == list(alone)
    for (layer, head), answers in alone.items():
        after = [is_right(answer, label) for answer, label in zip(answers, labels, strict=True)]
        score = trial.score(layer, head)
        assert score.right == sum(after) == sum(before) + score.gained - score.lost
        assert score.gained == sum(now and not then for now, then in zip(after, before, strict=True))
        assert score.changed <= len(labels)
    assert trial.score(*best).right == len(labels) and trial.score(*best).chosen("helps")
    pair = [list(best), [2, 0] if best[0] == 3 else [3, 0]]
    together = [is_right(answer, label) for answer, label in zip(said(pair, tmp_path), labels, strict=True)]
    assert trial.right_with(pair) == sum(together)
    assert trial.right_with([]) == sum(before)


def test_sinks_of_the_plain_pass_are_those_of_each_head_alone() -> None:
    vlm, asked = tiny_vlm("llava"), asked_of("llava", REQUESTS)
    search = SinkSearch(SETTINGS, vlm, {layer: range(4) for layer in (2, 3)})
    search.prepare(asked)
    assert torch.equal(next_logits(asked, [search]), next_logits(asked))
    without = 0
    for layer in (2, 3):
        for head in range(4):
            only = HeadsOnly(SETTINGS, vlm, {layer: [head]})
            only.prepare(asked)
            changed = next_logits(asked, [only])
            assert torch.equal(only.sinks[layer][:, head], search.sinks[layer][:, head])
            quiet = ~search.sinks[layer][:, head].any(1)
            without += int(quiet.sum())
            torch.testing.assert_close(changed[quiet], next_logits(asked)[quiet], rtol=1e-5, atol=1e-5)
    assert 0 < without < 24


def test_which_heads_are_kept() -> None:
    gain, tie, loss = (HeadScore(2, 0, 5, 7, *counts) for counts in ((2, 1), (1, 1), (0, 3)))
    assert [one.chosen("helps") for one in (gain, tie, loss)] == [True, False, False]
    assert [one.chosen("harmless") for one in (gain, tie, loss)] == [True, True, False]
    assert not HeadScore(2, 0, 0, 7, 0, 0).chosen("harmless")


@pytest.mark.parametrize(
    ("answer", "label", "right"),
    [
        ("Yes, there is a dog.", "yes", True),
        ("No.", "no", True),
        ("There is not.", "yes", False),
        ("A red square", "red square.", True),
        ("three", "3", True),
        ("red squares", "red square", False),
        ("", "red", False),
    ],
)
def test_what_is_right(answer: str, label: str, right: bool) -> None:
    assert is_right(answer, label) == right


def test_held_out_questions_are_about_other_pictures_spread_over_the_file() -> None:
    shown = Request((), "?")
    questions = [Labelled(shown, str(number), (f"{number // 2}.png",)) for number in range(80)]
    choosing, kept = hold_out(questions, 0.25)
    assert not {one.about for one in choosing} & {one.about for one in kept}
    assert sorted(map(int, (one.label for one in (*choosing, *kept)))) == list(range(80))
    places = [int(one.label) // 2 for one in kept][::2]
    assert places == list(range(3, 40, 4))
    assert hold_out(questions, 0) == (questions, [])


@pytest.fixture
def selection(tmp_path: Path) -> Selection:
    """A folder with a random LLaVA and a file of questions about four pictures, two of which cannot be asked."""
    save_tiny("llava", tmp_path / "model")
    lines = []
    for at in range(TASKS):
        picture(seed=at).save(tmp_path / f"{at % 4}.png")
        lines.append({"id": at, "image": f"{at % 4}.png", "question": "what is there", "answer": "a star"})
    lines[1]["answer"] = ""
    lines[4]["image"] = "lost.png"
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Selection(
        str(tmp_path / "model"), tmp_path / "tasks.jsonl", own_settings=OWN, max_tokens=1, out=tmp_path / "heads.json"
    )


def changed(selection: Selection, **more: object) -> Selection:
    return replace(selection, **more)  # type: ignore[arg-type]


QUIET = Talk("models heads", quiet=True, verbose=False, log_file=None)


def test_a_run_that_was_cut_off_ends_with_the_same_file(
    selection: Selection, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert selection.out is not None
    whole = choose_heads(changed(selection, out=tmp_path / "whole.json"), QUIET)
    assert len(whole.lost) == 2
    assert any("label is ''" in line for line in whole.lost) and any("lost.png" in line for line in whole.lost)
    tried: list[tuple[int, int]] = []
    score = HeadTrial.score

    def counted(self: HeadTrial, layer: int, head: int) -> HeadScore:
        if len(tried) == 3:
            raise KeyboardInterrupt
        tried.append((layer, head))
        return score(self, layer, head)

    monkeypatch.setattr(HeadTrial, "score", counted)
    with pytest.raises(KeyboardInterrupt):
        choose_heads(selection, QUIET)
    half = json.loads(selection.out.read_text())
    assert not half["finished"] and [(one["layer"], one["head"]) for one in half["measured"]] == tried
    monkeypatch.setattr(HeadTrial, "score", lambda self, *at: tried.append(at) or score(self, *at))
    choose_heads(changed(selection, resume=True), QUIET)
    assert tried == [(layer, head) for layer in (2, 3) for head in range(4)]
    assert selection.out.read_bytes() == (tmp_path / "whole.json").read_bytes()
    # another choice among heads that have been tried needs no new trial
    again = choose_heads(changed(selection, resume=True, choice="harmless"), QUIET)
    assert len(tried) == 8
    assert again.record["measured"] == whole.record["measured"]
    assert len(again.record["heads"]) >= len(whole.record["heads"])


def test_a_file_of_other_settings_is_not_taken_up(selection: Selection) -> None:
    assert selection.out is not None
    choose_heads(changed(selection, limit=1), QUIET)
    with pytest.raises(UsageError, match=r"--resume: .*heads\.json was begun with questions 1, got 3"):
        choose_heads(changed(selection, resume=True), QUIET)
    selection.out.write_text("[[2, 0]]")
    with pytest.raises(UsageError, match="is no file of heads"):
        choose_heads(changed(selection, resume=True), QUIET)


def test_nothing_to_choose_by_is_refused(selection: Selection) -> None:
    selection.tasks.write_text(json.dumps({"id": 1, "image": "0.png", "question": "what"}) + "\n")
    with pytest.raises(ItemError, match="no question in it has pictures and a label"):
        choose_heads(selection, QUIET)
    with pytest.raises(UsageError, match=r"--set act\.keep: got 1, which changes nothing"):
        choose_heads(changed(selection, own_settings={"act.keep": 1.0}), QUIET)
