"""Every model by name: what it is, where its weights are, how it is built and opened.

Adding an architecture means adding files, never editing one:

- ``attnkit/models/entries/NAME.py`` registers it. All modules of that folder are imported by `find`, so they import
  nothing heavy at module level; the builder and the opener import torch, numba or the architecture when they are
  called.
- ``attnkit/models/NAME.py`` or a folder of that name holds the architecture, with the verbs of `attnkit.models.verbs`.
- An embedded weight set is ``weights/NAME.safetensors`` with a card ``NAME.md`` and a record ``NAME.json`` (SHA-256 and
  golden output) that ``attnkit models verify NAME --write-golden`` writes. A weight set that lives elsewhere states its
  SHA-256 in its entry.
"""

from __future__ import annotations

import difflib
import fnmatch
import importlib
import importlib.util
import json
import os
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnkit.models import entries as entry_package
from attnkit.models.weights import EMBEDDED_FOLDER, read_description, read_weights, write_weights
from attnkit.runtime.errors import AttnkitError, ItemError, UsageError

if TYPE_CHECKING:
    from attnkit.models.verbs import Model
    from attnkit.models.weights import Weights

FORMATS = ("safetensors", "folder")
SOURCES = ("embedded", "package", "path", "hub")
# what a hub download may bring: a folder's own Python code is never fetched, let alone run
HUB_PATTERNS = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "LICENSE*", "README.md")


@dataclass(frozen=True)
class Assembly:
    """How a folder comes about that is put together from installed packages.

    folder    where it is, or None before it has been made
    lacking   what is missing to make it, with the line that installs that, or None
    assemble  makes it where it is not there yet, and says where it is
    """

    folder: Callable[[], Path | None]
    lacking: Callable[[], str | None]
    assemble: Callable[[], Path]


@dataclass(frozen=True)
class Entry:
    """One model of the registry.

    ``location`` is read by ``source``: a file of the weights folder (embedded), ``PACKAGE:PATH`` inside an installed
    package (package), a hub id (hub), or None where the user brings the file (path). With an ``assembly`` it names the
    packages that the folder is put together from.
    """

    name: str
    summary: str
    task: str
    paper: str
    licence: str
    format: str
    source: str
    location: str | None
    sha256: str | None
    expects: str
    config: dict[str, Any]
    tiny: dict[str, Any]
    parameters: int | None
    layouts: tuple[str, ...]
    build: Callable[[Mapping[str, Any]], Model] = field(repr=False)
    open: Callable[[Resolved, str], Any] | None = field(repr=False)
    load: Callable[[Path, Mapping[str, Any]], Model] | None = field(repr=False)
    convert: Callable[[Path], Weights] | None = field(repr=False)
    flops: Callable[[Mapping[str, Any], int, int], int] | None = field(repr=False)
    assembly: Assembly | None = field(repr=False, default=None)

    @property
    def weights_path(self) -> Path | None:
        """Where the entry's own weights are on this machine; None where the user brings them."""
        if self.assembly is not None:
            return self.assembly.folder()
        if self.location is None or self.source == "hub":
            return None
        if self.source == "embedded":
            return EMBEDDED_FOLDER / self.location
        package, _, inside = self.location.partition(":")
        specification = importlib.util.find_spec(package)
        if specification is None or not specification.submodule_search_locations:
            return None
        return Path(specification.submodule_search_locations[0], inside)

    @property
    def card_path(self) -> Path | None:
        """The model card, where there is one."""
        card = EMBEDDED_FOLDER / f"{self.name}.md"
        return card if card.is_file() else None

    @property
    def record_path(self) -> Path:
        """Where the SHA-256 and the golden output of an embedded weight set are kept."""
        return EMBEDDED_FOLDER / f"{self.name}.json"

    @property
    def expected_sha256(self) -> str | None:
        """SHA-256 that the weights must have: stated by the entry, or in the record of an embedded set."""
        if self.sha256 is not None or self.source != "embedded" or not self.record_path.is_file():
            return self.sha256
        return json.loads(self.record_path.read_text(encoding="utf-8"))["sha256"]


@dataclass(frozen=True)
class Resolved:
    """A weight set that was found: its entry, where it is, and the config it was made with.

    ``dtype`` is the one asked for; an opener whose task offers no choice has no use for it.
    """

    entry: Entry
    path: Path
    format: str
    source: str
    config: dict[str, Any]
    provenance: dict[str, Any]
    dtype: str = "auto"


_entries: dict[str, Entry] = {}


def register(
    name: str,
    *,
    task: str,
    paper: str,
    licence: str,
    expects: str,
    config: Mapping[str, Any],
    tiny: Mapping[str, Any],
    format: str = "safetensors",
    source: str = "path",
    location: str | None = None,
    sha256: str | None = None,
    parameters: int | None = None,
    layouts: tuple[str, ...] = (),
    open: Callable[[Resolved, str], Any] | None = None,
    load: Callable[[Path, Mapping[str, Any]], Model] | None = None,
    convert: Callable[[Path], Weights] | None = None,
    flops: Callable[[Mapping[str, Any], int, int], int] | None = None,
    assembly: Assembly | None = None,
) -> Callable[[Callable[[Mapping[str, Any]], Model]], Callable[[Mapping[str, Any]], Model]]:
    """Decorate the builder of a model, a function from a config to an object with the verbs of `attnkit.models.verbs`.

    The first line of the builder's docstring is the summary in listings. ``tiny`` overrides ``config`` for a model that
    tests build in no time. ``open`` turns a found weight set and a device into what the task uses; ``load`` makes a
    model with the verbs of a folder and the entry's config; ``convert`` reads a published checkpoint; ``flops`` counts
    the operations for a config, rows and columns without building anything; ``layouts`` are the ``model_type`` or
    ``_class_name`` of folders that belong here. A name taken is a ValueError.
    """
    if name in _entries:
        raise ValueError(
            f"model name {name!r} is registered twice, by {_entries[name].build.__module__}; choose another"
        )
    if format not in FORMATS or source not in SOURCES:
        raise ValueError(
            f"model {name!r}: format {format!r} and source {source!r}, expected one of {FORMATS} and one of {SOURCES}"
        )
    if source == "embedded" and location is None:
        location = f"{name}.safetensors"

    def enter(build: Callable[[Mapping[str, Any]], Model]) -> Callable[[Mapping[str, Any]], Model]:
        summary = (build.__doc__ or "").strip().partition("\n")[0]
        if not summary:
            raise ValueError(f"model {name!r}: its builder needs a docstring, whose first line is the summary")
        _entries[name] = Entry(
            name=name,
            summary=summary,
            task=task,
            paper=paper,
            licence=licence,
            format=format,
            source=source,
            location=location,
            sha256=sha256,
            expects=expects,
            config=dict(config),
            tiny=dict(tiny),
            parameters=parameters,
            layouts=layouts,
            build=build,
            open=open,
            load=load,
            convert=convert,
            flops=flops,
            assembly=assembly,
        )
        return build

    return enter


@cache
def _discover() -> None:
    for module in sorted(pkgutil.iter_modules(entry_package.__path__), key=lambda found: found.name):
        importlib.import_module(f"{entry_package.__name__}.{module.name}")


def find(pattern: str = "*", *, task: str | None = None) -> list[Entry]:
    """Entries whose name matches a shell-style pattern, sorted by name."""
    _discover()
    return [
        _entries[name]
        for name in sorted(_entries)
        if fnmatch.fnmatchcase(name, pattern) and (task is None or _entries[name].task == task)
    ]


def get(name: str) -> Entry:
    """The entry of a name; a UsageError names the nearest one."""
    _discover()
    if name not in _entries:
        raise UsageError(f"model {name!r}: no such name; {_nearest(name)}")
    return _entries[name]


def _nearest(name: str) -> str:
    close = difflib.get_close_matches(name, _entries, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known are {', '.join(sorted(_entries))}"


def resolve(model: str | os.PathLike[str], *, offline: bool = False) -> Resolved:
    """Find a weight set by registry name, file, folder or hub id (ORGANISATION/NAME), in this order.

    A registry name wins over a file of the same name in the current folder; write ./NAME for the file. Only a hub id
    may use the network, and not with ``offline``. Raises UsageError for a name that is nothing, ItemError for a damaged
    file.
    """
    _discover()
    text = os.fspath(model)
    if text in _entries:
        return _resolve_entry(_entries[text], offline)
    path = Path(text)
    if path.is_dir():
        return _resolve_folder(path, "path")
    if path.exists():
        return _resolve_file(path, "path")
    if looks_like_hub_id(text):
        return _resolve_folder(_download(text, offline), "hub")
    if path.suffix or len(path.parts) > 1:
        raise UsageError(f"model {text!r}: no such file or folder, and not a registry name or hub id")
    raise UsageError(f"model {text!r}: not a registry name, file, folder or hub id; {_nearest(text)}")


def looks_like_hub_id(text: str) -> bool:
    """Whether a text that is no path here has the form ORGANISATION/NAME."""
    parts = text.split("/")
    plain = all(
        part and part[0].isalnum() and part.replace("-", "").replace("_", "").replace(".", "").isalnum()
        for part in parts
    )
    return len(parts) == 2 and plain and Path(text).suffix not in (".safetensors", ".pth", ".pt", ".ckpt", ".bin")


def _resolve_entry(entry: Entry, offline: bool) -> Resolved:
    if entry.source == "hub" and entry.location is not None:
        found = _resolve_folder(_download(entry.location, offline), "hub")
    elif entry.source == "path" and entry.format == "folder":
        raise UsageError(
            f"model {entry.name!r}: a family of models without weights of its own; give --model a folder of it "
            f"(./{entry.name} where it is called that) or a hub id"
        )
    elif entry.source == "path":
        raise UsageError(
            f"model {entry.name!r}: an architecture without weights of its own; give --model a file that "
            f"'attnkit models import FILE --as {entry.name} --out FILE' made"
        )
    elif entry.assembly is not None:
        found = _resolve_folder(entry.assembly.assemble(), entry.source, entry)
    else:
        path = entry.weights_path
        if path is None or not path.exists():
            raise ItemError(
                f"model {entry.name!r}: its weights ({entry.location}) are not installed; reinstall attnkit"
            )
        found = _resolve_folder(path, entry.source, entry) if path.is_dir() else _resolve_file(path, entry.source)
    return Resolved(entry, found.path, found.format, entry.source, found.config, found.provenance)


def _resolve_file(path: Path, source: str) -> Resolved:
    with open(path, "rb") as stream:
        head = stream.read(4)
    try:
        # a zip archive or a bare pickle: both are what torch.save writes
        if head[:2] in (b"PK", b"\x80\x02"):
            raise UsageError(
                f"model {str(path)!r}: a PyTorch checkpoint, expected safetensors; "
                "convert it with 'attnkit models import FILE --as NAME --out FILE'"
            )
        description = read_description(path)
    except AttnkitError as error:
        if (path.parent / "config.json").is_file():
            raise UsageError(f"model {str(path)!r}: a file of a model folder; give the folder {path.parent}") from error
        raise
    name = description["architecture"]
    if name not in _entries:
        raise ItemError(f"{path}: made for architecture {name!r}, which this attnkit does not know; {_nearest(name)}")
    return Resolved(_entries[name], path, "safetensors", source, description["config"], description["provenance"])


def _resolve_folder(path: Path, source: str, own: Entry | None = None) -> Resolved:
    """What a folder holds; `own` is the entry whose weights it is known to be, else its kind tells."""
    single = sorted(path.glob("*.safetensors"))
    for file, key in (("model_index.json", "_class_name"), ("config.json", "model_type")):
        if not (path / file).is_file():
            continue
        try:
            config = json.loads((path / file).read_text(encoding="utf-8"))
            layout = config[key]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ItemError(
                f"{path / file}: cannot tell the kind of model ({error}); expected {key!r} in it"
            ) from error
        for entry in _entries.values():
            if entry is own or (own is None and layout in entry.layouts):
                return Resolved(entry, path, "folder", source, config, {})
        known = sorted(layout for entry in _entries.values() for layout in entry.layouts)
        raise ItemError(f"{path}: a folder of kind {layout!r}, expected one of {', '.join(known)}")
    if len(single) == 1:
        return _resolve_file(single[0], source)
    raise ItemError(f"{path}: no model folder: expected model_index.json, config.json or one .safetensors file in it")


def _download(identifier: str, offline: bool) -> Path:
    # without a network an answer in seconds; both are read when the library is imported
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", "5")
    os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", "15")
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            huggingface_hub.snapshot_download(identifier, allow_patterns=list(HUB_PATTERNS), local_files_only=offline)
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        if offline:
            raise UsageError(
                f"model {identifier!r}: a hub id needs the network, and its cache has no such model; "
                "drop --offline or give a file or folder"
            ) from error
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ItemError(
            f"model {identifier!r}: cannot be fetched from the hub: {reason}; give a folder instead"
        ) from error


def build(name: str, config: Mapping[str, Any] | None = None, *, tiny: bool = False) -> Model:
    """A fresh model of a name: its default config, with ``tiny`` that of the tests, with ``config`` on top."""
    entry = get(name)
    return entry.build({**entry.config, **(entry.tiny if tiny else {}), **(config or {})})


def load(model: str | os.PathLike[str], *, offline: bool = False) -> Model:
    """A model with its weights, from a registry name, a file, a hub id, or a folder whose entry says how."""
    found = resolve(model, offline=offline)
    if found.format == "folder" and found.entry.load is not None:
        return found.entry.load(found.path, found.entry.config)
    if found.format == "folder":
        raise UsageError(
            f"model {str(model)!r}: a folder of kind {found.entry.name!r} is opened by its task, not loaded"
        )
    weights = read_weights(found.path)
    built = found.entry.build(weights.config)
    built.load_arrays(weights.arrays)
    return built


def save(model: Model, name: str, path: str | os.PathLike[str], *, provenance: Mapping[str, Any] | None = None) -> str:
    """Write a model of the named architecture to one safetensors file and return its SHA-256."""
    get(name)
    return write_weights(path, model.arrays(), architecture=name, config=model.config, provenance=provenance)


def open_model(
    model: str | os.PathLike[str], *, task: str, device: str = "cpu", offline: bool = False, dtype: str = "auto"
) -> Any:
    """What a task works with: for ``tonemap`` a mapper with the verbs parameters, render and cube.

    Raises UsageError where the model belongs to another task.
    """
    found = resolve(model, offline=offline)
    check_task(found.entry, task, model)
    assert found.entry.open is not None
    return found.entry.open(replace(found, dtype=dtype), device)


def check_task(entry: Entry, task: str, model: str | os.PathLike[str]) -> None:
    """UsageError where a model, named as `model`, belongs to another task."""
    if entry.task != task or entry.open is None:
        raise UsageError(
            f"model {str(model)!r}: made for {entry.task!r}, expected one for {task!r}: "
            f"{', '.join(entry.name for entry in find(task=task))}"
        )
