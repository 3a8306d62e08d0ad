"""Training of adapters on a folder of questions: what is read, what is learned, a stop half way, and what is left."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

sys.path.append(str(Path(__file__).parents[2] / "models" / "vlm"))

from tiny_vlms import NAMES, tiny_vlm

from attnkit.models import training_loop
from attnkit.models.adapters.files import load_adapter
from attnkit.models.weights import read_description, read_weights
from attnkit.runtime.errors import UsageError
from attnkit.tasks.vlm_ask.adapter_examples import Batches, Example, read_examples
from attnkit.tasks.vlm_ask.adapter_training import AdapterRecipe, answer_loss, draw_batch, train_adapter, validate
from attnkit.tasks.vlm_ask.task import Decoding, Request, ask

COLOURS = {"red": (230, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 230)}
# at the rate of a random model whose weights were enlarged
TOY = AdapterRecipe(steps=36, batch=6, rate=1e-2, held_out=0.25)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """One question about pictures of one colour: twelve pictures, three held out."""
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    lines = []
    for number in range(12):
        colour = list(COLOURS)[number % 3]
        noise = np.random.default_rng(number).integers(-15, 16, (8, 8, 3))
        values = np.clip(np.array(COLOURS[colour]) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(values).save(folder / "images" / f"{number}.png")
        lines.append({"image": f"{number}.png", "question": "what colour is it ?", "answer": colour})
    (folder / "questions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def trained(data: Path, out: Path, recipe: AdapterRecipe = TOY, **more: Any) -> dict[str, Any]:
    return train_adapter(tiny_vlm("llava"), data, out, recipe, base="tiny", **more)


@pytest.mark.parametrize("kind", ["p-adapter", "adapter", "lora"])
def test_an_adapter_learns_what_the_model_cannot_and_the_model_stays(kind: str, data: Path, tmp_path: Path) -> None:
    vlm, out = tiny_vlm("llava"), tmp_path / "colours.safetensors"
    before = {name: value.clone() for name, value in vlm.model.state_dict().items()}
    result = trained(data, out, replace(TOY, kind=kind))
    assert result["validation"]["loss"] < 0.5 * result["validation_before"]["loss"]
    assert result["validation_before"]["right"] == 0 and result["validation"]["right"] == 1
    assert all(torch.equal(value, before[name]) for name, value in vlm.model.state_dict().items())
    assert result["questions"] == 9 and result["validation_questions"] == 3
    description = read_description(out)
    assert description["architecture"] == kind and description["provenance"]["validation"] == result["validation"]
    request = Request((Image.open(data / "images" / "10.png"),), "what colour is it ?")
    attachment = load_adapter(out, vlm.model)
    try:
        assert ask(vlm, [request], decoding=Decoding(max_tokens=4))[0].text == "green"
    finally:
        attachment.detach()
    assert ask(vlm, [request], decoding=Decoding(max_tokens=4))[0].text != "green"


def test_two_runs_and_a_stopped_one_write_the_same_bytes(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(TOY, steps=5)
    files = [tmp_path / f"{name}.safetensors" for name in ("one", "other", "parts")]
    for path in files[:2]:
        trained(data, path, recipe)
    monkeypatch.setattr(training_loop, "CHECKPOINT_MINUTES", 0.0)
    save = training_loop.save_checkpoint

    def stop_after_three(path: Path, state: dict[str, Any], made_from: dict[str, Any]) -> None:
        save(path, state, made_from)
        if state["step"] == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(training_loop, "save_checkpoint", stop_after_three)
    with pytest.raises(KeyboardInterrupt):
        trained(data, files[2], recipe)
    assert not files[2].exists() and not hasattr(tiny_vlm("llava").model, "attnkit_adapter")
    monkeypatch.setattr(training_loop, "save_checkpoint", save)
    with pytest.raises(UsageError, match=r"was made with rate 0.01, got 0.5"):
        trained(data, files[2], replace(recipe, rate=0.5), resume=True)
    trained(data, files[2], recipe, resume=True)
    arrays = [read_weights(path).arrays for path in files]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert all(np.array_equal(values, arrays[2][name]) for name, values in arrays[0].items())
    assert not list(tmp_path.glob("*.checkpoint*"))


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_is_that_of_the_answer_alone_and_its_end(name: str, data: Path) -> None:
    vlm = tiny_vlm(name)
    pictures = [data / "images" / f"{number}.png" for number in range(2)]
    for path in pictures:
        Image.open(path).resize((56, 56)).save(path)
    examples = [
        Example(pictures[0], "what colour ?", "red circle"),
        Example(pictures[1], "is there a blue star in the picture ?", "no"),
    ]
    batches = Batches(vlm, examples, None)
    batch = batches[[0, 1]]
    said = [vlm.processor.tokenizer.convert_ids_to_tokens(row[row != -100].tolist()) for row in batch.labels]
    assert [words[:-1] for words in said] == [["red", "circle"], ["no"]]
    assert all(words[-1] in ("</s>", "<|im_end|>", "<end_of_utterance>") for words in said)
    # the loss of a batch is the mean over its tokens, whatever stands beside them
    with torch.inference_mode():
        alone = [float(answer_loss(vlm, batches[[index]])) for index in range(2)]
        assert float(answer_loss(vlm, batch)) == pytest.approx((3 * alone[0] + 2 * alone[1]) / 5, rel=1e-3)
    assert validate(vlm, batches, 2)["loss"] == pytest.approx((3 * alone[0] + 2 * alone[1]) / 5, rel=1e-3)


def test_every_question_comes_once_an_epoch() -> None:
    recipe = AdapterRecipe(batch=4)
    drawn = [index for step in range(5) for index in draw_batch(step, 10, recipe)]
    assert sorted(drawn[:10]) == list(range(10)) and sorted(drawn[10:]) == list(range(10))
    assert drawn[:10] != drawn[10:] and drawn[:4] != draw_batch(0, 10, replace(recipe, seed=1))


def test_pictures_are_held_out_whole_and_lines_that_are_no_examples_are_said(data: Path) -> None:
    lines = [
        {"image": "11.png", "text": "is it blue ?", "label": "yes"},
        {"image": "0.png", "text": "how many ?", "answer": 3},
        {"image": "99.png", "question": "what ?", "answer": "red"},
        {"image": "0.png", "question": " ", "answer": "red"},
        {"image": "0.png", "question": "what ?"},
        {"question": "what ?", "answer": "red"},
    ]
    (data / "more.jsonl").write_text("not JSON\n" + "\n".join(map(json.dumps, lines)))
    found = read_examples(data, 0.5)
    assert not {one.picture for one in found.training} & {one.picture for one in found.held_out}
    assert len({one.picture for one in found.held_out}) == 6 and len(found.training) + len(found.held_out) == 14
    assert [one.answer for one in found.training if one.question == "how many ?"] == ["3"]
    assert [problem.partition(", ")[2].partition(":")[0] for problem in found.problems] == [
        f"line {number}" for number in (1, 4, 5, 6, 7)
    ]
    assert "answer is None, expected a text at 'answer' or 'label'" in found.problems[3]
    whole = (data / "images" / "0.png").read_bytes()
    (data / "images" / "0.png").write_bytes(whole[:60])
    cut = read_examples(data, 0.5)
    assert len(cut.training) + len(cut.held_out) == 12
    assert sum("0.png: damaged" in problem for problem in cut.problems) == 2


def test_folders_that_cannot_be_trained_on_are_refused_before_any_work(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    with pytest.raises(UsageError, match=r"no JSONL file at .*nothing"):
        trained(tmp_path / "nothing", out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"no JSONL file at .*empty"):
        trained(tmp_path / "empty", out)
    (tmp_path / "empty" / "a.jsonl").write_text('{"image": "a.png", "question": "what ?", "answer": "red"}')
    with pytest.raises(UsageError, match=r"0 pictures with a question .* expected 2 or more.*a.png: no such picture"):
        trained(tmp_path / "empty", out)
    with pytest.raises(UsageError, match=r"--out: got .*out, expected a file that ends in .safetensors"):
        trained(data, tmp_path / "out")
    with pytest.raises(UsageError, match="--adapter: got 'prefix', expected p-adapter, adapter, lora"):
        trained(data, out, replace(TOY, kind="prefix"))
    for number in range(1, 12):
        (data / "images" / f"{number}.png").write_bytes(b"\x89PNG\r\n\x1a\nhalf")
    with pytest.raises(UsageError, match=r"1 pictures with a question .*1\.png: damaged"):
        trained(data, out)
    assert not out.exists() and not hasattr(tiny_vlm("llava").model, "attnkit_adapter")
