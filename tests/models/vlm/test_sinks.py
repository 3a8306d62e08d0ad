"""Sink dimensions that were planted are found; where there are none, none is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tiny_vlms import NAMES, network, tiny_vlm

from attnkit.models.vlm.sinks import FILE_NAME, SinkProfile, find_sinks, known_profile, read_profile
from attnkit.runtime.errors import ItemError

DIMENSION = 11


def planted(name: str) -> Any:
    """A model whose first token has one dimension of seven times the root mean square, from the first layer on."""
    vlm, fresh = tiny_vlm(name), network.__wrapped__(name)
    fresh.set_attn_implementation("attnkit")

    def plant(layer: Any, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        hidden = (given[0] if given else named["hidden_states"]).clone()
        hidden[:, 0, DIMENSION] = 30 * hidden[:, 0].square().mean().sqrt()
        return ((hidden, *given[1:]), named) if given else (given, {**named, "hidden_states": hidden})

    made = replace(vlm, model=fresh, layers=vlm.family.decoder_layers(fresh))
    for layer in made.layers:
        layer.register_forward_pre_hook(plant, with_kwargs=True)
    return made


@pytest.mark.parametrize("name", NAMES)
def test_planted_dimension_is_found(name: str) -> None:
    profile, layers = find_sinks(planted(name), name)
    assert profile.dims == (DIMENSION,)
    # a score is at most sqrt(64); half of what the first token has is the threshold
    assert 3.5 < profile.tau < 4.0
    assert {one.dimension for one in layers[1:]} == {DIMENSION}
    assert max(one.score for one in layers) <= 8


@pytest.mark.parametrize("name", NAMES)
def test_random_model_has_none(name: str) -> None:
    profile, layers = find_sinks(tiny_vlm(name), name)
    assert profile.dims == ()
    assert profile.tau == 0
    assert len(layers) == 4


def test_profile_comes_back_from_its_file(tmp_path: Path) -> None:
    profile = SinkProfile((3, 7), 4.5, 64, "model", "how")
    path = tmp_path / "profile.json"
    path.write_text(profile.as_json(), encoding="utf-8")
    assert read_profile(path) == profile
    path.write_text('{"dims": [1]}', encoding="utf-8")
    with pytest.raises(ItemError, match="no sink profile"):
        read_profile(path)
    with pytest.raises(ItemError, match="cannot read it"):
        read_profile(tmp_path / "missing.json")


def facts(family: str, text: str, hidden: int, layers: int, vocabulary: int, path: Path) -> Any:
    return SimpleNamespace(
        path=path,
        family=SimpleNamespace(model_type=family),
        layers=[None] * layers,
        text_config=SimpleNamespace(model_type=text, hidden_size=hidden, vocab_size=vocabulary),
    )


def test_published_profiles_are_known_by_shape_and_a_folders_own_wins(tmp_path: Path) -> None:
    """Dimensions of Llama-2 in LLaVA-1.5, from the published code of VAR."""
    seven = known_profile(facts("llava", "llama", 4096, 32, 32064, tmp_path))
    assert seven is not None and seven.dims == (1415, 2533) and seven.tau == 20
    thirteen = known_profile(facts("llava", "llama", 5120, 40, 32064, tmp_path))
    assert thirteen is not None and thirteen.dims == (2100, 4743)
    # a language model of the same width is not the same model
    assert known_profile(facts("llava", "mistral", 4096, 32, 32064, tmp_path)) is None
    (tmp_path / FILE_NAME).write_text(SinkProfile((1,), 2.0, 64, "own", "test").as_json(), encoding="utf-8")
    own = known_profile(facts("llava", "llama", 4096, 32, 32064, tmp_path))
    assert own is not None and own.dims == (1,)
