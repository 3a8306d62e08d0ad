"""Weight files: one safetensors file with its configuration and provenance inside, read without torch.

All that attnkit knows of a weight set travels in one metadata entry, a JSON document under the key ``attnkit``. It is
one entry because safetensors keeps its metadata in an unordered table: with several, two runs would write different
bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnkit.runtime.errors import ItemError, UsageError
from attnkit.runtime.items import sha256_of

if TYPE_CHECKING:
    import numpy as np

METADATA_KEY = "attnkit"
SCHEMA = 1
EMBEDDED_FOLDER = Path(__file__).resolve().parent / "weights"


@dataclass(frozen=True)
class Weights:
    """A weight set in memory: named arrays, and what the file says about them."""

    arrays: dict[str, np.ndarray]
    architecture: str
    config: dict[str, Any]
    provenance: dict[str, Any] = field(default_factory=dict)


def write_weights(
    path: str | os.PathLike[str],
    arrays: Mapping[str, np.ndarray],
    *,
    architecture: str,
    config: Mapping[str, Any],
    provenance: Mapping[str, Any] | None = None,
) -> str:
    """Write one weight file, whole or not at all, and return its SHA-256.

    The same arguments give the same bytes. Raises ItemError where the folder cannot be written.
    """
    import numpy as np
    from safetensors.numpy import save

    document = {
        "schema": SCHEMA,
        "architecture": architecture,
        "config": dict(config),
        "provenance": dict(provenance or {}),
    }
    metadata = {METADATA_KEY: json.dumps(document, sort_keys=True, allow_nan=False)}
    payload = save({name: np.asarray(arrays[name], order="C") for name in sorted(arrays)}, metadata=metadata)
    write_whole(Path(path), payload)
    return hashlib.sha256(payload).hexdigest()


def read_weights(path: str | os.PathLike[str]) -> Weights:
    """Read a weight file of attnkit into numpy arrays.

    Raises ItemError for a file that is truncated or is not safetensors, and for a safetensors file without attnkit's
    metadata entry.
    """
    path = Path(path)
    document = read_description(path)
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays = load_file(path)
    except SafetensorError as error:
        raise ItemError(f"{path}: not a whole safetensors file ({error}); fetch or convert it again") from error
    return Weights(arrays, document["architecture"], document["config"], document["provenance"])


def read_description(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Architecture, config and provenance of a weight file; reads its header only."""
    path = Path(path)
    header = read_header(path)
    text = header.get("__metadata__", {}).get(METADATA_KEY)
    if text is None:
        raise ItemError(
            f"{path}: a safetensors file that names no attnkit architecture; "
            "convert it with 'attnkit models import FILE --as NAME --out FILE'"
        )
    try:
        document = json.loads(text)
        found = {key: document[key] for key in ("schema", "architecture", "config", "provenance")}
    except (ValueError, TypeError, KeyError) as error:
        raise ItemError(f"{path}: its attnkit metadata is damaged ({error}); convert it again") from error
    if found["schema"] != SCHEMA:
        raise ItemError(f"{path}: metadata schema {found['schema']}, expected {SCHEMA}; use the attnkit that wrote it")
    return found


def read_header(path: Path) -> dict[str, Any]:
    """The JSON header of a safetensors file: per tensor dtype, shape and place, and ``__metadata__``."""
    return _header_and_end(path)[0]


def _header_and_end(path: Path) -> tuple[dict[str, Any], int]:
    """The header, and the byte where the tensors begin behind it."""
    try:
        with open(path, "rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            available = path.stat().st_size - 8
            if not 2 <= length <= available:
                raise ItemError(f"{path}: not a safetensors file (header of {length} bytes, {max(available, 0)} there)")
            header = json.loads(stream.read(length))
    except OSError as error:
        raise ItemError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ItemError(f"{path}: not a safetensors file ({error})") from error
    if not isinstance(header, dict):
        raise ItemError(f"{path}: not a safetensors file (its header is a {type(header).__name__})")
    return header, 8 + length


def read_whole_header(path: Path) -> dict[str, Any]:
    """The tensors of `read_header`; ItemError too where the file ends before them, or goes on behind them."""
    header, begin = _header_and_end(path)
    header.pop("__metadata__", None)
    try:
        wanted = begin + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except (LookupError, TypeError) as error:
        raise ItemError(f"{path}: no whole safetensors file ({error}); fetch it again") from error
    there = path.stat().st_size
    if there != wanted:
        raise ItemError(f"{path}: no whole safetensors file ({there} bytes, its header says {wanted}); fetch it again")
    return header


def read_pickle(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of a published PyTorch checkpoint, read with ``weights_only``: no code of the file is run.

    A checkpoint that nests its state under ``state_dict``, ``params`` or ``model`` is unwrapped. Raises ItemError where
    the file is no such checkpoint or holds anything but tensors.
    """
    import pickle

    import torch

    path = Path(path)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ItemError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        asked = asked_for(error)
        reason = f"it asks for {asked}" if asked else "it is damaged, cut short or another kind of file"
        raise ItemError(
            f"{path}: not a PyTorch checkpoint of plain tensors, which is all that is read: {reason}; "
            "expected the file as its authors published it"
        ) from error
    for key in ("state_dict", "params", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not loaded:
        raise ItemError(f"{path}: expected a dictionary of tensors, got {type(loaded).__name__}")
    strangers = sorted(str(name) for name, value in loaded.items() if not isinstance(value, torch.Tensor))
    if strangers:
        raise ItemError(f"{path}: expected tensors only, got {type(loaded[strangers[0]]).__name__} at {strangers[0]!r}")
    return {str(name): value.detach().numpy() for name, value in loaded.items()}


def asked_for(error: Exception) -> str | None:
    """What a pickle that torch refused would have called; torch's own text advises to read the file unsafely."""
    found = re.search(r"unsupported global:?(?: GLOBAL)? (\S+)", str(error), re.IGNORECASE)
    return found[1] if found else None


def hash_weights(path: Path) -> str:
    """SHA-256 of a weight set.

    Of a folder: over one line ``SHA256  RELATIVE/PATH`` per file, sorted by path, so that it names content and layout
    but no time and no owner. Hidden files and folders (a download's cache) are left out.
    """
    if path.is_file():
        return sha256_of(path)
    digest = hashlib.sha256()
    files = sorted(
        (file.relative_to(path).as_posix(), file)
        for file in path.rglob("*")
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(path).parts)
    )
    for name, file in files:
        digest.update(f"{sha256_of(file)}  {name}\n".encode())
    return digest.hexdigest()


def write_whole(path: Path, payload: bytes) -> None:
    """Write a file under a temporary name beside it and rename, so that no reader ever sees half of it."""
    temporary = None
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(payload)
            stream.flush()
            os.fsync(stream.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
        raise ItemError(f"{path}: cannot be written: {error.strerror}") from error
    except BaseException:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
        raise


def existing_file(path: str | os.PathLike[str]) -> Path:
    """The path, or a UsageError where no file is there."""
    found = Path(path)
    if not found.is_file():
        state = "is a folder" if found.is_dir() else "does not exist"
        raise UsageError(f"{found}: {state}, expected a file")
    return found
