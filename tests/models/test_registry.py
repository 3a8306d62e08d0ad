"""Names, files, folders and hub ids: what the registry finds, and what it says when it does not."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from attnkit.models import registry
from attnkit.models.weights import hash_weights, write_weights
from attnkit.runtime.errors import ItemError, UsageError

FACTS = {"task": "tonemap", "paper": "none", "licence": "none", "expects": "nothing", "config": {}, "tiny": {}}


def enter(name: str, **facts: object) -> None:
    @registry.register(name, **{**FACTS, **facts})
    def build(config: object) -> object:
        """A made-up model

        that is never built.
        """
        return SimpleNamespace(config=config)


def test_registering_a_taken_name_is_an_error(entries: dict) -> None:
    enter("made-up")
    assert registry.get("made-up").summary == "A made-up model"
    with pytest.raises(ValueError, match="'made-up' is registered twice"):
        enter("made-up")


@pytest.mark.parametrize("facts", [{"format": "pickle"}, {"source": "web"}])
def test_registering_an_unknown_format_or_source_is_an_error(entries: dict, facts: dict) -> None:
    with pytest.raises(ValueError, match="expected one of"):
        enter("made-up", **facts)
    assert "made-up" not in entries


def test_registering_a_builder_without_docstring_is_an_error(entries: dict) -> None:
    with pytest.raises(ValueError, match="docstring"):
        registry.register("made-up", **FACTS)(lambda config: config)


def test_find_takes_wildcards_and_tasks(entries: dict) -> None:
    enter("other-one", task="scanpath")
    assert [entry.name for entry in registry.find("llf*")] == ["llf-lut", "llf-lut-pp"]
    assert [entry.name for entry in registry.find(task="scanpath")] == ["other-one"]
    assert registry.find("LLF*") == []


def test_build_puts_the_given_config_over_the_default(entries: dict) -> None:
    enter("made-up", config={"size": 3, "depth": 1}, tiny={"size": 2})
    assert registry.build("made-up").config == {"size": 3, "depth": 1}
    assert registry.build("made-up", {"depth": 9}, tiny=True).config == {"size": 2, "depth": 9}


@pytest.mark.parametrize(
    ("model", "text"),
    [
        ("llf-lot", "did you mean 'llf-lut'"),
        ("zzz", "known are"),
        ("nowhere/weights.safetensors", "no such file or folder"),
        ("llf-lut-pp", "attnkit models import FILE --as llf-lut-pp"),
        ("somebody/something", "needs the network"),
    ],
)
def test_resolve_explains_what_it_cannot_find(model: str, text: str) -> None:
    with pytest.raises(UsageError, match=text) as caught:
        registry.resolve(model, offline=True)
    assert "\n" not in str(caught.value) and repr(model) in str(caught.value)


def test_resolve_a_file_by_its_content(tiny_file: Path, tmp_path: Path) -> None:
    renamed = tmp_path / "no-suffix"
    renamed.write_bytes(tiny_file.read_bytes())
    for path in (tiny_file, renamed):
        found = registry.resolve(path)
        assert found.entry.name == "llf-lut-pp" and found.source == "path" and found.config["depth"] == 2
        assert found.provenance == {"made_by": "a test"}


def test_a_registry_name_wins_over_a_file_of_that_name(
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("llf-lut").write_bytes(tiny_file.read_bytes())
    assert registry.resolve("llf-lut").source == "embedded"
    assert registry.resolve("./llf-lut").entry.name == "llf-lut-pp"


def test_a_pickle_is_refused_with_the_way_out(tmp_path: Path) -> None:
    import torch

    torch.save({"a": torch.zeros(1)}, tmp_path / "model.pth")
    with pytest.raises(UsageError, match="a PyTorch checkpoint, expected safetensors; convert it"):
        registry.resolve(tmp_path / "model.pth")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "pytorch_model.bin"])
def test_a_file_of_a_model_folder_names_the_folder(name: str, tmp_path: Path) -> None:
    import torch
    from safetensors.numpy import save_file

    (tmp_path / "config.json").write_text('{"model_type": "llava"}')
    save_file({"a": np.zeros(2, np.float32)}, tmp_path / "model.safetensors")
    torch.save({"a": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UsageError, match=f"a file of a model folder; give the folder {re.escape(str(tmp_path))}"):
        registry.resolve(tmp_path / name)


def test_a_file_of_an_unknown_architecture(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_weights(path, {"a": np.zeros(2, np.float32)}, architecture="llf-lutt", config={})
    with pytest.raises(ItemError, match="'llf-lutt', which this attnkit does not know; did you mean 'llf-lut'"):
        registry.resolve(path)


def test_folders_by_their_layout(entries: dict, tmp_path: Path, tiny_file: Path) -> None:
    enter("folder-model", format="folder", layouts=("made_up_type", "MadeUpPipeline"))
    for file, content in (
        ("config.json", {"model_type": "made_up_type"}),
        ("model_index.json", {"_class_name": "MadeUpPipeline"}),
    ):
        folder = tmp_path / file.partition(".")[0]
        folder.mkdir()
        (folder / file).write_text(json.dumps(content))
        found = registry.resolve(folder)
        assert (found.entry.name, found.format, found.config) == ("folder-model", "folder", content)
    with pytest.raises(UsageError, match="is opened by its task"):
        registry.load(folder)
    single = tmp_path / "single"
    single.mkdir()
    (single / "weights.safetensors").write_bytes(tiny_file.read_bytes())
    assert registry.resolve(single).entry.name == "llf-lut-pp"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "no model folder"),
        ('{"model_type": "alien"}', "kind 'alien'"),
        ("{", "cannot tell"),
        ("{}", "cannot tell"),
    ],
)
def test_folders_that_are_no_model(tmp_path: Path, content: str | None, text: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ItemError, match=text):
        registry.resolve(tmp_path)


def test_a_hub_id_is_fetched_without_its_code(tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked = []

    def download(identifier: str, allow_patterns: list[str], local_files_only: bool) -> str:
        asked.append((identifier, allow_patterns))
        (tmp_path / "weights.safetensors").write_bytes(tiny_file.read_bytes())
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    found = registry.resolve("somebody/something")
    assert found.source == "hub" and found.entry.name == "llf-lut-pp"
    assert asked[0][0] == "somebody/something" and not any("py" in pattern for pattern in asked[0][1])


def test_a_failing_hub_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def download(identifier: str, allow_patterns: list[str], local_files_only: bool) -> str:
        raise OSError("no route\nto host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    said = r"'somebody/something': cannot be fetched from the hub: no route; give a folder instead$"
    with pytest.raises(ItemError, match=said):
        registry.resolve("somebody/something")


def test_open_model_refuses_another_task(tiny_file: Path) -> None:
    with pytest.raises(UsageError, match="made for 'tonemap', expected one for 'scanpath'"):
        registry.open_model(tiny_file, task="scanpath")


def test_a_package_entry_is_looked_up_in_the_package(entries: dict) -> None:
    import attnkit

    enter("in-package", source="package", location="attnkit:models/registry.py")
    assert entries["in-package"].weights_path == Path(attnkit.__file__).parent / "models" / "registry.py"
    enter("no-package", source="package", location="no_such_package_here:x")
    with pytest.raises(ItemError, match="not installed"):
        registry.resolve("no-package")


def test_the_hash_of_a_folder_names_content_and_paths(tmp_path: Path) -> None:
    (tmp_path / "a" / "inner").mkdir(parents=True)
    (tmp_path / "a" / "inner" / "x").write_bytes(b"1")
    (tmp_path / "a" / "y").write_bytes(b"2")
    first = hash_weights(tmp_path / "a")
    (tmp_path / "a" / ".cache").mkdir()
    (tmp_path / "a" / ".cache" / "z").write_bytes(b"3")
    assert hash_weights(tmp_path / "a") == first
    # sha256 over "SHA256  inner/x\nSHA256  y\n", as: cd a; sha256sum inner/x y | sha256sum
    assert first == "9126a51d5085ffdaeb0beb45a06eed567eda37a1ed7e39148a3c2cbb33f72251"
    (tmp_path / "a" / "y").rename(tmp_path / "a" / "w")
    assert hash_weights(tmp_path / "a") != first
