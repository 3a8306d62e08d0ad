"""What observers of an answer see, against the maps that transformers gives out itself."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_vlms import NAMES, picture, tiny_vlm

from attnkit.models.vlm.prompt import Tile, View
from attnkit.models.vlm.sinks import SinkProfile, sink_scores
from attnkit.pictures.headers import read_settings
from attnkit.tasks.vlm_ask.maps import write_map
from attnkit.tasks.vlm_ask.observers import Heat, RowStream
from attnkit.tasks.vlm_ask.overlays import Panel, draw_overlay
from attnkit.tasks.vlm_ask.task import Decoding, Request, ask, logits_of, prompt_of

LAYERS, HEADS, TOKENS = frozenset({1, 3}), [0, 2], 4
REQUEST = Request((picture(60, 40),), "what is there in the picture")


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_those_that_made_the_tokens(name: str, tmp_path: Path) -> None:
    vlm = tiny_vlm(name)
    rows = RowStream(LAYERS, HEADS, io.BytesIO())
    heat = Heat(frozenset(range(4)), range(4), None)
    plain = ask(vlm, [REQUEST], decoding=Decoding(TOKENS))[0]
    (answer,) = ask(vlm, [REQUEST], decoding=Decoding(TOKENS), observers=[rows, heat])
    # looking on changes no bit
    assert [token.probability for token in answer.tokens] == [token.probability for token in plain.tokens]
    write_map(tmp_path / "m.npz", rows, answer, vlm.processor.tokenizer, {"a": 1})
    with np.load(tmp_path / "m.npz", allow_pickle=False) as found:
        arrays = dict(found)
    prompt = prompt_of(vlm, [REQUEST])
    count, tokens = prompt.length, len(answer.tokens)
    assert arrays["attention"].shape == (tokens, 2, 2, count) and arrays["attention"].dtype == np.float16
    assert arrays["layers"].tolist() == [1, 3] and arrays["heads"].tolist() == HEADS
    assert (arrays["image_mask"] == prompt.image_mask[0].numpy()).all()
    assert arrays["cells"].shape == (answer.image_tokens, 4) and not arrays["image_number"].any()
    assert len(arrays["prompt_tokens"]) == count and json.loads(str(arrays["settings"])) == {"a": 1}
    if not tokens:
        pytest.skip("this random model says nothing")
    maps = first_maps(name)
    wanted = torch.stack([maps[layer][0, HEADS, -1] for layer in (1, 3)]).numpy()
    assert np.abs(arrays["attention"][0] - wanted).max() < 1e-3
    mean = torch.stack([one[0, :, -1] for one in maps]).mean((0, 1))[prompt.image_mask[0]]
    assert torch.allclose(heat.mean(1).float(), mean, atol=1e-5)


def first_maps(name: str) -> tuple[torch.Tensor, ...]:
    """Maps of all layers over the prompt, by transformers' own eager attention."""
    vlm = tiny_vlm(name)
    prompt = prompt_of(vlm, [REQUEST])
    if hasattr(vlm.model.model, "rope_deltas"):
        vlm.model.model.rope_deltas = None
    before = vlm.model.config._attn_implementation
    try:
        vlm.model.set_attn_implementation("eager")
        with torch.inference_mode():
            return vlm.model(**prompt.inputs(), output_attentions=True).attentions
    finally:
        vlm.model.set_attn_implementation(before)
        logits_of(vlm, prompt)


def test_heat_knows_the_sinks_of_the_profile() -> None:
    vlm = tiny_vlm("llava")
    prompt = prompt_of(vlm, [REQUEST])
    with torch.inference_mode():
        states = vlm.model(**prompt.inputs(), output_hidden_states=True).hidden_states
    scores = sink_scores(states[2], [5])[0][prompt.image_mask[0]]
    tau = float(scores.sort().values[-3:-1].mean())
    heat = Heat(frozenset({2}), range(4), SinkProfile((5,), tau, 64, "m", "s"))
    ask(vlm, [REQUEST], decoding=Decoding(2), observers=[heat])
    assert heat.sinks() == sorted(scores.topk(2).indices.tolist())


def test_overlay_is_hot_where_attention_is_and_frames_sinks(tmp_path: Path) -> None:
    view = View(80, 60, 8, 6, (Tile(3, 4, (0.0, 0.0, 80.0, 60.0)),))
    heat = np.zeros(12)
    heat[6] = 1.0
    panel = Panel("none: two", [Image.new("RGB", (80, 60), "gray")], [view], heat, [0])
    (tmp_path / "o.png").write_bytes(draw_overlay([panel], {"command": "vlm-ask"}))
    assert read_settings(tmp_path / "o.png") == {"command": "vlm-ask"}
    shown = np.asarray(Image.open(tmp_path / "o.png").convert("RGB")).astype(int)
    assert shown.shape == (384, 512, 3)
    redness = (shown[..., 0] - shown[..., 2]).reshape(3, 128, 4, 128).mean((1, 3))
    assert np.unravel_index(redness.argmax(), redness.shape) == (1, 2)
    assert np.abs(redness[2]).max() < 1
    assert (shown[0, 60] == (0, 200, 255)).all() and (shown[60, 0] == (0, 200, 255)).all()


def test_overlay_adds_tiles_and_the_whole_picture_and_sets_pictures_side_by_side(tmp_path: Path) -> None:
    whole = Tile(1, 1, (0.0, 0.0, 512.0, 512.0))
    quarters = Tile(2, 2, (0.0, 0.0, 512.0, 512.0))
    tiled = View(512, 512, 8, 8, (quarters, whole))
    other = View(512, 512, 4, 4, (whole,))
    heat = np.array([0.0, 0.0, 0.0, 0.25, 0.25, 0.0])
    shown = []
    for titles in (1, 2):
        panels = [Panel("a", [Image.new("RGB", (512, 512))] * 2, [tiled, other], heat, [])] * titles
        (tmp_path / "o.png").write_bytes(draw_overlay(panels, {}))
        shown.append(np.asarray(Image.open(tmp_path / "o.png")).astype(int))
    assert shown[0].shape == (512, 1032, 3) and shown[1].shape == (2 * 534, 1032, 3)
    red = shown[0][..., 0]
    # a quarter's tile and the whole add up there: 1 + 1/4 of its density against 1/4
    assert red[500, 500] > red[10, 10] > 0 and red[10, 800] == 0


def test_overlay_of_several_pictures_has_one_scale(tmp_path: Path) -> None:
    view = View(512, 512, 4, 4, (Tile(1, 1, (0.0, 0.0, 512.0, 512.0)),))
    panel = Panel("a", [Image.new("RGB", (512, 512))] * 2, [view, view], np.array([0.9, 0.1]), [])
    (tmp_path / "o.png").write_bytes(draw_overlay([panel], {}))
    red = np.asarray(Image.open(tmp_path / "o.png")).astype(int)[..., 0]
    assert red[10, 10] > 2 * red[10, 530] > 0
