"""`vlm-ask` over pictures and tasks: what the batch runner has to know of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnkit.pictures.headers import read_settings
from attnkit.runtime.command import FileCommand
from attnkit.runtime.discovery import discover
from attnkit.runtime.errors import ItemError, UsageError
from attnkit.runtime.items import Column, Context, Estimate, Item, SideOutput, sha256_of
from attnkit.runtime.options import BatchOptions

from .calibrations.settings import NONE, arm_name, parse_calibrations, read_ranges, settings_for
from .jobs import Job, item_of_pictures, read_tasks
from .pictures import KINDS, SUFFIXES, kind_of, read_size
from .rows import compared, shown

if TYPE_CHECKING:
    from .worker import VlmAskWorker

DEFAULT_MODEL = "tiny-llava"
# what a system with a GPU has, one of them at least
GPU_NODES = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
# what a comparison shows beside the answer
COMPARED = (
    Column("calibration", "calibration"),
    Column("answer", "answer"),
    Column("first_token", "first token"),
    Column("first_probability", "its probability", 4),
    Column("mean_probability", "mean probability", 4),
    Column("attention_moved", "attention moved", 4),
    Column("rows_changed", "rows changed"),
    Column("visual_sinks", "visual sinks"),
)


def adapter_file(path: Path) -> Path:
    """The file that --adapter means: itself, or the one weight file of a folder; UsageError where that is not one."""
    if not path.is_dir():
        return path
    found = sorted(path.glob("*.safetensors"))
    if len(found) != 1:
        held = f"{len(found)} files ({', '.join(file.name for file in found[:4])})" if found else "none"
        raise UsageError(f"--adapter {path}: expected a folder with one .safetensors file, got {held}; name the file")
    return found[0]


@dataclass(frozen=True)
class VlmAskFiles(FileCommand):
    """All options of the command. `question` is asked about the pictures of the arguments; tasks bring their own."""

    question: str | None = None
    tasks: Path | None = None
    image_root: Path | None = None
    each: bool = False
    model: str = DEFAULT_MODEL
    adapter: Path | None = None
    dtype: str = "auto"
    arms: tuple[tuple[str, ...], ...] = ((),)
    own_settings: Mapping[str, Any] = field(default_factory=dict)
    profile: Path | None = None
    compare: bool = False
    verify: bool = False
    system: str | None = None
    max_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    beams: int = 1
    seed: int = 0
    max_pixels: int | None = None
    batch_size: int = 1
    probs: bool = False
    overlay: str | None = None
    map: str | None = None
    layers: str | None = None
    heads: str | None = None
    jobs: int = 1
    offline: bool = False

    name = "vlm-ask"
    layout = "table"
    speaks = True
    formats = {".jsonl": "jsonl", ".csv": "csv"}  # noqa: RUF012
    kinds = frozenset(KINDS)
    folder_kinds = kinds
    folder_suffixes = SUFFIXES

    @property
    def method(self) -> str:  # type: ignore[override]
        return ",".join(arm_name(arm) for arm in self.arms)

    @property
    def together(self) -> int:  # type: ignore[override]
        """Questions in one generation: what is drawn or drawn from is asked alone."""
        alone = self.temperature > 0 or self.overlay is not None or self.map is not None
        return 1 if alone else self.batch_size

    def validate(self) -> None:
        for name in {name for arm in self.arms for name in arm}:
            settings_for(name, self.own_settings)
        if self.beams > 1 and self.temperature > 0:
            raise UsageError(f"--beams: got {self.beams} with --temperature, expected one of them; beams draw nothing")
        if self.beams > 1 and (self.overlay or self.map):
            raise UsageError(f"--beams: got {self.beams} with --overlay or --map, expected 1; rows of beams are mixed")
        if self.map is not None and len(self.arms) > 1:
            raise UsageError(f"--map: got {len(self.arms)} calibrations ({self.method}), expected one; run it for each")
        for option, text, what in (("--layers", self.layers, "layers"), ("--heads", self.heads, "heads")):
            if text is not None and not (self.map or self.overlay):
                raise UsageError(f"{option}: needs --map or --overlay, which show them")
            if text is not None:
                read_ranges(text, option, what)
        if self.top_p < 1 and not self.temperature:
            raise UsageError(f"--top-p: got {self.top_p:g} with --temperature 0, which draws nothing; give both")
        if self.compare and self.arms == ((),):
            raise UsageError("--compare: got --calibrate none alone, expected a calibration to compare it with")
        if self.batch_size > 1 and self.jobs > 1:
            raise UsageError(f"--batch-size: got {self.batch_size} with --jobs {self.jobs}, expected one of them")
        if self.profile is not None and not self.profile.is_file():
            raise UsageError(f"--profile {self.profile}: no such file")
        if self.adapter is not None and not self.adapter.is_file():
            raise UsageError(f"--adapter {self.adapter}: no such file or folder")
        if self.image_root is not None and not self.image_root.is_dir():
            raise UsageError(f"--image-root {self.image_root}: no such folder")
        for what, text in (("question", self.question), ("--system", self.system)):
            # bytes of an argument that are no text come as lone surrogates
            if text is not None and any("\ud800" <= sign <= "\udfff" for sign in text):
                raise UsageError(f"{what}: got {text!a}, expected text in UTF-8")
        self._check_profile()
        self.model_identity()

    def _check_profile(self) -> None:
        if self.profile is None:
            return
        from attnkit.models.vlm.sinks import read_profile

        try:
            read_profile(self.profile)
        except ItemError as error:
            raise UsageError(f"--profile {error}") from error

    def model_identity(self) -> str:
        """SHA-256 of the model's weights, or the hub's id for them."""
        from attnkit.models.identity import model_identity

        try:
            return model_identity(self.model, self.name)
        except ItemError as error:
            raise UsageError(f"--model: {error}") from error

    @property
    def model_name(self) -> str:
        """The model without its place: registry name, hub id, or the folder's own name."""
        return Path(self.model).resolve().name if Path(self.model).exists() else self.model

    def items(self, inputs: Sequence[str], batch: BatchOptions) -> list[Item]:
        if self.tasks is not None:
            return read_tasks(self.tasks, self.image_root, self.question)[: batch.limit]
        assert self.question is not None
        apart = self.each or any(Path(text).is_dir() for text in inputs)
        # among pictures that are shown together the same one may come again
        found = discover(self, inputs, batch, repeats=not apart)
        if apart:
            return [item_of_pictures([item], self.question) for item in found]
        return [item_of_pictures(found, self.question)] if found else []

    def kind_of(self, path: Path | None, head: bytes) -> str | None:
        return kind_of(head)

    def folder_takes(self, path: Path, kind: str) -> bool:
        # overlays have the names of their pictures
        return kind in self.folder_kinds and not (kind == "png" and self.made(path))

    def read_settings(self, path: Path) -> dict[str, Any] | None:
        return read_settings(path)

    def resolve_device(self, requested: str) -> str:
        # a plan on a machine without a GPU need not wait for torch
        if requested == "cpu" or (requested == "auto" and not any(map(os.path.exists, GPU_NODES))):
            return "cpu"
        from attnkit.models.torch_model import torch_device

        return torch_device(requested)

    def estimate(self, item: Item, format: str) -> Estimate:
        job: Job = item.payload
        sizes = [read_size(source, name) for source, name in zip(job.sources, job.images, strict=True)]
        return Estimate(size=", ".join(f"{width}x{height}" for width, height in sizes))

    def side_outputs(self) -> tuple[SideOutput, ...]:
        asked = (("overlay", "--overlay", self.overlay, ".png"), ("map", "--map", self.map, ".npz"))
        return tuple(SideOutput(name, option, where, suffix) for name, option, where, suffix in asked if where)

    def columns(self) -> tuple[Column, ...]:
        return COMPARED if self.compare else ()

    def table_rows(self, record: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        return [compared(answer) for answer in record.get("answers", ())] if self.compare else (record,)

    def say(self, row: Mapping[str, Any]) -> str | None:
        if self.compare:
            return None
        answer = shown(str(row["answer"]))
        # of several answers to one question each is one line
        return answer if len(self.arms) == 1 else f"{row['calibration']}\t{' '.join(answer.splitlines())}"

    def settings(self) -> dict[str, Any]:
        drawn = self.temperature > 0 or any("placebo" in arm for arm in self.arms)
        return {
            "model_sha256": self.model_identity(),
            "adapter_sha256": None if self.adapter is None else sha256_of(self.adapter),
            "profile_sha256": None if self.profile is None else sha256_of(self.profile),
            "dtype": self.dtype,
            "calibrate": self.method,
            "set": dict(self.own_settings),
            "set_sha256": self._files_of_settings(),
            "system": self.system,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "beams": self.beams,
            "seed": self.seed if drawn else None,
            "max_pixels": self.max_pixels,
            "probs": self.probs,
            "layers": self.layers,
            "heads": self.heads,
        }

    def _files_of_settings(self) -> dict[str, str]:
        """SHA-256 of every file that a setting names."""
        named = {name: Path(value) for name, value in self.own_settings.items() if isinstance(value, str)}
        return {name: sha256_of(path) for name, path in named.items() if path.is_file()}

    def open(self, context: Context) -> VlmAskWorker:
        from .worker import VlmAskWorker

        return VlmAskWorker(self, context)


def arms_of(calibrate: str | None, compare: bool) -> tuple[tuple[str, ...], ...]:
    """The arms of --calibrate, and those of --compare, which begin with the plain model."""
    if not compare:
        return tuple(parse_calibrations(calibrate or NONE))
    return ((), *(arm for arm in parse_calibrations(calibrate or "var") if arm))
