"""Prompts against transformers' own processors where these can be built, and where each token is in the picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_vlms import NAMES, VOCABULARY, picture, tiny_vlm
from transformers import Idefics3Processor, LlavaProcessor
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from attnkit.models.vlm import attention
from attnkit.models.vlm.processing import conversation
from attnkit.models.vlm.prompt import Tile, View
from attnkit.runtime.errors import ItemError

QUESTION = "what is in the picture ?"


def own_processor(name: str):
    processor = tiny_vlm(name).processor
    if name == "llava":
        return LlavaProcessor(
            processor.image_processor,
            processor.tokenizer,
            patch_size=2,
            vision_feature_select_strategy="default",
            num_additional_image_tokens=1,
            chat_template=processor.template,
        )
    return Idefics3Processor(
        processor.image_processor, processor.tokenizer, image_seq_len=4, chat_template=processor.template
    )


@pytest.mark.parametrize("name", ["llava", "idefics3"])
@pytest.mark.parametrize("size", [(40, 28), (8, 8), (7, 60)], ids=str)
def test_prompt_equals_that_of_the_familys_own_processor(name: str, size: tuple[int, int]) -> None:
    shown = [picture(*size, seed=1), picture(*size, seed=2)]
    messages = conversation(QUESTION, 2)
    ours = tiny_vlm(name).processor.prompt(messages, shown)
    theirs = own_processor(name)
    text = theirs.apply_chat_template([dict(message) for message in messages], add_generation_prompt=True)
    wanted = theirs(images=shown, text=text, return_tensors="pt")
    assert torch.equal(ours.input_ids, wanted["input_ids"])
    assert torch.equal(ours.pixels["pixel_values"], wanted["pixel_values"])


@pytest.mark.parametrize("name", NAMES)
def test_image_tokens_come_from_the_prompt_and_tile_the_picture(name: str) -> None:
    vlm = tiny_vlm(name)
    prompt = vlm.processor.prompt(conversation(QUESTION, 1), [picture(90, 40)])
    (view,) = prompt.views[0]
    assert int(prompt.image_mask.sum()) == view.tokens
    assert (view.width, view.height) == (90, 40)
    whole = view.tiles[-1]
    cells = view.cells()[-whole.tokens :]
    area = (cells[:, 2] - cells[:, 0]) * (cells[:, 3] - cells[:, 1])
    x0, y0, x1, y1 = whole.box
    assert area.sum() == pytest.approx((x1 - x0) * (y1 - y0))
    # llava reads the middle square, the others all of the picture
    assert whole.box == pytest.approx((25, 0, 65, 40) if name == "llava" else (0, 0, 90, 40))
    if len(view.tiles) > 1:
        parts = view.cells()[: -whole.tokens]
        assert ((parts[:, 2] - parts[:, 0]) * (parts[:, 3] - parts[:, 1])).sum() == pytest.approx(90 * 40)


@pytest.mark.parametrize("name", NAMES)
def test_token_sees_its_cell(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is painted into one cell of a picture changes that cell's token most, in a tower whose tokens do not mix."""
    vlm = tiny_vlm(name)
    decoder = {id(layer.self_attn) for layer in vlm.layers}

    def unmixed(module, query, key, value, mask, **options):
        output, _ = sdpa_attention_forward(module, query, key, value, mask, **options)
        return (output if id(module) in decoder else torch.zeros_like(output)), None

    monkeypatch.setattr(attention, "sdpa_attention_forward", unmixed)
    size = (56, 56)
    base = Image.new("RGB", size, (90, 90, 90))
    features = _features(vlm, base)
    cells = vlm.processor.prompt(conversation(QUESTION, 1), [base]).views[0][0].cells()
    for token in range(0, len(cells), max(1, len(cells) // 6)):
        painted = base.copy()
        x0, y0, x1, y1 = (round(float(one)) for one in cells[token])
        painted.paste((250, 10, 200), (x0, y0, x1, y1))
        change = (_features(vlm, painted) - features).square().sum(-1)
        # tiles show a place twice: any token whose cell overlaps the painted one will do
        best = int(change.argmax())
        overlap = np.minimum(cells[best, 2:], cells[token, 2:]) - np.maximum(cells[best, :2], cells[token, :2])
        assert (overlap > 0).all(), (token, best)


def _features(vlm, shown: Image.Image) -> torch.Tensor:
    """Embeddings of the image tokens as they enter the first decoder layer."""
    prompt = vlm.processor.prompt(conversation(QUESTION, 1), [shown])
    kept = {}
    handle = vlm.layers[0].register_forward_pre_hook(
        lambda layer, given, named: kept.update(hidden=given[0] if given else named["hidden_states"]), with_kwargs=True
    )
    try:
        with torch.inference_mode():
            vlm.model(**prompt.inputs())
    finally:
        handle.remove()
    return kept["hidden"][0][prompt.image_mask[0]]


@pytest.mark.parametrize("name", NAMES)
def test_text_only_prompt_keeps_the_markers_of_the_conversation(name: str) -> None:
    processor = tiny_vlm(name).processor
    prompt = processor.prompt(conversation(QUESTION, 0))
    assert not prompt.image_mask.any() and not prompt.pixels
    markers = {"<image>", "<|vision_start|>", "<|vision_end|>", "<img>", "</img>", "<fake_token_around_image>"}
    assert not set(processor.tokenizer.convert_ids_to_tokens(prompt.input_ids[0].tolist())) & markers
    assert QUESTION in prompt.texts[0]


def test_larger_pictures_are_made_smaller() -> None:
    processor = tiny_vlm("qwen2_5_vl").processor
    large = processor.prompt(conversation(QUESTION, 1), [picture(112, 112)])
    small = processor.prompt(conversation(QUESTION, 1), [picture(112, 112)], max_pixels=60 * 60)
    assert int(small.image_mask.sum()) < int(large.image_mask.sum())
    # cells still speak of the picture as it came
    assert small.views[0][0].tiles[0].box == (0, 0, 112, 112)


def test_placeholder_in_a_question_is_refused() -> None:
    with pytest.raises(ItemError, match="question: holds <image>, which is where"):
        tiny_vlm("llava").processor.prompt(conversation("what is <image> ?", 1), [picture()])


def test_cells_go_row_by_row() -> None:
    view = View(20, 10, 20, 10, (Tile(2, 2, (0.0, 0.0, 20.0, 10.0)),))
    assert view.cells().tolist() == [[0, 0, 10, 5], [10, 0, 20, 5], [0, 5, 10, 10], [10, 5, 20, 10]]


def test_batch_pads_on_the_left() -> None:
    processor = tiny_vlm("llava").processor
    prompts = [processor.prompt(conversation(question, 1), [picture()]) for question in (QUESTION, "what ?")]
    batch = processor.batch(prompts)
    difference = prompts[0].length - prompts[1].length
    assert batch.input_ids[1, :difference].tolist() == [VOCABULARY["<pad>"]] * difference
    assert batch.attention_mask[1].tolist() == [0] * difference + [1] * prompts[1].length
    assert torch.equal(batch.image_mask[1, difference:], prompts[1].image_mask[0])
    assert batch.after_images()[1, :difference].sum() == 0
