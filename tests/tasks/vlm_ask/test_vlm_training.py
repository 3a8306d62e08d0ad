"""The training of vlm-ask's own model at toy size: packed rows, a falling loss, a stop half way, a folder to open."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

sys.path.append(str(Path(__file__).parents[2] / "models" / "vlm"))

from tiny_vlms import save_tiny

from attnkit.models import registry, training_loop
from attnkit.models.vlm.tiny_llava import make_model, train_tokenizer
from attnkit.runtime.errors import UsageError
from attnkit.tasks.vlm_ask import training
from attnkit.tasks.vlm_ask.scenes.questions import ask
from attnkit.tasks.vlm_ask.scenes.render import render
from attnkit.tasks.vlm_ask.scenes.scene import COLOURS, SHAPES, Scene, Thing, make_scene
from attnkit.tasks.vlm_ask.training_batches import (
    IGNORED,
    Batch,
    Packing,
    SceneBatches,
    corpus,
    draw_questions,
    make_example,
    pixels_and_patches,
)
from attnkit.tasks.vlm_ask.training_references import NO_SIDES, NO_TARGET, UNKNOWN, References, SideHeads

VOCABULARY = 560
TOY = training.Recipe(steps=6, batch=4, asked=4, length=128, warm=2, sight=0.3, easy_steps=3)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer(corpus(0, 200), VOCABULARY)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> dict:
    entry = registry.get("tiny-llava")
    for name, value in {**entry.tiny, "vocabulary": VOCABULARY}.items():
        monkeypatch.setitem(entry.config, name, value)
    monkeypatch.setattr(training, "TOKENIZER_SCENES", 100)
    monkeypatch.setattr(training, "VALIDATION_SCENES", 2)
    return entry.config


def trained(out: Path, recipe: training.Recipe = TOY, **more: object) -> dict:
    threads = torch.get_num_threads()
    try:
        return training.train(out, recipe, threads=1, **more)
    finally:
        torch.set_num_threads(threads)


def test_packed_questions_are_answered_as_if_each_were_asked_alone(small: dict, tokenizer: Any) -> None:
    packing = Packing(tokenizer, 2, 400)
    torch.manual_seed(0)
    model = make_model(small).eval()
    for parameter in model.parameters():
        # attention that sees something else would show
        parameter.data.mul_(4.0)
    examples = [make_example(seed, 24, 2, 1) for seed in range(4)]
    pixels, patches = pixels_and_patches(examples)
    scenes = [one.scene for one in examples]
    rows = [draw_questions(scene, np.random.default_rng(3)) for scene in scenes]
    packed = packing.pack(scenes, rows, [False] * 4)
    batch = Batch(pixels, patches, image_places=packing.image_places, **packed)
    with torch.inference_mode():
        logits, asked, _ = training.answer_logits(model, batch, training.image_tokens(model, batch.pixels))
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


def test_a_conversation_is_packed_as_the_chat_template_writes_it(small: dict, tokenizer: Any) -> None:
    scene = make_scene(3, 1)
    draw = np.random.default_rng(0)
    questions = [ask(scene, kind, draw) for kind in ("existence", "count")]
    packed = Packing(tokenizer, 2, 400).pack([scene], [questions], [True])
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


def test_names_in_a_question_are_looked_up_in_the_scene(tokenizer: Any) -> None:
    references = References(tokenizer, 8)
    things = (
        Thing("star", "red", "small", 0.3, 0.2, 0.1, 0.0),
        Thing("star", "blue", "small", 0.7, 0.6, 0.1, 0.0),
        Thing("ring", "red", "small", 0.8, 0.9, 0.1, 0.0),
    )
    scene = Scene(0, 0, "plain", things)

    def targets(text: str) -> list[tuple[int, ...]]:
        found = references.of(tokenizer(text, add_special_tokens=False).input_ids, scene)
        return [one for one in found if one != NO_TARGET]

    many = (UNKNOWN,) * 4
    star, red, blue = SHAPES.index("star"), COLOURS.index("red"), COLOURS.index("blue")
    assert targets("Is the red star left of the blue star?") == [(1, star, red, 2, 1), (1, star, blue, 5, 4)]
    assert targets("How many stars are there?") == [(2, *many)]
    assert targets("What shape is red?") == [(2, *many)] and targets("How many red shapes?") == [(2, *many)]
    assert targets("Is there a green star or a ring?") == [(0, *many), (1, SHAPES.index("ring"), red, 6, 7)]
    assert targets("Describe the image.") == []


def test_the_sides_of_what_a_question_names_are_looked_up_in_the_scene(tokenizer: Any) -> None:
    references = References(tokenizer, 8)
    things = (
        Thing("star", "red", "small", 0.3, 0.2, 0.1, 0.0),
        Thing("ring", "blue", "small", 0.35, 0.52, 0.1, 0.0),
        Thing("cross", "red", "small", 0.8, 0.9, 0.1, 0.0),
    )
    scene = Scene(0, 0, "plain", things)

    def sides(text: str) -> list[tuple[int, tuple[int, int]]]:
        tokens = tokenizer(text, add_special_tokens=False).input_ids
        found = references.sides(tokens, scene)
        return [(index - len(tokens), one) for index, one in enumerate(found) if one != NO_SIDES]

    # below it and right of it, at the second name and where the answer is asked for
    assert sides("Is the cross left of the ring?") == [(-2, (1, 1)), (-1, (1, 1))]
    # left of it, and too near in height to say
    assert sides("Is the star above the blue ring?") == [(-2, (0, UNKNOWN)), (-1, (0, UNKNOWN))]
    # in the picture: near the middle across, in the upper half
    assert sides("Is the ring on the left?") == [(-1, (UNKNOWN, 0))]
    # two things are red
    assert sides("Is the red shape on the left?") == [] and sides("Is the ring left of the red shape?") == []


def test_only_sides_that_are_known_teach() -> None:
    heads = SideHeads(4)
    states = torch.randn(2, 3, 4)
    targets = torch.full((2, 3, 2), UNKNOWN)
    assert heads.loss(states, targets) == 0
    targets[0, 1] = torch.tensor([1, UNKNOWN])
    heads.read.weight.data.zero_()
    heads.read.bias.data = torch.tensor([2.0, 50.0])
    assert heads.loss(states, targets).item() == pytest.approx(np.log1p(np.exp(-2.0)), rel=1e-5)


def test_a_training_that_goes_on_from_a_folder_asks_at_once_and_keeps_its_words(small: dict, tmp_path: Path) -> None:
    trained(tmp_path / "first")
    # another seed would learn other words
    result = trained(tmp_path / "second", replace(TOY, seed=5, steps=2), init=tmp_path / "first")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "second" / name).read_bytes() == (tmp_path / "first" / name).read_bytes(), name
    assert result["begun_with"] == "first" and result["recipe"]["sight"] == 0


def test_batches_are_the_same_for_the_same_step_and_plain_at_first(tokenizer: Any) -> None:
    packing = Packing(tokenizer, 2, 128)

    def batches() -> SceneBatches:
        return SceneBatches(packing, seed=1, pictures=(8, 4), side=24, easy_steps=30)

    first, second = batches(), batches()
    for step in range(3):
        first.make(step, None)
    one, other = first.make(35, 33), second.make(35, 33)
    assert torch.equal(one.ids, other.ids) and torch.equal(one.pixels, other.pixels)
    assert len(one.pixels) == 4 and len(first.make(3, None).pixels) == 8
    assert not first.make(3, None).ids.numel()
    # plain at first, and again when questions begin
    clutters = [{one.scene.clutter for one in first.examples(step, easy, 8)} for step, easy in ((5, True), (5, False))]
    assert clutters[0] <= {0, 1} and clutters[1] > {0, 1}
    easy = [first._is_easy(step, asking) for step, asking in ((29, None), (30, None), (35, 33), (62, 33), (63, 33))]
    assert easy == [True, False, True, True, False]


def test_the_loss_falls(small: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_loop, "REPORT_STEPS", 10)
    said: list[str] = []
    trained(tmp_path / "out", replace(TOY, steps=45, rate=1e-2, warm=5, sight=1 / 3), say=said.append)
    answers = [float(found[1]) for line in said if (found := re.search(r"answers (\S+)", line))]
    patches = [float(found[1]) for line in said if (found := re.search(r"patches (\S+)", line))]
    assert len(answers) == 3 and len(patches) == 4
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
    system = {"role": "system", "content": [{"type": "text", "text": "Be brief."}]}
    assert processor.apply_chat_template([system, *messages], add_generation_prompt=True) == f"Be brief. {prompt}"
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


def test_a_folder_that_is_no_beginning_is_refused(tmp_path: Path) -> None:
    for name, text in (("nothing", "no config.json in it"), ("bare", "no weights in it"), ("llava", "do not fit")):
        folder = tmp_path / name
        folder.mkdir()
        if name == "bare":
            (folder / "config.json").write_text('{"model_type": "llava"}')
        if name == "llava":
            save_tiny("llava", folder)
        with pytest.raises(UsageError, match=rf"--init.*{name}: .*{text}"):
            trained(tmp_path / "out", init=folder)
    assert not (tmp_path / "out").exists()
