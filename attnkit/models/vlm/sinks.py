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
# its value there is this many times the median of the other tokens; of values and not of scores, which hide how long a
# token is: where a dimension is large in all tokens, the score of a sink of hundred times their length is twice theirs
LEAST_CONTRAST = 5.0
# and by its odds it stands this many times above each of the others whose value is no such outlier
LEAST_GAP = 1.5
# and that in this share of the layers between the first quarter and the last
LEAST_LAYERS = 0.5
# least share of a token's energy outside of a dimension that float32 tells from none
LEAST_REST = 1e-6


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
    """The first token of the texts at the entrance of a layer, in the dimension that is largest there.

    score     its score, the median over the texts
    others    largest score in this dimension of tokens whose value is no outlier, see `find_sinks`
    contrast  its value over the median of the other tokens' values, the median over the texts
    """

    layer: int
    dimension: int
    score: float
    others: float
    contrast: float


def sink_scores(hidden: Tensor, dims: Sequence[int]) -> Tensor:
    """Sink score of each token, [B, N], from hidden states [B, N, D] that enter a layer.

    The largest of |x_d| / sqrt(mean_k x_k^2 + 1e-6) over the sink dimensions, in float32; at most sqrt(D). Without any
    dimension every score is 0.

    Notes
    -----
    VAR ("See What You Are Told", arXiv 2503.03321), sink score; no learned weight of a norm takes part.
    """
    if not len(dims):
        return hidden.new_zeros(hidden.shape[:-1], dtype=torch.float32)
    length = torch.linalg.vector_norm(hidden, dim=-1, dtype=torch.float32)
    scale = length.square_().div_(hidden.shape[-1]).add_(EPSILON).sqrt_()
    return hidden.index_select(-1, torch.tensor(dims, device=hidden.device)).float().abs().amax(-1).div_(scale)


class _States(Rule):
    """Keeps the hidden states that enter each layer."""

    def __init__(self) -> None:
        self.states: dict[int, Tensor] = {}

    def observe(self, layer: int, start: int, hidden: Tensor) -> None:
        self.states[layer] = hidden[0].float().abs().cpu()


def _odds(scores: Tensor, size: int) -> Tensor:
    """Value over the length of all else: sinks of any strength are far apart in it, where scores end at sqrt(size)."""
    return scores / (size - scores.square()).clamp(min=LEAST_REST * size).sqrt()


@dataclass(frozen=True)
class _Looked:
    """One text in all layers: |values| and scores [L, N, D], and of the tokens behind the first two things.

    median  of their values, [L, D]
    usual   [L, N - 1, D] bool: the values below LEAST_CONTRAST times it
    """

    values: Tensor
    scores: Tensor
    median: Tensor
    usual: Tensor

    @classmethod
    def of(cls, values: Tensor) -> _Looked:
        scores = values / (values.square().mean(-1, keepdim=True) + EPSILON).sqrt()
        median = values[:, 1:].median(1, keepdim=True).values
        return cls(values, scores, median[:, 0], values[:, 1:] < LEAST_CONTRAST * median)

    def contrast(self) -> Tensor:
        """How many times the first token's values are those of the others, [L, D]."""
        return self.values[:, 0] / self.median.clamp(min=EPSILON)

    def others(self) -> Tensor:
        """Largest score of a usual value, [L, D]."""
        return self.scores[:, 1:].where(self.usual, 0).amax(1)

    def ends(self, layers: Tensor, dims: Sequence[int]) -> tuple[float, float]:
        """Over some layers: largest score of tokens that are usual in all the dimensions, least of the first token."""
        scores = self.scores[layers][..., dims].amax(-1)
        usual = self.usual[layers][..., dims].all(-1)
        return float(scores[:, 1:].where(usual, 0).max()), float(scores[:, 0].min())


def find_sinks(vlm: VisionLanguageModel, name: str) -> tuple[SinkProfile, list[LayerScore]]:
    """The sink dimensions of a model, from its first-token states, and what each layer shows.

    A model without a token for the beginning of a text puts its sink on the first token all the same. In a sink
    dimension the first token has a high score, a value that is an outlier among those of the other tokens (a massive
    activation), and a score above those of all tokens that are no such outliers. The threshold lies between the two:
    at the geometric middle of the odds, value over all else of a token, of the largest score of the one kind and the
    least of the other.
    """
    count, size = len(vlm.layers), vlm.hidden_size
    looked = []
    for text in TEXTS:
        prompt = vlm.processor.prompt(conversation(text, 0))
        looking = _States()
        with torch.inference_mode(), Session(vlm.layers, prompt.length, [looking]):
            vlm.model(input_ids=prompt.input_ids.to(vlm.device), attention_mask=prompt.attention_mask.to(vlm.device))
        looked.append(_Looked.of(torch.stack([looking.states[layer] for layer in range(count)])))
    heights = torch.stack([one.scores[:, 0] for one in looked]).median(0).values
    contrasts = torch.stack([one.contrast() for one in looked]).median(0).values
    others = torch.stack([one.others() for one in looked]).amax(0)
    largest = heights.argmax(1).tolist()
    scores = [
        LayerScore(layer, dim, *(round(float(one[layer, dim]), 4) for one in (heights, others, contrasts)))
        for layer, dim in enumerate(largest)
    ]
    middle = slice(max(1, count // 4), count)
    stands_out = heights >= max(LEAST_SCORE, LEAST_SHARE * size**0.5)
    stands_out &= contrasts >= LEAST_CONTRAST
    stands_out &= _odds(heights, size) >= LEAST_GAP * _odds(others, size)
    stands_out[: middle.start] = False
    dims = torch.nonzero(stands_out[middle].float().mean(0) >= LEAST_LAYERS).flatten().tolist()
    tau = 0.0
    if dims:
        ends = torch.tensor([one.ends(stands_out[:, dims].any(1), dims) for one in looked])
        below, above = _odds(ends[:, 0].max(), size), _odds(ends[:, 1].min(), size)
        between = below * above
        tau = round(float((size * between / (1 + between)).sqrt()), 3)
    source = f"first-token states of {len(TEXTS)} texts, layers {middle.start} to {count - 1}"
    return SinkProfile(tuple(dims), tau, size, name, source), scores


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
        profile = SinkProfile(
            tuple(int(one) for one in found["dims"]),
            float(found["tau"]),
            int(found["hidden_size"]),
            str(found["model"]),
            str(found["source"]),
        )
        if not all(0 <= one < profile.hidden_size for one in profile.dims):
            raise ValueError(f"dims {list(profile.dims)} of {profile.hidden_size} hidden dimensions")
        if not 0 <= profile.tau < float("inf"):
            raise ValueError(f"tau {profile.tau}")
        return profile
    except OSError as error:
        raise ItemError(f"{path}: cannot read it ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ItemError(
            f"{path}: no sink profile ({error}); make one with 'attnkit models sinks MODEL --out FILE'"
        ) from None
