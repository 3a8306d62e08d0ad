"""Fine-tuning of a frozen vision-language model: an adapter learns the answers of a folder of questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from attnkit.models import registry, training_loop
from attnkit.models.adapters.attach import Attachment, attach, settings_of
from attnkit.models.adapters.files import base_identity, save_adapter
from attnkit.models.checkpoint import checkpoint_of, load_checkpoint
from attnkit.runtime.errors import UsageError
from attnkit.runtime.values import parse_settings

from .adapter_examples import IGNORED, Batch, Batches, read_examples

if TYPE_CHECKING:
    from attnkit.models.vlm.opening import VisionLanguageModel

VALIDATION_QUESTIONS = 500
WARM_STEPS = 20


@dataclass(frozen=True)
class AdapterRecipe:
    """All that an adapter depends on besides the model and the questions.

    kind        p-adapter, adapter or lora; `settings` of it that differ from its defaults
    batch       questions a step
    held_out    share of the pictures that validates
    max_pixels  larger pictures are made smaller
    """

    kind: str = "p-adapter"
    settings: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    minutes: float = 10.0
    steps: int = 2000
    batch: int = 16
    rate: float = 1e-3
    weight_decay: float = 0.05
    held_out: float = 0.1
    max_pixels: int | None = None


def recipe_of(kind: str, pairs: Sequence[str], **given: Any) -> AdapterRecipe:
    """The recipe of a kind of adapter with the pairs of --set KIND.KEY=VALUE and other values that are not None."""
    valid = {f"{kind}.{name}": value for name, value in asdict(settings_of(kind)).items()}
    settings = {key.removeprefix(f"{kind}."): value for key, value in parse_settings(pairs, valid).items()}
    settings_of(kind, settings)
    known = {name: value for name, value in given.items() if value is not None}
    return AdapterRecipe(kind=kind, settings=settings, **known)


def answer_logits(vlm: VisionLanguageModel, batch: Batch) -> tuple[Tensor, Tensor]:
    """Logits [M, V] at the places before the M tokens of the answers of a batch, and where these are, [B, tail]."""
    prompt = batch.prompt
    more: dict[str, Any] = {}
    if hasattr(vlm.model.model, "rope_deltas"):
        # such models count positions without the padding themselves, and would keep them between calls
        vlm.model.model.rope_deltas = None
    else:
        more["position_ids"] = (prompt.attention_mask.cumsum(1) - 1).clamp(min=0)
    logits = vlm.model(**prompt.inputs(), **more, use_cache=False, logits_to_keep=batch.tail + 1).logits[:, :-1]
    places = batch.labels[:, -batch.tail :] != IGNORED
    return logits[places].float(), places


def answer_loss(vlm: VisionLanguageModel, batch: Batch) -> Tensor:
    """Mean cross-entropy of the tokens of the answers, with the mark that ends each."""
    logits, places = answer_logits(vlm, batch)
    return functional.cross_entropy(logits, batch.labels[:, -batch.tail :][places])


def validate(vlm: VisionLanguageModel, batches: Batches, size: int) -> dict[str, float]:
    """Loss, and share of the questions whose whole answer is the likeliest at each token, as greedy decoding has it."""
    loss, tokens, right = 0.0, 0, 0
    count = min(len(batches), VALIDATION_QUESTIONS)
    for start in range(0, count, size):
        batch = batches[range(start, min(start + size, count))]
        with torch.inference_mode():
            logits, places = answer_logits(vlm, batch)
        wanted = batch.labels[:, -batch.tail :]
        loss += float(functional.cross_entropy(logits, wanted[places], reduction="sum"))
        tokens += len(logits)
        hits = torch.ones_like(places)
        hits[places] = logits.argmax(-1) == wanted[places]
        right += int(hits.all(1).sum())
    return {"loss": round(loss / tokens, 4), "right": round(right / count, 4)}


def draw_batch(step: int, count: int, recipe: AdapterRecipe) -> list[int]:
    """Indices of the questions of a step: every question once an epoch, in an order of its own."""
    places = range(step * recipe.batch, (step + 1) * recipe.batch)
    orders = {
        epoch: np.random.default_rng((recipe.seed, epoch)).permutation(count)
        for epoch in {place // count for place in places}
    }
    return [int(orders[place // count][place % count]) for place in places]


def training_of(
    vlm: VisionLanguageModel, attachment: Attachment, batches: Batches, recipe: AdapterRecipe
) -> training_loop.Training:
    """The training of an adapter that is on its model."""
    parameters = list(attachment.parameters())
    optimiser = torch.optim.AdamW(
        [
            {"params": [one for one in parameters if one.ndim > 1], "weight_decay": recipe.weight_decay},
            # p and mu are drawn to no value, nor are biases
            {"params": [one for one in parameters if one.ndim <= 1], "weight_decay": 0.0},
        ]
    )

    def rates(step: int, progress: float) -> list[float]:
        rate = recipe.rate * (0.02 + 0.98 * training_loop.cosine(progress))
        return [rate * training_loop.warm_up(step, WARM_STEPS)] * 2

    return training_loop.Training(
        kept={"adapter": attachment.modules, "optimiser": optimiser},
        optimiser=optimiser,
        rates=rates,
        loss=lambda step, progress: {"loss": answer_loss(vlm, batches[draw_batch(step, len(batches), recipe)])},
        after=lambda step: attachment.constrain(),
    )


def train_adapter(
    vlm: VisionLanguageModel,
    data: Path,
    out: Path,
    recipe: AdapterRecipe,
    *,
    base: str,
    resume: bool = False,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Train an adapter and write its file; returns what its provenance says, with the validation before and after.

    base    what the model is called, for people

    The model is as before in the end. Raises UsageError for what cannot be trained, before any step is made.
    """
    settings = settings_of(recipe.kind, recipe.settings)
    checkpoint = checkpoint_of(out, resume=resume, overwrite=overwrite)
    if out.suffix != ".safetensors":
        raise UsageError(f"--out: got {out}, expected a file that ends in .safetensors")
    examples = read_examples(data, recipe.held_out)
    if examples.problems:
        say(f"{len(examples.problems)} lines are left out: {examples.problems[0]}")
    made_from = {**asdict(recipe), "base": base_identity(vlm.model), "files": examples.files}
    before = load_checkpoint(checkpoint, made_from, vlm.device) if resume else None
    training, held_out = (Batches(vlm, side, recipe.max_pixels) for side in (examples.training, examples.held_out))
    say(f"{base}: {len(training)} questions, {len(held_out)} held out")
    plain = validate(vlm, held_out, recipe.batch)
    attachment = attach(vlm.model, recipe.kind, settings, seed=recipe.seed)
    before_it = f"loss {plain['loss']:.4g}, {100 * plain['right']:.1f} % right"
    say(f"{recipe.kind} of {attachment.count_parameters()} parameters; before it {before_it}")
    try:
        loop = training_of(vlm, attachment, training, recipe)
        done, minutes = training_loop.run(loop, made_from, checkpoint, before, say)
        provenance = {
            "recipe": asdict(recipe),
            "files": examples.files,
            "questions": len(training),
            "lines_left_out": len(examples.problems),
            "parameters": attachment.count_parameters(),
            "validation_questions": min(len(held_out), VALIDATION_QUESTIONS),
            "validation_before": plain,
            "validation": validate(vlm, held_out, recipe.batch),
            "steps": done,
        }
        save_adapter(out, attachment, base=base, provenance=provenance)
    finally:
        attachment.detach()
    checkpoint.unlink(missing_ok=True)
    return {**provenance, "minutes": round(minutes, 2), "out": str(out)}


def train_on(
    model: str,
    data: Path,
    out: Path,
    recipe: AdapterRecipe,
    *,
    device: str = "cpu",
    threads: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """`train_adapter` for a model by its registry name, folder or hub id."""
    if threads is not None:
        torch.set_num_threads(threads)
    vlm = registry.open_model(model, task="vlm-ask", device=device)
    base = Path(model).resolve().name if Path(model).exists() else model
    return train_adapter(vlm, data, out, recipe, base=base, resume=resume, overwrite=overwrite, say=say)
