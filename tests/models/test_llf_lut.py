"""LLF-LUT++: its parts against brute force and limit cases, and the authors' checkpoints against their own outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from attnkit_kernels.image import laplacian, lut3d
from seeded_models import seeded
from torch.utils.flop_counter import FlopCounterMode

from attnkit.models import registry
from attnkit.models.llf_lut import cost, heads, predictor
from attnkit.models.llf_lut.convert import PUBLISHED, convert, convert_state
from attnkit.models.llf_lut.mapper import PublishedToneMapper, exposure_gain
from attnkit.models.llf_lut.model import LlfLutPlus
from attnkit.models.verbs import wave_picture
from attnkit.runtime.errors import ItemError, UsageError

FILES = {
    "HDR+ 480p": "LLF-HDR-480p-best.pth",
    "FiveK 480p": "LLF-FiveK-480p-best.pth",
    "HDR+ 4K": "HDRplus-4K-best.pth",
    "FiveK 4K": "MIT-FIveK-4K-best.pth",
}


def planar(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None]


@pytest.fixture(scope="module")
def checkpoints(shared: Path) -> Path:
    folder = shared / "data" / "weights" / "llf-lut"
    if not folder.is_dir():
        pytest.skip(f"the published checkpoints are not at {folder}")
    return folder


def opened(folder: Path, training: str) -> LlfLutPlus:
    weights = convert(folder / FILES[training])
    model = LlfLutPlus(**weights.config).eval()
    model.load_arrays(weights.arrays)
    return model


# measured by running the authors' code with the authors' weights in float32 on wave_picture(480, 640)
PARITY = {
    "HDR+ 480p": {
        "point": (1.89327, -3.70953, -1.34272),
        "means": (0.487734, 0.545008, 0.586068),
        (100, 200): (0.25939, 0.33379, 0.82553),
        (400, 500): (0.82216, 0.89672, 0.41279),
    },
    "FiveK 480p": {"point": (-0.55017, 6.43740, -3.26308), (100, 200): (-0.02970, 0.10987, 0.52567)},
}


@pytest.mark.parametrize("training", PARITY)
def test_published_weights_give_their_authors_numbers(checkpoints: Path, training: str) -> None:
    outputs = opened(checkpoints, training).run(wave_picture(480, 640).astype(np.float32))
    picture = outputs["picture"]
    for place, expected in PARITY[training].items():
        if place == "point":
            found = outputs["point"]
        elif place == "means":
            found = picture.mean((0, 1), dtype=np.float64)
        else:
            found = picture[place]
        assert np.abs(found - expected).max() < 1e-4, place


def test_the_regulariser_gives_the_authors_number(checkpoints: Path) -> None:
    model = opened(checkpoints, "HDR+ 480p")
    with torch.inference_mode():
        thumbnail = model.look(planar(wave_picture(480, 640).astype(np.float32)))
        assert float(model.regulariser(thumbnail.weights)) == pytest.approx(3.44427e-4, rel=1e-5)


@pytest.mark.parametrize("training", FILES)
def test_every_number_of_a_checkpoint_is_accounted_for(checkpoints: Path, training: str) -> None:
    state = torch.load(checkpoints / FILES[training], weights_only=True)
    weights = convert(checkpoints / FILES[training])
    dropped = weights.provenance["dropped_numbers"]
    assert dropped == {"never_used": 164_320, "derived": 3072}
    kept = sum(value.size for value in weights.arrays.values())
    assert kept + sum(dropped.values()) == sum(value.numel() for value in state.values())
    assert weights.config["depth"] == (6 if "4K" in training else 3)
    assert weights.provenance["trained_on"] == training and weights.provenance["sha256"] == PUBLISHED[training]
    model = LlfLutPlus(**weights.config)
    model.load_arrays(weights.arrays)
    assert model.count_parameters() == kept == (553_019 if "4K" in training else 551_957)


def test_unexpected_and_missing_arrays_of_a_checkpoint() -> None:
    arrays = {f"LUT{index}.LUT": np.zeros((3, 2, 2, 2), np.float32) for index in range(3)}
    with pytest.raises(ItemError, match=r"unexpected array 'transformer\.surprise'"):
        convert_state({**arrays, "transformer.surprise": np.zeros(1)})
    with pytest.raises(ItemError, match=r"unexpected array 'LUT3\.LUT'"):
        convert_state({**arrays, "LUT3.LUT": np.zeros(1)})
    with pytest.raises(ItemError, match=r"lacks LUT1\.LUT"):
        convert_state({name: value for name, value in arrays.items() if "1" not in name})
    with pytest.raises(ItemError, match=r"lacks predictor\.enter\.weight"):
        convert_state(arrays)


def test_without_remapping_the_picture_is_its_tables_on_a_pyramid() -> None:
    """Strength 0 keeps the bands; on the looked-up low-pass the pyramid then gives the lookup back."""
    model = seeded("llf-lut-pp").as_dtype("float64")
    image = planar(model.example(37, 50)).double()
    with torch.no_grad():
        thumbnail = model.look(image)
        table = lut3d.fuse(model.tables, thumbnail.point)
        looked_up = lut3d.lookup(image, table)
        low = looked_up
        for _ in range(model.depth):
            low = laplacian.down(low)
        plain = type(thumbnail)(thumbnail.low, thumbnail.weights, thumbnail.point, low)
        assert (model.finish(image, plain, strength=0.0) - looked_up).abs().max() < 1e-12
        assert (model.finish(image, plain, strength=1.0) - looked_up).abs().max() > 1e-3


def test_strips_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads on strips of any height, and the compiled fine head, against the layers on the whole band."""
    model = seeded("llf-lut-pp").as_dtype("float64")
    image = planar(model.example(45, 62)).double()
    whole = model(image).detach()
    for samples in (1, 62 * 3, 62 * 7):
        monkeypatch.setattr(heads, "STRIP_SAMPLES", samples)
        with torch.no_grad():
            assert (model(image) - whole).abs().max() < 1e-12


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 1), (5, 7), (32, 9), (33, 8), (70, 11)])
def test_the_compiled_fine_head_equals_its_layers(rows: int, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    head = seeded("llf-lut-pp").fine[0]
    generator = torch.Generator().manual_seed(0)
    context = torch.randn(1, 6, (rows + 1) // 2, (columns + 1) // 2, generator=generator)
    band = torch.randn(1, 3, rows, columns, generator=generator)
    monkeypatch.setattr(heads, "STRIP_SAMPLES", 3 * columns)
    with torch.no_grad():
        compiled, strips = head(context, band), head.layers(context, band)
    whole = head.layers(context, band)
    assert compiled.shape == (1, 2, rows, columns)
    assert (compiled - whole).abs().max() < 1e-5 and (strips - whole).abs().max() < 1e-5


def test_enlarged_rows_are_rows_of_the_enlargement() -> None:
    for rows, columns in ((7, 9), (8, 10)):
        coarse = torch.rand(1, 2, (rows + 1) // 2, (columns + 1) // 2, generator=torch.Generator().manual_seed(0))
        whole = heads.enlarge(coarse, (rows, columns))
        assert torch.equal(whole, torch.nn.functional.interpolate(coarse, (rows, columns), mode="nearest"))
        for first in range(rows):
            for last in range(first + 1, rows + 1):
                assert torch.equal(heads.enlarged_rows(coarse, first, last, columns), whole[..., first:last, :])


def test_gradients_reach_every_parameter() -> None:
    model = seeded("llf-lut-pp").train()
    torch.manual_seed(0)
    model(planar(model.example(32, 40))).square().mean().backward()
    silent = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.isfinite().all()]
    assert silent == []


def test_windows_are_undone() -> None:
    tokens = torch.rand(2, 7, 9, 3, generator=torch.Generator().manual_seed(0))
    windows = predictor.to_windows(tokens, 4)
    assert windows.shape == (2 * 2 * 3, 16, 3)
    assert torch.equal(predictor.from_windows(windows, 4, 7, 9), tokens)
    assert torch.equal(windows[0].view(4, 4, 3), tokens[0, :4, :4])


def test_relative_index_tells_offsets_apart() -> None:
    index = predictor.relative_index(4)
    assert index.shape == (16, 16) and index.min() == 0 and index.max() == 48
    assert (index.diagonal() == 24).all()
    # one token to the right of another, wherever in the window
    assert len({int(index[row * 4 + column, row * 4 + column + 1]) for row in range(4) for column in range(3)}) == 1


def test_attention_by_brute_force() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.rand(1, 2, 3, 4, dtype=torch.float64, generator=generator) for _ in range(3))
    bias = torch.rand(2, 3, 3, dtype=torch.float64, generator=generator)
    expected = torch.zeros(3, 8, dtype=torch.float64)
    for head in range(2):
        for token in range(3):
            scores = [float(query[0, head, token] @ key[0, head, other]) / 2 for other in range(3)]
            weights = np.exp(np.array(scores) + bias[head, token].numpy())
            mixed = sum(w * value[0, head, other] for other, w in enumerate(weights / weights.sum()))
            expected[token, head * 4 : head * 4 + 4] = mixed
    assert (predictor.attend(query, key, value, bias)[0] - expected).abs().max() < 1e-14


def test_stochastic_depth_keeps_the_mean_and_rests_outside_training() -> None:
    torch.manual_seed(0)
    layer = predictor.StochasticDepth(0.25)
    ones = torch.ones(20_000, 1)
    assert layer(ones).mean() == pytest.approx(1.0, abs=0.02)
    assert layer(ones).unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert torch.equal(layer.eval()(ones), ones)


def test_counted_operations_are_those_that_torch_counts() -> None:
    for config in ({}, {"depth": 2, "width": 16, "stages": 2, "coarse_width": 8, "fine_width": 4}):
        model = registry.build("llf-lut-pp", {**config, "table_size": 5})
        for rows, columns in ((96, 128), (75, 101)):
            with FlopCounterMode(display=False) as counter:
                model(torch.rand(1, 3, rows, columns, generator=torch.Generator().manual_seed(0)))
            counted = counter.get_total_flops()
            # torch also counts the mixing of the tables and the filters of the edge detector
            assert cost.count_network_flops(model.config, rows, columns) == pytest.approx(counted, rel=0.002)
        assert cost.count_parameters(model.config) == model.count_parameters()


@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (1, 4, 32, 32), (3, 32, 32)])
def test_wrong_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"expected \[1, 3, rows, columns\]"):
        registry.build("llf-lut-pp", tiny=True)(torch.zeros(shape))


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 5), (64, 3)])
def test_tiny_pictures(rows: int, columns: int) -> None:
    outputs = seeded("llf-lut-pp").run(np.full((rows, columns, 3), 0.4, np.float32))
    assert outputs["picture"].shape == (rows, columns, 3) and np.isfinite(outputs["picture"]).all()


def test_the_exposure_anchor() -> None:
    dark = np.full((20, 30, 3), 0.01, np.float32)
    assert exposure_gain(dark) == 1.0
    light = np.linspace(0, 8, 600, dtype=np.float32).reshape(20, 30, 1) * np.ones(3, np.float32)
    assert exposure_gain(light) == pytest.approx(1 / np.percentile(light[..., 0], 99.5))
    # the scale of unbounded light does not matter
    assert exposure_gain(light * 50) * 50 == pytest.approx(exposure_gain(light))
    lamp = np.zeros((40, 40, 3), np.float32)
    lamp[0, 0] = 4.0
    assert exposure_gain(lamp) == 0.25
    assert exposure_gain(np.zeros((0, 0, 3), np.float32)) == 1.0


def test_the_mapper_is_independent_of_the_scale_of_light() -> None:
    mapper = PublishedToneMapper(seeded("llf-lut-pp"))
    light = mapper.model.example(40, 56) * 16
    assert np.abs(mapper.render(light) - mapper.render(light * 4)).max() < 1e-5


def test_the_mapper_takes_parameters_and_strength() -> None:
    mapper = PublishedToneMapper(seeded("llf-lut-pp"))
    light = mapper.model.example(40, 56)
    found = mapper.parameters(light)
    plain = mapper.render(light, found)
    assert not np.array_equal(plain, mapper.render(light, {**found, "point": found["point"] + 0.3}))
    assert not np.array_equal(plain, mapper.render(light, {**found, "gain": 0.5}))
    assert not np.array_equal(plain, mapper.render(light, found, strength=0.0))
    assert not np.array_equal(plain, mapper.render(light, found, interpolation="tetrahedral"))


def test_the_mapper_refuses_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="cuda:0: torch finds no such device"):
        PublishedToneMapper(seeded("llf-lut-pp"), "cuda:0")
    assert PublishedToneMapper(seeded("llf-lut-pp"), "auto").device == "cpu"


def test_the_cube_is_the_thumbnails_rendering(checkpoints: Path) -> None:
    """The exported table sends the thumbnail to what the network makes of it, up to what depends on the place."""
    mapper = PublishedToneMapper(opened(checkpoints, "HDR+ 480p"))
    pixels = wave_picture(240, 320).astype(np.float32)
    table = mapper.cube(mapper.parameters(pixels))
    with torch.inference_mode():
        thumbnail = mapper.model.look(planar(pixels))
        rendered = lut3d.lookup(thumbnail.low, torch.from_numpy(table))
        # the rest depends on the place and is in no table; the fused table of the bands is no rendering at all
        left = (rendered - thumbnail.toned).square().mean()
        varied = (thumbnail.toned - thumbnail.toned.mean((2, 3), keepdim=True)).square().mean()
        fused = lut3d.lookup(thumbnail.low, lut3d.fuse(mapper.model.tables, thumbnail.point))
        assert left < 0.2 * varied and left < 0.3 * (fused - thumbnail.toned).square().mean()
