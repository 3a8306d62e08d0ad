"""HSIE as published against its numbers and limit cases, and its fast path against it."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from attnkit_kernels.image import laplacian
from seeded_models import seeded
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from attnkit.models import registry
from attnkit.models.hsie import winograd
from attnkit.models.hsie.convert import convert, convert_state
from attnkit.models.hsie.fast import FastHsie
from attnkit.models.hsie.model import ChannelAttention, HsieLptn
from attnkit.models.hsie.window import band_window
from attnkit.models.identity import kept_model, model_identity
from attnkit.runtime.errors import ItemError, UsageError

# wide enough that the fast path takes its special convolutions
BROAD = {
    "neighbours": 4, "features": 12, "growth": 11, "blocks": 2, "convs": 3, "width": 32, "residual_blocks": 1,
}  # fmt: skip


def damped(**config: object) -> HsieLptn:
    """A network by seed whose results stay near 1."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = HsieLptn(**config).eval()  # type: ignore[arg-type]
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(0.5).add_(0.01 * torch.randn_like(parameter))
    return model


def random_band(neighbours: int, rows: int, columns: int, batch: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.rand(batch, 1, rows, columns, generator=generator, dtype=torch.float64),
        torch.rand(batch, neighbours, rows, columns, generator=generator, dtype=torch.float64),
    )


def test_published_network_gives_its_authors_numbers() -> None:
    model = HsieLptn().double().eval()
    assert model.count_parameters() == 671_309 and len(list(model.parameters())) == 86
    assert model.count_parameters() - sum(p.numel() for p in model.unused.parameters()) == 638_849
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            flat = torch.arange(parameter.numel(), dtype=torch.float64)
            parameter.copy_((0.02 * torch.sin(0.37 * flat + number)).view_as(parameter))
        y, x = torch.meshgrid(*[torch.arange(32, dtype=torch.float64)] * 2, indexing="ij")
        bands = torch.stack([0.1 + 0.05 * torch.sin(0.3 * x + 0.2 * y + 0.1 * band) for band in range(24)])
        result = model(bands[None, :1], bands[None])[0, 0]
    found = [float(value) for value in (result.mean(), result.std(), result[5, 7], result[20, 11])]
    assert found == pytest.approx([0.1124161, 0.0294918, 0.1146523, 0.1463669], abs=1e-6)


def test_variant_of_the_training_script_has_no_last_convolution() -> None:
    plain, last = HsieLptn(last_conv=False), HsieLptn()
    assert last.count_parameters() - plain.count_parameters() == 10
    assert "last.weight" not in plain.arrays()


def without_relighting(monkeypatch: pytest.MonkeyPatch, keeps: str) -> HsieLptn:
    model = seeded("hsie-lptn").as_dtype("float64")
    with torch.no_grad():
        for layer in (model.relight, model.last):
            layer.weight.zero_()
            layer.bias.zero_()
    details = {}
    monkeypatch.setattr(model, "sharpened", lambda detail, low, bright: details.get("own", detail))
    if keeps == "own":
        band, _ = random_band(model.neighbours, 12, 14)
        details["own"] = band - laplacian.up(laplacian.down(band), (12, 14))
    return model


def test_pyramid_round_trip_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    band, neighbours = random_band(4, 12, 14)
    with torch.no_grad():
        assert (without_relighting(monkeypatch, "own")(band, neighbours) - band).abs().max() < 1e-12
        assert (without_relighting(monkeypatch, "mean")(band, neighbours) - band).abs().max() > 1e-2


def test_identical_neighbours_have_the_detail_of_the_band(monkeypatch: pytest.MonkeyPatch) -> None:
    band, _ = random_band(4, 12, 14)
    with torch.no_grad():
        result = without_relighting(monkeypatch, "mean")(band, band.expand(-1, 4, -1, -1))
    assert (result - band).abs().max() < 1e-12


def test_channel_attention_of_constant_maps() -> None:
    attention = ChannelAttention().double()
    before, own, after = attention.mix.weight.detach().flatten().tolist()
    channel = torch.arange(6, dtype=torch.float64)
    maps = channel[None, :, None, None].expand(1, 6, 3, 4)
    padded = F.pad(channel, (1, 1))
    expected = torch.sigmoid(before * padded[:-2] + own * padded[1:-1] + after * padded[2:])
    assert torch.allclose(attention(maps)[0], expected)
    values = torch.rand(1, 6, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    shuffled = values.flatten(2)[..., torch.randperm(12, generator=torch.Generator().manual_seed(0))].view_as(values)
    assert torch.allclose(attention(values), attention(shuffled))


def test_gradients_of_the_whole_network() -> None:
    model = seeded("hsie-lptn").as_dtype("float64")
    inputs = [part.requires_grad_() for part in random_band(4, 8, 8)]
    assert torch.autograd.gradcheck(model, inputs, fast_mode=True)


@pytest.mark.parametrize("size", [(7, 9), (1, 1), (2, 3), (8, 5)])
def test_odd_sizes_are_padded_by_reflection(size: tuple[int, int]) -> None:
    model = seeded("hsie-lptn").as_dtype("float64")
    parts = random_band(4, *size)
    widths = [(0, size[0] % 2), (0, size[1] % 2)]
    padded = [torch.from_numpy(np.pad(part.numpy(), [(0, 0), (0, 0), *widths], mode="reflect")) for part in parts]
    with torch.no_grad():
        assert torch.equal(model(*parts), model(*padded)[..., : size[0], : size[1]])


def test_band_window_is_the_published_one() -> None:
    windows, filled = band_window(64, 24)
    assert windows.shape == (64, 24) and filled == 0
    expected = {0: range(24), 11: range(24), 12: [*range(12), *range(13, 25)], 51: [*range(39, 51), *range(52, 64)]}
    for band, numbers in {**expected, 52: range(40, 64), 63: range(40, 64)}.items():
        assert windows[band].tolist() == list(numbers)
    assert [band for band in range(64) if band not in windows[band]] == list(range(12, 52))


def test_too_few_bands_are_reflected_and_counted() -> None:
    windows, filled = band_window(4, 6)
    assert filled == 3 and windows.tolist()[1] == [2, 1, 0, 2, 3, 2]
    for bands in range(1, 8):
        windows, filled = band_window(bands, 6)
        assert windows.shape == (bands, 6) and filled == max(0, 7 - bands)
        assert windows.min() >= 0 and windows.max() < bands
    assert band_window(1, 6)[0].tolist() == [[0] * 6]


def test_neighbours_by_wavelength() -> None:
    nm = [400.0, 410, 420, 700, 710, 720, 730]
    windows, filled = band_window(7, 2, nm)
    assert filled == 0 and windows.tolist() == [[1, 2], [0, 2], [0, 1], [4, 5], [3, 5], [4, 6], [4, 5]]
    even_steps = band_window(40, 4, np.arange(40.0))[0]
    assert np.array_equal(even_steps[2:-2], band_window(40, 4)[0][2:-2])
    with pytest.raises(UsageError, match="got 3 wavelengths, expected 7"):
        band_window(7, 2, nm[:3])
    with pytest.raises(UsageError, match="got 0 bands"):
        band_window(0, 2)


def published_name(name: str) -> str:
    """Our name of a parameter in the published class, for three residual blocks."""
    parts = name.split(".")
    table = {
        "enter": "conv1.0", "fuse": "rdn.GFF1", "unused": "rdn.GFF2", "relight": "conv10", "last": "conv_last",
        "mask_enter": "trans_high.model.0", "mask_leave": "trans_high.model.5",
        "curve_enter": "trans_high.trans_mask_block.0", "curve_leave": "trans_high.trans_mask_block.2",
    }  # fmt: skip
    if parts[0] in table:
        return f"{table[parts[0]]}.{parts[1]}"
    if parts[0] in ("spatial", "spectral"):
        return f"{parts[0]}_feature_{3 + 2 * int(parts[1])}.{parts[2]}"
    if parts[0] == "mask_blocks":
        return f"trans_high.model.{2 + int(parts[1])}.block.{0 if parts[2] == 'first' else 2}.{parts[3]}"
    inside = {"dense": "layer.{0}.conv.{1}", "reduce": "conv1x1.{0}", "attention": "ecalayer.conv.weight"}
    return f"rdn.rdbModuleList.{parts[1]}." + inside[parts[2]].format(*parts[3:])


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_published_checkpoint_is_converted(tmp_path: Path, prefix: str) -> None:
    model = damped(**{**BROAD, "residual_blocks": 3}, last_conv=not prefix)
    state = OrderedDict((prefix + published_name(name), value) for name, value in model.state_dict().items())
    torch.save(state, tmp_path / "best.pth")
    weights = convert(tmp_path / "best.pth")
    assert weights.config == model.config
    assert all(np.array_equal(weights.arrays[name], value) for name, value in model.arrays().items())
    with pytest.raises(ItemError, match="unexpected array 'stranger'"):
        convert_state({"stranger": np.zeros(1)})
    with pytest.raises(ItemError, match=r"lacks spectral\.0\.weight"):
        convert_state({})


def test_operations_are_those_that_torch_counts() -> None:
    model = HsieLptn().eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(*(part.float() for part in random_band(24, 16, 12)))
    counted = counter.get_total_flops()
    # the attention's convolution of channel means is not counted here
    assert 0 <= counted - model.count_flops(16, 12) < 1e-3 * counted
    assert model.count_flops(16, 12) / 2 / (16 * 12) == pytest.approx(0.33e6, rel=0.02)


def test_wrong_shapes_are_named() -> None:
    model = seeded("hsie-lptn")
    with pytest.raises(UsageError, match=r"neighbours of shape \(1, 3, 8, 8\).*\[batch, 4, rows, columns\]"):
        model(torch.zeros(1, 1, 8, 8), torch.zeros(1, 3, 8, 8))
    with pytest.raises(UsageError, match="neighbours 5"):
        HsieLptn(neighbours=5)


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (4, 4), (5, 9), (17, 30)])
def test_transformed_convolution_is_the_convolution(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(*size, 33, generator=generator)
    weight, bias = torch.randn(40, 33, 3, 3, generator=generator) / 17, torch.randn(40, generator=generator)
    expected = F.conv2d(image.permute(2, 0, 1)[None].double(), weight.double(), bias.double(), padding=1)
    expected = expected[0].permute(1, 2, 0)
    assert winograd.suits(weight) and not winograd.suits(weight[:8]) and not winograd.suits(weight.double())
    kernel = winograd.transformed(weight)
    for slope in (0.0, 0.01, 1.0):
        result = torch.full((*size, 40), torch.nan)
        winograd.convolve(image, kernel, bias, slope, result, add=False)
        assert (result - F.leaky_relu(expected, slope)).abs().max() < 1e-4
    start = torch.randn(*size, 40, generator=generator)
    total = start.clone()
    winograd.convolve(image, kernel, bias, 1.0, total, add=True)
    assert (total - start - expected).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("config", "dtype"), [(BROAD, "float32"), (BROAD, "float64"), ({**BROAD, "last_conv": False}, "float32")]
)
def test_fast_path_is_the_network(config: dict[str, int], dtype: str) -> None:
    model = damped(**config).as_dtype(dtype)
    band, neighbours = (part.to(getattr(torch, dtype)) for part in random_band(4, 18, 26, batch=2))
    fast = FastHsie(model)
    with torch.inference_mode():
        low, context = (laplacian.down(part).movedim(1, 3).contiguous() for part in (band, neighbours))
        mean = neighbours.mean(1, keepdim=True)
        detail = (mean - laplacian.up(laplacian.down(mean))).movedim(1, 3).contiguous()
        result = fast.finish(detail, low, fast.brighten(low, context)).movedim(3, 1)
        expected = model(band, neighbours)
    assert 0.1 < expected.abs().max() < 100
    assert (result - expected).abs().max() < (1e-5 if dtype == "float32" else 1e-12)


def test_a_saved_network_opens_for_its_task(tmp_path: Path) -> None:
    model = seeded("hsie-lptn")
    registry.save(model, "hsie-lptn", tmp_path / "w.safetensors")
    fast = registry.open_model(tmp_path / "w.safetensors", task="hsi-enhance")
    assert isinstance(fast, FastHsie) and fast.config == model.config


def test_a_model_is_opened_once_and_again_where_its_file_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    registry.save(registry.build("hsie-lptn", tiny=True), "hsie-lptn", path)
    first, name = kept_model(str(path), "hsi-enhance", "cpu", True), model_identity(str(path))
    assert kept_model(str(path), "hsi-enhance", "cpu", True) is first
    network = registry.build("hsie-lptn", tiny=True)
    with torch.no_grad():
        network.enter.bias.add_(1)
    registry.save(network, "hsie-lptn", path)
    os.utime(path, ns=(1, 1))
    assert kept_model(str(path), "hsi-enhance", "cpu", True) is not first and model_identity(str(path)) != name
