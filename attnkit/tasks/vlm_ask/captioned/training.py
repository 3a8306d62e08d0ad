"""Training recipe of smol-llava: its projector, and a low-rank change of the language model, both towers frozen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from attnkit.models.adapters.lora import PROJECTIONS, LowRank, LowRankSettings
from attnkit.models.checkpoint import checkpoint_of, load_checkpoint
from attnkit.models.smol_llava import parts
from attnkit.models.smol_llava.assembly import load_published
from attnkit.models.smol_llava.language import open_gguf, read_config, read_language
from attnkit.models.smol_llava.projector import LORA, PROJECTOR
from attnkit.models.smol_llava.tokens import make_processor, read_tokenizer
from attnkit.models.smol_llava.vision import CONFIG, read_vision
from attnkit.models.torch_model import torch_device
from attnkit.models.training_loop import Training, cosine, run, warm_up
from attnkit.models.weights import write_weights
from attnkit.runtime.errors import UsageError

from ..scenes.questions import Question
from .material import GRID, Material, Plan, fingerprint, prepare
from .packing import IGNORED, ChatPacking
from .warm_start import warm_start

NAME = "smol-llava"
# of the rate of the projector
LOW_RANK_RATE = 0.5


@dataclass(frozen=True)
class Recipe:
    """All that the result depends on besides the data.

    layers     layers of the vision tower whose states the projector sees, as `vision_feature_layer` counts them
    batch      pictures a step
    length     tokens of a row: a picture's and those of its questions
    precision  of the language model's matrix products; bfloat16 is fast where the processor multiplies it
    """

    seed: int = 0
    minutes: float = 35.0
    steps: int = 20000
    pictures: int = 4800
    validation: int = 160
    batch: int = 8
    length: int = 208
    rank: int = 16
    rate: float = 1e-3
    warm: int = 20
    layers: tuple[int, ...] = (-1, -6)
    precision: str = "bfloat16"


class Trained(nn.Module):
    """What is trained, in single precision: the projector and per decoder layer the change of query and value.

    features [B, N, D] become image tokens [B, N, hidden].
    """

    def __init__(self, features: int, text: dict[str, Any], rank: int) -> None:
        super().__init__()
        hidden = text["hidden_size"]
        self.linear_1 = nn.Linear(features, hidden)
        self.linear_2 = nn.Linear(hidden, hidden)
        values = hidden // text["num_attention_heads"] * text["num_key_value_heads"]
        settings = LowRankSettings(rank=rank, alpha=2.0 * rank)
        self.low_rank = nn.ModuleList(
            nn.ModuleDict({"q_proj": LowRank(hidden, hidden, settings), "v_proj": LowRank(hidden, values, settings)})
            for _ in range(text["num_hidden_layers"])
        )

    def forward(self, features: Tensor) -> Tensor:
        return self.linear_2(functional.gelu(self.linear_1(features)))

    def arrays(self) -> dict[str, NDArray[np.float16]]:
        """What the weight file holds, see `attnkit.models.smol_llava.projector`."""
        kept = {f"{PROJECTOR}{name}": value for name, value in self.state_dict().items() if "low_rank" not in name}
        for index, layer in enumerate(self.low_rank):
            for name, one in layer.items():  # type: ignore[operator]
                place = f"{LORA}layers.{index}.self_attn.{name}"
                kept |= {f"{place}.in": one.a, f"{place}.out": one.scale * one.b}
        return {name: value.detach().to(torch.float16).cpu().numpy() for name, value in kept.items()}


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


def attach(trained: Trained, language: Any) -> None:
    """Add the low-rank change to the query and value projections of every layer."""

    def added(one: Any) -> Any:
        def hook(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
            inner = functional.linear(given[0], one.a.to(output.dtype))
            return output + functional.linear(inner, (one.scale * one.b).to(output.dtype))

        return hook

    for layer, low_rank in zip(language.layers, trained.low_rank, strict=True):
        for name in PROJECTIONS:
            layer.self_attn.get_submodule(name).register_forward_hook(added(low_rank[name]))  # type: ignore[index]


def answer_logits(trained: Trained, towers: Towers, features: Tensor, rows: dict[str, Tensor], places: slice) -> Tensor:
    """Logits [M, vocabulary] at the tokens of rows that ask for a token of an answer, in order."""
    words = functional.embedding(rows["ids"].clamp(max=len(towers.words) - 1), towers.words)
    image = trained(features).to(words.dtype)
    embedded = torch.cat([words[:, : places.start], image, words[:, places.stop :]], 1)
    # added to the scores by the attention that is written out, which would add 1 for a True
    mask = torch.zeros(rows["mask"].shape, dtype=words.dtype, device=words.device).masked_fill_(
        ~rows["mask"], torch.finfo(words.dtype).min
    )
    states = towers.language(
        inputs_embeds=embedded, attention_mask=mask, position_ids=rows["positions"], use_cache=False
    ).last_hidden_state
    return functional.linear(states[rows["wanted"] != IGNORED], towers.words)


def batch_of(
    material: Material, chosen: Any, packing: ChatPacking, draw: np.random.Generator | None, device: Any = "cpu"
) -> tuple[Tensor, dict[str, Tensor]]:
    """Features and packed rows of some pictures; with a generator the questions come in any order, each by itself."""
    questions = [
        material.questions[index]
        if draw is None
        else [material.questions[index][place] for place in draw.permutation(len(material.questions[index]))]
        for index in chosen
    ]
    rows = packing.pack(questions)
    features = torch.from_numpy(
        np.asarray(material.features[np.sort(chosen)], np.float32)[np.argsort(np.argsort(chosen))]
    )
    return features.to(device), {name: value.to(device) for name, value in rows.items()}


def training_of(trained: Trained, towers: Towers, material: Material, recipe: Recipe) -> Training:
    """What is done at each step; all pictures that have questions are drawn from."""
    packing = ChatPacking(towers.tokenizer, GRID**2, recipe.length)
    groups = (([*trained.linear_1.parameters(), *trained.linear_2.parameters()], 1.0),
              (list(trained.low_rank.parameters()), LOW_RANK_RATE))  # fmt: skip
    optimiser = torch.optim.AdamW(
        [{"params": parameters} for parameters, _ in groups], lr=recipe.rate, betas=(0.9, 0.98), weight_decay=0.01
    )
    usable = np.flatnonzero([bool(one) for one in material.questions])

    def rates(step: int, progress: float) -> list[float]:
        rate = recipe.rate * (0.03 + 0.97 * cosine(progress)) * warm_up(step, recipe.warm)
        return [share * rate for _, share in groups]

    def loss(step: int, progress: float) -> dict[str, Tensor]:
        draw = np.random.default_rng((recipe.seed, 19, step))
        chosen = draw.choice(usable, recipe.batch, replace=False)
        features, rows = batch_of(material, chosen, packing, draw, towers.words.device)
        logits = answer_logits(trained, towers, features, rows, packing.image_places)
        asked = rows["wanted"] != IGNORED
        each = functional.cross_entropy(logits.float(), rows["wanted"][asked], reduction="none")
        return {"loss": (each * rows["weights"][asked]).sum() / rows["weights"][asked].sum()}

    return Training({"trained": trained, "optimiser": optimiser}, optimiser, rates, loss)


def validate(trained: Trained, towers: Towers, material: Material, recipe: Recipe) -> dict[str, dict[str, float]]:
    """Share of questions, by source and kind, whose whole answer is the likeliest at every token.

    That is what greedy decoding gets right to the letter. ``blind`` is the share with the mean picture in the place of
    each, ``questions`` their number.
    """
    packing = ChatPacking(towers.tokenizer, GRID**2, 2 * recipe.length)
    right: dict[str, list[tuple[bool, bool]]] = {}
    device = towers.words.device
    mean = torch.from_numpy(material.features.mean((0, 1), dtype=np.float32)).to(device)
    for start in range(0, len(material.questions), recipe.batch):
        chosen = np.arange(start, min(start + recipe.batch, len(material.questions)))
        features, rows = batch_of(material, chosen, packing, None, device)
        asked = rows["wanted"] != IGNORED
        hits = torch.ones(2, *asked.shape, dtype=torch.bool, device=device)
        for case, seen in enumerate((features, mean.expand_as(features))):
            # these shapes come once: nothing is compiled for them
            with torch.compiler.set_stance("force_eager"), torch.inference_mode():
                guessed = answer_logits(trained, towers, seen, rows, packing.image_places).argmax(-1)
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
    resume: bool = False,
    overwrite: bool = False,
    compiled: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Train and write the weight file; returns its provenance.

    The material and the checkpoint are kept beside it, so that the training can go on with more minutes. ``compiled``
    doubles the speed on a CPU after a few minutes of compiling, and needs a C++ compiler.
    """
    checkpoint = checkpoint_of(out, resume=resume, overwrite=overwrite)
    if not data.is_dir():
        raise UsageError(f"--data: no folder {data}; give the one that holds stamps, photographs and easy_vqa")
    where = torch_device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    towers = open_towers(recipe.precision, where)
    plan = Plan(recipe.pictures, recipe.validation, recipe.seed, recipe.layers, recipe.precision)
    folder = out.with_name(f"{out.name}.material")
    material, held_out = prepare(data, folder, plan, towers.vision, towers.pixel_values, say)
    made = {**asdict(recipe), "layers": list(recipe.layers), "material": fingerprint(material)}
    before = load_checkpoint(checkpoint, made, where) if resume else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        trained = Trained(material.features.shape[-1], towers.text, recipe.rank)
        if before is None:
            said = warm_start(trained, material, towers.tokenizer, towers.words.float().cpu(), recipe.seed)
            say(f"warm start: {said:.3f} of the variance of names explained")
    trained.to(where)
    attach(trained, towers.language)
    # written out, which is faster here than torch's fused attention: that has no fast backward pass in bfloat16 on CPUs
    towers.language.set_attn_implementation("eager")
    if compiled:
        # all layers are of one shape: one of them is compiled
        for layer in towers.language.layers:
            layer.compile(dynamic=False)
    # a training that has had its minutes already is validated and written anew
    steps, minutes = run(training_of(trained, towers, material, recipe), made, checkpoint, before, say)
    provenance = {"recipe": made, "steps": steps, "validation": validate(trained, towers, held_out, recipe)}
    config = {
        "vision_feature_layer": recipe.layers[0] if len(recipe.layers) == 1 else list(recipe.layers),
        "rank": recipe.rank,
    }
    write_weights(out, trained.arrays(), architecture=NAME, config=config, provenance=provenance)
    return {**provenance, "minutes": round(minutes, 2), "out": str(out)}
