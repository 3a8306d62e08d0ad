"""Sink dimensions that were planted are found; where there are none, none is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_vlms import NAMES, network, tiny_vlm
from torch import Tensor

from attnkit.models.vlm.sinks import FILE_NAME, SinkProfile, find_sinks, known_profile, read_profile
from attnkit.runtime.errors import ItemError

DIMENSION = 11


def only_first(hidden: Tensor) -> None:
    """The first token has one dimension of nearly eight times the root mean square, which is most that there can be."""
    hidden[:, 0, DIMENSION] = 30 * hidden[:, 0].square().mean().sqrt()


def all_of_it(hidden: Tensor, share: float) -> None:
    """In every token the dimension is `share` times the length of all else."""
    hidden[..., DIMENSION] = 0
    hidden[..., DIMENSION] = share * torch.linalg.vector_norm(hidden, dim=-1)


def first_of_all(hidden: Tensor) -> None:
    """All tokens have half of their energy in the dimension, the first two nearly all of theirs."""
    all_of_it(hidden, 1.0)
    hidden[:, :2, DIMENSION] *= 20


def longer_first(hidden: Tensor) -> None:
    """Most of every token is the dimension, and the first token is long."""
    all_of_it(hidden, 3.0)
    hidden[:, 0] *= 40


def planted(name: str, change: Callable[[Tensor], None] = only_first) -> Any:
    """A model whose hidden states are changed where they enter each layer."""
    vlm, fresh = tiny_vlm(name), network.__wrapped__(name)
    fresh.set_attn_implementation("attnkit")

    def plant(layer: Any, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        hidden = (given[0] if given else named["hidden_states"]).clone()
        change(hidden)
        return ((hidden, *given[1:]), named) if given else (given, {**named, "hidden_states": hidden})

    made = replace(vlm, model=fresh, layers=vlm.family.decoder_layers(fresh))
    for layer in made.layers:
        layer.register_forward_pre_hook(plant, with_kwargs=True)
    return made


@pytest.mark.parametrize("name", NAMES)
def test_planted_dimension_is_found(name: str) -> None:
    profile, layers = find_sinks(planted(name), name)
    assert profile.dims == (DIMENSION,)
    assert {one.dimension for one in layers[1:]} == {DIMENSION}
    assert max(one.others for one in layers[1:]) < profile.tau < min(one.score for one in layers[1:])
    # a score is at most sqrt(64)
    assert max(one.score for one in layers) <= 8


def test_a_dimension_that_all_tokens_share_is_found_by_how_large_it_is_in_the_first() -> None:
    profile, layers = find_sinks(planted("llava", first_of_all), "llava")
    assert profile.dims == (DIMENSION,)
    # values of 20 times the length of all else beside 1: the middle of the odds is their geometric mean
    assert profile.tau == pytest.approx(8 * (20 / 21) ** 0.5, rel=1e-3)
    for layer in layers[1:]:
        assert layer.score == pytest.approx(8 * 20 / 401**0.5, rel=1e-3)
        # the second token is such an outlier as well, and no limit to the first
        assert layer.others == pytest.approx(8 * 0.5**0.5, rel=1e-3)
        assert layer.contrast > 5


@pytest.mark.parametrize("change", [partial(all_of_it, share=3.0), longer_first])
def test_a_dimension_that_the_first_token_has_no_more_of_than_others_is_no_sink(
    change: Callable[[Tensor], None],
) -> None:
    profile, layers = find_sinks(planted("llava", change), "llava")
    assert {one.dimension for one in layers[1:]} == {DIMENSION} and min(one.score for one in layers) > 6
    assert profile.dims == () and profile.tau == 0


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
    for broken in (replace(profile, dims=(3, 64)), replace(profile, dims=(-1,)), replace(profile, tau=float("nan"))):
        path.write_text(broken.as_json(), encoding="utf-8")
        with pytest.raises(ItemError, match="no sink profile"):
            read_profile(path)


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
