"""`hsi-enhance` over cube files: what the batch runner has to know of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnkit.cubes import (
    KINDS_WITH_AXES,
    KINDS_WITH_KEYS,
    SIDE_SUFFIXES,
    SUFFIXES,
    identify,
    open_cube,
    read_settings,
    sniff,
)
from attnkit.cubes.cube import axes_of
from attnkit.runtime.command import FileCommand, choose_format
from attnkit.runtime.discovery import HEAD_BYTES
from attnkit.runtime.errors import ItemError, UsageError
from attnkit.runtime.items import Context, Estimate, Identity, Item, SideOutput

from .methods import check_settings, has_model, planned_regions
from .methods.hsie import DEFAULT_MODEL, opened
from .task import BASE_MEMORY, EnhanceRequest, crop_of

if TYPE_CHECKING:
    from .worker import HsiEnhanceWorker

# the output takes the kind of its input
SAME = "same"
# of one core, for the dry run's estimate
SECONDS_PER_MEGASAMPLE = {"gain": 0.06, "mnf": 0.1, "lowrank": 0.15, "clahe": 0.11, "hsie": 0.2}


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
    to_standard_output: bool = False

    name = "hsi-enhance"
    checks_space = True
    resumes_items = True
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
        if self.axis_order is not None:
            axes_of(self.axis_order)
        if self.preview_bands is not None:
            numbers("--preview-bands", self.preview_bands, 3)
            if self.preview is None:
                raise UsageError("--preview-bands: needs --preview, the picture that they are for")
        if self.plot_spectra is not None:
            numbers("--plot-spectra", self.plot_spectra, 2)
        for option, path in (("--dark", self.dark), ("--white", self.white), ("--wavelengths", self.wavelengths)):
            if path is not None and not path.is_file():
                raise UsageError(f"{option} {path}: no such file, expected a file that exists")
        if self.method == "hsie":
            self.model_identity()

    def model_identity(self) -> str:
        """SHA-256 of the model's weights, or the hub's id for them."""
        from attnkit.models.identity import model_identity

        try:
            return model_identity(self.model or DEFAULT_MODEL, self.name)
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
        return suffix_of(self.format_of(item, format))

    def format_of(self, item: Item, format: str) -> str | None:
        """The kind of an item's output."""
        return item.kind if format == SAME else format

    def further_suffixes(self, item: Item, format: str) -> tuple[str, ...]:
        kind = self.format_of(item, format)
        if kind != "envi":
            return (SIDE_SUFFIXES[kind],) if kind in SIDE_SUFFIXES else ()
        own = item.companions[0].suffix if item.kind == "envi" and item.companions else ""
        return (own or ".img",)

    def notices(self, item: Item) -> list[str]:
        """Options that mean nothing to the kind of an item: in a folder of several kinds they are for the others."""
        given = (("--key", self.key, KINDS_WITH_KEYS), ("--axis-order", self.axis_order, KINDS_WITH_AXES))
        return [
            f"{option} {value}: not used, a file of kind {item.kind} leaves no choice"
            for option, value, kinds in given
            if value is not None and item.kind not in kinds
        ]

    def check(self, item: Item) -> None:
        if self.to_standard_output and self.format_of(item, self.format or SAME) == "envi":
            raise UsageError("--out -: an ENVI pair is two files, expected --format npy, mat, hdf5 or tiff, or a file")

    def side_outputs(self) -> tuple[SideOutput, ...]:
        asked = (("preview", "--preview", self.preview), ("plot", "--plot", self.plot))
        found = tuple(SideOutput(name, option, where, ".png") for name, option, where in asked if where)
        if self.plot_spectra is not None and self.plot is None:
            found += (SideOutput("plot", "--plot-spectra", None, ".png", "_spectra"),)
        return found

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
                found[f"{name}_sha256"] = _hash(path)
        return found

    def folder_takes(self, path: Path, kind: str) -> bool:
        # references lie beside the scans that they are for
        references = [reference.resolve() for reference in (self.dark, self.white) if reference is not None]
        own = {found.resolve() for found in (path, *_files_of(path))}
        return not own.intersection(references) and super().folder_takes(path, kind)

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

    @contextmanager
    def open_item(self, item: Item) -> Iterator[Any]:
        """The cube of an item; what came by standard input lies in a temporary file meanwhile."""
        if item.kind is None:
            raise ItemError(
                f"{item.name}: not a cube that this reads, expected {', '.join(sorted(self.kinds))}; "
                "--input-format says what it is"
            )
        if item.path is not None:
            with self._open(item.path, item.kind) as reader:
                yield reader
            return
        if item.kind == "envi":
            raise ItemError("-: an ENVI pair is two files and cannot come by standard input; name its header")
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, f"stdin{suffix_of(item.kind)}")
            path.write_bytes(item.data or b"")
            try:
                with self._open(path, item.kind) as reader:
                    yield reader
            except ItemError as error:
                raise ItemError(str(error).replace(str(path), "-")) from error

    def open_reference(self, path: Path) -> Any:
        """A dark or white reference; --key is asked for only where the file holds several arrays."""
        try:
            return open_cube(path, axis_order=self.axis_order)
        except ItemError:
            if self.key is None:
                raise
            return open_cube(path, key=self.key, axis_order=self.axis_order)

    def _open(self, path: Path, kind: str) -> Any:
        return open_cube(
            path, input_format=kind, key=self.key, axis_order=self.axis_order, wavelengths=self.wavelengths
        )

    def estimate(self, item: Item, format: str) -> Estimate:
        request = self.request()
        with self.open_item(item) as reader:
            shape = crop_of(reader.info, request).shape
            itemsize = reader.info.dtype.itemsize
        bands, rows, columns = shape
        samples = bands * rows * columns
        regions = planned_regions(self.method, self.model, shape, request.working_memory)
        width = {"same": itemsize, "float32": 4, "uint16": 2}[self.dtype]
        return Estimate(
            output_bytes=samples * width,
            seconds=round(0.2 + samples / 1e6 * SECONDS_PER_MEGASAMPLE[self.method], 1),
            memory_bytes=BASE_MEMORY + request.working_memory,
            size=f"{columns}x{rows}, {bands} bands",
            tiles=None if regions is None else len(regions),
        )

    def open(self, context: Context) -> HsiEnhanceWorker:
        from .worker import HsiEnhanceWorker

        if has_model(self.method):
            # weights that cannot be read are no fault of the first cube
            opened(self.model, context.device, context.offline)
        return HsiEnhanceWorker(self, context)


def numbers(option: str, text: str, count: int) -> tuple[int, ...]:
    """Whole numbers of a comma list; UsageError unless there are `count` of them, none below 0."""
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = ()
    if len(found) != count or min(found) < 0:
        example = ",".join(("40", "25", "10")[:count])
        raise UsageError(f"{option}: got {text!r}, expected {count} whole numbers from 0, such as {example}")
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
    start, _, stop = text.partition(":")
    try:
        found = int(start), int(stop)
    except ValueError:
        raise UsageError(f"{option}: got {text!r}, expected A:B with whole numbers, such as 0:200") from None
    if not 0 <= found[0] < found[1]:
        raise UsageError(f"{option}: got {text!r}, expected a start from 0 below its stop")
    return found


def suffix_of(kind: str | None) -> str:
    """The usual suffix of a kind of file; an item of no kind fails before it is written."""
    return next((suffix for suffix, name in SUFFIXES.items() if name == kind), ".npy")


def _files_of(path: Path) -> tuple[Path, ...]:
    """A cube file with those that belong to it, the data of an ENVI header among them."""
    try:
        with path.open("rb") as stream:
            found = identify(path, stream.read(HEAD_BYTES))
    except OSError:
        found = None
    return (path,) if found is None else (found.path or path, *found.companions)


def _hash(path: Path) -> str:
    return _hash_files(tuple((file, file.stat().st_mtime_ns) for file in _files_of(path)))


@lru_cache(maxsize=8)
def _hash_files(files: tuple[tuple[Path, int], ...]) -> str:
    from attnkit.runtime.items import sha256_of

    return "-".join(sha256_of(file) for file, _ in files)
