"""The recipe of hsi-enhance at toy size: its loss, the same bytes twice, a stop half way."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from training_material import write_material

from attnkit.models import training_loop
from attnkit.models.weights import read_weights
from attnkit.runtime.errors import UsageError
from attnkit.tasks.hsi_enhance import materials, training
from attnkit.tasks.hsi_enhance.metrics import scores
from attnkit.tasks.hsi_enhance.source import ArraySource
from attnkit.tasks.hsi_enhance.subspace import fit_subspace

TOY = training.Recipe(steps=6, cubes=26, batch=1, crop=24)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(materials, "PIECE", 32)
    monkeypatch.setattr(training, "PIECE", 32)
    (tmp_path / "data").mkdir()
    return write_material(tmp_path / "data")


def trained(data: Path, out: Path, recipe: training.Recipe = TOY, **more: bool) -> dict:
    return training.train(data, out, recipe, threads=1, **more)


def test_the_loss_is_that_of_the_measures(data: Path) -> None:
    draw = np.random.default_rng(8)
    noisy, clean = materials.dark_pair(draw, materials.find_materials(data))
    example = materials.eigen_example(noisy, clean)
    subspace = fit_subspace(ArraySource(noisy), 2**30)
    result = subspace.rebuild(example.estimate)
    measured = scores(result, clean)
    tensors = [torch.from_numpy(part) for part in (example.spectra, example.beyond, example.length)]
    loss = float(training.measure(torch.from_numpy(example.estimate - example.clean), *tensors))
    wanted = -measured["mpsnr_db"] * np.log(10) / 20 + np.log(np.radians(measured["sam_degrees"]))
    assert loss == pytest.approx(wanted, abs=0.15)


def test_two_runs_write_the_same_weights_and_say_what_they_were_made_of(data: Path, tmp_path: Path) -> None:
    files = [tmp_path / "one.safetensors", tmp_path / "other.safetensors"]
    results = [trained(data, path) for path in files]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert results[0]["validation"]["loss_noisy"] > results[0]["validation"]["loss_first_estimate"]
    provenance = read_weights(files[0]).provenance
    assert provenance["measured_cubes"] == ["indian_pines.npz"] and provenance["steps"] == 6
    assert not list(tmp_path.glob("*.checkpoint*"))


def test_a_stopped_training_goes_on_to_the_same_weights(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_loop, "CHECKPOINT_MINUTES", 0.0)
    trained(data, tmp_path / "whole.safetensors")
    save = training_loop.save_checkpoint

    def stop_after_three(path, state, recipe) -> None:
        save(path, state, recipe)
        if state["step"] == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(training_loop, "save_checkpoint", stop_after_three)
    with pytest.raises(KeyboardInterrupt):
        trained(data, tmp_path / "parts.safetensors")
    assert not (tmp_path / "parts.safetensors").exists()
    monkeypatch.setattr(training_loop, "save_checkpoint", save)
    trained(data, tmp_path / "parts.safetensors", resume=True)
    one, other = (read_weights(tmp_path / f"{name}.safetensors").arrays for name in ("whole", "parts"))
    for name, values in one.items():
        np.testing.assert_array_equal(values, other[name])


def test_another_recipe_does_not_go_on_from_a_checkpoint(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    training_loop.save_checkpoint(out.with_name(out.name + ".checkpoint"), {"step": 1}, replace(TOY, seed=5).__dict__)
    with pytest.raises(UsageError, match="was made with seed 5, got 0"):
        trained(data, out, resume=True)


def test_the_published_network_trains_on_band_windows(data: Path, tmp_path: Path, monkeypatch) -> None:
    small = {"neighbours": 4, "features": 2, "growth": 2, "blocks": 1, "convs": 1, "width": 4, "residual_blocks": 1}
    build = training.registry.build
    monkeypatch.setattr(training.registry, "build", lambda name: build(name, small))
    recipe = replace(training.recipe_of("hsie-lptn"), steps=4, cubes=25, batch=2, crop=16)
    result = trained(data, tmp_path / "published.safetensors", recipe)
    assert result["validation"]["psnr_noisy_db"] > 10
    assert read_weights(tmp_path / "published.safetensors").config["neighbours"] == 4


def test_unknown_architectures_and_too_few_cubes_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--arch: got 'unet', expected hsie or hsie-lptn"):
        training.recipe_of("unet")
    with pytest.raises(UsageError, match="--cubes: got 24, expected more than the 24"):
        trained(data, tmp_path / "out.safetensors", replace(TOY, cubes=24))
