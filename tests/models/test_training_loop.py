"""The loop of every training: what it does to a line fitted by hand, a stop half way, time that is over."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from attnkit.models import training_loop
from attnkit.models.checkpoint import load_checkpoint
from attnkit.models.training_loop import Kept, RunningMean, Training, cosine, run, warm_up
from attnkit.runtime.errors import ItemError, UsageError

RECIPE = {"steps": 8, "minutes": 5.0, "seed": 0}
TARGET = torch.tensor([[3.0, -2.0]])


def line(rates: list[float] | None = None) -> tuple[Training, nn.Linear, RunningMean]:
    model = nn.Linear(2, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = RunningMean(model, 0.9)
    optimiser = torch.optim.SGD(model.parameters(), lr=1.0)

    def loss(step: int, progress: float) -> dict[str, torch.Tensor]:
        inputs = torch.from_numpy(np.random.default_rng(step).standard_normal((4, 2), np.float32))
        return {"loss": (model(inputs) - inputs @ TARGET.T).square().mean()}

    def rate(step: int, progress: float) -> list[float]:
        value = 0.1 * cosine(progress) * warm_up(step, 3)
        if rates is not None:
            rates.append(value)
        return [value]

    kept: dict[str, Kept] = {"model": model, "average": average, "optimiser": optimiser}
    return Training(kept, optimiser, rate, loss, average.update), model, average


def test_the_rate_rises_then_falls_and_the_loss_with_it(tmp_path: Path) -> None:
    rates: list[float] = []
    said: list[str] = []
    training, model, _ = line(rates)
    steps, minutes = run(training, {**RECIPE, "steps": 100}, tmp_path / "line.checkpoint", None, said.append)
    assert steps == 100 and 0 <= minutes < 1
    assert rates[:3] == pytest.approx([0.1 / 3, 0.2 / 3, 0.1], rel=1e-2)
    assert rates[2:] == sorted(rates[2:], reverse=True) and rates[-1] < 1e-4
    assert torch.allclose(model.weight, TARGET, atol=0.1)
    assert [line.split("  ")[0] for line in said] == ["step 50", "step 100"]
    first, last = (float(line.rsplit(" ", 1)[1]) for line in said)
    assert last < 0.2 * first


def test_a_stopped_training_goes_on_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_loop, "CHECKPOINT_MINUTES", 0.0)
    whole, model, average = line()
    run(whole, RECIPE, tmp_path / "whole.checkpoint", None, print)
    checkpoint = tmp_path / "half.checkpoint"
    # the checkpoint of a whole training of half the steps has the rates of such a one
    half, _, _ = line()

    class Stopped(Exception):
        pass

    def stop(path: Path, state: dict, recipe: dict) -> None:
        keep(path, state, recipe)
        if state["step"] == 4:
            raise Stopped

    keep = training_loop.save_checkpoint
    monkeypatch.setattr(training_loop, "save_checkpoint", stop)
    with pytest.raises(Stopped):
        run(half, RECIPE, checkpoint, None, print)
    monkeypatch.setattr(training_loop, "save_checkpoint", keep)
    rest, again, its_average = line()
    steps, _ = run(rest, RECIPE, checkpoint, load_checkpoint(checkpoint, RECIPE, "cpu"), print)
    assert steps == 8
    assert torch.equal(model.weight, again.weight)
    assert torch.equal(average.values["weight"], its_average.values["weight"])


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_training_that_is_asked_to_stop_ends_its_step_and_goes_on_from_there(name: str, tmp_path: Path) -> None:
    whole, model, average = line()
    run(whole, RECIPE, tmp_path / "whole.checkpoint", None, print)
    checkpoint = tmp_path / "half.checkpoint"
    half, _, _ = line()

    def loss(step: int, progress: float) -> Mapping[str, torch.Tensor | float]:
        if step == 3:
            signal.raise_signal(getattr(signal, name))
        return half.loss(step, progress)

    said: list[str] = []
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        run(replace(half, loss=loss), RECIPE, checkpoint, None, said.append)
    assert said == [f"{name}: stopped after step 4; --resume goes on from {checkpoint}"]
    assert signal.getsignal(signal.SIGTERM) is before
    rest, again, its_average = line()
    run(rest, RECIPE, checkpoint, load_checkpoint(checkpoint, RECIPE, "cpu"), print)
    assert torch.equal(model.weight, again.weight)
    assert torch.equal(average.values["weight"], its_average.values["weight"])


def test_a_checkpoint_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    training, _, _ = line()
    with pytest.raises(ItemError, match=r"lost/line\.checkpoint: the checkpoint cannot be written: No such file"):
        run(training, RECIPE, tmp_path / "lost" / "line.checkpoint", None, print)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "line.checkpoint"
    training_loop.save_checkpoint(path, {"step": 1}, RECIPE)
    whole = path.read_bytes()
    for data in (b"", b"no checkpoint", whole[:-100]):
        path.write_bytes(data)
        with pytest.raises(UsageError, match=r"line\.checkpoint is damaged or no checkpoint; leave --resume out"):
            load_checkpoint(path, RECIPE, "cpu")
    path.write_bytes(whole)
    assert load_checkpoint(path, RECIPE, "cpu") == {"step": 1}


def test_no_time_is_an_error_and_writes_nothing(tmp_path: Path) -> None:
    training, model, _ = line()
    with pytest.raises(ItemError, match=r"line: no step was made in 1e-12 minutes; give more --minutes"):
        run(training, {**RECIPE, "minutes": 1e-12}, tmp_path / "line.checkpoint", None, print)
    assert not list(tmp_path.iterdir()) and not model.weight.any()


def test_a_running_mean_of_a_constant_is_the_constant_and_of_steps_their_mean() -> None:
    model = nn.Linear(1, 1)
    average = RunningMean(model, 0.5)
    for step in range(20):
        average.update(step)
    assert torch.allclose(average.values["weight"], model.weight)
    with torch.no_grad():
        model.weight.fill_(1.0)
    before = average.values["weight"].clone()
    average.update(20)
    assert torch.allclose(average.values["weight"], (before + 1) / 2)
