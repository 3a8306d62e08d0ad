"""Training recipe of the embedded model of vlm-ask: a small LLaVA that answers questions about generated scenes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from attnkit.models import registry
from attnkit.models.checkpoint import checkpoint_of, load_checkpoint, save_checkpoint
from attnkit.models.vlm.tiny_llava import load_state, make_model, make_processor, save_folder, train_tokenizer
from attnkit.runtime.errors import ItemError, UsageError

from .scenes.scene import COLOURS, HELD_OUT, SHAPES
from .training_batches import IGNORED, Batch, Packing, SceneBatches, corpus, draw_questions, make_example

CHECKPOINT_MINUTES = 2.0
REPORT_STEPS = 50
VALIDATION_STEPS = 500
VALIDATION_SCENES = 60
# a question of the validation and its answer need not share a row with others
VALIDATION_LENGTH = 256
TOKENIZER_SCENES = 1500
ENTRY = "tiny-llava"
WHOLE = "attnkit-float32"
PRECISIONS = ("float32", "bfloat16")
# most patches are background
BACKGROUND_WEIGHT = 0.3


@dataclass(frozen=True)
class Recipe:
    """All that the result depends on besides the weights begun with.

    sight       share of the training in which only what lies in each patch is learned: without the language model
                a step costs a fifth, and what its questions ask about can be seen when they come
    batch       pictures a step
    length      tokens of a row: a picture's and those of about five questions
    easy_steps  steps whose scenes have clutter 0 and 1 only
    patch_loss  weight of the loss on what lies in each patch
    average     decay of the running mean of the weights, which is what is written
    precision   of matrix products; bfloat16 is fast where the processor has it
    """

    seed: int = 0
    minutes: float = 50.0
    steps: int = 12000
    batch: int = 32
    length: int = 152
    rate: float = 1.5e-3
    warm: int = 150
    sight: float = 0.2
    easy_steps: int = 400
    patch_loss: float = 0.5
    average: float = 0.998
    precision: str = "float32"


class PatchHeads(nn.Module):
    """What lies in each patch, read from the image tokens: a help for the training, not written."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.sizes = (len(SHAPES) + 1, len(COLOURS) + 1, 2)
        self.norm = nn.LayerNorm(hidden)
        self.read = nn.Linear(hidden, sum(self.sizes))

    def loss(self, tokens: Tensor, patches: Tensor) -> Tensor:
        """Mean cross-entropy of shape, colour and centre; tokens [B, N, hidden], patches [B, N, 3]."""
        parts = self.read(self.norm(tokens)).flatten(0, 1).float().split(self.sizes, -1)
        total = torch.zeros((), device=tokens.device)
        for part, wanted in zip(parts, patches.flatten(0, 1).unbind(-1), strict=True):
            weight = torch.ones(part.shape[-1], device=part.device)
            weight[0] = BACKGROUND_WEIGHT
            total = total + functional.cross_entropy(part, wanted, weight)
        return total


def whole_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, scaling: float, **_: Any
) -> tuple[Tensor, None]:
    """Attention in float32 whatever the precision around it: torch has no fast bfloat16 backward pass of it on CPUs."""
    shared = query.shape[1] // key.shape[1]
    key, value = (part.float().repeat_interleave(shared, 1) for part in (key, value))
    with torch.autocast(query.device.type, enabled=False):
        out = functional.scaled_dot_product_attention(query.float(), key, value, attn_mask=mask, scale=scaling)
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(WHOLE, whole_attention)
AttentionMaskInterface.register(WHOLE, sdpa_mask)


def image_tokens(model: Any, pixels: Tensor) -> Tensor:
    """Projected features of pictures, [B, N, hidden], as the model itself computes them."""
    features = model.model.vision_tower(pixels).last_hidden_state[:, 1:]
    return model.model.multi_modal_projector(features)


def answer_logits(model: Any, batch: Batch, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [M, vocabulary] at the places of a batch where an answer's token is wanted, and the places [B, length]."""
    embedded = model.get_input_embeddings()(batch.ids)
    places = batch.image_places
    embedded = torch.cat([embedded[:, : places.start], tokens.to(embedded.dtype), embedded[:, places.stop :]], 1)
    states = model.model.language_model(
        inputs_embeds=embedded, attention_mask=batch.mask, position_ids=batch.positions, use_cache=False
    ).last_hidden_state
    asked = batch.wanted != IGNORED
    return model.lm_head(states[asked]), asked


def loss_of(model: Any, heads: PatchHeads, batch: Batch, recipe: Recipe) -> dict[str, Tensor]:
    """The loss of a batch and its two parts; a batch without questions has one."""
    tokens = image_tokens(model, batch.pixels)
    patches = heads.loss(tokens, batch.patches)
    if not batch.ids.numel():
        return {"loss": patches, "patches": patches}
    logits, asked = answer_logits(model, batch, tokens)
    each = functional.cross_entropy(logits.float(), batch.wanted[asked], reduction="none")
    weights = batch.weights[asked]
    answers = (each * weights).sum() / weights.sum()
    return {"loss": answers + recipe.patch_loss * patches, "answers": answers, "patches": patches}


def precise(recipe: Recipe, device: str) -> Any:
    """Context in which matrix products have the precision of the recipe."""
    if recipe.precision == "float32":
        return nullcontext()
    return torch.autocast(torch.device(device).type, dtype=torch.bfloat16)


def validate(model: Any, tokenizer: Any, recipe: Recipe, device: str) -> dict[str, float]:
    """Share of held-out questions, by kind, whose whole answer is the likeliest at every token (clutter 0 and 1)."""
    side = model.config.vision_config.image_size
    grid = side // model.config.vision_config.patch_size
    packing = Packing(tokenizer, grid**2, VALIDATION_LENGTH)
    right: dict[str, list[bool]] = {}
    model.eval()
    for start in range(0, VALIDATION_SCENES, recipe.batch):
        indices = range(HELD_OUT + start, HELD_OUT + min(start + recipe.batch, VALIDATION_SCENES))
        examples = [make_example(index, side, grid, index % 2) for index in indices]
        rows = [draw_questions(one.scene, np.random.default_rng((0, 7, one.scene.seed))) for one in examples]
        pixels = torch.from_numpy(np.stack([one.pixels for one in examples])).permute(0, 3, 1, 2).float() / 127.5 - 1
        patches = torch.from_numpy(np.stack([one.patches for one in examples]))
        packed = packing.pack(rows, [False] * len(rows))
        batch = Batch(pixels, patches, image_places=packing.image_places, **packed).to(device)
        # rows of another length: what was compiled would be compiled anew
        with torch.inference_mode(), precise(recipe, device), torch.compiler.set_stance("force_eager"):
            logits, asked = answer_logits(model, batch, image_tokens(model, batch.pixels))
        hits = torch.zeros_like(batch.wanted, dtype=torch.bool)
        hits[asked] = logits.argmax(-1) == batch.wanted[asked]
        for row, questions in enumerate(rows):
            # answers follow each other with gaps between
            runs = _runs(asked[row].tolist())
            for question, (first, last) in zip(questions, runs, strict=True):
                right.setdefault(question.kind, []).append(bool(hits[row, first:last].all()))
    model.train()
    return {kind: round(float(np.mean(values)), 4) for kind, values in sorted(right.items())}


def _runs(flags: list[bool]) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.array([False, *flags, False]).astype(int)))
    return [(int(first), int(last)) for first, last in zip(edges[::2], edges[1::2], strict=True)]


def steps(
    model: Any,
    heads: PatchHeads,
    batches: SceneBatches,
    recipe: Recipe,
    state: dict[str, Any] | None,
    device: str,
    *,
    compiled: bool = False,
) -> Iterator[tuple[int, dict[str, float], dict[str, Any]]]:
    """Train until steps or time are used up; yields (step, parts of the loss, state to go on from) after each step."""
    trained = nn.ModuleList([model, heads])
    optimiser = torch.optim.AdamW(trained.parameters(), lr=recipe.rate, betas=(0.9, 0.98), weight_decay=0.05)
    average = {name: value.clone() for name, value in model.state_dict().items()}
    first, spent, asking = 0, 0.0, None
    if state is not None:
        trained.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        average, first, spent, asking = state["average"], state["step"], state["minutes"], state["asking"]
    if recipe.precision != "float32":
        model.set_attn_implementation(WHOLE)
    if compiled:
        # in place: the names of the weights stay
        model.model.vision_tower.compile(dynamic=False)
        model.model.language_model.compile(dynamic=False)
    started = time.monotonic() - 60 * spent
    for step in range(first, recipe.steps):
        minutes = (time.monotonic() - started) / 60
        progress = max(step / recipe.steps, minutes / recipe.minutes)
        if progress >= 1:
            return
        # the language model begins as gently as the rest did
        if asking is None and progress >= recipe.sight:
            asking = step
        rate = recipe.rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, (step + 1 - (asking or 0)) / recipe.warm)
        batch = batches.make(step, questions=asking is not None).to(device)
        with precise(recipe, device):
            parts = loss_of(model, heads, batch, recipe)
        optimiser.zero_grad(set_to_none=True)
        parts["loss"].backward()
        torch.nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        optimiser.step()
        # a young average follows faster
        decay = min(recipe.average, (step + 1) / (step + 10))
        for name, value in model.state_dict().items():
            average[name].lerp_(value, 1 - decay) if value.is_floating_point() else average[name].copy_(value)
        yield (
            step,
            {name: value.item() for name, value in parts.items()},
            {
                "model": trained.state_dict(),
                "average": average,
                "optimiser": optimiser.state_dict(),
                "step": step + 1,
                "minutes": float(minutes),
                "asking": asking,
            },
        )


def train(
    out: Path,
    recipe: Recipe,
    *,
    device: str = "cpu",
    threads: int | None = None,
    init: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    compiled: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Train a model and write its folder; returns what its provenance says, with the validation scores."""
    if recipe.precision not in PRECISIONS:
        raise UsageError(f"--precision: got {recipe.precision!r}, expected {' or '.join(PRECISIONS)}")
    checkpoint = checkpoint_of(out, resume=resume, overwrite=overwrite)
    before = load_checkpoint(checkpoint, asdict(recipe), device) if resume else None
    if threads is not None:
        torch.set_num_threads(threads)
    config = registry.get(ENTRY).config
    tokenizer = train_tokenizer(corpus(recipe.seed, TOKENIZER_SCENES), config["vocabulary"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = make_model(config).to(device).train()
        heads = PatchHeads(config["hidden"]).to(device)
    if init is not None:
        model.load_state_dict(load_state(init))
    grid = config["image"] // config["patch"]
    packing = Packing(tokenizer, grid**2, recipe.length)
    batches = SceneBatches(
        packing, seed=recipe.seed, batch=recipe.batch, side=config["image"], grid=grid, easy_steps=recipe.easy_steps
    )
    state: dict[str, Any] | None = None
    totals: dict[str, list[float]] = {}
    saved = time.monotonic()
    for step, parts, state in steps(model, heads, batches, recipe, before, device, compiled=compiled):
        for name, value in parts.items():
            totals.setdefault(name, []).append(value)
        if (step + 1) % REPORT_STEPS == 0:
            means = "  ".join(f"{name} {np.mean(values):.4g}" for name, values in totals.items())
            say(f"step {step + 1}  minutes {state['minutes']:.1f}  {means}")
            totals.clear()
        if (step + 1) % VALIDATION_STEPS == 0:
            scores = validate(model, tokenizer, recipe, device)
            say("validation  " + "  ".join(f"{name} {value}" for name, value in scores.items()))
        if time.monotonic() - saved > 60 * CHECKPOINT_MINUTES:
            save_checkpoint(checkpoint, state, asdict(recipe))
            saved = time.monotonic()
    if state is None:
        raise ItemError(f"{out}: no step was made in {recipe.minutes} minutes; give more --minutes")
    model.load_state_dict(state["average"])
    provenance = {
        "recipe": asdict(recipe),
        "begun_with": None if init is None else init.name,
        "validation_scenes": VALIDATION_SCENES,
        "validation": validate(model, tokenizer, recipe, device),
        "steps": state["step"],
    }
    model.set_attn_implementation("sdpa")
    save_folder(model.eval(), make_processor(tokenizer, config), out)
    checkpoint.unlink(missing_ok=True)
    return {**provenance, "minutes": round(state["minutes"], 2), "out": str(out)}
