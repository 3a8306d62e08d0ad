"""What every training does: steps until time or steps are used up, rates that rise and fall, checkpoints, reports."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from attnkit.models.checkpoint import save_checkpoint
from attnkit.runtime.errors import ItemError
from attnkit.runtime.signals import Interrupted, shielded, stoppable

CHECKPOINT_MINUTES = 2.0
REPORT_STEPS = 50
# largest norm of all gradients together
CLIP = 1.0


class Kept(Protocol):
    """A part of the state of a training, as modules and optimisers of torch are."""

    def state_dict(self) -> Any:
        """All that is needed to go on."""

    def load_state_dict(self, state: Any, /) -> Any:
        """Take what `state_dict` gave."""


class RunningMean:
    """Running mean of the state of a module; a young one follows faster than `decay` says."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module, self.decay = module, decay
        self.values = {name: value.clone() for name, value in module.state_dict().items()}

    def update(self, step: int) -> None:
        """Move towards the module as it is after a step."""
        decay = min(self.decay, (step + 1) / (step + 10))
        for name, value in self.module.state_dict().items():
            self.values[name].lerp_(value, 1 - decay)

    def state_dict(self) -> dict[str, Tensor]:
        return self.values

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.values = dict(state)


def cosine(progress: float) -> float:
    """From 1 at the beginning of a training to 0 at its end, by half a period of a cosine."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def warm_up(step: int, steps: int) -> float:
    """From nearly 0 to 1 over the first steps."""
    return min(1.0, (step + 1) / steps)


@dataclass(frozen=True)
class Training:
    """A training that `run` can do.

    kept       all that changes, by the name it has in a checkpoint
    optimiser  one of them
    rates      step and progress (0 to 1) to the learning rate of each parameter group
    loss       step and progress to the parts that are reported; the one named loss is minimised
    after      called with the step when the weights have changed
    """

    kept: Mapping[str, Kept]
    optimiser: torch.optim.Optimizer
    rates: Callable[[int, float], Sequence[float]]
    loss: Callable[[int, float], Mapping[str, Tensor | float]]
    after: Callable[[int], None] = lambda step: None


def run(
    training: Training,
    recipe: Mapping[str, Any],
    checkpoint: Path,
    before: Mapping[str, Any] | None,
    say: Callable[[str], None],
) -> tuple[int, float]:
    """Train until `recipe`'s steps or minutes are used up; returns the steps and minutes done, those before included.

    The state is kept in `checkpoint` every two minutes, at the end, and where a signal asks to stop, after the step
    under way; `before` is such a state to go on from. Interrupted after such a stop, ItemError where the time is over
    before the first step.
    """
    first, spent = 0, 0.0
    if before is not None:
        for name, part in training.kept.items():
            part.load_state_dict(before[name])
        first, spent = before["step"], before["minutes"]
    started = saved = time.monotonic()
    totals: dict[str, list[float]] = {}
    done, minutes = first, spent

    def keep() -> None:
        state = {name: part.state_dict() for name, part in training.kept.items()}
        save_checkpoint(checkpoint, {**state, "step": done, "minutes": float(minutes)}, recipe)

    with stoppable():
        try:
            for step in range(first, recipe["steps"]):
                now = spent + (time.monotonic() - started) / 60
                progress = max(step / recipe["steps"], now / recipe["minutes"])
                if progress >= 1:
                    break
                # a stop waits for the end of the step: half of one is no state to go on from
                with shielded():
                    parts = _step(training, step, progress)
                    done, minutes = step + 1, now
                for name, value in parts.items():
                    totals.setdefault(name, []).append(value.item() if isinstance(value, Tensor) else value)
                if done % REPORT_STEPS == 0:
                    means = "  ".join(f"{name} {np.mean(values):.5g}" for name, values in totals.items())
                    say(f"step {done}  minutes {minutes:.1f}  {means}")
                    totals.clear()
                if time.monotonic() - saved > 60 * CHECKPOINT_MINUTES:
                    keep()
                    saved = time.monotonic()
        except Interrupted as stop:
            if done > first:
                keep()
                say(f"{stop.signal_name}: stopped after step {done}; --resume goes on from {checkpoint}")
            raise
    if done == 0:
        raise ItemError(f"{checkpoint.stem}: no step was made in {recipe['minutes']} minutes; give more --minutes")
    keep()
    return done, minutes


def _step(training: Training, step: int, progress: float) -> Mapping[str, Tensor | float]:
    """Change the weights once; returns the parts of the loss."""
    groups = training.optimiser.param_groups
    for group, rate in zip(groups, training.rates(step, progress), strict=True):
        group["lr"] = rate
    parts = training.loss(step, progress)
    training.optimiser.zero_grad(set_to_none=True)
    loss = parts["loss"]
    assert isinstance(loss, Tensor)
    loss.backward()
    nn.utils.clip_grad_norm_([one for group in groups for one in group["params"]], CLIP)
    training.optimiser.step()
    training.after(step)
    return parts
