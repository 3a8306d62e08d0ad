"""Sink dimensions of a model: the few hidden dimensions that are huge in tokens which soak up attention."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from attnkit.runtime.errors import ItemError

EPSILON = 1e-6


@dataclass(frozen=True)
class SinkProfile:
    """Where a model's sinks show.

    dims    hidden dimensions
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


def sink_scores(hidden: Tensor, dims: Sequence[int]) -> Tensor:
    """Sink score of each token, [B, N], from hidden states [B, N, D] that enter a layer.

    The largest of |x_d| / sqrt(mean_k x_k^2 + 1e-6) over the sink dimensions, in float32; at most sqrt(D).

    Notes
    -----
    VAR ("See What You Are Told", arXiv 2503.03321), sink score; no learned weight of a norm takes part.
    """
    exact = hidden.float()
    scale = (exact.square().mean(-1) + EPSILON).sqrt()
    return exact[..., list(dims)].abs().amax(-1) / scale


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
