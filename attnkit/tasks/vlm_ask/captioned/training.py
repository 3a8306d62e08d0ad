"""Training recipe of smol-llava: its projector, and a low-rank change of the language model, both towers frozen.

The projector first learns to say the names of what patches hold, then all learns to answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from attnkit.models.checkpoint import checkpoint_of, load_checkpoint
from attnkit.models.smol_llava import parts
from attnkit.models.smol_llava.assembly import load_published
from attnkit.models.smol_llava.language import open_gguf, read_config, read_language
from attnkit.models.smol_llava.tokens import make_processor, read_tokenizer
from attnkit.models.smol_llava.vision import CONFIG, read_vision
from attnkit.models.torch_model import torch_device
from attnkit.models.training_loop import Training, cosine, run, warm_up
from attnkit.models.weights import existing_file, read_weights, write_weights
from attnkit.runtime.errors import UsageError

from ..scenes.questions import Question
from ..training import INIT_RATE
from ..training_references import UNKNOWN
from .grounding import Grounding, ground, patch_places
from .material import GRID, Material, Plan, fingerprint, prepare
from .packing import IGNORED, ChatPacking
from .references import ReferenceHeads, References, Target
from .trained import Trained, attach

NAME = "smol-llava"
# rate of the projector, which has learnt before, as a share of that of the low-rank changes
PROJECTOR_RATE = 0.3


@dataclass(frozen=True)
class Recipe:
    """All that the result depends on besides the data.

    layers     layers of the vision tower whose states the projector sees, as `vision_feature_layer` counts them
    batch      pictures a step
    length     tokens of a row: a picture's and those of its questions
    precision  of the language model's matrix products; bfloat16 is fast where the processor multiplies it
    grounding  steps of the projector alone, their rate, and the weight of that loss afterwards
    references weight of the loss of what names in questions mean, read two thirds up the language model
    """

    seed: int = 0
    minutes: float = 90.0
    steps: int = 20000
    pictures: int = 16000
    validation: int = 240
    batch: int = 8
    length: int = 208
    rank: int = 16
    rate: float = 1e-3
    warm: int = 20
    layers: tuple[int, ...] = (-1, -6)
    grounding_steps: int = 3000
    grounding_rate: float = 2e-3
    grounding: float = 0.2
    references: float = 0.3
    precision: str = "bfloat16"


@dataclass(frozen=True)
class Towers:
    """The frozen parts: vision tower, language model with its word embeddings, tokenizer, image processor."""

    vision: Any
    language: Any
    text: dict[str, Any]
    tokenizer: Any
    images: Any

    @property
    def words(self) -> Tensor:
        """Word embeddings [vocabulary, hidden], which also give the logits."""
        return self.language.embed_tokens.weight

    def pixel_values(self, pixels: NDArray[np.uint8]) -> Tensor:
        """Pictures [B, rows, columns, 3] uint8 as the vision tower takes them."""
        return self.images(list(pixels), return_tensors="pt").pixel_values.to(self.words.device)


def open_towers(precision: str, device: str) -> Towers:
    """Both towers from the installed packages; AttnkitError with the install line where they are missing."""
    from transformers import Dinov2Config, Dinov2Model, LlamaConfig, LlamaModel

    vision_file, language_file = parts.find_parts()
    vision = Dinov2Model(Dinov2Config(**CONFIG)).eval()
    load_published(vision, read_vision(vision_file))
    vision.to(device)
    reader = open_gguf(language_file)
    text = read_config(reader)
    language = LlamaModel(LlamaConfig(**text)).eval()
    language.load_state_dict(read_language(reader))
    language.to(device, getattr(torch, precision)).requires_grad_(False)
    tokenizer = read_tokenizer(reader)
    return Towers(vision, language, text, tokenizer, make_processor(tokenizer).image_processor)


def answer_logits(image: Tensor, towers: Towers, rows: dict[str, Tensor], places: slice) -> tuple[Tensor, Tensor]:
    """Logits [M, vocabulary] at the tokens of rows that ask for a token of an answer, in order.

    image  the pictures' tokens [B, N, hidden], which go to the places of the rows

    Second come the states [B, length, hidden] two thirds up the language model.
    """
    language, words = towers.language, towers.words
    known = functional.embedding(rows["ids"].clamp(max=len(words) - 1), words)
    states = upper = torch.cat([known[:, : places.start], image.to(words.dtype), known[:, places.stop :]], 1)
    # added to the scores by the attention that is written out, which would add 1 for a True
    mask = torch.zeros(rows["mask"].shape, dtype=words.dtype, device=words.device).masked_fill_(
        ~rows["mask"], torch.finfo(words.dtype).min
    )
    turned = language.rotary_emb(states, rows["positions"])
    for index, layer in enumerate(language.layers):
        states = layer(states, attention_mask=mask, position_ids=rows["positions"], position_embeddings=turned)
        if index + 1 == len(language.layers) * 2 // 3:
            upper = states
    return functional.linear(language.norm(states)[rows["wanted"] != IGNORED], words), upper


def batch_of(
    material: Material,
    chosen: Any,
    packing: ChatPacking,
    device: Any = "cpu",
    draw: np.random.Generator | None = None,
    references: References | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Features and packed rows of some pictures; with a generator the questions come in any order, each by itself."""
    questions = [
        material.questions[index]
        if draw is None
        else [material.questions[index][place] for place in draw.permutation(len(material.questions[index]))]
        for index in chosen
    ]

    def named(row: int, text: str) -> list[tuple[int, Target]]:
        index = chosen[row]
        return [] if references is None else references.of(text, material.names[index], material.counts[index])

    rows = packing.pack(questions, named)
    features = torch.from_numpy(
        np.asarray(material.features[np.sort(chosen)], np.float32)[np.argsort(np.argsort(chosen))]
    )
    return features.to(device), {name: value.to(device) for name, value in rows.items()}


def training_of(trained: Trained, towers: Towers, material: Material, recipe: Recipe, grounding: Grounding) -> Training:
    """What is done at each step; all pictures that have questions are drawn from."""
    device = towers.words.device
    packing = ChatPacking(towers.tokenizer, GRID**2, recipe.length)
    references = References(sorted({name for row in material.names for name in row if name}), towers.tokenizer)
    heads = ReferenceHeads(towers.text["hidden_size"]).to(device)
    groups = (
        (trained.projector, PROJECTOR_RATE),
        ([*trained.low_rank.parameters(), *heads.parameters()], 1.0),
    )
    optimiser = torch.optim.AdamW(
        [{"params": parameters} for parameters, _ in groups], lr=recipe.rate, betas=(0.9, 0.98), weight_decay=0.01
    )
    places = torch.from_numpy(patch_places()).to(device)
    usable = np.flatnonzero([bool(one) for one in material.questions])

    def rates(step: int, progress: float) -> list[float]:
        rate = recipe.rate * (0.03 + 0.97 * cosine(progress)) * warm_up(step, recipe.warm)
        return [share * rate for _, share in groups]

    def loss(step: int, progress: float) -> dict[str, Tensor]:
        draw = np.random.default_rng((recipe.seed, 19, step))
        chosen = draw.choice(usable, recipe.batch, replace=False)
        features, rows = batch_of(material, chosen, packing, device, draw, references)
        image = trained(features)
        logits, upper = answer_logits(image, towers, rows, packing.image_places)
        asked, told = rows["wanted"] != IGNORED, rows["named"][..., 0] != UNKNOWN
        each = functional.cross_entropy(logits.float(), rows["wanted"][asked], reduction="none")
        labels = torch.from_numpy(grounding.labels[chosen]).to(device)
        covered = labels > 0
        parts = {
            "answers": (each * rows["weights"][asked]).sum() / rows["weights"][asked].sum(),
            "grounding": grounding.loss(image[covered], labels[covered], places.expand_as(labels)[covered]),
            "references": heads.loss(upper[told], rows["named"][told]),
        }
        whole = parts["answers"] + recipe.grounding * parts["grounding"] + recipe.references * parts["references"]
        return {"loss": whole, **parts}

    return Training({"trained": trained, "heads": heads, "optimiser": optimiser}, optimiser, rates, loss)


def validate(trained: Trained, towers: Towers, material: Material, recipe: Recipe) -> dict[str, dict[str, float]]:
    """Share of questions, by source and kind, whose whole answer is the likeliest at every token.

    That is what greedy decoding gets right to the letter. ``blind`` is the share with the mean picture in the place of
    each, ``questions`` their number.
    """
    any_length = ChatPacking(towers.tokenizer, GRID**2, recipe.length)
    right: dict[str, list[tuple[bool, bool]]] = {}
    device = towers.words.device
    mean = torch.from_numpy(material.features.mean((0, 1), dtype=np.float32)).to(device)
    for start in range(0, len(material.questions), recipe.batch):
        chosen = np.arange(start, min(start + recipe.batch, len(material.questions)))
        packing = any_length.fitted([material.questions[index] for index in chosen])
        features, rows = batch_of(material, chosen, packing, device)
        asked = rows["wanted"] != IGNORED
        hits = torch.ones(2, *asked.shape, dtype=torch.bool, device=device)
        for case, seen in enumerate((features, mean.expand_as(features))):
            # these shapes come once: nothing is compiled for them
            with torch.compiler.set_stance("force_eager"), torch.inference_mode():
                guessed = answer_logits(trained(seen), towers, rows, packing.image_places)[0].argmax(-1)
            hits[case][asked] = guessed == rows["wanted"][asked]
        for row, index in enumerate(chosen):
            for kind, places in _answers(material.questions[index], packing):
                looking, blind = (bool(one) for one in hits[:, row, places].all(-1))
                right.setdefault(f"{material.sources[index]} {kind}", []).append((looking, blind))
    return {
        name: {
            "right": round(float(np.mean([looking for looking, _ in values])), 3),
            "blind": round(float(np.mean([blind for _, blind in values])), 3),
            "questions": len(values),
        }
        for name, values in sorted(right.items())
    }


def _answers(questions: list[Question], packing: ChatPacking) -> Iterator[tuple[str, slice]]:
    """Kind of each packed question of a row, and its places."""
    at = len(packing.opening)
    for question in questions:
        asked, answer = packing.turn(question)
        end = at + len(asked) + len(answer)
        if end <= packing.length:
            yield question.kind, slice(at, end)
            at = end


def train(
    data: Path,
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
    """Train and write the weight file, from the start or from the weights of another; returns its provenance.

    The material and the checkpoint are kept beside it, so that the training can go on with more minutes. ``compiled``
    doubles the speed on a CPU after a few minutes of compiling, and needs a C++ compiler.
    """
    checkpoint = checkpoint_of(out, resume=resume, overwrite=overwrite)
    if not data.is_dir():
        raise UsageError(f"--data: no folder {data}; give the one that holds stamps, photographs and easy_vqa")
    where = torch_device(device)
    begun = None if init is None else read_weights(existing_file(init))
    if begun is not None:
        if begun.architecture != NAME:
            raise UsageError(f"--init {init}: holds weights of {begun.architecture}, expected {NAME}")
        # its projector has learned what patches hold
        recipe = replace(recipe, grounding_steps=0, rate=INIT_RATE * recipe.rate)
    if threads is not None:
        torch.set_num_threads(threads)
    towers = open_towers(recipe.precision, where)
    plan = Plan(recipe.pictures, recipe.validation, recipe.seed, recipe.layers, recipe.precision)
    folder = out.with_name(f"{out.name}.material")
    material, held_out = prepare(data, folder, plan, towers.vision, towers.pixel_values, say)
    made = {**asdict(recipe), "layers": list(recipe.layers), "material": fingerprint(material)}
    before = load_checkpoint(checkpoint, made, where) if resume else None
    grounding = Grounding.of(material, towers.tokenizer, towers.words.float())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        trained = Trained(material.features.shape[-1], towers.text, recipe.rank)
        if begun is not None:
            trained.begin_with(begun.arrays, str(init))
        elif before is None:
            trained.to(where)
            ground(trained, material, grounding, recipe.grounding_steps, recipe.grounding_rate, recipe.seed, say)
    trained.to(where)
    attach(trained, towers.language)
    # written out, which is faster here than torch's fused attention: that has no fast backward pass in bfloat16 on CPUs
    towers.language.set_attn_implementation("eager")
    if compiled:
        # all layers are of one shape: one of them is compiled
        for layer in towers.language.layers:
            layer.compile(dynamic=False)
    # a training that has had its minutes already is validated and written anew
    steps, minutes = run(training_of(trained, towers, material, recipe, grounding), made, checkpoint, before, say)
    provenance = {
        "recipe": made,
        "begun_with": None if begun is None else begun.provenance,
        "steps": steps,
        "validation": validate(trained, towers, held_out, recipe),
        "patches": grounding.right(trained, held_out),
    }
    config = {
        "vision_feature_layer": recipe.layers[0] if len(recipe.layers) == 1 else list(recipe.layers),
        "rank": recipe.rank,
    }
    write_weights(out, trained.arrays(), architecture=NAME, config=config, provenance=provenance)
    return {**provenance, "minutes": round(minutes, 2), "out": str(out)}
