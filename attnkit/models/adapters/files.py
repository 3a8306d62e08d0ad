"""Adapters in files: their own parameters, what they were built from, and for which model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from attnkit.models.adapters.attach import KINDS, Attachment, attach, settings_of
from attnkit.models.weights import existing_file, read_description, read_weights, write_weights
from attnkit.runtime.errors import ItemError, UsageError

# enough of a tensor to tell two trainings apart, few enough for a model of many billions
SAMPLES = 64
# a model is opened in the dtype of its folder, in single precision, or in either of these
COMMON_DTYPES = (torch.bfloat16, torch.float16)


def base_identity(model: Any) -> dict[str, str]:
    """SHA-256 of names, shapes and 64 evenly spaced values of every parameter, by the dtype they are rounded to.

    A model that is opened in another precision shares one of them with itself.
    """
    digests = {dtype: hashlib.sha256() for dtype in COMMON_DTYPES}
    for name, parameter in sorted(model.named_parameters()):
        flat = parameter.detach().flatten()
        places = torch.linspace(0, len(flat) - 1, min(SAMPLES, len(flat)), dtype=torch.float64).round().long()
        values = flat[places.to(flat.device)].cpu()
        for dtype, digest in digests.items():
            digest.update(f"{name} {list(parameter.shape)}\n".encode())
            digest.update(values.to(dtype).view(torch.int16).numpy().tobytes())
    return {str(dtype).removeprefix("torch."): digest.hexdigest() for dtype, digest in digests.items()}


def save_adapter(path: Path, attachment: Attachment, *, base: str, provenance: Mapping[str, Any] | None = None) -> str:
    """Write the adapter's own parameters and its description; returns the SHA-256 of the file.

    base    what its model is called, for people; files are matched by the model's weights
    """
    config = {
        "settings": asdict(attachment.settings),
        "layers": list(attachment.layers),
        "base": base,
        "base_identity": base_identity(attachment.model),
    }
    return write_weights(path, attachment.arrays(), architecture=attachment.kind, config=config, provenance=provenance)


def load_adapter(path: Path, model: Any) -> Attachment:
    """Put the adapter of a file on the model that it was trained for.

    Raises UsageError, and leaves the model as it is, where the file is another model's or its arrays do not fit it;
    ItemError where it is damaged.
    """
    description = read_description(existing_file(path))
    kind, config = description["architecture"], description["config"]
    if kind not in KINDS:
        raise UsageError(f"--adapter: {path} holds weights of {kind!r}, expected an adapter ({', '.join(KINDS)})")
    try:
        name, wanted, settings, layers = (config[key] for key in ("base", "base_identity", "settings", "layers"))
    except KeyError as error:
        raise ItemError(f"{path}: its description lacks {error}; train it again") from error
    own = base_identity(model)
    if not any(wanted.get(dtype) == digest for dtype, digest in own.items()):
        raise UsageError(
            f"--adapter: {path} was trained on {name} ({wanted.get('bfloat16', '')[:12]}), got a model with other "
            f"weights ({own['bfloat16'][:12]}); give --model the one that it was trained on"
        )
    weights = read_weights(path)
    attachment = attach(model, kind, settings_of(kind, settings), layers=layers)
    try:
        attachment.load_arrays(weights.arrays)
    except BaseException:
        attachment.detach()
        raise
    return attachment
