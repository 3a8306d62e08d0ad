"""Training recipe of the embedded model of vlm-ask: a small LLaVA that answers questions about generated scenes."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from attnkit.models import registry
from attnkit.models.checkpoint import checkpoint_of, load_checkpoint
from attnkit.models.torch_model import torch_device
from attnkit.models.training_loop import Kept, RunningMean, Training, cosine, run, warm_up
from attnkit.models.vlm.tiny_llava import (
    begin_with,
    check_folder,
    load_tokenizer,
    make_model,
    make_processor,
    save_folder,
    train_tokenizer,
)
from attnkit.runtime.errors import UsageError

from .scenes.questions import Question
from .scenes.scene import COLOURS, HELD_OUT, SHAPES
from .training_batches import (
    IGNORED,
    Batch,
    Packing,
    SceneBatches,
    corpus,
    draw_more_questions,
    make_example,
    pixels_and_patches,
)
from .training_references import ReferenceHeads, SideHeads

VALIDATION_STEPS = 500
VALIDATION_SCENES = 60
# a question of the validation and its answer need not share a row with others
VALIDATION_LENGTH = 640
TOKENIZER_SCENES = 1500
ENTRY = "tiny-llava"
WHOLE = "attnkit-float32"
PRECISIONS = ("float32", "bfloat16")
# most patches are background
BACKGROUND_WEIGHT = 0.3
PLACE_SIZE = 0.5
# of the recipe's, for weights begun with
INIT_RATE = 0.5


@dataclass(frozen=True)
class Recipe:
    """All that the result depends on besides the weights begun with.

    sight       share of the training in which only what lies in each patch is learned: without the language model
                a step costs a fifth, and what its questions ask about can be seen when they come
    batch       pictures a step
    asked       pictures a step with questions
    length      tokens of a row: a picture's and those of its questions, about fourteen
    easy_steps  steps from the first on, and from the first with questions on, whose scenes have clutter 0 and 1 only
    patch_loss  weight of the loss on what lies in each patch
    reference_loss  of that on what the names in a question mean
    side_loss   of that on which sides the things named in it lie
    average     decay of the running mean of the weights, which is what is written
    precision   of matrix products; bfloat16 is fast where the processor has it
    """

    seed: int = 0
    minutes: float = 50.0
    steps: int = 12000
    batch: int = 32
    asked: int = 16
    length: int = 320
    rate: float = 1.5e-3
    warm: int = 150
    sight: float = 0.2
    easy_steps: int = 400
    patch_loss: float = 0.5
    reference_loss: float = 0.5
    side_loss: float = 0.5
    average: float = 0.998
    precision: str = "float32"


class PatchHeads(nn.Module):
    """What lies in each patch and where the patch is, read from the image tokens: a help for the training, not written.

    Shape and colour are read with the embeddings of their words, so that an image token of something red resembles the
    word red before the language model has seen a picture: attention finds the one with the other at once.

    grid     patches along a side
    shapes   token of each shape's word, of each colour's word in `colours`
    """

    def __init__(self, hidden: int, grid: int, shapes: list[int], colours: list[int]) -> None:
        super().__init__()
        self.words = (torch.tensor(shapes), torch.tensor(colours))
        self.norm = nn.LayerNorm(hidden)
        # nothing, centre of a thing, row, column
        self.sizes = (1, 1, 2, grid, grid)
        self.read = nn.Linear(hidden, sum(self.sizes))
        rows, columns = np.divmod(np.arange(grid**2), grid)
        self.places = torch.from_numpy(np.stack([rows, columns], -1))

    def loss(self, tokens: Tensor, patches: Tensor, embedding: Tensor) -> Tensor:
        """Sum of the mean cross-entropies; tokens [B, N, hidden], patches [B, N, 3], embedding [vocabulary, hidden]."""
        read = self.norm(tokens).flatten(0, 1)
        no_shape, no_colour, centre, row, column = self.read(read).float().split(self.sizes, -1)
        shape, colour = (
            torch.cat([nothing, (read @ functional.normalize(embedding[words], dim=-1).T).float()], -1)
            for nothing, words in zip((no_shape, no_colour), self.words, strict=True)
        )
        wanted = torch.cat([patches, self.places.to(patches.device).expand(len(patches), -1, -1)], -1).flatten(0, 1)
        total = torch.zeros((), device=tokens.device)
        for index, part in enumerate((shape, colour, centre, row, column)):
            weight = torch.ones(part.shape[-1], device=part.device)
            if index < 3:
                weight[0] = BACKGROUND_WEIGHT
            total = total + functional.cross_entropy(part, wanted[:, index], weight)
        return total


class Helps(nn.Module):
    """What is trained beside the model and not written."""

    def __init__(self, hidden: int, grid: int, tokenizer: Any) -> None:
        super().__init__()
        words = [
            [tokenizer(f" {name}", add_special_tokens=False).input_ids[0] for name in names]
            for names in (SHAPES, COLOURS)
        ]
        self.patches = PatchHeads(hidden, grid, *words)
        self.references = ReferenceHeads(hidden, grid)
        self.sides = SideHeads(hidden)


def mark_places(model: Any) -> None:
    """Begin with position embeddings that are waves over rows and columns.

    What is learned of a patch and its neighbours then holds for all; drawn at random, each place would learn alone.
    """
    tower = model.model.vision_tower
    weight = getattr(tower, "vision_model", tower).embeddings.position_embedding.weight
    grid = math.isqrt(len(weight) - 1)
    lengths = np.geomspace(3, 3 * grid, weight.shape[1] // 4)
    phases = np.arange(grid)[:, None] * (2 * np.pi / lengths)
    waves = np.concatenate([np.sin(phases), np.cos(phases)], 1)
    both = np.concatenate([np.repeat(waves, grid, 0), np.tile(waves, (grid, 1))], 1)
    with torch.no_grad():
        weight[1:, : both.shape[1]] = PLACE_SIZE * torch.from_numpy(both).to(weight)


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


def answer_logits(model: Any, batch: Batch, tokens: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """Logits [M, vocabulary] where an answer's token is wanted, these places [B, L], states below and above layers."""
    embedded = model.get_input_embeddings()(batch.ids)
    places = batch.image_places
    embedded = torch.cat([embedded[:, : places.start], tokens.to(embedded.dtype), embedded[:, places.stop :]], 1)
    made = model.model.language_model(
        inputs_embeds=embedded, attention_mask=batch.mask, position_ids=batch.positions, use_cache=False,
        output_hidden_states=True,
    )  # fmt: skip
    asked = batch.wanted != IGNORED
    return model.lm_head(made.last_hidden_state[asked]), asked, made.hidden_states


def loss_of(model: Any, helps: Helps, batch: Batch, recipe: Recipe) -> dict[str, Tensor]:
    """The loss of a batch and its parts; a batch without questions has one."""
    tokens = image_tokens(model, batch.pixels)
    patches = helps.patches.loss(tokens, batch.patches, model.get_input_embeddings().weight)
    if not batch.ids.numel():
        return {"loss": patches, "patches": patches}
    logits, asked, states = answer_logits(model, batch, tokens)
    each = functional.cross_entropy(logits.float(), batch.wanted[asked], reduction="none")
    weights = batch.weights[asked]
    answers = (each * weights).sum() / weights.sum()
    layers = len(states) - 1
    names = helps.references.loss(states[layers // 2], batch.named)
    sides = helps.sides.loss(states[3 * layers // 4], batch.sides)
    loss = answers + recipe.patch_loss * patches + recipe.reference_loss * names + recipe.side_loss * sides
    return {"loss": loss, "answers": answers, "patches": patches, "names": names, "sides": sides}


def precise(recipe: Recipe, device: str) -> Any:
    """Context in which matrix products have the precision of the recipe."""
    if recipe.precision == "float32":
        return nullcontext()
    return torch.autocast(torch.device(device).type, dtype=torch.bfloat16)


def validate(model: Any, tokenizer: Any, recipe: Recipe, device: str) -> dict[str, float]:
    """Share of held-out questions, by kind, whose whole answer is the likeliest at every token (clutter 0 and 1)."""
    side = model.config.vision_config.image_size
    grid = side // model.config.vision_config.patch_size
    packing = Packing(tokenizer, grid, VALIDATION_LENGTH)
    right: dict[str, list[bool]] = {}
    model.eval()
    for start in range(0, VALIDATION_SCENES, recipe.batch):
        indices = range(HELD_OUT + start, HELD_OUT + min(start + recipe.batch, VALIDATION_SCENES))
        examples = [make_example(index, side, grid, index % 2) for index in indices]
        rows = [draw_more_questions(one.scene, np.random.default_rng((0, 7, one.scene.seed))) for one in examples]
        pixels, patches = pixels_and_patches(examples)
        packed = packing.pack([one.scene for one in examples], rows, [False] * len(rows))
        batch = Batch(pixels, patches, image_places=packing.image_places, **packed).to(device)
        # rows of another length: what was compiled would be compiled anew
        with torch.inference_mode(), precise(recipe, device), torch.compiler.set_stance("force_eager"):
            logits, asked, _ = answer_logits(model, batch, image_tokens(model, batch.pixels))
        hits = torch.zeros_like(batch.wanted, dtype=torch.bool)
        hits[asked] = logits.argmax(-1) == batch.wanted[asked]
        for row, questions in enumerate(rows):
            # answers follow each other with gaps between
            runs = _runs(asked[row].tolist())
            for question, (first, last) in zip(questions, runs, strict=True):
                right.setdefault(form_of(question), []).append(bool(hits[row, first:last].all()))
    model.train()
    return {kind: round(float(np.mean(values)), 4) for kind, values in sorted(right.items())}


def form_of(question: Question) -> str:
    """The kind of a question, of those on position with the form."""
    return f"{question.kind} {question.form}" if question.kind in ("position", "choice") else question.kind


def _runs(flags: list[bool]) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.array([False, *flags, False]).astype(int)))
    return [(int(first), int(last)) for first, last in zip(edges[::2], edges[1::2], strict=True)]


class SceneLoss:
    """The loss of every step, first of sight alone, from a share of the training on with questions too."""

    def __init__(self, model: Any, helps: Helps, batches: SceneBatches, recipe: Recipe, device: str) -> None:
        self.model, self.helps, self.batches = model, helps, batches
        self.recipe, self.device = recipe, device
        self.asking: int | None = None

    def rate(self, step: int, progress: float) -> float:
        """Learning rate of a step; the language model begins as gently as the rest did."""
        if self.asking is None and progress >= self.recipe.sight:
            self.asking = step
        begun = self.asking or 0
        return self.recipe.rate * (0.02 + 0.98 * cosine(progress)) * warm_up(step - begun, self.recipe.warm)

    def __call__(self, step: int, progress: float) -> dict[str, Tensor]:
        batch = self.batches.make(step, self.asking).to(self.device)
        with precise(self.recipe, self.device):
            return loss_of(self.model, self.helps, batch, self.recipe)

    def state_dict(self) -> dict[str, int | None]:
        """When the questions began."""
        return {"asking": self.asking}

    def load_state_dict(self, state: dict[str, int | None]) -> None:
        """Take what `state_dict` gave."""
        self.asking = state["asking"]


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
    where = torch_device(device)
    if init is not None:
        check_folder(init)
        # it sees already, and is to keep what it has learned
        recipe = replace(recipe, sight=0.0, easy_steps=0, rate=INIT_RATE * recipe.rate)
    before = load_checkpoint(checkpoint, asdict(recipe), where) if resume else None
    if threads is not None:
        torch.set_num_threads(threads)
    config = registry.get(ENTRY).config
    if init is None:
        tokenizer = train_tokenizer(corpus(recipe.seed, TOKENIZER_SCENES), config["vocabulary"])
    else:
        tokenizer = load_tokenizer(init)
    grid = config["image"] // config["patch"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = make_model(config).to(where).train()
        helps = Helps(config["hidden"], grid, tokenizer).to(where)
    mark_places(model)
    if init is not None:
        begin_with(model, init)
    if recipe.precision != "float32":
        model.set_attn_implementation(WHOLE)
    if compiled:
        # in place: the names of the weights stay. The states half way up are not to be had of a compiled language model
        model.model.vision_tower.compile(dynamic=False)
    packing = Packing(tokenizer, grid, recipe.length)
    pictures = (recipe.batch, recipe.asked)
    batches = SceneBatches(
        packing, seed=recipe.seed, pictures=pictures, side=config["image"], easy_steps=recipe.easy_steps
    )
    loss = SceneLoss(model, helps, batches, recipe, where)
    trained = nn.ModuleList([model, helps])
    optimiser = torch.optim.AdamW(trained.parameters(), lr=recipe.rate, betas=(0.9, 0.98), weight_decay=0.05)
    average = RunningMean(model, recipe.average)

    def after(step: int) -> None:
        average.update(step)
        if (step + 1) % VALIDATION_STEPS == 0 and loss.asking is not None:
            scores = validate(model, tokenizer, recipe, where)
            say("validation  " + "  ".join(f"{name} {value}" for name, value in scores.items()))

    kept: dict[str, Kept] = {"model": trained, "average": average, "optimiser": optimiser, "sight": loss}
    training = Training(kept, optimiser, lambda step, progress: [loss.rate(step, progress)], loss, after)
    steps, minutes = run(training, asdict(recipe), checkpoint, before, say)
    model.load_state_dict(average.values)
    provenance = {
        "recipe": asdict(recipe),
        "begun_with": None if init is None else init.name,
        "validation_scenes": VALIDATION_SCENES,
        "validation": validate(model, tokenizer, recipe, where),
        "steps": steps,
    }
    model.set_attn_implementation("sdpa")
    save_folder(model.eval(), make_processor(tokenizer, config), out)
    checkpoint.unlink(missing_ok=True)
    return {**provenance, "minutes": round(minutes, 2), "out": str(out)}
