"""Opening a vision-language model from a folder in transformers layout, and the refusals before anything is loaded."""

from __future__ import annotations

import json
import math
import pickle
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from attnkit.models.torch_model import torch_device
from attnkit.models.vlm import attention
from attnkit.models.vlm.families import Family, family_of
from attnkit.models.weights import asked_for, read_whole_header
from attnkit.runtime.errors import AttnkitError, ItemError, UsageError

if TYPE_CHECKING:
    from attnkit.models.vlm.processing import Processor

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# activations, the cache of a prompt, and what the loader holds beside the weights
HEADROOM = 1.15


@dataclass
class VisionLanguageModel:
    """A model in evaluation mode with what attnkit needs to know of it.

    layers    decoder layers, first to last
    """

    model: Any
    processor: Processor
    family: Family
    path: Path
    device: str
    dtype: str
    layers: list[nn.Module] = field(repr=False)

    @property
    def text_config(self) -> Any:
        return self.model.config.get_text_config()

    @property
    def heads(self) -> int:
        return self.text_config.num_attention_heads

    @property
    def hidden_size(self) -> int:
        return self.text_config.hidden_size

    @property
    def vision_depth(self) -> int:
        """Layers of the vision tower."""
        config = self.model.config.vision_config
        return getattr(config, "num_hidden_layers", None) or config.depth


def open_vlm(folder: Path, *, device: str = "auto", dtype: str = "auto") -> VisionLanguageModel:
    """The model of a folder. `dtype` auto: float32 on a CPU, the folder's own elsewhere.

    Raises ItemError for a folder without weights, of an unknown family, damaged, or larger than the memory;
    UsageError for a device that is not there. A folder's own Python code is never run.
    """
    from transformers import AutoModelForImageTextToText

    from attnkit.models.vlm.processing import Processor, check_files

    config = read_config(folder)
    family = family_of(config, str(folder))
    where = torch_device(device)
    kind = _dtype(dtype, where, config)
    check_memory(folder, config, kind, where)
    check_files(folder)
    model: Any
    told: dict[str, Any]
    with hushed():
        try:
            model, told = AutoModelForImageTextToText.from_pretrained(  # type: ignore[misc]
                folder,
                output_loading_info=True,
                dtype=kind,
                attn_implementation=attention.register(),
                local_files_only=True,
                trust_remote_code=False,
            )
        except (MemoryError, torch.OutOfMemoryError) as error:
            raise ItemError(
                f"{folder}: not enough memory to load it; use a smaller model or --dtype bfloat16"
            ) from error
        except Exception as error:
            if isinstance(error, AttnkitError):
                raise
            raise ItemError(f"{folder}: cannot be loaded: {_reason(error)}") from error
        check_whole(folder, model, told["missing_keys"])
        processor = Processor.open(folder, family, model.config)
    try:
        model = model.to(where).eval()
    except torch.OutOfMemoryError as error:
        raise ItemError(f"{folder}: does not fit on {where}; use --device cpu or --dtype bfloat16") from error
    return wrap(model, processor, path=folder, device=where)


def _reason(error: Exception) -> str:
    """Why a folder cannot be loaded, on one line."""
    if isinstance(error, pickle.UnpicklingError):
        asked = asked_for(error)
        why = f"ask for {asked}" if asked else "are damaged or hold more than tensors"
        return f"its pickled weights {why}, and of pickles only tensors are read; expected model.safetensors"
    return str(error).strip().partition("\n")[0] or type(error).__name__


def check_whole(folder: Path, model: nn.Module, missing: Collection[str]) -> None:
    """ItemError where weights are missing, which the loader would fill with random numbers and answer with."""
    if missing:
        count = len(model.state_dict())
        raise ItemError(
            f"{folder}: its weight files lack {len(missing)} of {count} arrays that its config asks for, "
            f"{min(missing)} among them; fetch it again"
        )


def wrap(model: Any, processor: Processor, *, path: Path = Path(), device: str = "cpu") -> VisionLanguageModel:
    """A model that is in memory already, made to use attnkit's attention function."""
    if model.config._attn_implementation != attention.NAME:
        model.set_attn_implementation(attention.register())
    family = family_of(model.config, str(path))
    name = str(model.dtype).removeprefix("torch.")
    return VisionLanguageModel(model, processor, family, path, device, name, family.decoder_layers(model))


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a model folder."""
    path = folder / "config.json"
    if not path.is_file():
        raise ItemError(f"{folder}: no config.json in it, expected a model folder in transformers layout")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ItemError(f"{path}: cannot be read ({error})") from error
    if not isinstance(config, dict):
        raise ItemError(f"{path}: got a {type(config).__name__}, expected an object")
    return config


def _dtype(dtype: str, device: str, config: dict[str, Any]) -> torch.dtype:
    if dtype == "auto":
        if device == "cpu":
            return torch.float32
        dtype = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    if dtype not in DTYPES:
        raise UsageError(f"--dtype: got {dtype}, expected auto, {', '.join(DTYPES)}")
    return DTYPES[dtype]


def weight_bytes(folder: Path, dtype: torch.dtype) -> int:
    """Bytes of a folder's weights once they are loaded in a dtype; ItemError for a folder without weights."""
    tensors = [path for path in folder.glob("*.safetensors") if path.is_file()]
    if tensors:
        return sum(_numbers(path) for path in tensors) * dtype.itemsize
    pickles = [path for pattern in ("pytorch_model*.bin", "model*.bin") for path in folder.glob(pattern)]
    if not pickles:
        raise ItemError(f"{folder}: no weights in it, expected model.safetensors or its shards")
    # their numbers are 2 or 4 bytes; 2 is the usual case of published ones
    return sum(path.stat().st_size for path in pickles) // 2 * dtype.itemsize


def _numbers(path: Path) -> int:
    try:
        return sum(math.prod(entry["shape"]) for entry in read_whole_header(path).values())
    except (LookupError, TypeError) as error:
        raise ItemError(f"{path}: no whole safetensors file ({error}); fetch it again") from error


def check_memory(folder: Path, config: dict[str, Any], dtype: torch.dtype, device: str) -> None:
    """ItemError, before anything is loaded, where the weights are larger than the free memory of the device."""
    needed = int(weight_bytes(folder, dtype) * HEADROOM)
    free = free_memory(device)
    if free is not None and needed > free:
        name = str(dtype).removeprefix("torch.")
        raise ItemError(
            f"{folder}: needs {needed / 1e9:.2f} GB as {name}, {free / 1e9:.2f} GB of memory are free on {device}; "
            "use a smaller model, or --dtype bfloat16"
        )


def free_memory(device: str) -> int | None:
    """Bytes that can still be taken on a device; None where the system does not say."""
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = {line.partition(":")[0]: line.split() for line in lines}
    return int(found["MemAvailable"][1]) * 1024 if "MemAvailable" in found else None


@contextmanager
def hushed() -> Iterator[None]:
    """transformers says its warnings and bars on standard error; what matters is raised."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(before)
