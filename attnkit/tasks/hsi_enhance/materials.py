"""What hsi-enhance is trained on: bright cubes, measured or made of a library's spectra, darkened at random."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnkit.cubes import identify, open_cube
from attnkit.runtime.errors import AttnkitError, UsageError

from .darkening import DarkModel, darken
from .methods.hsie import first_estimate, fitted
from .source import ArraySource
from .synthesis import Library, read_library, synthesise

# the built-in split: columns of a cube that are trained on, by the name of its file; None takes nothing of it
CUBE_COLUMNS: dict[str, tuple[int, int] | None] = {"indian_pines.npz": (0, 96), "image.hdr": None}
# and the photographs of OSIE that are; other pictures whose folder is named `photo` are for tests
LAST_TRAINING_PHOTOGRAPH = 1400
# share of the pieces that are cut from measured cubes
MEASURED_SHARE = 0.3
# pixels of a training cube along a side
PIECE = 96
# eigen-images of a training cube
MOST_PLANES = 16


@dataclass(frozen=True)
class Materials:
    """Measured bright cubes [bands, rows, columns] by name, a library of spectra, and pictures for their shapes."""

    cubes: dict[str, NDArray[np.float32]]
    library: Library
    pictures: tuple[Path, ...]


def find_materials(folder: Path) -> Materials:
    """All of a folder and its sub-folders that is trained on: one spectral library (.npz), cubes, pictures.

    UsageError where the folder lacks a library or pictures.
    """
    if not folder.is_dir():
        raise UsageError(f"--data: got {folder}, expected a folder with a spectral library, pictures and cubes")
    library: Library | None = None
    cubes: dict[str, NDArray[np.float32]] = {}
    pictures = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in (".jpg", ".jpeg", ".png") and path.parent.name != "photo":
            if not path.stem.isdigit() or int(path.stem) <= LAST_TRAINING_PHOTOGRAPH:
                pictures.append(path)
        elif path.suffix == ".npz" and _is_library(path):
            library = read_library(path).part(held_out=False)
        elif path.suffix.lower() in (".hdr", ".npz", ".npy", ".mat", ".h5"):
            cube = _measured(path)
            if cube is not None:
                cubes[path.relative_to(folder).as_posix()] = cube
    if library is None:
        raise UsageError(
            f"--data {folder}: no spectral library; expected an .npz with reflectance, wavelength_um, level3"
        )
    if not pictures:
        raise UsageError(f"--data {folder}: no pictures; expected .jpg or .png files, whose shapes the cubes get")
    return Materials(cubes, library, tuple(pictures))


def _is_library(path: Path) -> bool:
    with np.load(path) as stored:
        return "wavelength_um" in stored.files


def _measured(path: Path) -> NDArray[np.float32] | None:
    """A cube at least PIECE pixels wide and high, its brightest hundredth at 1; None for anything else."""
    part = CUBE_COLUMNS.get(path.name, (0, 2**31))
    with path.open("rb") as stream:
        found = identify(path, stream.read(512))
    if part is None or found is None:
        return None
    try:
        with open_cube(path, input_format=found.kind, key="cube" if found.kind == "npz" else None) as reader:
            if min(reader.info.rows, min(reader.info.columns, part[1]) - part[0]) < PIECE:
                return None
            cube = reader.read(slice(None), slice(None), slice(part[0], min(part[1], reader.info.columns)))
    except AttnkitError:
        return None
    bright = np.nan_to_num(cube.astype(np.float32))
    return np.clip(bright / max(float(np.percentile(bright, 99)), 1e-9), 0.0, 1.5)


def random_darkness(draw: np.random.Generator) -> DarkModel:
    """A camera and an exposure: half of them 1/15, the others from 1/40 to 1/4."""
    exposure = float(np.exp(draw.uniform(np.log(1 / 40), np.log(1 / 4)))) if draw.random() < 0.5 else 1 / 15
    return DarkModel(
        exposure=exposure,
        full_well=10 ** draw.uniform(3.3, 4.3),
        read_noise=10 ** draw.uniform(-3.0, -2.4),
        stripe_offset=10 ** draw.uniform(-4.3, -3.0),
        stripe_gain=10 ** draw.uniform(-3.0, -1.7),
    )


def bright_piece(draw: np.random.Generator, materials: Materials) -> NDArray[np.float32]:
    """A bright cube [bands, PIECE, PIECE]."""
    if materials.cubes and draw.random() < MEASURED_SHARE:
        whole = list(materials.cubes.values())[int(draw.integers(len(materials.cubes)))]
        bands, rows, columns = whole.shape
        top, left = int(draw.integers(rows - PIECE + 1)), int(draw.integers(columns - PIECE + 1))
        piece = whole[:, top : top + PIECE, left : left + PIECE]
        if bands > 60 and draw.random() < 0.6:
            count = int(draw.integers(40, bands))
            first = int(draw.integers(bands - count + 1))
            piece = piece[first : first + count : 2 if count > 100 and draw.random() < 0.3 else 1]
        piece = piece * np.float32(draw.uniform(0.4, 1.0))
        for axis in (1, 2):
            if draw.random() < 0.5:
                piece = np.flip(piece, axis)
        return np.ascontiguousarray(piece)
    return synthesise(draw, materials.library, picture_piece(draw, materials.pictures))


def picture_piece(draw: np.random.Generator, pictures: tuple[Path, ...]) -> NDArray[np.float32]:
    """Part of a photograph [PIECE, PIECE, 3] in 0..1, made smaller by up to 2.5."""
    import cv2

    path = pictures[int(draw.integers(len(pictures)))]
    photograph = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if photograph is None:
        raise UsageError(f"--data: {path} is not a picture that can be read; remove it")
    least = PIECE / min(photograph.shape[:2])
    factor = float(max(draw.uniform(0.4, 1.0), least))
    small = cv2.resize(photograph, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    top, left = (int(draw.integers(max(size - PIECE, 0) + 1)) for size in small.shape[:2])
    piece: Any = small[top : top + PIECE, left : left + PIECE, ::-1]
    if draw.random() < 0.5:
        piece = piece[:, ::-1]
    return np.ascontiguousarray(piece, np.float32) / np.float32(255)


def dark_pair(draw: np.random.Generator, materials: Materials) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A brightened dark cube and its clean twin, both [bands, PIECE, PIECE]."""
    clean = bright_piece(draw, materials)
    model = random_darkness(draw)
    dark = darken(clean, seed=int(draw.integers(2**31)), model=model)
    return (dark / np.float32(model.exposure)).astype(np.float32), clean


@dataclass(frozen=True)
class EigenExample:
    """What the default model learns from a pair of cubes.

    noisy, estimate, clean   eigen-images [rank, rows, columns] of the noisy cube, first estimates of them, and the
                             clean cube seen in the subspace of the noisy one
    spectra                  [bands, rank]: error of the eigen-images -> error of the bright bands
    beyond                   [bands] mean squared error of the bands that the subspace cannot mend
    length                   [rows, columns] of the clean spectra
    """

    noisy: NDArray[np.float32]
    estimate: NDArray[np.float32]
    clean: NDArray[np.float32]
    spectra: NDArray[np.float32]
    beyond: NDArray[np.float32]
    length: NDArray[np.float32]


def eigen_example(noisy: NDArray[np.float32], clean: NDArray[np.float32]) -> EigenExample:
    """The example of a pair [bands, rows, columns]."""
    subspace = fitted(ArraySource(noisy), 2**30, most=MOST_PLANES)
    planes = subspace.forward(noisy)
    wanted = subspace.forward(clean) * subspace.inflation.astype(np.float32)[:, None, None]
    return EigenExample(
        noisy=planes,
        estimate=np.stack([first_estimate(plane) for plane in planes]),
        clean=wanted,
        spectra=(subspace.basis * subspace.noise[:, None]).astype(np.float32),
        beyond=((clean - subspace.rebuild(wanted)) ** 2).mean(axis=(1, 2)),
        length=np.sqrt((clean**2).sum(axis=0)),
    )
