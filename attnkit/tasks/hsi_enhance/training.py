"""Training recipe of hsi-enhance: the small default on eigen-images, the published network on band windows."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attnkit.models import registry
from attnkit.models.checkpoint import checkpoint_of, load_checkpoint
from attnkit.models.hsie.window import band_window
from attnkit.models.training_loop import RunningMean, Training, cosine, run, warm_up
from attnkit.models.weights import existing_file, read_weights, write_weights
from attnkit.runtime.errors import UsageError

from .materials import PIECE, EigenExample, Materials, dark_pair, eigen_example, find_materials

ARCHITECTURES = ("hsie", "hsie-lptn")
WARM_STEPS = 100
VALIDATION_CUBES = 24
# of the length of a typical spectrum: darker pixels count no more in the angle
DARKEST = 0.1


@dataclass(frozen=True)
class Recipe:
    """All that the result depends on besides the material and the weights begun with.

    cubes    that are made before the first step; every step cuts its crops from some of them
    batch    cubes a step (hsie: all their eigen-images), or band windows a step (hsie-lptn)
    crop     pixels along a side
    average  decay of the running mean of the weights, which is what is written
    """

    arch: str = "hsie"
    seed: int = 0
    minutes: float = 60.0
    steps: int = 5000
    cubes: int = 1200
    batch: int = 3
    crop: int = 64
    rate: float = 3e-3
    average: float = 0.998


def recipe_of(arch: str, **given: Any) -> Recipe:
    """The recipe of an architecture with some of its values replaced."""
    if arch not in ARCHITECTURES:
        raise UsageError(f"--arch: got {arch!r}, expected {' or '.join(ARCHITECTURES)}")
    published: dict[str, Any] = {"cubes": 240, "batch": 16, "crop": 32, "rate": 4e-4} if arch == "hsie-lptn" else {}
    return Recipe(arch=arch, **{**published, **{name: value for name, value in given.items() if value is not None}})


def make_example(index: int, recipe: Recipe, materials: Materials) -> Any:
    """Example `index` of a recipe: of eigen-images, or [2, bands, rows, columns] of a noisy cube and its clean twin."""
    draw = np.random.default_rng((recipe.seed, index))
    noisy, clean = dark_pair(draw, materials)
    return eigen_example(noisy, clean) if recipe.arch == "hsie" else np.stack([noisy, clean])


def make_examples(recipe: Recipe, materials: Materials, processes: int) -> Iterator[Any]:
    """All examples in order; the same for any number of processes."""
    make = partial(make_example, recipe=recipe, materials=materials)
    if processes == 1:
        yield from map(make, range(recipe.cubes))
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap(make, range(recipe.cubes))


class EigenImages:
    """Crops of eigen-images and the loss of the default model on them."""

    def __init__(self, recipe: Recipe, examples: list[EigenExample], device: str) -> None:
        self.recipe = recipe
        self.examples = examples
        self.device = device

    def loss(self, model: Any, step: int) -> Tensor:
        """Mean over a batch of ln(root mean squared error), averaged over bands, plus ln(mean spectral angle).

        These are MPSNR and SAM but for constants, so that both count by their ratio in every cube.
        """
        draw = np.random.default_rng((self.recipe.seed, 1, step))
        crop, total = self.recipe.crop, torch.zeros((), device=self.device)
        for index in draw.integers(VALIDATION_CUBES, len(self.examples), self.recipe.batch):
            example = self.examples[index]
            top, left = draw.integers(0, PIECE - crop + 1, 2)
            turned = tuple(axis for axis in (1, 2) if draw.random() < 0.5)
            place = (slice(None), slice(top, top + crop), slice(left, left + crop))
            # the sign of an eigenvector means nothing
            signs = draw.choice([-1.0, 1.0], (len(example.noisy), 1, 1)).astype(np.float32)
            noisy, estimate, clean, length = (
                self._tensor(np.flip(planes[place], turned))
                for planes in (
                    signs * example.noisy,
                    signs * example.estimate,
                    signs * example.clean,
                    example.length[None],
                )
            )
            spectra = self._tensor(example.spectra * signs[:, 0, 0])
            error = model(noisy, estimate) - clean
            total = total + measure(error, spectra, self._tensor(example.beyond), length[0])
        return total / self.recipe.batch

    def _tensor(self, array: NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def validate(self, model: Any) -> dict[str, float]:
        """The loss of noisy eigen-images, of first estimates, and of the model's results; 0.115 of it is 1 dB."""
        sums = np.zeros(3)
        for example in self.examples[:VALIDATION_CUBES]:
            noisy, estimate, clean, spectra, beyond, length = (
                self._tensor(getattr(example, field.name)) for field in fields(example)
            )
            with torch.inference_mode():
                results = (noisy, estimate, model(noisy, estimate))
                sums += [float(measure(part - clean, spectra, beyond, length)) for part in results]
        before, first, after = (sums / VALIDATION_CUBES).round(4).tolist()
        return {"loss_noisy": before, "loss_first_estimate": first, "loss": after}


def measure(error: Tensor, spectra: Tensor, beyond: Tensor, length: Tensor) -> Tensor:
    """ln(root mean squared error), averaged over bands, plus ln(mean angle) of an error of the eigen-images.

    error [rank, rows, columns]; the others as in `EigenExample`
    """
    bands = (spectra @ error.flatten(1)).unflatten(1, error.shape[1:])
    level = 0.5 * torch.log((bands**2).mean((1, 2)) + beyond).mean()
    angle = torch.sqrt((bands**2).sum(0) + beyond.sum()) / length.clamp(min=DARKEST * float(length.mean()))
    return level + torch.log(angle.mean())


class BandWindows:
    """Band windows of noisy cubes and the loss of the published network on them (mean L1, as published)."""

    def __init__(self, recipe: Recipe, examples: list[NDArray[np.float32]], device: str) -> None:
        self.recipe = recipe
        self.examples = examples
        self.device = device

    def loss(self, model: Any, step: int) -> Tensor:
        draw = np.random.default_rng((self.recipe.seed, 1, step))
        crop = self.recipe.crop
        bands, contexts, wanted = [], [], []
        for index in draw.integers(VALIDATION_CUBES, len(self.examples), self.recipe.batch):
            noisy, clean = self.examples[index]
            windows, _ = band_window(len(noisy), model.neighbours)
            band = int(draw.integers(len(noisy)))
            top, left = draw.integers(0, PIECE - crop + 1, 2)
            place = slice(top, top + crop), slice(left, left + crop)
            bands.append(noisy[(band, *place)][None])
            contexts.append(noisy[windows[band]][(slice(None), *place)])
            wanted.append(clean[(band, *place)][None])
        band_values, context, clean_values = (
            torch.from_numpy(np.stack(part)).to(self.device) for part in (bands, contexts, wanted)
        )
        return (model(band_values, context) - clean_values).abs().mean()

    def validate(self, model: Any) -> dict[str, float]:
        """Mean PSNR over cubes and some of their bands, peak 1, of the noisy cubes and of the model."""
        scores = []
        for noisy, clean in self.examples[:VALIDATION_CUBES]:
            windows, _ = band_window(len(noisy), model.neighbours)
            some = np.linspace(0, len(noisy) - 1, 4).astype(int)
            band = torch.from_numpy(noisy[some][:, None]).to(self.device)
            context = torch.from_numpy(noisy[windows[some]]).to(self.device)
            with torch.inference_mode():
                result = model(band, context)[:, 0].cpu().numpy()
            scores.append(
                [-10 * np.log10(((part - clean[some]) ** 2).mean(axis=(1, 2))).mean() for part in (noisy[some], result)]
            )
        before, after = np.mean(scores, axis=0).round(3).tolist()
        return {"psnr_noisy_db": before, "psnr_db": after}


def training_of(model: Any, material: EigenImages | BandWindows, recipe: Recipe) -> tuple[Training, RunningMean]:
    """The training of a model, and the running mean of its weights that is to be written."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=recipe.rate, weight_decay=1e-4)
    average = RunningMean(model, recipe.average)
    training = Training(
        kept={"model": model, "average": average, "optimiser": optimiser},
        optimiser=optimiser,
        rates=lambda step, progress: [
            recipe.rate * (0.02 + 0.98 * cosine(progress)) * warm_up(step, WARM_STEPS),
        ],
        loss=lambda step, progress: {"loss": material.loss(model, step)},
        after=average.update,
    )
    return training, average


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
    """Train a model and write its weight file; returns what the provenance says, with the validation scores."""
    if recipe.cubes <= VALIDATION_CUBES:
        raise UsageError(f"--cubes: got {recipe.cubes}, expected more than the {VALIDATION_CUBES} that validate")
    checkpoint = checkpoint_of(out, resume=resume, overwrite=overwrite)
    before = load_checkpoint(checkpoint, asdict(recipe), device) if resume else None
    materials = find_materials(data)
    if threads is not None:
        torch.set_num_threads(threads)
    say(
        f"{len(materials.cubes)} measured cubes, {len(materials.library.reflectance)} spectra, "
        f"{len(materials.pictures)} pictures"
    )
    examples = []
    for example in make_examples(recipe, materials, torch.get_num_threads()):
        examples.append(example)
        if len(examples) % 100 == 0:
            say(f"{len(examples)} of {recipe.cubes} cubes made")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = registry.build(recipe.arch).to(device).train()  # type: ignore[attr-defined]
    begun = None if init is None else read_weights(existing_file(init))
    if begun is not None:
        model.load_arrays(begun.arrays)
    material = (EigenImages if recipe.arch == "hsie" else BandWindows)(recipe, examples, device)
    training, average = training_of(model, material, recipe)
    steps, minutes = run(training, asdict(recipe), checkpoint, before, say)
    model.load_state_dict(average.values)
    model.eval()
    provenance = {
        "recipe": asdict(recipe),
        "begun_with": None if begun is None else begun.provenance,
        "measured_cubes": list(materials.cubes),
        "spectra": len(materials.library.reflectance),
        "pictures": len(materials.pictures),
        "validation_cubes": VALIDATION_CUBES,
        "validation": material.validate(model),
        "steps": steps,
    }
    write_weights(out, model.arrays(), architecture=recipe.arch, config=model.config, provenance=provenance)
    checkpoint.unlink(missing_ok=True)
    return {**provenance, "minutes": round(minutes, 2), "out": str(out)}
