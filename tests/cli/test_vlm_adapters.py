"""`train vlm-ask --adapter` and `vlm-ask --adapter` on a small random model in a folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_cases import Run
from PIL import Image

from attnkit import cli
from attnkit.models import registry
from attnkit.models.vlm.tiny_llava import make_model, make_processor, save_folder, train_tokenizer


@pytest.fixture(autouse=True)
def own_commands(clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of attnkit's, where the other tests of this folder have made-up ones."""
    monkeypatch.setattr(cli.Root, "table", cli.COMMANDS)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders with the same small model but for its weights."""
    folder = tmp_path_factory.mktemp("models")
    config = registry.get("tiny-llava").tiny
    tokenizer = train_tokenizer(["USER: what is it? ASSISTANT: red"], config["vocabulary"])
    for seed, name in enumerate(("one", "other")):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = make_model({"positions": 256, **config})
        with torch.no_grad():
            # as initialised, words are too small to be told apart by what is added to them
            for parameter in model.parameters():
                parameter.mul_(5 if parameter.ndim > 1 else 1)
        save_folder(model, make_processor(tokenizer, config), folder / name)
    return folder


@pytest.fixture
def data(work: Path) -> Path:
    folder = work / "data"
    folder.mkdir()
    lines = []
    for number in range(8):
        shade = np.full((24, 24, 3), 30 * number, np.uint8)
        Image.fromarray(shade).save(folder / f"{number}.png")
        lines.append({"image": f"{number}.png", "text": "what is it?", "label": "red"})
    (folder / "questions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def test_what_is_trained_answers_in_the_command(run: Run, models: Path, data: Path) -> None:
    train = ("train", "vlm-ask", "--model", models / "one", "--data", data)
    ended = run(
        *train, "--adapter", "adapter", "--set", "adapter.reduction=2", "--out", "a.safetensors", "--steps", 60,
        "--rate", 0.03, "--batch", 4, "--held-out", 0.25, "--json", "--quiet",
    )  # fmt: skip
    result = json.loads(ended.out)["result"]
    assert ended.code == 0 and ended.err == "" and result["recipe"]["settings"] == {"reduction": 2}
    assert result["validation"]["right"] == 1 > result["validation_before"]["right"]
    asked = ("vlm-ask", data / "7.png", "what is it?", "--max-tokens", 8, "--model")
    assert run(*asked, models / "one", "--adapter", "a.safetensors", "--verify").out == "red\n"
    assert run(*asked, models / "one").out != "red\n"
    ended = run(*asked, models / "other", "--adapter", "a.safetensors")
    assert ended.code != 0 and ended.err.count("\n") == 1 and "trained on one" in ended.err
    ended = run(*train, "--adapter", "lora", "--out", "a.safetensors")
    assert ended.code == 2 and "a.safetensors exists" in ended.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--adapter", "lora"), "--adapter lora: needs --data"),
        (("--data", "data"), "--data and --set: are for an adapter"),
        (("--adapter", "lora", "--data", "data", "--compile"), "--compile: has no use with --adapter lora"),
        (("--adapter", "lora", "--data", "data", "--set", "lora.ranks=3"), "did you mean lora.rank?"),
        (("--adapter", "lora", "--data", "data", "--set", "lora.rank=0"), "lora: rank is 0, expected at least 1"),
        (("--adapter", "lora", "--data", "none"), "no JSONL file at none"),
    ],
)
def test_options_that_do_not_go_together_end_before_any_work(
    run: Run, models: Path, data: Path, options: tuple[str, ...], said: str
) -> None:
    ended = run("train", "vlm-ask", "--model", models / "one", "--out", "a.safetensors", *options)
    assert ended.code == 2 and said in ended.err and ended.err.count("\n") == 1
    assert not Path("a.safetensors").exists()
