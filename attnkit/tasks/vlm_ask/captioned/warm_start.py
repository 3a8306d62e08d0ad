"""The projector in closed form, before the first step: image tokens that lie where the words for them lie.

The first layer is a random one of standardised features; the second is fitted by ridge regression to the mean word
embedding of the name of what covers a patch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .material import Material

# of the mean square of the hidden units
RIDGE = 0.03
# patches on which nothing lies, for each on which something does
BACKGROUND = 0.5
CHUNK = 256


def name_embeddings(names: list[str], tokenizer: Any, words: Tensor) -> Tensor:
    """Mean word embedding [names, hidden] of each name, as it stands within a sentence; the first is for nothing."""
    rows = [words.mean(0)]
    for name in names:
        rows.append(words[tokenizer(f" {name}", add_special_tokens=False).input_ids].mean(0))
    return torch.stack(rows)


def warm_start(trained: Any, material: Material, tokenizer: Any, words: Tensor, seed: int) -> float:
    """Set the projector's weights; returns the share of the variance of the names' embeddings that it explains."""
    draw = np.random.default_rng((seed, 23))
    names = sorted({name for row in material.names for name in row if name})
    index = {name: place + 1 for place, name in enumerate(names)}
    labels = np.array([[index.get(name, 0) for name in row] for row in material.names])
    named = np.flatnonzero(labels.any(1))
    targets = name_embeddings(names, tokenizer, words)
    sample = material.features[draw.choice(named, min(len(named), CHUNK), replace=False)].astype(np.float32)
    mean, spread = (torch.from_numpy(value) for value in (sample.mean((0, 1)), sample.std((0, 1)) + 1e-3))
    first, second = trained.linear_1, trained.linear_2
    with torch.no_grad():
        # unit variance in each hidden unit: neither flat nor straight where gelu bends
        weight = torch.randn(first.weight.shape) * first.in_features**-0.5 / spread
        first.weight.copy_(weight)
        first.bias.copy_(0.5 * torch.randn(first.bias.shape) - weight @ mean)
        size = first.out_features + 1
        gram, product = (
            torch.zeros(size, size, dtype=torch.float64),
            torch.zeros(size, words.shape[1], dtype=torch.float64),
        )
        square = count = 0.0
        for start in range(0, len(named), CHUNK):
            rows = named[start : start + CHUNK]
            own = labels[rows]
            kept = (own > 0) | (draw.random(own.shape) < BACKGROUND * (own > 0).mean())
            features = torch.from_numpy(material.features[rows].astype(np.float32)[kept])
            hidden = functional.gelu(first(features))
            hidden = torch.cat([hidden, torch.ones(len(hidden), 1)], 1).double()
            wanted = (targets[torch.from_numpy(own[kept])] - targets[0]).double()
            gram += hidden.T @ hidden
            product += hidden.T @ wanted
            square += float(wanted.square().sum())
            count += len(hidden)
        penalty = RIDGE * gram.diagonal()[:-1].mean() * torch.eye(size, dtype=torch.float64)
        penalty[-1, -1] = 0
        solved = torch.linalg.solve(gram + penalty, product)
        second.weight.copy_(solved[:-1].T)
        second.bias.copy_(solved[-1] + targets[0].double())
        left = square - 2 * float((solved * product).sum()) + float((solved * (gram @ solved)).sum())
    return 1 - left / square
