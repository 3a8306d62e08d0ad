"""Sink dimensions: the few hidden dimensions that are huge in tokens which soak up attention, and where they are known.

A profile comes from a file that was named, from `sinks.json` in the model's folder, or from the published ones in
`profiles.json`; `find_sinks` measures one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attnkit.models.vlm.attention import Rule, Session
from attnkit.models.vlm.processing import conversation
from attnkit.runtime.errors import ItemError

if TYPE_CHECKING:
    from attnkit.models.vlm.opening import VisionLanguageModel

EPSILON = 1e-6
FILE_NAME = "sinks.json"
# first tokens of these are looked at; they differ so that a dimension of one word is not taken for a sink's
TEXTS = (
    "What is in the picture?",
    "Describe the image in one sentence.",
    "How many things are there, and which colour is the largest of them?",
    "Is there a circle on the left? Answer yes or no.",
)
# a sink dimension holds the first token above this share of the largest possible score, sqrt(hidden size), and above
# this score: normal values reach 3 to 4 in some hundred dimensions
LEAST_SHARE, LEAST_SCORE = 0.25, 6.0
# it is this many times larger there than in the median of the other tokens
LEAST_CONTRAST = 5.0
# and that in this share of the layers between the first quarter and the last
LEAST_LAYERS = 0.5


@dataclass(frozen=True)
class SinkProfile:
    """Where a model's sinks show.

    dims    hidden dimensions; none where none was found
    tau     score from which a token is a sink
    model   what it was found on; source says how
    """

    dims: tuple[int, ...]
    tau: float
    hidden_size: int
    model: str
    source: str

    def as_json(self) -> str:
        return json.dumps({"schema": 1, **asdict(self)}, indent=1) + "\n"


@dataclass(frozen=True)
class LayerScore:
    """The first token of the texts at the entrance of a layer: its largest dimension by the median over texts."""

    layer: int
    dimension: int
    score: float
    others: float


def sink_scores(hidden: Tensor, dims: Sequence[int]) -> Tensor:
    """Sink score of each token, [B, N], from hidden states [B, N, D] that enter a layer.

    The largest of |x_d| / sqrt(mean_k x_k^2 + 1e-6) over the sink dimensions, in float32; at most sqrt(D). Without any
    dimension every score is 0.

    Notes
    -----
    VAR ("See What You Are Told", arXiv 2503.03321), sink score; no learned weight of a norm takes part.
    """
    exact = hidden.float()
    if not len(dims):
        return exact.new_zeros(exact.shape[:-1])
    scale = (exact.square().mean(-1) + EPSILON).sqrt()
    return exact[..., list(dims)].abs().amax(-1) / scale


class _States(Rule):
    """Keeps the normalised hidden states that enter each layer."""

    def __init__(self) -> None:
        self.states: dict[int, Tensor] = {}

    def observe(self, layer: int, start: int, hidden: Tensor) -> None:
        exact = hidden[0].float()
        self.states[layer] = exact / (exact.square().mean(-1, keepdim=True) + EPSILON).sqrt()


def find_sinks(vlm: VisionLanguageModel, name: str) -> tuple[SinkProfile, list[LayerScore]]:
    """The sink dimensions of a model, from its first-token states, and what each layer shows.

    A model without a token for the beginning of a text puts its sink on the first token all the same. The threshold
    is half of the median score of the first token in the layers where the dimensions stand out: on Llama-2 that is
    near the 20 of the paper.
    """
    count = len(vlm.layers)
    first, others = [], []
    for text in TEXTS:
        prompt = vlm.processor.prompt(conversation(text, 0))
        looking = _States()
        with torch.inference_mode(), Session(vlm.layers, prompt.length, [looking]):
            vlm.model(input_ids=prompt.input_ids.to(vlm.device), attention_mask=prompt.attention_mask.to(vlm.device))
        states = torch.stack([looking.states[layer] for layer in range(count)]).abs().cpu()
        first.append(states[:, 0])
        others.append(states[:, 1:].median(1).values)
    heights, usual = torch.stack(first).median(0).values, torch.stack(others).median(0).values
    scores = [
        LayerScore(layer, int(heights[layer].argmax()), float(heights[layer].max()), float(usual[layer].max()))
        for layer in range(count)
    ]
    middle = slice(max(1, count // 4), count)
    least = max(LEAST_SCORE, LEAST_SHARE * vlm.hidden_size**0.5)
    stands_out = (heights[middle] >= least) & (heights[middle] >= LEAST_CONTRAST * usual[middle])
    dims = torch.nonzero(stands_out.float().mean(0) >= LEAST_LAYERS).flatten().tolist()
    tau = 0.0
    if dims:
        best = heights[middle][:, dims].amax(1)[stands_out[:, dims].any(1)]
        tau = round(float(best.median()) / 2, 3)
    source = f"first-token states of {len(TEXTS)} texts, layers {middle.start} to {count - 1}"
    return SinkProfile(tuple(dims), tau, vlm.hidden_size, name, source), scores


def known_profile(vlm: VisionLanguageModel) -> SinkProfile | None:
    """The profile in the model's folder, else the published one of its language model, else None."""
    own = vlm.path / FILE_NAME
    if own.is_file():
        return read_profile(own)
    config = vlm.text_config
    facts = {
        "family": vlm.family.model_type,
        "text": config.model_type,
        "hidden_size": config.hidden_size,
        "layers": len(vlm.layers),
    }
    published = json.loads(Path(__file__).with_name("profiles.json").read_text(encoding="utf-8"))["profiles"]
    for one in published:
        match = dict(one["match"])
        if config.vocab_size in match.pop("vocabularies") and match == facts:
            return SinkProfile(tuple(one["dims"]), one["tau"], config.hidden_size, one["model"], one["source"])
    return None


def read_profile(path: Path) -> SinkProfile:
    """A profile that `attnkit models sinks` wrote; ItemError for anything else."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return SinkProfile(
            tuple(int(one) for one in found["dims"]),
            float(found["tau"]),
            int(found["hidden_size"]),
            str(found["model"]),
            str(found["source"]),
        )
    except OSError as error:
        raise ItemError(f"{path}: cannot read it ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ItemError(
            f"{path}: no sink profile ({error}); make one with 'attnkit models sinks MODEL --out FILE'"
        ) from None
