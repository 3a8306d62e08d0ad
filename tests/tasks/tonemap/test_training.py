"""The differentiable TMQI against the metric, the panorama views, and a training that stops and goes on."""

import numpy as np
import pytest

from attnkit.tasks.tonemap.views import SPLIT, Camera, cameras, is_panorama, view, views


def panorama(seed=0, rows=64):
    import cv2

    random = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(random.standard_normal((rows, 2 * rows, 3)).astype(np.float32), (0, 0), 3.0)
    return np.exp(6 * noise).astype(np.float32)


def test_differentiable_tmqi_equals_the_metric():
    import torch

    from attnkit.tasks.tonemap import losses
    from attnkit.tasks.tonemap.metrics.colour import luminance
    from attnkit.tasks.tonemap.metrics.tmqi import naturalness, structural_fidelity

    light = view(panorama(rows=128), Camera(10, 0, 80), 192, 256)
    luma = np.log1p(luminance(light))
    codes = np.round(255 * luma / luma.max())
    scene = losses.Scene(torch.from_numpy(luminance(light))[None, None].float())
    shown = torch.from_numpy(codes)[None, None].float()
    # the metric's windows are the same; the loss keeps a deviation of at least 0.03 codes for its slope
    assert float(scene.structure(shown)) == pytest.approx(structural_fidelity(luminance(light), codes), abs=3e-3)
    whole = codes[: 11 * (codes.shape[0] // 11), : 11 * (codes.shape[1] // 11)]
    natural, _, _ = losses.naturalness(torch.from_numpy(whole)[None, None].float())
    assert float(natural) == pytest.approx(naturalness(whole), abs=2e-3)


def test_reversal_sees_a_reversed_edge_and_no_other():
    import torch

    from attnkit.tasks.tonemap import losses

    ramp = torch.linspace(0, 8, 64).repeat(64, 1)[None, None]
    assert float(losses.reversal(ramp, 20 * ramp)) == 0
    assert float(losses.reversal(ramp, 160 - 20 * ramp)) > 0.5


def test_hue_loss_is_zero_for_scaled_light_and_not_for_swapped_channels():
    import torch

    from attnkit.models.llf_lut_fast import srgb_encode
    from attnkit.tasks.tonemap import losses

    light = torch.from_numpy(0.05 + 0.5 * np.random.default_rng(0).random((1, 3, 8, 8), np.float32))
    shown = torch.from_numpy(srgb_encode(0.4 * light.numpy())).float()
    assert float(losses.hue_shift(light, shown)) < 1e-5
    assert float(losses.hue_shift(light, shown.flip(1))) > 0.1


def test_view_looks_where_it_is_told():
    columns = np.linspace(0, 1, 256, endpoint=False, dtype=np.float32)
    sky = np.repeat(np.repeat(columns[None, :, None], 128, 0), 3, 2)
    for yaw, expected in ((0, 0.5), (90, 0.75), (-90, 0.25)):
        assert view(sky, Camera(yaw, 0, 60), 31, 41)[15, 20, 0] == pytest.approx(expected, abs=0.01)
    height = np.repeat(np.repeat(np.linspace(1, 0, 128, dtype=np.float32)[:, None, None], 256, 1), 3, 2)
    up, ahead = (view(height, Camera(0, pitch, 60), 31, 41)[15, 20, 0] for pitch in (45, 0))
    assert ahead == pytest.approx(0.5, abs=0.01)
    assert up == pytest.approx(0.75, abs=0.01)


def test_views_repeat_with_their_seed_and_cover_all_directions():
    picture = panorama()
    first, again, other = (views(picture, 4, 40, seed) for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])
    yaws = sorted(camera.yaw for camera in cameras(8, 3))
    assert np.allclose(np.diff(yaws), 45)


def test_split_keeps_scenes_apart():
    named = [name for part in SPLIT.values() for name in part]
    assert len(named) == len(set(named)) == 26
    held_out = {name.split("/")[1] for name in SPLIT["test"]} - {"sunset", "night"}
    assert not held_out & {name.split("/")[1] for name in SPLIT["train"]}
    assert is_panorama(256, 512) and not is_panorama(480, 640)


def write_panoramas(folder):
    for index in range(2):
        picture = panorama(index)
        rows, columns = picture.shape[:2]
        header = f"PF\n{columns} {rows}\n-1.0\n".encode()
        (folder / f"room{index}.pfm").write_bytes(header + np.ascontiguousarray(picture[::-1], "<f4").tobytes())


def test_interrupted_training_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    import torch

    from attnkit.models import training_loop
    from attnkit.models.weights import read_weights
    from attnkit.tasks.tonemap import training

    write_panoramas(tmp_path)
    recipe = training.Recipe(steps=3, batch=1, rows=176, columns=192)
    monkeypatch.setattr(training_loop, "CHECKPOINT_MINUTES", 0.0)
    threads = torch.get_num_threads()
    whole, halves = tmp_path / "whole.safetensors", tmp_path / "halves.safetensors"
    try:
        training.train(tmp_path, whole, recipe, threads=1)

        class Stopped(Exception):
            pass

        original = training_loop.save_checkpoint

        def stop_after_two(path, state, made):
            original(path, state, made)
            if state["step"] == 2:
                raise Stopped

        monkeypatch.setattr(training_loop, "save_checkpoint", stop_after_two)
        with pytest.raises(Stopped):
            training.train(tmp_path, halves, recipe, threads=1)
        assert not halves.exists()
        monkeypatch.setattr(training_loop, "save_checkpoint", original)
        training.train(tmp_path, halves, recipe, threads=1, resume=True)
    finally:
        torch.set_num_threads(threads)
    first, second = read_weights(whole).arrays, read_weights(halves).arrays
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert not np.array_equal(first["tables"], training.FastConfig().initial_tables())
    with pytest.raises(training.UsageError, match="exists"):
        training.train(tmp_path, whole, recipe)
