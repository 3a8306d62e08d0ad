"""The training of vlm-ask's own model at toy size: packed rows, a falling loss, a stop half way, a folder to open."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from attnkit.models import registry, training_loop
from attnkit.models.vlm.tiny_llava import make_model, train_tokenizer
from attnkit.runtime.errors import UsageError
from attnkit.tasks.vlm_ask import training
from attnkit.tasks.vlm_ask.scenes.questions import ask
from attnkit.tasks.vlm_ask.scenes.render import render
from attnkit.tasks.vlm_ask.scenes.scene import make_scene
from attnkit.tasks.vlm_ask.training_batches import IGNORED, Packing, SceneBatches, corpus, draw_questions

TOY = training.Recipe(steps=6, batch=4, length=128, warm=2, sight=0.3, easy_steps=3)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> dict:
    entry = registry.get("tiny-llava")
    for name, value in {**entry.tiny, "vocabulary": 560}.items():
        monkeypatch.setitem(entry.config, name, value)
    monkeypatch.setattr(training, "TOKENIZER_SCENES", 200)
    monkeypatch.setattr(training, "VALIDATION_SCENES", 6)
    return entry.config


def trained(out: Path, recipe: training.Recipe = TOY, **more: object) -> dict:
    threads = torch.get_num_threads()
    try:
        return training.train(out, recipe, threads=1, **more)
    finally:
        torch.set_num_threads(threads)


def test_packed_questions_are_answered_as_if_each_were_asked_alone(small: dict) -> None:
    tokenizer = train_tokenizer(corpus(0, 200), small["vocabulary"])
    packing = Packing(tokenizer, 4, 400)
    torch.manual_seed(0)
    model = make_model(small).eval()
    for parameter in model.parameters():
        # attention that sees something else would show
        parameter.data.mul_(4.0)
    batch = SceneBatches(packing, seed=1, batch=4, side=24, grid=2, easy_steps=0).make(0, 0)
    draw = np.random.default_rng((1, 5, 0))
    scenes = [one.scene for one in SceneBatches(packing, seed=1, batch=4, side=24, grid=2, easy_steps=0).examples(0, False)]
    rows = [draw_questions(scene, draw) for scene in scenes * 4]
    packed = packing.pack(rows, [False] * 4)
    batch = replace(batch, **packed)
    with torch.inference_mode():
        logits, asked = training.answer_logits(model, batch, training.image_tokens(model, batch.pixels))
        for row in range(2):
            (places,) = asked[row].nonzero(as_tuple=True)
            offset = int(asked[:row].sum())
            for question in rows[row][:3]:
                text = f"USER: {tokenizer.image_token * 4}\n{question.text} ASSISTANT: {question.answer}</s>"
                ids = torch.tensor([tokenizer(text).input_ids])
                alone = model(input_ids=ids, pixel_values=batch.pixels[row : row + 1]).logits[0]
                count = len(packing.turn(question, first=True)[1])
                wanted = batch.wanted[row][places[:count]]
                assert torch.equal(wanted, ids[0, -count:])
                assert torch.allclose(logits[offset : offset + count], alone[-count - 1 : -1], atol=1e-4)
                places, offset = places[count:], offset + count


def test_a_conversation_is_packed_as_the_chat_template_writes_it(small: dict) -> None:
    tokenizer = train_tokenizer(corpus(0, 200), small["vocabulary"])
    scene = make_scene(3, 1)
    draw = np.random.default_rng(0)
    questions = [ask(scene, kind, draw) for kind in ("existence", "count")]
    packed = Packing(tokenizer, 4, 400).pack([questions], [True])
    messages = []
    for index, question in enumerate(questions):
        image = [{"type": "image"}] if index == 0 else []
        messages.append({"role": "user", "content": [*image, {"type": "text", "text": question.text}]})
        messages.append({"role": "assistant", "content": question.answer})
    processor = training.make_processor(tokenizer, small)
    picture = render(scene).pixels
    text = processor.apply_chat_template(messages)
    ids = processor(images=[picture], text=text, return_tensors="pt").input_ids[0]
    assert packed["ids"][0, : len(ids)].tolist() == ids.tolist()
    assert (packed["ids"][0, len(ids) :] == tokenizer.pad_token_id).all()
    assert packed["positions"][0, : len(ids)].tolist() == list(range(len(ids)))
    answers = packed["wanted"][0][packed["wanted"][0] != IGNORED].tolist()
    assert tokenizer.decode(answers) == f" {questions[0].answer}</s> {questions[1].answer}</s>"


def test_the_loss_falls(small: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_loop, "REPORT_STEPS", 10)
    said: list[str] = []
    trained(tmp_path / "out", replace(TOY, steps=60, rate=1e-2, warm=5, sight=1 / 3), say=said.append)
    answers = [float(found[1]) for line in said if (found := re.search(r"answers (\S+)", line))]
    patches = [float(found[1]) for line in said if (found := re.search(r"patches (\S+)", line))]
    assert len(answers) == 4 and len(patches) == 6
    assert answers[-1] < 0.75 * answers[0] and patches[-1] < 0.85 * patches[0]


def test_the_folder_opens_as_any_other_and_holds_the_running_mean(small: dict, tmp_path: Path) -> None:
    result = trained(tmp_path / "out")
    assert result["steps"] == 6 and not list(tmp_path.glob("*.checkpoint*"))
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "out", dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    assert model.num_parameters() == make_model(small).num_parameters()
    assert sum(file.stat().st_size for file in (tmp_path / "out").iterdir()) < 200_000
    text = "Où est mon chien? 你好 🐕"
    assert processor.tokenizer.decode(processor.tokenizer(text).input_ids, skip_special_tokens=True) == text
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is red?"}]}]
    prompt = processor.apply_chat_template(messages, add_generation_prompt=True)
    assert prompt == "USER: <image>\nWhat is red? ASSISTANT:"
    inputs = processor(images=np.zeros((30, 50, 3), np.uint8), text=prompt, return_tensors="pt")
    assert inputs.pixel_values.shape == (1, 3, 24, 24) and (inputs.input_ids == model.config.image_token_id).sum() == 4
    assert model.generate(**inputs, max_new_tokens=2).shape[1] <= inputs.input_ids.shape[1] + 2


def test_a_stopped_training_goes_on_to_the_same_folder(
    small: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_loop, "CHECKPOINT_MINUTES", 0.0)
    trained(tmp_path / "whole")
    save = training_loop.save_checkpoint

    def stop_after_three(path: Path, state: dict, recipe: dict) -> None:
        save(path, state, recipe)
        if state["step"] == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(training_loop, "save_checkpoint", stop_after_three)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "parts")
    assert not (tmp_path / "parts").exists()
    monkeypatch.setattr(training_loop, "save_checkpoint", save)
    trained(tmp_path / "parts", resume=True)
    for file in (tmp_path / "whole").iterdir():
        assert file.read_bytes() == (tmp_path / "parts" / file.name).read_bytes(), file.name


def test_an_unknown_precision_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--precision: got 'int8', expected float32 or bfloat16"):
        trained(tmp_path / "out", replace(TOY, precision="int8"))
