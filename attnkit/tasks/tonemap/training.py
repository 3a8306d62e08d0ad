"""Training recipe of the embedded tone mapper: TMQI by gradient, held back by halo, hue and noise guards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attnkit_kernels.image import lut3d
from torch import Tensor

from attnkit.models.checkpoint import checkpoint_of, load_checkpoint
from attnkit.models.llf_lut_fast import LUMA, FastConfig, anchor_of
from attnkit.models.llf_lut_fast_torch import FastLlfLut, Rendering, luma
from attnkit.models.training_loop import Training, cosine, run, warm_up
from attnkit.models.weights import existing_file, read_weights, write_weights
from attnkit.pictures import describe, read_picture
from attnkit.runtime.errors import UsageError
from attnkit.tasks.tonemap import losses
from attnkit.tasks.tonemap.views import SPLIT, Camera, is_panorama, view, views

WARM_STEPS = 100
LEAST_RATE = 1e-6


@dataclass(frozen=True)
class Recipe:
    """All that the result depends on besides the pictures and the weights begun with."""

    seed: int = 0
    minutes: float = 90.0
    steps: int = 2600
    batch: int = 4
    rows: int = 288
    columns: int = 384
    rate: float = 1e-3
    reversal_weight: float = 60.0
    hue_weight: float = 2.0
    noise_weight: float = 0.01
    noise_allowed: float = 26.0
    map_weight: float = 0.02
    # not trained: how much of the trained local part the written model uses
    local_amount: float = 1.0
    use_map: bool = True
    use_remap: bool = True


def sample_views(panoramas: list[np.ndarray], recipe: Recipe, step: int) -> np.ndarray:
    """One batch of views [batch, rows, columns, 3], linear light: scene, camera and mirroring drawn by the step."""
    random = np.random.default_rng((recipe.seed, step))
    batch = []
    for _ in range(recipe.batch):
        panorama = panoramas[random.integers(len(panoramas))]
        camera = Camera(random.uniform(0, 360), random.uniform(-35, 35), random.uniform(45, 125))
        picture = view(panorama, camera, recipe.rows, recipe.columns)
        batch.append(picture[:, ::-1] if random.random() < 0.5 else picture)
    return np.ascontiguousarray(np.stack(batch))


def prepare(pictures: np.ndarray, config: FastConfig) -> tuple[Tensor, Tensor]:
    """Anchored linear light and its encoding, both [batch, 3, rows, columns]."""
    weights = np.array(LUMA, np.float32)
    anchored = np.stack([picture / anchor_of(picture @ weights) for picture in pictures])
    encoded = config.encode(anchored, 1.0)
    return torch.from_numpy(anchored).permute(0, 3, 1, 2), torch.from_numpy(encoded).permute(0, 3, 1, 2).contiguous()


def dark_gain(rendering: Rendering, light: Tensor, noisy: Rendering, noisy_light: Tensor) -> Tensor:
    """Shown codes per unit of relative noise in the darkest quarter, as `metrics.guards` measures it."""
    before, after = luma(light), luma(noisy_light)
    dark = (before <= before.flatten(1).quantile(0.25, 1).view(-1, 1, 1, 1)).float()
    count = dark.sum((1, 2, 3)).clamp(min=1)
    relative = (((after - before) ** 2 * dark).sum((1, 2, 3)) / count).sqrt() / (
        (before * dark).sum((1, 2, 3)) / count
    ).clamp(min=1e-9)
    shown = 255 * (luma(noisy.display) - luma(rendering.display))
    return (((shown**2 * dark).sum((1, 2, 3)) / count + 1e-4).sqrt() / relative.clamp(min=1e-6)).mean()


def add_noise(light: Tensor, seed: tuple[int, int]) -> Tensor:
    """Shot and read noise for an exposure at which the dark quarter's mean collects 400 electrons."""
    generator = torch.Generator().manual_seed(seed[0] * 1_000_003 + seed[1])
    brightness = luma(light)
    limit = brightness.flatten(1).quantile(0.25, 1).view(-1, 1, 1, 1)
    dark = (brightness <= limit).float()
    mean = (brightness * dark).sum((1, 2, 3), keepdim=True) / dark.sum((1, 2, 3), keepdim=True).clamp(min=1)
    electrons = light * (400 / mean.clamp(min=1e-9))
    noise = torch.randn(light.shape, generator=generator).to(light.device) * (electrons + 16).sqrt()
    return ((electrons + noise).clamp(min=0) * (mean / 400)).float()


def encode(light: Tensor, config: FastConfig) -> Tensor:
    """`FastConfig.encode` for tensors of anchored light."""
    black = 2.0**-config.toe
    return ((torch.log2(light + black) + config.toe) / (config.toe + config.head)).clamp(0, 1)


def objective(
    model: FastLlfLut, light: Tensor, encoded: Tensor, recipe: Recipe, step: int
) -> tuple[Tensor, dict[str, float]]:
    """Loss of a batch and its parts."""
    rendering = model(encoded, use_map=recipe.use_map, use_remap=recipe.use_remap)
    codes = 255 * luma(rendering.display)
    scene = losses.Scene(luma(light))
    structure = scene.structure(codes)
    natural, mean, spread = losses.naturalness(codes)
    score = losses.tmqi_of(structure, natural)
    stops = torch.log2(luma(light) + 2.0**-12)
    halo = losses.reversal(stops, codes)
    hue = losses.hue_shift(light, rendering.display)
    noisy_light = add_noise(light, (recipe.seed, step))
    noisy = model(encode(noisy_light, model.config), use_map=recipe.use_map, use_remap=recipe.use_remap)
    noise = dark_gain(rendering, light, noisy, noisy_light)
    # far from its peak naturalness has no slope; the distance to the peak gives one
    far = (((mean - 115.94) / 60) ** 2 + ((spread - 17.5).clamp(max=0) / 20) ** 2).mean()
    smooth = sum(lut3d.total_variation(model.tables[k]) for k in range(3))
    monotone = sum(lut3d.monotonicity(model.tables[k]) for k in range(3))
    loss = (
        (1 - score).mean()
        + 0.05 * far
        + recipe.reversal_weight * halo
        + recipe.hue_weight * hue
        + recipe.noise_weight * (noise - recipe.noise_allowed).clamp(min=0)
        + 1e-2 * smooth
        + 10 * monotone
        + recipe.map_weight * rendering.map_change.square().mean()
    )
    parts = {
        "tmqi": score.mean(), "s": structure.mean(), "n": natural.mean(), "mean": mean.mean(), "spread": spread.mean(),
        "halo": halo, "hue": hue, "noise": noise, "smooth": smooth, "monotone": monotone,
        "map": rendering.map_change.abs().mean(),
    }  # fmt: skip
    for group, strength in enumerate(rendering.strengths):
        parts[f"strength{group}"] = strength.mean()
    return loss, {name: value.item() for name, value in parts.items()}


def validate(model: FastLlfLut, pictures: list[np.ndarray], recipe: Recipe) -> float:
    """Mean TMQI of views that are not trained on, by the metric itself."""
    from attnkit.tasks.tonemap.metrics.tmqi import tmqi

    scores = []
    for picture in pictures:
        encoded = prepare(picture[None], model.config)[1].to(model.tables.device)
        with torch.no_grad():
            display = model(encoded, use_map=recipe.use_map, use_remap=recipe.use_remap).display[0]
        scores.append(tmqi(picture, display.permute(1, 2, 0).cpu().numpy()).q)
    return float(np.mean(scores))


def training_of(model: FastLlfLut, panoramas: list[np.ndarray], recipe: Recipe) -> Training:
    """The training of a model; its tables follow more slowly than the rest."""
    peaks = [0.4 * recipe.rate, recipe.rate]
    parameters = [[model.tables], list(model.predictor.parameters())]
    groups = [{"params": part, "lr": peak} for part, peak in zip(parameters, peaks, strict=True)]
    optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=0.0)

    def loss(step: int, progress: float) -> dict[str, Tensor | float]:
        light, encoded = (
            part.to(model.tables.device) for part in prepare(sample_views(panoramas, recipe, step), model.config)
        )
        total, parts = objective(model, light, encoded, recipe, step)
        return {**parts, "loss": total}

    return Training(
        kept={"model": model, "optimiser": optimiser},
        optimiser=optimiser,
        rates=lambda step, progress: [
            peak * warm_up(step, WARM_STEPS) * cosine(progress) + LEAST_RATE for peak in peaks
        ],
        loss=loss,
    )


def scenes(data: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Panoramas to train on and to validate with, by scene name, from a folder of 2:1 HDR pictures.

    Scenes named in `views.SPLIT` go where it says, test scenes nowhere. In a folder without any of them every tenth
    panorama in the order of names validates. UsageError for a folder without panoramas.
    """
    if not data.is_dir():
        raise UsageError(f"--data: got {data}, expected a folder of HDR panoramas")
    found = {}
    for path in sorted(data.rglob("*")):
        if path.suffix.lower() in (".exr", ".hdr", ".pfm", ".tif", ".tiff") and path.is_file():
            info = describe(path)
            if info.hdr and is_panorama(info.rows, info.columns):
                found[path.relative_to(data).with_suffix("").as_posix()] = path
    if not found:
        raise UsageError(
            f"--data: no HDR panorama of 2:1 shape in {data}, expected .exr, .hdr, .pfm or float .tif files"
        )
    if any(name in part for part in SPLIT.values() for name in found):
        train_part, validation = (
            {name: path for name, path in found.items() if name in SPLIT[part]} for part in ("train", "val")
        )
    else:
        validation = dict(list(found.items())[::10])
        train_part = {name: path for name, path in found.items() if name not in validation} or validation
    if not train_part:
        raise UsageError(
            f"--data: {data} has none of the training scenes, expected some of {', '.join(SPLIT['train'])}"
        )
    return train_part, validation


def train(
    data: Path,
    out: Path,
    recipe: Recipe,
    *,
    device: str = "cpu",
    threads: int | None = None,
    init: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Train a model and write its weight file; returns what the provenance says, with the validation score."""
    checkpoint = checkpoint_of(out, resume=resume, overwrite=overwrite)
    paths, validation_paths = scenes(data)
    panoramas = [read_picture(path).pixels for path in paths.values()]
    pictures = [
        picture
        for path in validation_paths.values()
        for picture in views(read_picture(path).pixels, 4, 640, recipe.seed)
    ]
    if threads is not None:
        torch.set_num_threads(threads)
    config = FastConfig()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = FastLlfLut(config).to(device)
    begun = None if init is None else read_weights(existing_file(init))
    if begun is not None:
        model.load_state_dict({name: torch.from_numpy(values) for name, values in begun.arrays.items()})
    before = load_checkpoint(checkpoint, asdict(recipe), device) if resume else None
    say(f"training on {len(panoramas)} scenes, validating on {len(pictures)} views of {len(validation_paths)}")
    steps, minutes = run(training_of(model, panoramas, recipe), asdict(recipe), checkpoint, before, say)
    provenance = {
        "recipe": asdict(recipe),
        "begun_with": None if begun is None else begun.provenance,
        "scenes": list(paths),
        "validation_scenes": list(validation_paths),
        "validation_views": len(pictures),
        "validation_tmqi": round(validate(model, pictures, recipe), 5),
        "steps": steps,
    }
    arrays = {name: values.detach().cpu().numpy() for name, values in model.state_dict().items()}
    sizes = {**asdict(config), "local_amount": recipe.local_amount}
    write_weights(out, arrays, architecture="llf-lut", config=sizes, provenance=provenance)
    checkpoint.unlink(missing_ok=True)
    return {**provenance, "minutes": round(minutes, 2), "out": str(out)}
