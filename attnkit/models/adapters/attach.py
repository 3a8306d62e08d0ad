"""Adapters put on the decoder layers of a model of any supported family, and taken off again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from attnkit.models.adapters.bottleneck import BottleneckLayer, BottleneckSettings
from attnkit.models.adapters.layer import LayerAdapter
from attnkit.models.adapters.lora import LowRankLayer, LowRankSettings
from attnkit.models.adapters.p_laplacian import PAdapterSettings
from attnkit.models.adapters.text_image import Prompts, TextImageLayer
from attnkit.models.verbs import check_arrays
from attnkit.models.vlm.families import family_of
from attnkit.runtime.errors import UsageError

Settings = PAdapterSettings | BottleneckSettings | LowRankSettings
KINDS: Mapping[str, type[Settings]] = {
    "p-adapter": PAdapterSettings,
    "adapter": BottleneckSettings,
    "lora": LowRankSettings,
}


def settings_of(kind: str, given: Mapping[str, Any] | None = None) -> Settings:
    """Settings of a kind of adapter with some of its values given; UsageError lists what there is."""
    if kind not in KINDS:
        raise UsageError(f"--adapter: got {kind!r}, expected {', '.join(KINDS)}")
    known = KINDS[kind].__dataclass_fields__
    for name, value in (given or {}).items():
        if name not in known:
            raise UsageError(f"{kind}: no setting {name!r}, expected one of {', '.join(known)}")
        wanted = type(known[name].default)
        if type(value) is not wanted and not (wanted is float and type(value) is int):
            raise UsageError(f"{kind}: {name} is {value!r}, expected a value such as {known[name].default!r}")
    return KINDS[kind](**(given or {}))


@dataclass
class Attachment:
    """An adapter on a model: the model computes with it until `detach`.

    model      of transformers; its own parameters are frozen
    layers     numbers of the decoder layers that have one, from 0
    modules    one LayerAdapter a layer, in that order; no part of the model
    """

    model: Any
    kind: str
    settings: Settings
    layers: tuple[int, ...]
    modules: nn.ModuleList
    _handles: list[Any]
    _trained: dict[str, bool]

    def parameters(self) -> Iterator[nn.Parameter]:
        """What training changes."""
        return (parameter for parameter in self.modules.parameters() if parameter.requires_grad)

    def count_parameters(self) -> int:
        """Numbers that training changes."""
        return sum(parameter.numel() for parameter in self.parameters())

    def constrain(self) -> None:
        """Bring parameters back within their bounds; after each training step."""
        for module in self.modules:
            module.constrain()  # type: ignore[operator]

    def arrays(self) -> dict[str, np.ndarray]:
        """The adapter's own parameters by decoder layer and name."""
        return {
            f"{layer}.{name}": value.detach().cpu().numpy()
            for layer, module in zip(self.layers, self.modules, strict=True)
            for name, value in module.state_dict().items()
        }

    def load_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take parameters as `arrays` gives them; UsageError where names or shapes are not its own."""
        shapes = {name: value.shape for name, value in self.arrays().items()}
        check_arrays(shapes, arrays, model=f"{self.kind} of {len(self.layers)} layers")
        with torch.no_grad():
            for layer, module in zip(self.layers, self.modules, strict=True):
                for name, value in module.state_dict().items():
                    value.copy_(torch.from_numpy(np.array(arrays[f"{layer}.{name}"])))

    def detach(self) -> None:
        """Take it off: the model is bit for bit the one before. A second call does nothing."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(self._trained.get(name, parameter.requires_grad))
        if getattr(self.model, "attnkit_adapter", None) is self:
            del self.model.attnkit_adapter

    def merge(self) -> None:
        """Add a low-rank update to the model's own weights and take the adapter off; for kind `lora` only."""
        if self.kind != "lora":
            raise UsageError(f"merge: a {self.kind} is no update of weights, expected lora")
        decoder = family_of(self.model.config, "model").decoder_layers(self.model)
        self.detach()
        for layer, module in zip(self.layers, self.modules, strict=True):
            module.merge(decoder[layer])  # type: ignore[operator]


def attach(
    model: Any, kind: str, settings: Settings | None = None, *, layers: Sequence[int] | None = None, seed: int = 0
) -> Attachment:
    """Put an adapter on some decoder layers of a model, all where none are named, and freeze the model.

    Raises UsageError for an unknown kind, a layer that the model lacks, or a model that carries an adapter already;
    ItemError for a family that is not known.
    """
    settings = settings_of(kind) if settings is None else settings
    if getattr(model, "attnkit_adapter", None) is not None:
        raise UsageError(f"adapter: the model carries a {model.attnkit_adapter.kind} already; detach it first")
    decoder = family_of(model.config, "model").decoder_layers(model)
    chosen = tuple(range(len(decoder))) if layers is None else tuple(sorted(set(layers)))
    if not chosen or chosen[0] < 0 or chosen[-1] >= len(decoder):
        raise UsageError(f"adapter: layers {list(chosen)}, expected some of 0 to {len(decoder) - 1}")
    prompts = Prompts(model.config.image_token_id, settings) if isinstance(settings, PAdapterSettings) else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        modules = nn.ModuleList(_made(index, decoder[index], settings, prompts) for index in chosen)
    weight = decoder[chosen[0]].get_submodule("self_attn.o_proj").weight
    modules.to(weight.device, torch.promote_types(weight.dtype, torch.float32))  # type: ignore[arg-type, call-overload]
    trained = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    model.requires_grad_(False)
    attachment = Attachment(model, kind, settings, chosen, modules, [], trained)
    try:
        for index, module in zip(chosen, modules, strict=True):
            attachment._handles += module.hook(decoder[index])  # type: ignore[operator]
        if prompts is not None:
            attachment._handles.append(prompts.hook(model.model))
    except BaseException:
        attachment.detach()
        raise
    model.attnkit_adapter = attachment
    return attachment


def _made(index: int, layer: nn.Module, settings: Settings, prompts: Prompts | None) -> LayerAdapter:
    if isinstance(settings, PAdapterSettings):
        assert prompts is not None
        return TextImageLayer(index, layer, settings, prompts)
    if isinstance(settings, BottleneckSettings):
        return BottleneckLayer(layer, settings)
    return LowRankLayer(layer, settings)
