"""`attnkit models`: exit codes, streams and files of its four verbs, through the real entry point."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from seeded_models import seeded

from attnkit.models import registry, verify, weights
from attnkit.runtime.items import sha256_of

Run = Callable[..., Any]


def checkpoint(path: Path) -> Path:
    """A checkpoint in the published layout, tiny and seeded: the names are the authors', the sizes are not."""
    import torch

    model = seeded("llf-lut-pp")
    authors = {"widen": "recon_conv", "leave": "conv_last", "point": "head", "enter": "input_proj.proj.0"}
    coarse = {"enter": "0", "leave": "3", "block.norm": "2.norm1", "block.expand": "2.conv1"}
    coarse |= {"block.spatial": "2.conv2", "block.attention": "2.sca.1", "block.project": "2.conv3"}
    fine = {"enter": "0", "spatial": "2", "leave": "4"}
    state = {}
    for name, value in model.arrays().items():
        part, _, rest = name.partition(".")
        layer, _, kind = rest.rpartition(".")
        if name == "tables":
            state.update({f"LUT{index}.LUT": value[index] for index in range(3)})
        elif name == "coarse.block.scale":
            state["laplacian_filter.block.model.2.beta"] = value
        elif part == "coarse":
            state[f"laplacian_filter.block.model.{coarse[layer]}.{kind}"] = value
        elif part == "fine":
            index, _, which = layer.partition(".")
            state[f"laplacian_filter.block.high_freq_blocks.{index}.{fine[which]}.{kind}"] = value
        elif layer in authors:
            state[f"transformer.{authors[layer]}.{kind}"] = value
        else:
            where, index, *inner = rest.split(".")
            nested = {
                "encoder": f"encoder_layers.{index}.blocks.0",
                "decoder": f"decoder_layers.{index}.blocks.0",
                "shrink": f"downsample.{index}.conv.0",
                "grow": f"upsample.{index}.deconv.0",
            }[where]
            state[f"transformer.{nested}.{'.'.join(inner)}"] = value
    state["transformer.upconv1.bias"] = np.zeros(4, np.float32)
    torch.save({name: torch.from_numpy(np.array(value)) for name, value in state.items()}, path)
    return path


@pytest.fixture
def embedded(entries: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny model registered as an embedded one, in a weights folder of its own; returns the folder."""
    folder = tmp_path / "embedded"
    folder.mkdir()
    for module in (registry, weights):
        monkeypatch.setattr(module, "EMBEDDED_FOLDER", folder)
    for name in [name for name, entry in entries.items() if entry.source == "embedded"]:
        del entries[name]
    base = registry.get("llf-lut-pp")
    facts = {"task": "tonemap", "paper": "none", "licence": "MIT", "expects": "light", "tiny": {}}
    registry.register("small", **facts, config={**base.config, **base.tiny}, source="embedded")(base.build)
    registry.save(seeded("llf-lut-pp"), "small", folder / "small.safetensors", provenance={"seed": 7})
    (folder / "small.md").write_text("# A small card\n")
    return folder


def test_list_is_plain_and_whole_when_piped(attnkit: Run) -> None:
    ended = attnkit("models", "list")
    assert ended.code == 0 and ended.err == ""
    lines = ended.out.splitlines()
    assert lines[0].split() == ["model", "task", "source", "parameters", "bytes", "licence", "summary"]
    names = [line.split()[0] for line in lines[1:]]
    assert names == sorted(names) and {"llf-lut", "llf-lut-pp"} <= set(names)
    assert all(registry.get(name).summary in line for name, line in zip(names, lines[1:], strict=True))


def test_list_filters_and_speaks_json(attnkit: Run) -> None:
    ended = attnkit("models", "list", "*-pp", "--task", "tonemap", "--json")
    document = json.loads(ended.out)
    assert [row["model"] for row in document["result"]] == ["llf-lut-pp"]
    assert document["command"] == "models list" and document["summary"] == {"models": 1}
    assert document["result"][0]["parameters"] == 551_957


@pytest.mark.parametrize("arguments", [("zz*",), ("--task", "cooking")])
def test_list_of_nothing_is_a_usage_error(attnkit: Run, arguments: tuple[str, ...]) -> None:
    ended = attnkit("models", "list", *arguments)
    assert ended.code == 2 and ended.out == "" and ended.err.count("\n") == 1 and "llf-lut" in ended.err


def test_show_an_architecture_and_a_file(attnkit: Run, tiny_file: Path) -> None:
    shown = attnkit("models", "show", "llf-lut-pp")
    assert shown.code == 0 and "2510.11613" in shown.out and "config.depth" in shown.out
    document = json.loads(attnkit("models", "show", str(tiny_file), "--json").out)["result"]
    assert document["model"] == "llf-lut-pp" and document["path"] == str(tiny_file)
    assert document["sha256"] == sha256_of(tiny_file) and document["bytes"] == tiny_file.stat().st_size
    assert document["provenance"] == {"made_by": "a test"} and document["config"]["depth"] == 2


def test_show_prints_the_card(attnkit: Run, embedded: Path) -> None:
    ended = attnkit("models", "show", "small")
    assert ended.code == 0 and ended.out.endswith("\n# A small card\n")
    assert json.loads(attnkit("models", "show", "small", "--json").out)["result"]["card"] == "# A small card\n"


def test_show_explains_what_is_not_there(attnkit: Run) -> None:
    ended = attnkit("models", "show", "llf-lutt")
    assert ended.code == 2 and ended.out == "" and ended.err.count("\n") == 1 and "did you mean" in ended.err
    assert attnkit("models", "show", "some/thing", "--offline").code == 2


def test_verify_an_installed_model_from_nothing_to_golden(attnkit: Run, embedded: Path) -> None:
    first = attnkit("models", "verify", "small", "--json")
    states = [(check["check"], check["state"]) for check in json.loads(first.out)["result"]]
    assert first.code == 0 and states == [("hash", "skipped"), ("shapes", "ok"), ("golden", "skipped")]
    assert attnkit("models", "verify", "small", "--write-golden").code == 0
    record = json.loads((embedded / "small.json").read_text())
    assert record["sha256"] == sha256_of(embedded / "small.safetensors")
    assert record["golden"]["command"] == "attnkit models verify small --write-golden"
    checked = attnkit("models", "verify")
    assert checked.code == 0
    rows = {tuple(line.split()[:3]) for line in checked.out.splitlines()}
    assert {("small", "hash", "ok"), ("small", "shapes", "ok"), ("small", "golden", "ok")} <= rows
    assert ("llf-lut-pp", "file", "skipped") in rows


def test_verify_finds_changed_bytes(attnkit: Run, embedded: Path) -> None:
    attnkit("models", "verify", "small", "--write-golden")
    path = embedded / "small.safetensors"
    damaged = bytearray(path.read_bytes())
    damaged[-5] ^= 1
    path.write_bytes(damaged)
    ended = attnkit("models", "verify", "small")
    assert ended.code == 1 and "hash" in ended.out and "failed" in ended.out and "reinstall" in ended.out


def test_verify_finds_a_model_that_computes_otherwise(attnkit: Run, embedded: Path) -> None:
    attnkit("models", "verify", "small", "--write-golden")
    path = embedded / "small.json"
    for change, text in (
        (lambda golden: golden["outputs"]["picture"].update(mean=0.9), "is off by"),
        (lambda golden: golden["outputs"]["picture"].update(shape=[1]), "has shape"),
        (lambda golden: golden["outputs"].pop("point"), "expected picture"),
    ):
        record = json.loads(path.read_text())
        kept = path.read_text()
        change(record["golden"])
        path.write_text(json.dumps(record))
        ended = attnkit("models", "verify", "small", "--json")
        checks = {check["check"]: check for check in json.loads(ended.out)["result"]}
        assert ended.code == 1 and checks["golden"]["state"] == "failed" and text in checks["golden"]["detail"]
        assert checks["hash"]["state"] == "ok" and json.loads(ended.out)["summary"] == {"checks": 3, "failed": 1}
        path.write_text(kept)


def test_a_golden_output_never_accepts_nan() -> None:
    good = {"picture": np.linspace(0, 1, 50)}
    golden = {
        "command": "x",
        "tolerance": 1e-3,
        "outputs": {"picture": verify._digest(good["picture"])},
    }
    assert verify._golden_check("m", good, golden).state == "ok"
    assert verify._golden_check("m", {"picture": np.full(50, np.nan)}, golden).state == "failed"


def test_verify_finds_missing_and_truncated_weights(attnkit: Run, embedded: Path) -> None:
    path = embedded / "small.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    assert attnkit("models", "verify").code == 1
    path.unlink()
    ended = attnkit("models", "verify")
    assert ended.code == 1 and "is not installed" in ended.out


def test_verify_finds_arrays_that_do_not_fit(attnkit: Run, tmp_path: Path) -> None:
    model = seeded("llf-lut-pp")
    arrays = {**model.arrays(), "coarse.enter.bias": np.zeros(3, np.float32)}
    weights.write_weights(tmp_path / "w.safetensors", arrays, architecture="llf-lut-pp", config=model.config)
    ended = attnkit("models", "verify", str(tmp_path / "w.safetensors"))
    assert ended.code == 1 and "'coarse.enter.bias' has shape (3,), expected (8,)" in ended.out


def test_golden_outputs_are_for_embedded_models(attnkit: Run) -> None:
    assert "no model given" in attnkit("models", "verify", "--write-golden").err
    ended = attnkit("models", "verify", "llf-lut-pp", "--write-golden")
    assert ended.code == 2 and "expected an embedded one" in ended.err


def test_import_gives_the_model_of_the_checkpoint(attnkit: Run, tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "best.pth")
    ended = attnkit("models", "import", str(source), "--as", "llf-lut-pp", "--out", str(tmp_path / "w.safetensors"))
    assert ended.code == 0 and ended.out == "" and "w.safetensors" in ended.err
    wanted, got = seeded("llf-lut-pp"), registry.load(tmp_path / "w.safetensors")
    assert got.config == wanted.config
    outputs = got.run(got.example())
    assert all(np.array_equal(value, outputs[name]) for name, value in wanted.run(wanted.example()).items())
    provenance = registry.resolve(tmp_path / "w.safetensors").provenance
    assert provenance["sha256"] == sha256_of(source) and provenance["file"] == "best.pth"
    assert provenance["trained_on"].startswith("unknown") and provenance["dropped_numbers"]["never_used"] == 4
    assert attnkit("models", "verify", str(tmp_path / "w.safetensors")).code == 0


def test_import_into_a_folder_and_again(attnkit: Run, tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "best.pth")
    arguments = ("models", "import", str(source), "--as", "llf-lut-pp", "--out", f"{tmp_path}/new/")
    done = attnkit(*arguments, "--json")
    target = tmp_path / "new" / "best.safetensors"
    assert done.code == 0 and json.loads(done.out)["result"]["path"] == str(target)
    before = target.read_bytes()
    refused = attnkit(*arguments)
    assert refused.code == 2 and "exists; use --overwrite" in refused.err
    assert attnkit(*arguments, "--overwrite").code == 0 and target.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("absent.pth", "--as", "llf-lut-pp", "--out", "o.safetensors"), 2, "does not exist"),
        (("text.pth", "--as", "llf-lut-pp", "--out", "o.safetensors"), 1, "not a PyTorch checkpoint"),
        (("best.pth", "--as", "llf-lut", "--out", "o.safetensors"), 2, "expected one of hsie-lptn, llf-lut-pp"),
        (("best.pth", "--as", "llf-pp", "--out", "o.safetensors"), 2, "did you mean 'llf-lut-pp'"),
        (("best.pth", "--as", "llf-lut-pp", "--out", "o.bin"), 2, "expected .safetensors"),
        (("best.pth", "--as", "llf-lut-pp"), 2, "--out"),
        (("foreign.pth", "--as", "llf-lut-pp", "--out", "o.safetensors"), 1, "unexpected array 'stranger'"),
        (("best.pth", "--as", "llf-lut-pp", "--out", "text.pth/o.safetensors"), 1, "cannot be made"),
    ],
)
def test_import_refuses_in_one_line(
    attnkit: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: int, text: str
) -> None:
    import torch

    monkeypatch.chdir(tmp_path)
    checkpoint(tmp_path / "best.pth")
    (tmp_path / "text.pth").write_text("no checkpoint")
    torch.save({"stranger": torch.zeros(1)}, tmp_path / "foreign.pth")
    before = sorted(path.name for path in tmp_path.iterdir())
    ended = attnkit("models", "import", *arguments)
    assert ended.code == code and text in ended.err and ended.err.count("\n") == 1 and ended.out == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_import_never_writes_over_its_input(attnkit: Run, tmp_path: Path) -> None:
    source = tmp_path / "best.safetensors"
    shutil.move(checkpoint(tmp_path / "best.pth"), source)
    before = source.read_bytes()
    ended = attnkit("models", "import", str(source), "--as", "llf-lut-pp", "--out", str(source), "--overwrite")
    assert ended.code == 2 and "is the input itself" in ended.err and source.read_bytes() == before
