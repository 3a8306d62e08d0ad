"""Fixtures of the model tests: one thread, a registry that tests may add to, and the command line in this process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from seeded_models import seeded

from attnkit import cli
from attnkit.models import registry


@dataclass
class Ended:
    """How a command line ended."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def entries(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, registry.Entry]]:
    """The registry's table, a copy that is thrown away after the test."""
    registry.find()
    copy = dict(registry._entries)
    monkeypatch.setattr(registry, "_entries", copy)
    yield copy


@pytest.fixture
def attnkit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Runs a command line through the real entry point, in this process and without anybody's settings."""
    for name in [name for name in os.environ if name.startswith("ATTNKIT_") and name != "ATTNKIT_SHARED"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))

    def run(*arguments: str) -> Ended:
        code = cli.run([str(argument) for argument in arguments])
        seen = capfd.readouterr()
        return Ended(code, seen.out, seen.err)

    return run


@pytest.fixture(scope="session")
def tiny_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weight file of a tiny LLF-LUT++ whose parameters are all set by a seed."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    registry.save(seeded("llf-lut-pp"), "llf-lut-pp", path, provenance={"made_by": "a test"})
    return path
