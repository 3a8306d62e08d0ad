"""`hsi-enhance` over cube files: what the batch runner has to know of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnkit.cubes import SUFFIXES, identify, open_cube, read_settings, sniff
from attnkit.runtime.command import FileCommand, choose_format
from attnkit.runtime.errors import ItemError, UsageError
from attnkit.runtime.items import Context, Estimate, Identity, Item, SideOutput

from .methods import check_settings, has_model
from .task import EnhanceRequest, crop_of

if TYPE_CHECKING:
    from .worker import HsiEnhanceWorker

DEFAULT_MODEL = "hsie"
# the output takes the kind of its input
SAME = "same"
# measured on two cores for the dry run's estimate, seconds a million samples
SECONDS_PER_MEGASAMPLE = {"gain": 0.02, "mnf": 0.15, "lowrank": 0.2, "clahe": 0.1, "hsie": 1.5}


@dataclass(frozen=True)
class HsiEnhanceFiles(FileCommand):
    """All options of the command; numbers and ranges are still as typed, `validate` reads them."""

    method: str = "hsie"
    model: str | None = None
    own_settings: Mapping[str, Any] = field(default_factory=dict)
    memory: int = 1_500_000_000
    scale: str = "auto"
    gain: str = "auto"
    dark: Path | None = None
    white: Path | None = None
    bad: str = "keep"
    format: str | None = None
    dtype: str = "same"
    key: str | None = None
    axis_order: str | None = None
    wavelengths: Path | None = None
    rows: str | None = None
    cols: str | None = None
    bands: str | None = None
    preview: str | None = None
    preview_bands: str | None = None
    plot: str | None = None
    plot_spectra: str | None = None
    input_format: str | None = None
    offline: bool = False
    resume: bool = False

    name = "hsi-enhance"
    formats = SUFFIXES
    kinds = frozenset(SUFFIXES.values())
    folder_kinds = kinds
    folder_suffixes = frozenset(suffix.lstrip(".") for suffix in SUFFIXES)

    @property
    def format_given(self) -> bool:  # type: ignore[override]
        return self.format is not None

    def validate(self) -> None:
        self.request()
        check_settings(self.own_settings)
        if self.model is not None and not has_model(self.method):
            raise UsageError(f"--model: method {self.method} uses no model, expected --method hsie")
        if self.preview_bands is not None:
            numbers("--preview-bands", self.preview_bands, 3)
            if self.preview is None:
                raise UsageError("--preview-bands: needs --preview, the picture that they are for")
        if self.plot_spectra is not None:
            numbers("--plot-spectra", self.plot_spectra, 2)
            if self.plot is None:
                raise UsageError("--plot-spectra: needs --plot, the chart's place")
        for option, path in (("--dark", self.dark), ("--white", self.white), ("--wavelengths", self.wavelengths)):
            if path is not None and not path.is_file():
                raise UsageError(f"{option} {path}: no such file")
        if self.method == "hsie":
            self.model_identity()

    def model_identity(self) -> str:
        """SHA-256 of the model's weights, or the hub's id for them."""
        from attnkit.models.identity import model_identity

        try:
            return model_identity(self.model or DEFAULT_MODEL)
        except ItemError as error:
            raise UsageError(f"--model: {error}") from error

    def request(self, **more: Any) -> EnhanceRequest:
        """The task's request, without the references that only a worker has read."""
        return EnhanceRequest(
            method=self.method,
            settings=self.own_settings,
            model=self.model,
            offline=self.offline,
            scale=_positive("--scale", self.scale),
            gain=_positive("--gain", self.gain),
            bad=self.bad,
            bands=_range("--bands", self.bands),
            rows=_range("--rows", self.rows),
            columns=_range("--cols", self.cols),
            memory=self.memory,
            **more,
        )

    def output_format(self, out: str | None) -> str:
        if self.format is None and (out is None or not Path(out).suffix):
            return SAME
        return choose_format(SUFFIXES, out, self.format)

    def suffix_of(self, item: Item, format: str) -> str:
        kind = self.format_of(item, format)
        return next((suffix for suffix, name in SUFFIXES.items() if name == kind), ".npy")

    def format_of(self, item: Item, format: str) -> str | None:
        """The kind of an item's output."""
        return item.kind if format == SAME else format

    def side_outputs(self) -> tuple[SideOutput, ...]:
        asked = (("preview", "--preview", self.preview), ("plot", "--plot", self.plot))
        return tuple(SideOutput(name, option, where, ".png") for name, option, where in asked if where)

    def settings(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "method": self.method,
            "scale": self.scale,
            "gain": self.gain,
            "bad": self.bad,
            "format": self.format,
            "dtype": self.dtype,
            "key": self.key,
            "axis_order": self.axis_order,
            "rows": self.rows,
            "cols": self.cols,
            "bands": self.bands,
            "set": dict(self.own_settings),
        }
        if self.method == "hsie":
            found["model_sha256"] = self.model_identity()
        for name, path in (("dark", self.dark), ("white", self.white), ("wavelengths", self.wavelengths)):
            if path is not None:
                found[f"{name}_sha256"] = _hash(path, path.stat().st_mtime_ns)
        return found

    def read_settings(self, path: Path) -> dict[str, Any] | None:
        return read_settings(path)

    def identify(self, path: Path, head: bytes) -> Identity | None:
        return identify(path, head)

    def kind_of(self, path: Path | None, head: bytes) -> str | None:
        return sniff(head, path)

    def resolve_device(self, requested: str) -> str:
        if requested in ("auto", "cpu"):
            return "cpu"
        if not has_model(self.method):
            raise UsageError(f"--device: got {requested}, expected cpu; method {self.method} has no other device")
        return requested

    def open_reader(self, path: Path, item: Item | None = None) -> Any:
        """The cube of an item, or a reference that is read as the items are."""
        if item is not None and item.kind is None:
            raise ItemError(
                f"{path}: not a cube that this reads, expected {', '.join(sorted(self.kinds))}; "
                "--input-format says what it is"
            )
        kind = self.input_format or (None if item is None else item.kind)
        return open_cube(
            path, input_format=kind, key=self.key, axis_order=self.axis_order, wavelengths=self.wavelengths
        )

    def estimate(self, item: Item, format: str) -> Estimate:
        if item.path is None:
            return Estimate()
        with self.open_reader(item.path, item) as reader:
            bands, rows, columns = crop_of(reader.info, self.request()).shape
            itemsize = reader.info.dtype.itemsize
        samples = bands * rows * columns
        width = {"same": itemsize, "float32": 4, "uint16": 2}[self.dtype]
        return Estimate(
            output_bytes=samples * width,
            seconds=round(0.5 + samples / 1e6 * SECONDS_PER_MEGASAMPLE[self.method], 1),
            memory_bytes=self.memory,
            size=f"{columns}x{rows}, {bands} bands",
        )

    def open(self, context: Context) -> HsiEnhanceWorker:
        from .worker import HsiEnhanceWorker

        return HsiEnhanceWorker(self, context)


def numbers(option: str, text: str, count: int) -> tuple[int, ...]:
    """Whole numbers of a comma list; UsageError unless there are `count` of them, none below 0."""
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = ()
    if len(found) != count or min(found) < 0:
        raise UsageError(f"{option}: got {text!r}, expected {count} whole numbers from 0, such as 40,25,10"[: 200])
    return found


def _positive(option: str, text: str) -> float | None:
    if text == "auto":
        return None
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e30:
        raise UsageError(f"{option}: got {text!r}, expected auto or a number above 0")
    return value


def _range(option: str, text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    start, colon, stop = text.partition(":")
    try:
        found = int(start), int(stop)
    except ValueError:
        raise UsageError(f"{option}: got {text!r}, expected A:B with whole numbers, such as 0:200") from None
    if not 0 <= found[0] < found[1]:
        raise UsageError(f"{option}: got {text!r}, expected a start from 0 below its stop")
    return found


@lru_cache(maxsize=8)
def _hash(path: Path, modified: int) -> str:
    from attnkit.runtime.items import sha256_of

    return sha256_of(path)
